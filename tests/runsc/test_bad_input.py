"""Malformed, hostile and impossible input: a clear message, a failure status, and nothing left behind."""

import json
import os
import pathlib
import random
import resource
import shutil
import subprocess
import time

from harness import Bundle, TestCase, main, process, rootfs, run

PLATFORMS = ("native", "ptrace", "systrap")


class BadInput(TestCase):
    case_timeout_s = 240

    def setUp(self):
        self.root = rootfs.guest(self.work)

    def bundle(self, *args, **options):
        return Bundle(self.work, self.root, args or ["/bin/true"], **options)

    def refused(self, bundle, *words, by_us_alone=False):
        """Fails with a message that has each of `words`, and leaves no state."""
        done = self.runtime.call("run", "--bundle", getattr(bundle, "path", bundle), self.runtime.new_id(), timeout=30)
        text = done.stderr.decode(errors="replace") + self.runtime.log_tail()
        if not (by_us_alone and self.runtime.is_native):
            self.assertNotEqual(done.returncode, 0, text)
            self.assertLess(done.returncode, 256)
            self.assertGreater(done.returncode, 0, "ended by a signal: " + text)
            if not self.runtime.is_native:
                for word in words:
                    self.assertIn(word, text)
        self.assertEqual([e for e in os.listdir(self.runtime.state) if not e.startswith(".")], [])
        return text

    def raw(self, text):
        path = os.path.join(self.work, "raw")
        os.makedirs(path, exist_ok=True)
        mode = "wb" if isinstance(text, bytes) else "w"
        with open(os.path.join(path, "config.json"), mode) as f:
            f.write(text)
        return path

    # --- config.json

    def test_no_bundle_and_no_config(self):
        self.refused("/no/such/bundle", "/no/such/bundle")
        empty = os.path.join(self.work, "empty")
        os.mkdir(empty)
        self.refused(empty, "config.json")

    def test_not_json(self):
        whole = json.dumps(self.bundle().spec)
        for text in ("", "{", "null", "[]", "42", '"text"', "{}", whole[: len(whole) // 2], whole + "}", b"\xff\xfe\x00", b"\0" * 100):
            self.refused(self.raw(text), by_us_alone=True)

    def test_deep_and_huge(self):
        self.refused(self.raw("[" * 200000))
        self.refused(self.raw('{"a":' * 100000), by_us_alone=True)
        bundle = self.bundle()
        bundle.spec["process"]["args"] = ["/bin/true", "x" * (3 << 20)]
        bundle.write()
        self.refused(bundle)

    def test_a_config_that_is_no_file(self):
        path = os.path.join(self.work, "raw")
        os.mkdir(path)
        config = os.path.join(path, "config.json")
        os.mkdir(config)
        self.refused(path, "config.json")
        os.rmdir(config)
        for target in ("config.json", "/dev/zero", "/no/such/file", "/proc/self/mem"):
            os.symlink(target, config)
            self.refused(path, "config.json", by_us_alone=True)
            os.remove(config)
        if not self.runtime.is_native:  # runc waits for a writer
            os.mkfifo(config)
            self.refused(path, "config.json")
            os.remove(config)
        with open(config, "wb") as f:
            f.truncate(1 << 36)  # 64 GiB of zeros
        if not self.runtime.is_native:  # runc would read it all
            self.refused(path, "config.json")

    def test_wrong_types_name_the_field(self):
        cases = [
            (("process", "args"), "text", "args"),
            (("process", "args"), [], "args"),
            (("process", "args"), [1, 2], "args"),
            (("process", "env"), {"A": "b"}, "env"),
            (("process", "cwd"), 5, "cwd"),
            (("process", "cwd"), "relative", "cwd"),
            (("process", "user", "uid"), -1, "uid"),
            (("process", "user", "uid"), "root", "uid"),
            (("process", "user", "uid"), 1 << 40, "uid"),
            (("root", "path"), 7, "path"),
            (("mounts",), "x", "mounts"),
            (("hostname",), 5, "hostname"),
            (("linux", "namespaces"), [{"type": "nosuch"}], "nosuch"),
            (("ociVersion",), "9.0.0", "9.0.0"),
            (("process", "rlimits"), [{"type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1}], "RLIMIT_NOSUCH"),
        ]
        for path, value, word in cases:
            bundle = self.bundle()
            where = bundle.spec
            for step in path[:-1]:
                where = where[step]
            where[path[-1]] = value
            bundle.write()
            with self.subTest(path=path, value=value):
                # runc lets some of these pass.
                self.refused(bundle, word, by_us_alone=True)

    def test_mutated_configs_never_crash(self):
        dice = random.Random(4)
        text = json.dumps(self.bundle("/bin/true").spec).encode()
        for _ in range(40):
            data = bytearray(text)
            for _ in range(dice.randrange(1, 6)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            done = self.runtime.call("run", "--bundle", self.raw(bytes(data)), self.runtime.new_id(), timeout=30)
            self.assertGreaterEqual(done.returncode, 0, f"signal {-done.returncode} from {bytes(data)!r}")
            self.assertEqual([e for e in os.listdir(self.runtime.state) if not e.startswith(".")], [])

    # --- root file systems

    def test_missing_root(self):
        bundle = self.bundle()
        bundle.spec["root"]["path"] = "/no/such/root"
        bundle.write()
        self.refused(bundle, "/no/such/root")
        del bundle.spec["root"]
        bundle.write()
        self.refused(bundle, "root", by_us_alone=True)

    def test_root_is_a_file(self):
        bundle = self.bundle()
        bundle.spec["root"]["path"] = "/etc/passwd"
        bundle.write()
        self.refused(bundle, "/etc/passwd")

    def test_symlink_traps(self):
        outside = os.path.join(self.work, "outside")
        os.mkdir(outside)
        pathlib.Path(outside, "secret").write_text("secret", encoding="ascii")
        for place in ("proc", "dev", "sys", "tmp"):
            path = os.path.join(self.root, place)
            shutil.rmtree(path)
            os.symlink("../" * 20 + outside.lstrip("/"), path)
        self.runtime.call("run", "--bundle", self.bundle("/bin/sh", "-c", "ls /tmp/; touch /tmp/made").path, self.runtime.new_id())
        self.assertEqual(os.listdir(outside), ["secret"])

    def test_links_in_the_image_stay_inside(self):
        os.symlink("/etc/hostname", os.path.join(self.root, "absolute"))
        os.symlink("../" * 30 + "etc/hostname", os.path.join(self.root, "upward"))
        pathlib.Path(self.root, "etc/hostname").write_text("the image's\n", encoding="ascii")
        done = self.runtime.run(self.bundle("/bin/sh", "-c", "cat /absolute /upward; cat /../../../etc/hostname"))
        self.assertSuccess(done)
        self.assertEqual(done.stdout, b"the image's\n" * 3)

    # --- programs

    def program(self, data, mode=0o755):
        path = os.path.join(self.root, "program")
        with open(path, "wb") as f:
            f.write(data)
        os.chmod(path, mode)
        return self.bundle("/program")

    def test_not_found_and_not_executable(self):
        self.refused(self.bundle("/no/such"), "/no/such")
        self.refused(self.bundle("nosuch-in-path"), "nosuch-in-path")
        self.refused(self.program(b"#!/bin/sh\n", 0o644), "/program")
        self.refused(self.bundle("/etc"), "/etc")

    def test_corrupt_programs(self):
        with open("/bin/busybox", "rb") as f:
            good = f.read()
        self.refused(self.program(b""), "/program")
        self.refused(self.program(b"\x7fELF"), "/program")
        self.refused(self.program(b"text without a line\n"), "/program")
        self.refused(self.program(b"#!/no/such/interpreter\n"), "/program")
        self.refused(self.program(b"#!/program\n"), "/program")
        arm = bytearray(good)
        arm[18:20] = b"\xb7\x00"  # e_machine: AArch64
        self.refused(self.program(bytes(arm)), "/program")
        headers = bytearray(good)
        headers[32:40] = b"\xff" * 8  # e_phoff
        self.refused(self.program(bytes(headers)), "/program")
        headers = bytearray(good)
        headers[56:58] = b"\xff\xff"  # e_phnum
        self.refused(self.program(bytes(headers)), "/program", by_us_alone=True)

    def test_truncated_and_scrambled_programs_only_harm_themselves(self):
        dice = random.Random(7)
        with open("/bin/busybox", "rb") as f:
            good = f.read()
        for number in range(12):
            data = bytearray(good)
            if number % 3 == 0:
                data = data[: dice.randrange(64, 4000)]
            else:
                for _ in range(8):
                    data[dice.randrange(0, 64 + 56 * 8)] = dice.randrange(256)
            done = self.runtime.call("run", "--bundle", self.program(bytes(data)).path, self.runtime.new_id(), timeout=30)
            self.assertGreaterEqual(done.returncode, 0)
            self.assertEqual([e for e in os.listdir(self.runtime.state) if not e.startswith(".")], [])
        self.assertSuccess(self.runtime.run(self.bundle("/bin/true")))

    # --- resources

    def test_out_of_descriptors(self):
        for limit in (8, 12, 16, 24):
            done = self.runtime.call(
                "run", "--bundle", self.bundle().path, self.runtime.new_id(), timeout=30,
                preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
            )
            self.assertGreaterEqual(done.returncode, 0)
            self.assertEqual([e for e in os.listdir(self.runtime.state) if not e.startswith(".")], [], f"limit {limit}")

    def test_state_directory_is_full(self):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=3", "full", self.runtime.state], check=True)
        try:
            with open(os.path.join(self.runtime.state, ".filler"), "wb", buffering=0) as f:
                try:
                    f.write(b"x" * 65536)
                except OSError:
                    pass
            done = self.runtime.call("run", "--bundle", self.bundle().path, self.runtime.new_id(), timeout=30)
            self.assertGreater(done.returncode, 0)
            self.assertTrue(done.stderr or self.runtime.log_tail())
            self.assertEqual([e for e in os.listdir(self.runtime.state) if not e.startswith(".")], [])
        finally:
            subprocess.run(["umount", self.runtime.state], check=True)

    def test_pid_file_and_log_on_a_full_disk(self):
        full = os.path.join(self.work, "full")
        os.mkdir(full)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=2", "full", full], check=True)
        try:
            with open(os.path.join(full, "log"), "wb", buffering=0) as f:
                try:
                    while True:
                        f.write(b"x" * 512)
                except OSError:
                    pass
            command = ["run", "--bundle", self.bundle().path, "--pid-file", os.path.join(full, "pid"), self.runtime.new_id()]
            done = self.runtime.call(*command, timeout=30)
            self.assertGreater(done.returncode, 0)
            self.assertIn("pid", done.stderr.decode() + self.runtime.log_tail())
            self.assertEqual([e for e in os.listdir(self.runtime.state) if not e.startswith(".")], [])
            # A log that takes no more does not keep a container from running.
            log = os.path.join(full, "log")
            done = run([self.runtime.binary, "--root", self.runtime.state, "--log", log, *self.runtime.flags, "run", "--bundle", self.bundle("/bin/echo", "hi").path, "x"])
            self.assertEqual((done.returncode, done.stdout), (0, b"hi\n"), done.stderr)
        finally:
            subprocess.run(["umount", full], check=True)

    # --- killed on the way

    def test_create_killed_at_any_moment_is_deleted_again(self):
        bundle = self.bundle("/bin/sleep", "1000", cgroups_path=f"/caisson-test/killed-{os.getpid()}")
        for step in range(20):
            container = self.runtime.new_id()
            child = subprocess.Popen(
                self.runtime.command("create", "--bundle", bundle.path, container), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            time.sleep(step * 0.002)
            family = process.descendants(child.pid)
            child.kill()
            child.wait(20)
            with self.subTest(after_ms=step * 2):
                done = self.runtime.call("delete", "--force", container, timeout=30)
                self.assertSuccess(done)
                self.assertEqual([e for e in os.listdir(self.runtime.state) if not e.startswith(".")], [])
                if self.runtime.is_native:
                    continue  # runc leaves cgroups that it had not written down
                end = time.monotonic() + 10
                while any(os.path.exists(f"/proc/{pid}") and not process.is_zombie(pid) for pid in family):
                    self.assertLess(time.monotonic(), end, "processes are left")
                    time.sleep(0.02)
                left = [str(p) for p in pathlib.Path("/sys/fs/cgroup").glob(f"*/caisson-test/killed-{os.getpid()}")]
                self.assertEqual(left, [])

    # --- the command line

    def test_usage_errors(self):
        for args in (["nosuch"], ["run"], ["--nosuch", "list"], ["kill"], ["exec"], ["state"], ["list", "--format", "nosuch"]):
            done = self.runtime.call(*args, timeout=20)
            self.assertGreater(done.returncode, 0, args)
            self.assertTrue(done.stderr or done.stdout or self.runtime.log_tail(), args)

    def test_errors_are_logged_in_the_format_asked_for(self):
        command = [self.runtime.binary, "--root", self.runtime.state, *self.runtime.flags]
        for kind in ("json", "text"):
            log = os.path.join(self.work, "log." + kind)
            done = run([*command, "--log", log, "--log-format", kind, "run", "--bundle", "/no/such", "x"])
            self.assertGreater(done.returncode, 0)
            last = pathlib.Path(log).read_text(encoding="utf-8").splitlines()[-1]
            if kind == "json":
                entry = json.loads(last)
                self.assertEqual(entry["level"], "error")
                self.assertTrue(entry["msg"])
                self.assertTrue(entry["time"])
            else:
                self.assertIn("level=error", last)


if __name__ == "__main__":
    main()
