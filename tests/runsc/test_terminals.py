"""Terminals of the host in the guest: they have a name, which ttyname(3) finds, and go when their process does."""

import array
import os
import pty
import select
import socket
import subprocess
import time

from harness import Bundle, TestCase, main, rootfs

PLATFORMS = ("ptrace", "systrap")

# What ttyname(3) compares: the descriptor, and what the name leads to.
NAMED = """
name=$(readlink /proc/self/fd/0); echo "name $name; tty $(tty)"
test "$(stat -L -c %d:%i:%t:%T /proc/self/fd/0)" = "$(stat -c %d:%i:%t:%T $name)" && test -c $name && echo same
"""


def read_until_closed(master, timeout=30):
    """What comes from a terminal until nobody has its other side."""
    text, end = b"", time.monotonic() + timeout
    while True:
        if not select.select([master], [], [], max(0, end - time.monotonic()))[0]:
            raise AssertionError(f"still open after {timeout} s: {text!r}")
        try:
            part = os.read(master, 65536)
        except OSError:  # EIO
            return text.decode()
        if not part:
            return text.decode()
        text += part


class Terminals(TestCase):
    def setUp(self):
        self.containers = []

    def tearDown(self):
        for container in self.containers:
            self.runtime.remove(container)

    def bundle(self, script, **options):
        return Bundle(self.work, rootfs.guest(self.work), ["/bin/sh", "-c", script], **options)

    def new_container(self):
        self.containers.append(self.runtime.new_id())
        return self.containers[-1]

    def on_a_terminal(self, *command):
        """Runs it with a terminal as its stdio; returns its exit status and what it printed."""
        master, slave = pty.openpty()
        child = subprocess.Popen(self.runtime.command(*command), stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)
        text = read_until_closed(master)
        os.close(master)
        return child.wait(20), text

    def console(self, path, *command):
        """Runs it with --console-socket; returns the terminal's master."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            done = subprocess.run(
                self.runtime.command(*command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                timeout=60, check=False,
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            connection, _ = listener.accept()
        with connection:
            fds = array.array("i", [0])
            _, control, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(fds.itemsize))
            fds.frombytes(control[0][2])
        return fds[1]

    def assertNamed(self, text, name):
        self.assertIn(f"name {name}; tty {name}\r\nsame\r\n", text)

    def test_run_on_a_terminal(self):
        bundle = self.bundle(NAMED + "stat -c %d:%i:%t:%T /dev/console $name | uniq -c; echo >/dev/console heard", terminal=True)
        status, text = self.on_a_terminal("run", "--bundle", bundle.path, self.new_container())
        self.assertEqual(status, 0, text)
        self.assertNamed(text, "/dev/pts/0")
        self.assertRegex(text, r"\n +2 [0-9]+:[0-9]+:88:0\r\nheard")  # The console is the same node: 136, 0.

    def test_console_socket_and_exec_on_another_terminal(self):
        bundle = self.bundle(NAMED + "read line; echo got $line", terminal=True)
        container = self.new_container()
        master = self.console(os.path.join(self.work, "s1"), "create", "--bundle", bundle.path, "--console-socket", os.path.join(self.work, "s1"), container)
        self.assertSuccess(self.runtime.call("start", container))
        # The second one, looked at by name, goes when its process ends, and its number is free again.
        for _ in range(2):
            command = ["exec", "--tty", "--detach", "--console-socket", os.path.join(self.work, "s2"), container]
            second = self.console(os.path.join(self.work, "s2"), *command, "/bin/sh", "-c", NAMED + "ls /dev/pts; ps -o tty,args")
            os.remove(os.path.join(self.work, "s2"))
            text = read_until_closed(second)
            os.close(second)
            self.assertNamed(text, "/dev/pts/1")
            self.assertRegex(text, r"same\r\n0 +1 +ptmx\r\n")
        done = self.runtime.call("exec", container, "/bin/ls", "/dev/pts")
        self.assertEqual(done.stdout.split(), [b"0", b"ptmx"], done.stderr)
        os.write(master, b"a line\n")
        text = read_until_closed(master)
        os.close(master)
        self.assertNamed(text, "/dev/pts/0")
        self.assertIn("got a line", text)

    def test_exec_on_the_callers_terminal(self):
        container = self.new_container()
        bundle = self.bundle("exec sleep 1000")
        subprocess.run(
            self.runtime.command("run", "--detach", "--bundle", bundle.path, container), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, timeout=60, check=True,
        )
        status, text = self.on_a_terminal("exec", "--tty", container, "/bin/sh", "-c", NAMED + "exit 9")
        self.assertEqual(status, 9, text)
        self.assertNamed(text, "/dev/pts/0")

    def test_a_terminal_passed_as_stdio(self):
        status, text = self.on_a_terminal("run", "--bundle", self.bundle(NAMED + "ls /dev/console").path, self.new_container())
        self.assertNamed(text, "/dev/pts/0")
        # It is not the container's, only its standard streams' (OCI runtime-spec, process.terminal).
        self.assertRegex(text, r"/dev/console.*No such file")
        self.assertNotEqual(status, 0)

    def test_three_streams_are_one_terminal_with_a_name_each(self):
        script = "for n in 0 1 2; do readlink /proc/$$/fd/$n; done | uniq -c"
        _, text = self.on_a_terminal("run", "--bundle", self.bundle(script, terminal=True).path, self.new_container())
        self.assertEqual(text.split(), ["3", "/dev/pts/0"])

    def test_without_devpts_it_is_the_console(self):
        bundle = self.bundle(NAMED, terminal=True)
        bundle.spec["mounts"] = [m for m in bundle.spec["mounts"] if m["type"] != "devpts"]
        bundle.write()
        status, text = self.on_a_terminal("run", "--bundle", bundle.path, self.new_container())
        self.assertEqual(status, 0, text)
        self.assertNamed(text, "/dev/console")

    def test_terminals_of_the_guest_count_on(self):
        script = "import os,pty; m,s=os.openpty(); print(os.ttyname(0), os.ttyname(s))"
        bundle = Bundle(self.work, rootfs.debian(self.work), ["/usr/bin/python3", "-c", script], terminal=True)
        status, text = self.on_a_terminal("run", "--bundle", bundle.path, self.new_container())
        self.assertEqual((status, text), (0, "/dev/pts/0 /dev/pts/1\r\n"))

    def test_modes_and_owners_stay_the_guests(self):
        master, slave = pty.openpty()
        before = os.fstat(slave)
        child = subprocess.Popen(
            self.runtime.command("run", "--bundle", self.bundle("chmod 777 $(tty); chown 5:6 $(tty); stat -c %a:%u:%g $(tty)").path, self.new_container()),
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )
        self.assertEqual(child.wait(60), 0)
        after = os.fstat(slave)
        os.close(slave)
        self.assertIn("777:5:6", read_until_closed(master))
        os.close(master)
        self.assertEqual((before.st_mode, before.st_uid, before.st_gid), (after.st_mode, after.st_uid, after.st_gid))


if __name__ == "__main__":
    main()
