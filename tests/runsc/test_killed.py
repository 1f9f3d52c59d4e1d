"""runsc in the foreground, killed: what becomes of the sandbox, and what is left behind."""

import json
import os
import pathlib
import signal
import subprocess
import time

from harness import Bundle, TestCase, main, process, rootfs

PLATFORMS = ("ptrace", "systrap")


class Killed(TestCase):
    def tearDown(self):
        for container in os.listdir(self.runtime.state):
            self.runtime.remove(container)

    def until(self, condition, what, timeout=20):
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                self.fail(f"not so after {timeout} s: {what}")
            time.sleep(0.02)

    def launch(self, *command):
        """Starts it, and waits for its first line of output."""
        child = subprocess.Popen(
            self.runtime.command(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.addCleanup(child.stdout.close)
        self.assertEqual(child.stdout.readline(), b"ready\n")
        self.family = process.descendants(child.pid)
        self.assertGreaterEqual(len(self.family), 3)
        return child

    def gone(self):
        def alive(pid):
            try:
                return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
            except (FileNotFoundError, ProcessLookupError):
                return False

        return not any(alive(pid) for pid in self.family)

    def cgroups(self, container):
        # os.walk passes over what goes away meanwhile: other tests have cgroups too.
        return [os.path.join(at, container) for at, names, _ in os.walk("/sys/fs/cgroup") if container in names]

    def start_do(self, script, *flags):
        child = self.launch(*flags, "do", "--root", rootfs.guest(self.work), "--cwd", "/", "/bin/sh", "-c", "echo ready; " + script)
        (container,) = os.listdir(self.runtime.state)
        return child, container

    def assertNothingLeft(self, container):
        self.until(self.gone, "every process is gone")
        self.until(lambda: os.listdir(self.runtime.state) == [], "the state directory is empty")
        self.assertEqual(self.cgroups(container), [])

    def test_do_takes_its_sandbox_along(self):
        for signo in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
            with self.subTest(signal=signo.name):
                child, container = self.start_do("exec sleep 1000")
                child.send_signal(signo)
                status = child.wait(20)
                # Its own death, or a status that tells of the command's.
                self.assertIn(status, (-signo, 128 + signo))
                self.assertNothingLeft(container)

    def test_do_is_no_init(self):
        # A command without a handler ends by a signal of its own making, as it would outside.
        done = self.runtime.call("do", "--root", rootfs.guest(self.work), "--cwd", "/", "/bin/sh", "-c", "kill -TERM $$; echo no")
        self.assertEqual((done.returncode, done.stdout), (128 + signal.SIGTERM, b""))

    def test_do_leaves_a_handler_its_word(self):
        child, container = self.start_do("trap 'echo caught; exit 5' TERM; while :; do sleep 0.05; done")
        time.sleep(0.3)
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(20), 5)
        self.assertEqual(child.stdout.read(), b"caught\n")
        self.assertNothingLeft(container)

    def test_do_that_ignores_signals_goes_with_sigkill(self):
        child, container = self.start_do("trap '' TERM INT HUP; while :; do sleep 0.05; done")
        time.sleep(0.3)
        child.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        self.assertIsNone(child.poll())
        child.kill()
        child.wait(20)
        self.assertNothingLeft(container)

    def test_do_killed_at_any_moment(self):
        root = rootfs.guest(self.work)
        for step in range(25):
            child = subprocess.Popen(
                self.runtime.command("do", "--root", root, "--cwd", "/", "/bin/sleep", "1000"),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )
            time.sleep(step * 0.003)
            self.family = process.descendants(child.pid)
            child.kill()
            child.wait(20)
            self.until(self.gone, f"every process is gone, killed after {step * 3} ms")
            self.until(lambda: os.listdir(self.runtime.state) == [], f"the state directory is empty, killed after {step * 3} ms")

    def start_run(self, script):
        container = self.runtime.new_id()
        bundle = Bundle(self.work, rootfs.guest(self.work), ["/bin/sh", "-c", "echo ready; " + script], cgroups_path=f"/caisson-test/{container}")
        return self.launch("run", "--bundle", bundle.path, container), container

    def test_run_forwards_sigterm(self):
        child, container = self.start_run("trap 'exit 6' TERM; while :; do sleep 0.05; done")
        time.sleep(0.3)
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(20), 6)
        self.assertNothingLeft(container)

    def test_run_is_an_init_and_ignores_sigterm_without_a_handler(self):
        child, _ = self.start_run("while :; do sleep 0.05; done")
        child.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        self.assertIsNone(child.poll())
        child.kill()
        child.wait(20)

    def test_run_killed_ends_its_sandbox_and_delete_cleans_up(self):
        child, container = self.start_run("while :; do sleep 0.05; done")
        child.kill()
        child.wait(20)
        self.until(self.gone, "every process is gone")
        # The last of them may still be on its way out of the pid namespace, which is what counts.
        status = lambda: json.loads(self.runtime.call("state", container).stdout)["status"]
        self.until(lambda: status() == "stopped", "the container is stopped")
        self.assertSuccess(self.runtime.call("delete", container))
        self.assertNothingLeft(container)

    def test_a_detached_run_stays(self):
        container = self.runtime.new_id()
        bundle = Bundle(self.work, rootfs.guest(self.work), ["/bin/sleep", "1000"])
        subprocess.run(
            self.runtime.command("run", "--detach", "--bundle", bundle.path, container), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=True,
        )
        time.sleep(0.5)
        self.assertEqual(json.loads(self.runtime.call("state", container).stdout)["status"], "running")
        self.assertSuccess(self.runtime.call("delete", "--force", container))


if __name__ == "__main__":
    main()
