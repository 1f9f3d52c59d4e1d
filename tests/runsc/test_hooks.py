"""Hooks of every stage: when they run, where, what they are told, and what a failure does (OCI runtime-spec, config.md)."""

import json
import os
import pathlib
import subprocess
import time

from harness import Bundle, TestCase, bind, main, rootfs

PLATFORMS = ("native", "ptrace", "systrap")
BEFORE_START = ("prestart", "createRuntime", "createContainer")


class Hooks(TestCase):
    def setUp(self):
        self.containers = []
        self.order = os.path.join(self.work, "order")
        self.bundle = Bundle(self.work, rootfs.guest(self.work), ["/bin/sh", "-c", "echo main >>/seen/order; exec sleep 1000"], mounts=[bind(self.work, "/seen")])

    def tearDown(self):
        for container in self.containers:
            if os.path.exists(os.path.join(self.runtime.state, container)):
                self.runtime.remove(container)
        self.assertEqual([e for e in os.listdir(self.runtime.state) if not e.startswith(".")], [])

    def hook(self, stage, script="true", **fields):
        """A hook that notes that it ran, and its state; startContainer's runs in the guest."""
        place = "/seen" if stage == "startContainer" else self.work
        note = f"cat >{place}/state.{stage}; echo {stage} >>{place}/order; {script}"
        return {"path": "/bin/sh", "args": ["sh", "-c", note], "env": ["PATH=/bin:/usr/bin", "COLOR=red"], **fields}

    def set(self, **hooks):
        self.bundle.spec["hooks"] = hooks
        self.bundle.write()

    def create(self):
        """`create` with stdio of its own: (exit status, output)."""
        container = self.runtime.new_id()
        self.containers.append(container)
        output = os.path.join(self.work, container + ".out")
        with open(output, "wb") as out:
            done = subprocess.run(
                self.runtime.command("create", "--bundle", self.bundle.path, container), stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, timeout=60, check=False,
            )
        return container, done.returncode, pathlib.Path(output).read_text(encoding="utf-8") + self.runtime.log_tail()

    def ran(self):
        try:
            return pathlib.Path(self.order).read_text(encoding="ascii").split()
        except FileNotFoundError:
            return []

    def until(self, condition):
        end = time.monotonic() + 20
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)

    def state(self, stage):
        return json.loads(pathlib.Path(self.work, f"state.{stage}").read_text(encoding="utf-8"))

    def test_order_and_state(self):
        stages = BEFORE_START + ("startContainer", "poststop")
        if not self.runtime.is_native:  # runc 1.1 runs poststart hooks when `create` ends
            stages += ("poststart",)
        after = {"main", "poststart"} & {"main", *stages}
        self.set(**{stage: [self.hook(stage)] for stage in stages})
        container, status, text = self.create()
        self.assertEqual(status, 0, text)
        self.assertEqual(self.ran(), list(BEFORE_START))
        pid = json.loads(self.runtime.call("state", container).stdout)["pid"]
        self.assertSuccess(self.runtime.call("start", container))
        self.until(lambda: after <= set(self.ran()))
        self.assertEqual(self.ran()[3], "startContainer")
        self.assertEqual(set(self.ran()[4:]), after)
        self.runtime.call("kill", container, "KILL")
        self.until(lambda: json.loads(self.runtime.call("state", container).stdout)["status"] == "stopped")
        self.assertNotIn("poststop", self.ran())
        self.assertSuccess(self.runtime.call("delete", container))
        self.assertEqual(self.ran()[4 + len(after) :], ["poststop"])
        expected = {
            "prestart": ("creating", "created"), "createRuntime": ("creating", "created"), "createContainer": ("creating", "created"),
            "startContainer": ("created", "creating"), "poststart": ("running", "created"), "poststop": ("stopped",),
        }
        for stage in stages:
            with self.subTest(stage=stage):
                state, statuses = self.state(stage), expected[stage]
                self.assertEqual((state["id"], state["bundle"]), (container, self.bundle.path))
                self.assertRegex(state["ociVersion"], r"^1\.\d")
                self.assertIn(state["status"], statuses)
                if stage in ("prestart", "createRuntime", "poststart"):
                    self.assertEqual(state["pid"], pid)

    def test_several_of_a_stage_run_one_after_the_other(self):
        hooks = [{**self.hook("createRuntime", f"sleep 0.{3 - n}; echo end{n} >>{self.order}")} for n in range(3)]
        self.set(createRuntime=hooks)
        _, status, text = self.create()
        self.assertEqual(status, 0, text)
        self.assertEqual(self.ran(), ["createRuntime", "end0", "createRuntime", "end1", "createRuntime", "end2"])

    def test_environment_and_arguments_are_the_hooks_own(self):
        self.set(createRuntime=[{
            "path": "/bin/sh", "args": ["zeroth", "-c", f"echo $0 $1 $COLOR $SECRET. >{self.order}", "name", "first"], "env": ["COLOR=blue"],
        }])
        os.environ["SECRET"] = "seen"
        self.addCleanup(os.environ.pop, "SECRET")
        _, status, text = self.create()
        self.assertEqual(status, 0, text)
        self.assertEqual(self.ran(), ["name", "first", "blue", "."])

    def test_create_container_hooks_are_in_the_containers_namespaces(self):
        script = f"readlink /proc/self/ns/uts /proc/self/ns/mnt >{self.work}/ns.createContainer; hostname >{self.work}/name"
        self.set(
            createRuntime=[self.hook("createRuntime", f"readlink /proc/self/ns/uts /proc/self/ns/mnt >{self.work}/ns.createRuntime")],
            createContainer=[self.hook("createContainer", script)],
        )
        _, status, text = self.create()
        self.assertEqual(status, 0, text)
        inside = pathlib.Path(self.work, "ns.createContainer").read_text(encoding="ascii").split()
        outside = pathlib.Path(self.work, "ns.createRuntime").read_text(encoding="ascii").split()
        self.assertEqual(outside, [os.readlink("/proc/self/ns/uts"), os.readlink("/proc/self/ns/mnt")])
        self.assertNotEqual(inside[0], outside[0])
        self.assertNotEqual(inside[1], outside[1])
        if not self.runtime.is_native:  # runc has not set it by then
            self.assertEqual(pathlib.Path(self.work, "name").read_text(encoding="ascii"), "caisson\n")

    def test_start_container_hooks_run_in_the_container(self):
        self.set(startContainer=[self.hook("startContainer", "hostname >/seen/name; test -x /bin/busybox && echo inside >>/seen/order")])
        container, status, text = self.create()
        self.assertEqual(status, 0, text)
        self.assertEqual(self.ran(), [])
        self.assertSuccess(self.runtime.call("start", container))
        self.until(lambda: "main" in self.ran())
        self.assertEqual(self.ran(), ["startContainer", "inside", "main"])
        self.assertEqual(pathlib.Path(self.work, "name").read_text(encoding="ascii"), "caisson\n")

    def test_a_failure_before_start_fails_create_and_leaves_nothing(self):
        for stage in BEFORE_START:
            with self.subTest(stage=stage):
                if os.path.exists(self.order):
                    os.remove(self.order)
                self.set(**{stage: [self.hook(stage, "echo the reason >&2; exit 3"), self.hook(stage)], "poststart": [self.hook("poststart")]})
                container, status, text = self.create()
                self.assertNotEqual(status, 0)
                self.assertIn("hook", text)
                self.assertIn("exit status 3", text)
                if not self.runtime.is_native:
                    self.assertIn(stage, text)
                    self.assertIn("the reason", text)
                self.assertEqual(self.ran(), [stage])
                self.assertNotEqual(self.runtime.call("state", container).returncode, 0)

    def test_a_missing_program_is_named(self):
        for stage in BEFORE_START:
            with self.subTest(stage=stage):
                self.set(**{stage: [{"path": "/no/such/hook"}]})
                _, status, text = self.create()
                self.assertNotEqual(status, 0)
                self.assertIn("no such file or directory", text)
                self.assertIn("/no/such/hook", text)

    def test_a_failing_start_container_hook_fails_start(self):
        self.set(startContainer=[self.hook("startContainer", "exit 4")])
        container, status, text = self.create()
        self.assertEqual(status, 0, text)
        done = self.runtime.call("start", container)
        if not self.runtime.is_native:  # runc's start has returned by then
            self.assertNotEqual(done.returncode, 0)
            self.assertRegex(done.stderr.decode() + self.runtime.log_tail(), "startContainer hook #0.*exit status 4")
        time.sleep(0.3)
        self.assertEqual(self.ran(), ["startContainer"])
        self.assertSuccess(self.runtime.call("delete", "--force", container))

    def test_timeouts(self):
        for stage in BEFORE_START if self.runtime.is_native else BEFORE_START + ("startContainer",):
            with self.subTest(stage=stage):
                self.set(**{stage: [self.hook(stage, "exec sleep 50", timeout=1)]})
                began = time.monotonic()
                container, status, text = self.create()
                if stage == "startContainer":
                    done = self.runtime.call("start", container)
                    status, text = done.returncode, done.stderr.decode() + self.runtime.log_tail()
                self.assertNotEqual(status, 0)
                self.assertRegex(text, "timed out|ran past specified timeout")
                self.assertLess(time.monotonic() - began, 15)
                self.runtime.call("delete", "--force", container)

    def test_failures_after_start_are_logged_and_change_nothing(self):
        if self.runtime.is_native:
            self.skipTest("runc 1.1 ends a container whose poststart hook fails")
        self.set(poststart=[self.hook("poststart", "exit 5"), self.hook("poststart")], poststop=[self.hook("poststop", "exit 6")])
        container, status, text = self.create()
        self.assertEqual(status, 0, text)
        self.assertSuccess(self.runtime.call("start", container))
        self.assertRegex(self.runtime.log_tail(), "poststart hook #0.*exit status 5")
        self.assertEqual(json.loads(self.runtime.call("state", container).stdout)["status"], "running")
        self.assertSuccess(self.runtime.call("delete", "--force", container))
        self.assertRegex(self.runtime.log_tail(), "poststop hook #0.*exit status 6")

    def test_a_hook_that_leaves_a_child_behind_holds_nobody_up(self):
        self.set(createRuntime=[self.hook("createRuntime", f"sleep 30 & echo $! >{self.work}/child")])
        began = time.monotonic()
        _, status, text = self.create()
        os.kill(int(pathlib.Path(self.work, "child").read_text(encoding="ascii")), 9)
        self.assertEqual(status, 0, text)
        if not self.runtime.is_native:  # Go waits for the pipes to close
            self.assertLess(time.monotonic() - began, 20)


if __name__ == "__main__":
    main()
