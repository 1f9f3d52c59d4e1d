"""Debian's containerd with its own shim and our binary, driven by ctr."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import tempfile
import threading
import time

import daemon
from harness import Runtime, TestCase, main, rootfs

PLATFORMS = ("native", "ptrace", "systrap")
TIMEOUT_S = 900


class Ctr(TestCase):
    @classmethod
    def setUpClass(cls):
        cls.class_work = tempfile.mkdtemp(prefix="ctr-", dir=os.environ.get("CAISSON_TEST_TMP"))
        name = os.environ.get("CAISSON_PLATFORM", "native")
        cls.containerd = daemon.Containerd(cls.class_work, Runtime.named(name, cls.class_work))

    @classmethod
    def tearDownClass(cls):
        cls.containerd.stop()

    serial = 0

    def setUp(self):
        Ctr.serial += 1
        self.container = f"c{os.getpid()}-{Ctr.serial}"
        self.ctr = self.containerd.ctr

    def tearDown(self):
        listed = self.ctr("containers", "ls", "-q").stdout.decode().split()
        for container in listed:
            self.ctr("task", "kill", "-s", "9", container)
            self.wait_stopped(container, must=False)
            self.ctr("task", "delete", "-f", container)
            self.ctr("containers", "rm", container)

    # --- helpers

    def run_ctr(self, *command, flags=(), container=None, **options):
        return self.ctr(
            "run", *self.containerd.run_flags(), *flags, daemon.IMAGE, container or self.container, *command, **options
        )

    def start(self, *command, container=None):
        done = self.run_ctr(*command, flags=["-d"], container=container)
        self.assertEqual(done.returncode, 0, done.stderr.decode() + self.containerd.log())

    def tasks(self):
        lines = self.ctr("task", "ls", check=True).stdout.decode().splitlines()[1:]
        return {line.split()[0]: (int(line.split()[1]), line.split()[2]) for line in lines}

    def wait_stopped(self, container, must=True):
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self.tasks().get(container, (0, "STOPPED"))[1] == "STOPPED":
                return
            time.sleep(0.1)
        if must:
            self.fail(f"{container} does not stop:\n{self.containerd.log()}")

    def delete_task(self, container, status):
        done = self.ctr("task", "delete", container)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"exit code {status}\"", done.stderr.decode())

    def assertNothingLeft(self):
        self.assertEqual(self.tasks(), {})
        self.assertEqual(self.ctr("containers", "ls", "-q").stdout, b"")
        end = time.monotonic() + 10
        while True:
            root = self.containerd.runtime_root
            states = [os.path.join(d, f) for d, _, fs in os.walk(root) for f in fs if f != ".lock"] if os.path.isdir(root) else []
            with open("/proc/self/mounts", encoding="utf-8") as f:
                mounts = [l for l in f if self.class_work in l]
            tasks = list(pathlib.Path(self.class_work, "state/io.containerd.runtime.v2.task/caisson").glob("*"))
            cgroups = [str(p) for p in pathlib.Path("/sys/fs/cgroup").glob(f"*/caisson/c{os.getpid()}-*")]
            left = states + mounts + tasks + cgroups
            if not left:
                return
            if time.monotonic() > end:
                self.fail(f"left behind: {left}")
            time.sleep(0.2)

    # --- cases

    def test_run_rm_prints_and_returns(self):
        done = self.run_ctr("/bin/sh", "-c", "echo out; echo err >&2; exit 7", flags=["--rm"])
        self.assertEqual((done.returncode, done.stdout), (7, b"out\n"), done.stderr + self.containerd.log().encode())
        self.assertIn(b"err\n", done.stderr)
        self.assertNothingLeft()

    def test_run_takes_the_images_configuration(self):
        done = self.run_ctr("/bin/sh", "-c", "echo $FROM $GIVEN; pwd; id -u; cat /proc/1/comm; true", flags=["--rm", "--env", "GIVEN=x"])
        self.assertEqual(done.stdout.split(), [b"image", b"x", b"/", b"0", b"sh"], done.stderr)

    def test_run_reads_standard_input(self):
        command = self.containerd.command("run", *self.containerd.run_flags(), "--rm", daemon.IMAGE, self.container, "/bin/cat")
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        child.stdin.write(b"line one\n")
        child.stdin.flush()
        time.sleep(1.5)  # ctr loses an end of input that comes before its task listens
        child.stdin.write(b"line two\n")
        out, _ = child.communicate(timeout=60)
        self.assertEqual((child.returncode, out), (0, b"line one\nline two\n"))

    def test_run_on_a_terminal(self):
        command = self.containerd.command("run", *self.containerd.run_flags(), "--rm", "-t", daemon.IMAGE, self.container)
        # ctr sets the size at some moment after the start.
        wait = "n=0; until [ \"$(stty size)\" = '33 77' ] || [ $n = 50 ]; do n=$((n+1)); sleep 0.1; done; stty size"
        command += ["/bin/sh", "-c", f"test -t 0 && test -t 1 && tty && {{ {wait}; }}; exit 3"]
        typescript = os.path.join(self.work, "typescript")
        script = subprocess.run(
            ["script", "-qec", "stty rows 33 cols 77; " + shlex.join(command), typescript],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=60, check=False,
        )
        out = script.stdout.decode()
        self.assertRegex(out, r"/dev/(pts/\d+|console)")
        self.assertIn("33 77", out)
        self.assertEqual(script.returncode, 3, out)

    def test_life_of_a_detached_container(self):
        self.start("/bin/sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done")
        pid, status = self.tasks()[self.container]
        self.assertEqual(status, "RUNNING")
        os.kill(pid, 0)
        done = self.ctr("task", "exec", "--exec-id", "e1", self.container, "/bin/sh", "-c", "echo in; exit 4")
        self.assertEqual((done.returncode, done.stdout), (4, b"in\n"), done.stderr)
        done = self.ctr("task", "ps", self.container)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(str(pid), done.stdout.decode())
        self.assertEqual(self.ctr("task", "pause", self.container).returncode, 0)
        self.assertEqual(self.tasks()[self.container][1], "PAUSED")
        self.assertEqual(self.ctr("task", "resume", self.container).returncode, 0)
        self.assertEqual(self.tasks()[self.container][1], "RUNNING")
        self.assertEqual(self.ctr("task", "kill", "-s", "15", self.container).returncode, 0)
        self.wait_stopped(self.container)
        self.delete_task(self.container, 5)
        self.assertEqual(self.ctr("containers", "rm", self.container).returncode, 0)
        self.assertNothingLeft()

    def test_kill_9_and_delete(self):
        self.start("/bin/sleep", "1000")
        self.assertEqual(self.ctr("task", "kill", "-s", "9", self.container).returncode, 0)
        self.wait_stopped(self.container)
        self.delete_task(self.container, 137)
        self.assertEqual(self.ctr("containers", "rm", self.container).returncode, 0)
        self.assertNothingLeft()

    def test_paused_container_does_not_advance(self):
        self.start("/bin/sh", "-c", "while :; do echo x >>/tick; sleep 0.05; done")
        count = lambda n: int(self.ctr("task", "exec", "--exec-id", n, self.container, "wc", "-l", "/tick").stdout.split()[0])
        self.assertGreater(count("before") + 1, 0)
        self.ctr("task", "pause", self.container, check=True)
        time.sleep(1)
        self.ctr("task", "resume", self.container, check=True)
        first = count("after")
        time.sleep(1)
        self.assertGreater(count("later"), first)

    def test_exec_streams_and_signals(self):
        self.start("/bin/sleep", "1000")
        done = self.ctr("task", "exec", "--exec-id", "e1", self.container, "/bin/sh", "-c", "echo o; echo e >&2; kill -9 $$")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (137, b"o\n", b"e\n"))
        done = self.ctr("task", "exec", "--exec-id", "e2", self.container, "/no/such")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"/no/such", done.stderr)
        # What is killed from outside takes the guest's process along.
        child = subprocess.Popen(
            self.containerd.command("task", "exec", "--exec-id", "e3", self.container, "/bin/sleep", "777"),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        time.sleep(1)
        self.ctr("task", "kill", "--exec-id", "e3", "-s", "9", self.container, check=True)
        self.assertEqual(child.wait(20), 137)
        seen = self.ctr("task", "exec", "--exec-id", "e4", self.container, "ps").stdout
        self.assertNotIn(b"sleep 777", seen)
        self.assertIn(b"sleep 1000", seen)

    def test_missing_program_fails_at_run(self):
        done = self.run_ctr("/no/such/program", flags=["--rm"])
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"/no/such/program", done.stderr)
        self.assertNothingLeft()

    def test_limits_and_mounts(self):
        given = os.path.join(self.work, "given")
        pathlib.Path(given).write_text("from the host\n", encoding="ascii")
        mount = f"type=bind,src={self.work},dst=/data,options=rbind:ro"
        flags = ["--rm", "--memory-limit", str(256 << 20), "--mount", mount, "--cwd", "/tmp"]
        done = self.run_ctr("/bin/sh", "-c", "cat /data/given; pwd; touch /data/x || echo read-only", flags=flags)
        self.assertEqual(done.stdout.split(b"\n")[:3], [b"from the host", b"/tmp", b"read-only"], done.stderr)

    def test_metrics(self):
        self.start("/bin/sleep", "1000")
        done = self.ctr("task", "metrics", "--format", "json", self.container)
        self.assertEqual(done.returncode, 0, done.stderr)
        usage = json.loads(done.stdout)
        self.assertGreater(usage.get("memory", {}).get("usage", {}).get("usage", 0), 0, usage)

    def test_twenty_at_once(self):
        names = [f"{self.container}-{n}" for n in range(20)]
        failures = []

        def one(name):
            done = self.run_ctr("/bin/sleep", "1000", flags=["-d"], container=name, timeout=150)
            if done.returncode != 0:
                failures.append(name + ": " + done.stderr.decode()[-300:])

        for group in (names[:10], names[10:]):
            threads = [threading.Thread(target=one, args=(n,)) for n in group]
            [t.start() for t in threads]
            [t.join() for t in threads]
        self.assertEqual(failures, [])
        self.assertEqual(sum(s == "RUNNING" for _, s in self.tasks().values()), 20)
        for name in names:
            self.ctr("task", "kill", "-s", "9", name, check=True)
        for name in names:
            self.wait_stopped(name)
            self.delete_task(name, 137)
            self.ctr("containers", "rm", name, check=True)
        self.assertNothingLeft()


class Tutorial(TestCase):
    """The commands that a runtime tutorial shows."""

    def test_spec_create_state_start_list_ps_delete(self):
        bundle = os.path.join(self.work, "bundle")
        os.mkdir(bundle)
        root = rootfs.guest(self.work)
        self.assertSuccess(self.runtime.call("spec", cwd=bundle))
        path = os.path.join(bundle, "config.json")
        with open(path, encoding="utf-8") as f:
            spec = json.load(f)
        self.assertEqual(spec["process"]["args"], ["sh"])
        spec["process"]["terminal"] = False
        spec["process"]["args"] = ["sleep", "1000"]
        spec["root"]["path"] = root
        with open(path, "w", encoding="utf-8") as f:
            json.dump(spec, f)
        name = self.runtime.new_id()
        pid_file = os.path.join(self.work, "pid")
        with open(os.path.join(self.work, "out"), "wb") as out:
            # The container's stdio are create's own, and outlive it.
            done = subprocess.run(
                self.runtime.command("create", "-b", bundle, "--pid-file", pid_file, name),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60, check=False,
            )
        self.assertEqual(done.returncode, 0, pathlib.Path(self.work, "out").read_text(encoding="utf-8"))
        state = json.loads(self.runtime.call("state", name).stdout)
        pid = int(pathlib.Path(pid_file).read_text(encoding="ascii"))
        self.assertEqual((state["id"], state["status"], state["pid"], state["bundle"]), (name, "created", pid, bundle))
        self.assertRegex(state["ociVersion"], r"^1\.\d+\.\d+")
        self.assertSuccess(self.runtime.call("start", name))
        self.assertEqual(json.loads(self.runtime.call("state", name).stdout)["status"], "running")
        listed = self.runtime.call("list").stdout.decode().splitlines()
        self.assertEqual(listed[0].split(), ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"])
        self.assertEqual(listed[1].split()[:4], [name, str(pid), "running", bundle])
        self.assertEqual(json.loads(self.runtime.call("list", "--format", "json").stdout)[0]["id"], name)
        self.assertEqual(self.runtime.call("list", "-q").stdout.decode().split(), [name])
        shown = self.runtime.call("ps", name)
        self.assertSuccess(shown)
        self.assertIn("PID", shown.stdout.decode().splitlines()[0])
        self.assertIn(str(pid), shown.stdout.decode())
        self.assertIn(pid, json.loads(self.runtime.call("ps", "--format", "json", name).stdout))
        self.assertNotEqual(self.runtime.call("delete", name).returncode, 0)
        self.assertSuccess(self.runtime.call("kill", name, "KILL"))
        end = time.monotonic() + 20
        while json.loads(self.runtime.call("state", name).stdout)["status"] != "stopped":
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        late = self.runtime.call("kill", name, "KILL")
        self.assertNotEqual(late.returncode, 0)
        text = late.stderr.decode() + self.runtime.log_tail()
        self.assertTrue(re.search("container not running|no such process|does not exist", text), text)
        self.assertSuccess(self.runtime.call("delete", name))
        self.assertNotEqual(self.runtime.call("state", name).returncode, 0)
        self.assertSuccess(self.runtime.call("delete", "--force", name))


if __name__ == "__main__":
    main()
