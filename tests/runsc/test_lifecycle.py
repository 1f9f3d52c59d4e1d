"""create, start, state, kill, delete, exec, pause, ps, list, events: as runc has them."""

import json
import os
import pathlib
import signal
import subprocess
import threading
import time

from harness import Bundle, TestCase, main, rootfs

PLATFORMS = ("native", "ptrace", "systrap")


class Lifecycle(TestCase):
    def setUp(self):
        self.containers = []

    def tearDown(self):
        for container in self.containers:
            if os.path.exists(os.path.join(self.runtime.state, container)):
                self.runtime.remove(container)
        self.assertEqual([e for e in os.listdir(self.runtime.state) if not e.startswith(".")], [])

    # --- helpers

    def create(self, *args, bundle=None, **options):
        """`create` with stdio of its own; returns the container's id."""
        container = self.runtime.new_id()
        bundle = bundle or Bundle(self.work, rootfs.guest(self.work), args, **options)
        self.pid_file = os.path.join(self.work, container + ".pid")
        self.output = os.path.join(self.work, container + ".out")
        self.containers.append(container)
        with open(self.output, "wb") as out:
            done = subprocess.run(
                self.runtime.command("create", "--bundle", bundle.path, "--pid-file", self.pid_file, container),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=60,
                check=False,
            )
        self.assertEqual(done.returncode, 0, self.printed() + self.runtime.log_tail())
        self.pid = int(pathlib.Path(self.pid_file).read_text(encoding="ascii"))
        return container

    def started(self, *args, **options):
        container = self.create(*args, **options)
        self.ok("start", container)
        return container

    def ok(self, *args, **options):
        done = self.runtime.call(*args, **options)
        self.assertSuccess(done)
        return done

    def state(self, container):
        return json.loads(self.ok("state", container).stdout)

    def status(self, container):
        return self.state(container)["status"]

    def until(self, condition, what, timeout=20):
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                self.fail(f"not so after {timeout} s: {what}")
            time.sleep(0.05)

    def until_status(self, container, status):
        self.until(lambda: self.status(container) == status, f"{container} is {status}")

    def printed(self):
        return pathlib.Path(self.output).read_text(encoding="utf-8", errors="replace")

    # --- the straight path

    def test_create_runs_nothing_before_start(self):
        container = self.create("/bin/sh", "-c", "echo started")
        self.assertEqual(self.status(container), "created")
        time.sleep(0.3)
        self.assertEqual(self.printed(), "")
        self.ok("start", container)
        self.until_status(container, "stopped")
        self.assertEqual(self.printed(), "started\n")
        self.ok("delete", container)
        self.assertNotEqual(self.runtime.call("state", container).returncode, 0)

    def test_state_has_what_the_specification_asks(self):
        container = self.create("/bin/sleep", "100")
        state = self.state(container)
        self.assertEqual((state["id"], state["status"], state["pid"]), (container, "created", self.pid))
        for field in ("ociVersion", "bundle"):
            self.assertTrue(state[field])
        os.kill(self.pid, 0)
        self.ok("start", container)
        self.assertEqual(self.status(container), "running")
        self.ok("kill", container, "SIGKILL")
        self.until_status(container, "stopped")
        self.ok("delete", container)

    def test_the_pid_is_our_child_and_has_the_guests_status(self):
        for command, wanted in (("exit 42", (True, 42)), ("sh -c 'kill -9 $$'; exit $?", (True, 137))):
            container = self.started("/bin/sh", "-c", command)
            # This process is a subreaper, as a shim is.
            pid, status = os.waitpid(self.pid, 0)
            self.assertEqual(pid, self.pid)
            self.assertEqual((os.WIFEXITED(status), os.WEXITSTATUS(status)), wanted)
            self.ok("delete", container)

    def test_killed_container_ends_by_that_signal(self):
        container = self.started("/bin/sleep", "1000")
        self.ok("kill", container, "KILL")
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self.assertIn(code, (-9, 137))
        self.ok("delete", container)

    def test_killing_the_host_process_ends_the_container(self):
        container = self.started("/bin/sleep", "1000")
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.until_status(container, "stopped")
        self.ok("delete", container)

    # --- kill

    def test_kill_takes_names_and_numbers(self):
        script = "for s in USR1 USR2 HUP TERM; do trap \"echo $s\" $s; done; echo ready; while :; do sleep 0.05; done"
        container = self.started("/bin/sh", "-c", script)
        self.until(lambda: "ready" in self.printed(), "ready")
        for given, printed in (("SIGUSR1", "USR1"), ("usr2", "USR2"), ("1", "HUP"), ("TERM", "TERM")):
            self.ok("kill", container, given)
            self.until(lambda: printed in self.printed().split(), f"{given} arrives")
        self.assertNotEqual(self.runtime.call("kill", container, "NOSUCH").returncode, 0)
        self.ok("kill", container, "9")
        self.until_status(container, "stopped")
        late = self.runtime.call("kill", container, "9")
        self.assertNotEqual(late.returncode, 0)
        self.assertRegex(late.stderr.decode() + self.runtime.log_tail(), "not running|no such process|does not exist")
        self.ok("delete", container)

    def test_kill_defaults_to_term(self):
        container = self.started("/bin/sh", "-c", "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
        self.until(lambda: "ready" in self.printed(), "ready")
        self.ok("kill", container)
        self.until_status(container, "stopped")
        self.assertIn("bye", self.printed())
        self.ok("delete", container)

    def test_kill_and_delete_of_a_created_container(self):
        container = self.create("/bin/sleep", "100")
        self.ok("kill", container, "KILL")
        self.until_status(container, "stopped")
        self.ok("delete", container)
        container = self.create("/bin/sleep", "100")
        self.ok("delete", "--force", container)

    def test_delete_refuses_what_runs_unless_forced(self):
        container = self.started("/bin/sleep", "1000")
        refused = self.runtime.call("delete", container)
        self.assertNotEqual(refused.returncode, 0)
        self.assertEqual(self.status(container), "running")
        self.ok("delete", "--force", container)
        self.assertNotEqual(self.runtime.call("state", container).returncode, 0)

    def test_kill_all(self):
        container = self.started("/bin/sh", "-c", "sleep 1000 & sleep 1000 & wait")
        self.ok("kill", "--all", container, "9")
        self.until_status(container, "stopped")
        self.ok("delete", container)

    # --- exec

    def test_exec_runs_inside(self):
        container = self.started("/bin/sh", "-c", "echo mark >/mark; sleep 1000")
        self.until(lambda: self.runtime.call("exec", container, "cat", "/mark").stdout == b"mark\n", "the mark")
        done = self.runtime.call("exec", "--env", "A=b", "--cwd", "/tmp", container, "sh", "-c", "echo $A; pwd; exit 6")
        self.assertEqual((done.returncode, done.stdout), (6, b"b\n/tmp\n"))
        done = self.runtime.call("exec", container, "cat", stdin=b"through")
        self.assertEqual((done.returncode, done.stdout), (0, b"through"))
        done = self.runtime.call("exec", "--user", "1000:1000", container, "id", "-u")
        self.assertEqual(done.stdout, b"1000\n")
        self.assertNotEqual(self.runtime.call("exec", container, "/no/such").returncode, 0)
        self.assertIn(b"sleep 1000", self.ok("exec", container, "ps").stdout)
        self.ok("delete", "--force", container)

    def test_exec_of_a_process_file_detached(self):
        container = self.started("/bin/sleep", "1000")
        process = os.path.join(self.work, "process.json")
        spec = {"args": ["/bin/sh", "-c", "echo in >/in; exit 9"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
        pathlib.Path(process).write_text(json.dumps(spec), encoding="utf-8")
        pid_file = os.path.join(self.work, "exec.pid")
        subprocess.run(
            self.runtime.command("exec", "--process", process, "--detach", "--pid-file", pid_file, container),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=True,
        )
        pid = int(pathlib.Path(pid_file).read_text(encoding="ascii"))
        _, status = os.waitpid(pid, 0)
        self.assertEqual(os.waitstatus_to_exitcode(status), 9)
        self.assertEqual(self.ok("exec", container, "cat", "/in").stdout, b"in\n")
        self.ok("delete", "--force", container)

    def test_killing_the_host_process_of_an_exec_ends_it_inside(self):
        container = self.started("/bin/sleep", "1000")
        pid_file = os.path.join(self.work, "exec.pid")
        process = os.path.join(self.work, "process.json")
        spec = {"args": ["/bin/sleep", "777"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
        pathlib.Path(process).write_text(json.dumps(spec), encoding="utf-8")
        subprocess.run(
            self.runtime.command("exec", "--process", process, "--detach", "--pid-file", pid_file, container),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=True,
        )
        pid = int(pathlib.Path(pid_file).read_text(encoding="ascii"))
        self.until(lambda: b"sleep 777" in self.ok("exec", container, "ps").stdout, "it runs")
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self.assertIn(os.waitstatus_to_exitcode(status), (-9, 137))
        self.until(lambda: b"sleep 777" not in self.ok("exec", container, "ps").stdout, "it ended inside")
        self.assertEqual(self.status(container), "running")
        self.ok("delete", "--force", container)

    def test_exec_in_wrong_states(self):
        container = self.create("/bin/sleep", "100")
        self.ok("delete", "--force", container)
        self.assertNotEqual(self.runtime.call("exec", container, "true").returncode, 0)
        container = self.started("/bin/true")
        self.until_status(container, "stopped")
        self.assertNotEqual(self.runtime.call("exec", container, "true").returncode, 0)
        self.ok("delete", container)

    # --- pause, ps, list, events

    def test_pause_stops_time_for_the_guest(self):
        container = self.started("/bin/sh", "-c", "while :; do echo tick; sleep 0.02; done")
        self.until(lambda: "tick" in self.printed(), "a tick")
        self.ok("pause", container)
        self.assertEqual(self.status(container), "paused")
        time.sleep(0.2)
        before = len(self.printed())
        time.sleep(0.5)
        self.assertEqual(len(self.printed()), before)
        self.ok("resume", container)
        self.assertEqual(self.status(container), "running")
        self.until(lambda: len(self.printed()) > before, "more ticks")
        self.ok("delete", "--force", container)

    def test_ps_shows_host_pids(self):
        container = self.started("/bin/sh", "-c", "sleep 1000 & wait")
        pids = json.loads(self.ok("ps", "--format", "json", container).stdout)
        self.assertIn(self.pid, pids)
        for pid in pids:
            os.kill(pid, 0)
        table = self.ok("ps", container).stdout.decode()
        self.assertIn("PID", table.splitlines()[0])
        self.ok("delete", "--force", container)

    def test_list(self):
        names = sorted(self.started("/bin/sleep", "1000") for _ in range(2))
        self.assertEqual(sorted(self.ok("list", "-q").stdout.decode().split()), names)
        rows = json.loads(self.ok("list", "--format", "json").stdout)
        self.assertEqual(sorted(r["id"] for r in rows), names)
        self.assertEqual({r["status"] for r in rows}, {"running"})
        header, *lines = self.ok("list").stdout.decode().splitlines()
        self.assertEqual(header.split(), ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"])
        self.assertEqual(len(lines), 2)
        for name in names:
            self.ok("delete", "--force", name)
        self.assertIn(self.ok("list", "--format", "json").stdout.strip(), (b"null", b"[]"))

    def test_events_stats(self):
        container = self.started("/bin/sleep", "1000")
        event = json.loads(self.ok("events", "--stats", container).stdout)
        self.assertEqual((event["type"], event["id"]), ("stats", container))
        self.assertIn("memory", event["data"])
        self.assertIn("pids", event["data"])
        self.ok("delete", "--force", container)

    # --- misuse

    def test_ids(self):
        bundle = Bundle(self.work, rootfs.guest(self.work), ["/bin/true"])
        for bad in ("..", "a/b", "", ".", "/abs", "a b"):
            done = self.runtime.call("run", "--bundle", bundle.path, bad)
            self.assertNotEqual(done.returncode, 0, bad)
        done = self.runtime.call("run", "--bundle", bundle.path, "ok_id-1.2+3")
        self.assertSuccess(done)

    def test_wrong_states_and_unknown_ids(self):
        for args in (("start",), ("state",), ("kill",), ("delete",), ("pause",), ("resume",), ("ps",), ("exec",)):
            extra = ["true"] if args[0] == "exec" else []
            done = self.runtime.call(*args, "nosuch", *extra)
            self.assertNotEqual(done.returncode, 0, args)
            self.assertIn("does not exist", done.stderr.decode() + self.runtime.log_tail())
        self.ok("delete", "--force", "nosuch")
        container = self.started("/bin/sleep", "1000")
        self.assertNotEqual(self.runtime.call("start", container).returncode, 0)
        self.assertNotEqual(self.runtime.call("resume", container).returncode, 0)
        self.assertEqual(self.status(container), "running")
        self.ok("delete", "--force", container)

    def test_an_id_is_taken_once(self):
        bundle = Bundle(self.work, rootfs.guest(self.work), ["/bin/sleep", "1000"])
        name = self.runtime.new_id()
        self.containers.append(name)
        codes = []

        def create():
            with open(os.path.join(self.work, "outs"), "ab") as out:
                done = subprocess.run(
                    self.runtime.command("create", "--bundle", bundle.path, name),
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60, check=False,
                )
            codes.append(done.returncode)

        threads = [threading.Thread(target=create) for _ in range(4)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        self.assertEqual(codes.count(0), 1, codes)
        self.assertEqual(self.status(name), "created")
        self.ok("delete", "--force", name)

    def test_callers_stdout_closes_when_the_command_ends(self):
        container = self.create("/bin/sleep", "1000")
        # call() reads to end of file: a child that kept these pipes would make it time out.
        self.ok("start", container, timeout=20)
        self.ok("pause", container, timeout=20)
        self.ok("resume", container, timeout=20)
        self.ok("kill", container, "KILL", timeout=20)
        self.until_status(container, "stopped")
        self.ok("delete", container, timeout=20)

    def test_run_detached(self):
        bundle = Bundle(self.work, rootfs.guest(self.work), ["/bin/sh", "-c", "echo hi; sleep 1000"])
        name = self.runtime.new_id()
        self.containers.append(name)
        self.output = os.path.join(self.work, "detached.out")
        pid_file = os.path.join(self.work, "detached.pid")
        with open(self.output, "wb") as out:
            subprocess.run(
                self.runtime.command("run", "--detach", "--bundle", bundle.path, "--pid-file", pid_file, name),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60, check=True,
            )
        self.assertEqual(self.status(name), "running")
        self.until(lambda: self.printed() == "hi\n", "its output")
        self.ok("delete", "--force", name)

    def test_signals_to_a_foreground_run_reach_the_guest(self):
        bundle = Bundle(self.work, rootfs.guest(self.work), ["/bin/sh", "-c", "trap 'exit 33' TERM; echo up; while :; do sleep 0.05; done"])
        name = self.runtime.new_id()
        child = subprocess.Popen(
            self.runtime.command("run", "--bundle", bundle.path, name), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        self.assertEqual(child.stdout.readline(), b"up\n")
        child.send_signal(signal.SIGTERM)
        self.assertEqual(child.wait(20), 33)
        child.stdout.close()


class WhateverDies(TestCase):
    """State survives the death of any of our processes; delete cleans up."""

    def test_delete_after_kill_9_of_every_process(self):
        from harness import process

        for victim in range(12):
            bundle = Bundle(self.work, rootfs.guest(self.work), ["/bin/sleep", "1000"])
            name = self.runtime.new_id()
            with open(os.path.join(self.work, "out"), "wb") as out:
                subprocess.run(
                    self.runtime.command("run", "--detach", "--bundle", bundle.path, name),
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60, check=True,
                )
            pids = [p for p in process.descendants(os.getpid()) if not process.is_zombie(p)]
            if victim >= len(pids):
                self.runtime.call("delete", "--force", name, check=True)
                break
            described = process.describe(pids[victim])
            os.kill(pids[victim], signal.SIGKILL)
            time.sleep(0.3)
            process.reap()
            done = self.runtime.call("delete", "--force", name, timeout=30)
            self.assertEqual(done.returncode, 0, f"after the death of {described}: {done.stderr.decode()}")
            self.assertFalse(os.path.exists(os.path.join(self.runtime.state, name)), described)
            left = process.end_leftovers()
            self.assertEqual(left, [], f"after the death of {described}")


if __name__ == "__main__":
    main()
