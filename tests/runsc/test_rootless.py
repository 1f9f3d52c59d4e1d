"""Started by an ordinary user: the whole life of a container without any privilege, in a user namespace that runsc makes."""

import json
import os
import pathlib
import shutil
import subprocess
import time

from harness import Bundle, TestCase, main, process, rootfs, run, runsc_path

PLATFORMS = ("ptrace", "systrap")
USER = 65534


class Rootless(TestCase):
    def setUp(self):
        os.chmod(self.work, 0o755)
        self.binary = os.path.join(self.work, "runsc")
        shutil.copy2(runsc_path(), self.binary)
        os.chmod(self.binary, 0o755)
        self.state = os.path.join(self.work, "user")
        os.mkdir(self.state)
        self.root = rootfs.make_busybox_root(os.path.join(self.work, "root"))
        for place in (self.state, self.root, self.root / "home"):
            os.chown(place, USER, USER)

    def bundle(self, *args, **options):
        bundle = Bundle(self.work, self.root, args, capabilities=["CAP_CHOWN", "CAP_DAC_OVERRIDE"], **options)
        os.chmod(bundle.path, 0o755)
        return bundle

    def command(self, *args):
        user = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--inh-caps", "-all", "--bounding-set", "-all"]
        flags = ["--root", os.path.join(self.state, "state"), "--log", os.path.join(self.state, "log"), "--platform", self.runtime.name]
        return [*user, self.binary, *flags, *args]

    def call(self, *args, **options):
        return run(self.command(*args), cwd="/", **options)

    def log(self):
        return pathlib.Path(self.state, "log").read_text(encoding="utf-8")

    def test_run(self):
        done = self.call("run", "--bundle", self.bundle("/bin/sh", "-c", "id -u; cat; touch /home/x && ls /home; exit 3").path, "r", stdin=b"in\n")
        self.assertEqual((done.returncode, done.stdout), (3, b"0\nin\nx\n"), done.stderr.decode() + self.log())
        self.assertEqual(os.listdir(os.path.join(self.state, "state")), [])
        self.assertEqual(os.listdir(self.root / "home"), [])

    def test_what_the_user_may_not_read_the_guest_may_not(self):
        secret = self.root / "etc/secret"
        secret.write_text("x", encoding="ascii")
        secret.chmod(0o600)
        done = self.call("run", "--bundle", self.bundle("/bin/sh", "-c", "cat /etc/secret || echo refused").path, "r")
        self.assertEqual(done.stdout, b"refused\n", done.stderr)

    def test_writes_through_to_the_host_are_the_users(self):
        bundle = self.bundle("/bin/sh", "-c", "echo hi >/home/file; stat -c %u /home/file")
        done = run(self.command("--overlay2", "none", "run", "--bundle", bundle.path, "r"), cwd="/")
        self.assertEqual((done.returncode, done.stdout), (0, b"0\n"), done.stderr.decode() + self.log())
        self.assertEqual((self.root / "home/file").stat().st_uid, USER)

    def test_create_start_exec_state_kill_delete(self):
        bundle = self.bundle("/bin/sleep", "1000")
        pid_file = os.path.join(self.state, "pid")
        with open(os.path.join(self.work, "out"), "wb") as out:
            done = subprocess.run(
                self.command("create", "--bundle", bundle.path, "--pid-file", pid_file, "c"), stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, timeout=60, check=False, cwd="/",
            )
        self.assertEqual(done.returncode, 0, pathlib.Path(self.work, "out").read_text(encoding="utf-8") + self.log())
        pid = int(pathlib.Path(pid_file).read_text(encoding="ascii"))
        family = [pid, *process.descendants(pid)]
        status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        self.assertIn("Seccomp:\t2", status)
        self.assertIn("CapEff:\t0000000000000000", status)
        self.assertNotEqual(os.readlink(f"/proc/{pid}/ns/user"), os.readlink("/proc/self/ns/user"))
        self.assertEqual(json.loads(self.call("state", "c").stdout)["status"], "created")
        self.assertSuccess(self.call("start", "c"))
        self.assertEqual(json.loads(self.call("state", "c").stdout)["status"], "running")
        done = self.call("exec", "c", "/bin/sh", "-c", "echo in; exit 4")
        self.assertEqual((done.returncode, done.stdout), (4, b"in\n"), done.stderr)
        self.assertIn(str(pid), self.call("ps", "c").stdout.decode())
        for verb, expected in (("pause", "paused"), ("resume", "running")):
            self.assertSuccess(self.call(verb, "c"))
            self.assertEqual(json.loads(self.call("state", "c").stdout)["status"], expected)
        self.assertSuccess(self.call("kill", "c", "KILL"))
        end = time.monotonic() + 20
        while json.loads(self.call("state", "c").stdout)["status"] != "stopped":
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        self.assertSuccess(self.call("delete", "c"))
        self.assertEqual(os.listdir(os.path.join(self.state, "state")), [])
        for each in family:
            self.assertFalse(os.path.exists(f"/proc/{each}") and not process.is_zombie(each), process.describe(each))

    def test_do(self):
        done = self.call("do", "--root", str(self.root), "--cwd", "/", "/bin/echo", "hi")
        self.assertEqual((done.returncode, done.stdout), (0, b"hi\n"), done.stderr.decode() + self.log())

    def test_cgroups_that_cannot_be_made_are_one_warning(self):
        bundle = self.bundle("/bin/true", cgroups_path="/caisson-test/rootless")
        bundle.spec["linux"]["resources"] = {"memory": {"limit": 1 << 30}, "pids": {"limit": 100}}
        bundle.write()
        self.assertSuccess(self.call("run", "--bundle", bundle.path, "r"))
        self.assertEqual(len([line for line in self.log().splitlines() if "cannot be made" in line]), 1, self.log())

    def test_what_needs_privilege_is_named(self):
        bundle = self.bundle("/bin/true")
        bundle.spec["linux"]["namespaces"].append({"type": "user"})
        bundle.spec["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 10}]
        bundle.spec["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 0, "size": 10}]
        bundle.write()
        done = self.call("run", "--bundle", bundle.path, "r")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("uid_map", done.stderr.decode() + self.log())
        self.assertEqual(os.listdir(os.path.join(self.state, "state")), [])


if __name__ == "__main__":
    main()
