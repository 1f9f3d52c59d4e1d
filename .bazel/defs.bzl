"""Shared macros: load("//.bazel:defs.bzl", "STATIC_PIE", "caisson_proto_library")."""

# linkopts of what is installed, or runs inside a guest: one self-contained position-independent file.
STATIC_PIE = select({
    "//.bazel:sanitizer": [],
    "//conditions:default": ["-static-pie"],
})

# linkopts of a guest program at a fixed address, for tests of the loader.
STATIC_NO_PIE = ["-static", "-no-pie"]

def caisson_proto_library(name, src, deps = [], visibility = None):
    """A cc_library of the C++ that protoc makes of one .proto file.

    Include it by its path from the root: gofer/protocol/control.proto -> "gofer/protocol/control.pb.h".

    Args:
      name: the cc_library.
      src: the .proto file, in this package. It imports others by their path from the root.
      deps: caisson_proto_library targets that it imports.
      visibility: as usual.
    """
    if not src.endswith(".proto"):
        fail("not a .proto file: " + src)
    stem = src[:-len(".proto")]
    imports = [_proto_of(d) for d in deps]
    native.filegroup(
        name = name + "_proto",
        srcs = [src] + imports,
        visibility = ["//visibility:public"],
    )
    native.genrule(
        name = name + "_protoc",
        srcs = [src] + imports,
        outs = [stem + ".pb.cc", stem + ".pb.h"],
        cmd = "protoc --proto_path=. --cpp_out=$(GENDIR) $(location %s)" % src,
        message = "protoc " + src,
    )
    native.cc_library(
        name = name,
        srcs = [stem + ".pb.cc"],
        hdrs = [stem + ".pb.h"],
        copts = ["-w"],
        visibility = visibility,
        deps = deps + ["@protobuf//:protobuf"],
    )

def _proto_of(label):
    if ":" in label:
        return label + "_proto"
    return label + ":" + label.split("/")[-1] + "_proto"

def guest_tests(name, srcs):
    """Static programs for tests/harness, one per source file, and a filegroup `name` of all.

    Args:
      name: the filegroup.
      srcs: .cc files that use tests/syscalls/guest_test.h.
    """
    programs = []
    for src in srcs:
        program = src[:-len(".cc")]
        native.cc_binary(
            name = program,
            testonly = True,
            srcs = [src],
            linkopts = STATIC_PIE + ["-pthread", "-lrt", "-s"],
            deps = ["//tests/syscalls:guest_test"],
        )
        programs.append(":" + program)
    native.filegroup(name = name, testonly = True, srcs = programs, visibility = ["//visibility:public"])
