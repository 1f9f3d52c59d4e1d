"""Debian 12's libraries as Bazel repositories, offline.

Headers are on the compiler's own search path (/usr/include) and libraries on the linker's, so that a repository is
nothing but a cc_library with linkopts: `-l` takes the shared library in a test and the archive under -static-pie.
"""

def _debian_library_impl(ctx):
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    text = "package(default_visibility = [\"//visibility:public\"])\n"
    for name, linkopts in ctx.attr.libraries.items():
        text += "cc_library(name = %r, linkopts = %r)\n" % (name, linkopts)
    ctx.file("BUILD.bazel", text)

_debian_library = repository_rule(
    implementation = _debian_library_impl,
    attrs = {"libraries": attr.string_list_dict(doc = "target name -> linkopts")},
    doc = "cc_library targets for libraries that the distribution installed.",
)

def _stand_in_impl(ctx):
    ctx.file("WORKSPACE", "workspace(name = \"%s\")\n" % ctx.name)
    for path, text in ctx.attr.files.items():
        ctx.file(path, text)

_stand_in = repository_rule(
    implementation = _stand_in_impl,
    attrs = {"files": attr.string_dict(doc = "path -> content")},
    doc = "A repository that Bazel's embedded tools load, reduced to what they need from it.",
)

_CC_DEFS = """
cc_binary = native.cc_binary
cc_import = native.cc_import
cc_library = native.cc_library
cc_proto_library = native.cc_proto_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
objc_library = native.objc_library
"""

_JAVA_DEFS = """
java_binary = native.java_binary
java_import = native.java_import
java_library = native.java_library
java_proto_library = native.java_proto_library
java_runtime = native.java_runtime
java_test = native.java_test
java_toolchain = native.java_toolchain
"""

_COVERAGE_BUILD = """
package(default_visibility = ["//visibility:public"])
filegroup(name = "coverage_report_generator")
filegroup(name = "lcov_merger")
"""

# The archives of libabsl-dev refer to each other in both directions of any one order, hence the group. --as-needed keeps
# what a test does not use out of its start-up.
_ABSL = [
    "status",
    "statusor",
    "cord",
    "cordz_functions",
    "cordz_handle",
    "cordz_info",
    "cord_internal",
    "synchronization",
    "graphcycles_internal",
    "raw_hash_set",
    "hashtablez_sampler",
    "exponential_biased",
    "hash",
    "city",
    "low_level_hash",
    "random_distributions",
    "random_seed_sequences",
    "random_internal_pool_urbg",
    "random_internal_randen",
    "random_internal_randen_hwaes",
    "random_internal_randen_hwaes_impl",
    "random_internal_randen_slow",
    "random_internal_platform",
    "random_internal_seed_material",
    "random_seed_gen_exception",
    "str_format_internal",
    "failure_signal_handler",
    "examine_stack",
    "symbolize",
    "stacktrace",
    "debugging_internal",
    "demangle_internal",
    "leak_check",
    "malloc_internal",
    "time",
    "civil_time",
    "time_zone",
    "strings",
    "strings_internal",
    "strerror",
    "int128",
    "base",
    "spinlock_wait",
    "throw_delegate",
    "raw_logging_internal",
    "log_severity",
    "bad_optional_access",
    "bad_variant_access",
    "bad_any_cast_impl",
]

def _group(names):
    return ["-Wl,--as-needed", "-Wl,--start-group"] + ["-l" + n for n in names] + ["-Wl,--end-group"]

def debian_repositories():
    _debian_library(name = "absl", libraries = {"absl": _group(["absl_" + n for n in _ABSL]) + ["-pthread"]})
    _debian_library(name = "protobuf", libraries = {"protobuf": ["-lprotobuf", "-lz", "-pthread"]})
    _debian_library(name = "seccomp", libraries = {"seccomp": ["-lseccomp"]})
    _debian_library(name = "capstone", libraries = {"capstone": ["-lcapstone"]})
    _debian_library(name = "json", libraries = {"json": []})
    _debian_library(name = "gtest", libraries = {
        "gtest": ["-lgmock", "-lgtest", "-pthread"],
        "gtest_main": ["-lgmock_main", "-lgmock", "-lgtest", "-pthread"],
    })
    _debian_library(name = "benchmark", libraries = {
        "benchmark": ["-lbenchmark", "-pthread"],
        "benchmark_main": ["-lbenchmark_main", "-lbenchmark", "-pthread"],
    })

    # Debian's own bazel-rules-cc does not fit Bazel 4.2.3, and the others are not packaged.
    _stand_in(name = "rules_cc", files = {"BUILD": "", "cc/BUILD": "", "cc/defs.bzl": _CC_DEFS})
    _stand_in(name = "rules_java", files = {"BUILD": "", "java/BUILD": "", "java/defs.bzl": _JAVA_DEFS})
    _stand_in(name = "rules_proto", files = {
        "BUILD": "",
        "proto/BUILD": "",
        "proto/defs.bzl": "proto_library = native.proto_library\nproto_lang_toolchain = native.proto_lang_toolchain\n",
    })
    _stand_in(name = "remote_coverage_tools", files = {"BUILD": _COVERAGE_BUILD})
