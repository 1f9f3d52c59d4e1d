"""An interactive shell on a pty: echo, line editing, resize, Ctrl-C, Ctrl-Z, job control, hang-up."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

from harness import Bundle, TestCase, main, rootfs

PLATFORMS = ("native", "ptrace", "systrap")


class Terminal:
    """A runtime in the foreground on a pty of ours."""

    def __init__(self, command, rows=24, cols=80):
        self.master, slave = pty.openpty()
        self.resize(rows, cols)
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.seen = ""

    def resize(self, rows, cols):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, cols, 0, 0))

    def send(self, text):
        os.write(self.master, text.encode())

    def expect(self, pattern, timeout=20):
        """Waits for output that matches, and consumes up to its end. Returns the match."""
        end = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.seen)
            if match:
                self.seen = self.seen[match.end() :]
                return match
            left = end - time.monotonic()
            if left <= 0 or not self._more(left):
                raise AssertionError(f"no {pattern!r} in {self.seen!r}")

    def _more(self, timeout):
        if not select.select([self.master], [], [], timeout)[0]:
            return False
        try:
            part = os.read(self.master, 65536)
        except OSError:  # EIO: no one holds the other side
            return False
        # Readline's switches for bracketed paste are not what is looked for.
        self.seen = re.sub("\x1b\\[\\?2004[hl]\r?", "", self.seen + part.decode(errors="replace"))
        return bool(part)

    def close(self):
        os.close(self.master)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Shell(TestCase):
    def setUp(self):
        bundle = Bundle(
            self.work,
            rootfs.debian(self.work),
            ["/bin/bash", "--norc", "--noprofile", "-i"],
            terminal=True,
            env={"PS1": "ready$ "},
        )
        self.container = self.runtime.new_id()
        self.terminal = Terminal(self.runtime.command("run", "--bundle", bundle.path, self.container))
        self.terminal.expect(r"ready\$ ")

    def tearDown(self):
        if self.terminal.process.poll() is None:
            self.runtime.remove(self.container)
        self.terminal.close()

    def command(self, text, pattern):
        self.terminal.send(text + "\r")
        match = self.terminal.expect(pattern)
        self.terminal.expect(r"ready\$ ")
        return match

    def test_is_a_terminal_with_echo(self):
        self.command("tty; test -t 0 && echo is-$((40+2))", r"echo is-.*\r\n/dev/(pts/\d+|console)\r\nis-42\r\n")
        self.command("stty -a | grep -o ' icanon'", r"icanon\r\n")
        self.command("ls -l /proc/self/fd/0 >/dev/null && echo ok", r"\r\nok\r\n")

    def test_exit_status(self):
        self.terminal.send("exit 7\r")
        self.assertEqual(self.terminal.process.wait(20), 7)

    def test_resize_reaches_the_shell(self):
        self.command("trap 'echo resized' WINCH; stty size", r"\r\n24 80\r\n")
        self.terminal.resize(50, 132)
        # runc forwards the size when it sees SIGWINCH, which the kernel sends to the foreground group.
        self.terminal.expect(r"resized")
        self.terminal.send("\r")
        self.terminal.expect(r"ready\$ ")
        self.command("stty size", r"\r\n50 132\r\n")

    def test_control_c_ends_the_command_and_not_the_shell(self):
        self.terminal.send("sleep 100\r")
        time.sleep(0.5)
        self.terminal.send("\x03")
        self.terminal.expect(r"\^C")
        self.terminal.expect(r"ready\$ ")
        self.command("echo status=$?", r"status=130\r\n")
        self.terminal.send("cat | cat\r")
        time.sleep(0.3)
        self.terminal.send("\x03")
        self.terminal.expect(r"ready\$ ")

    def test_control_c_interrupts_a_busy_loop(self):
        self.terminal.send("while :; do :; done\r")
        time.sleep(0.5)
        self.terminal.send("\x03")
        self.terminal.expect(r"ready\$ ")
        self.command("echo alive-$((1+1))", r"alive-2\r\n")

    def test_stop_background_and_foreground(self):
        self.terminal.send("sleep 100\r")
        time.sleep(0.5)
        self.terminal.send("\x1a")
        self.terminal.expect(r"Stopped")
        self.terminal.expect(r"ready\$ ")
        self.command("bg", r"sleep 100 &")
        self.command("jobs", r"Running")
        self.terminal.send("fg\r")
        self.terminal.expect(r"sleep 100\r\n")
        time.sleep(0.3)
        self.terminal.send("\x03")
        self.terminal.expect(r"ready\$ ")
        self.command("jobs; echo none-$((2+2))", r"none-4\r\n")

    def test_end_of_file_ends_a_reader(self):
        self.terminal.send("cat\r")
        time.sleep(0.5)
        self.terminal.send("hello\r")
        self.terminal.expect(r"hello\r\nhello\r\n")
        self.terminal.send("\x04")
        self.terminal.expect(r"ready\$ ")
        self.terminal.send("\x04")
        self.assertEqual(self.terminal.process.wait(20), 0)

    def test_raw_mode(self):
        script = "import termios,tty,sys; s=termios.tcgetattr(0); tty.setraw(0); c=sys.stdin.read(3); "
        script += "termios.tcsetattr(0,termios.TCSADRAIN,s); print(list(map(ord,c)))"
        self.terminal.send(f"/usr/bin/python3 -c '{script}'\r")
        self.terminal.expect(r"ord,c\)\)\)'\r\n")
        time.sleep(1.0)
        self.terminal.send("\x03\x1a\x04")
        self.terminal.expect(r"\[3, 26, 4\]")

    def test_a_pty_pair_of_the_guests_own(self):
        script = "import pty,os; p,f=pty.fork()\nif p==0: os.execlp('sh','sh','-c','tty; stty size; exit 5')\n"
        script += "out=b''\ntry:\n while True:\n  d=os.read(f,999)\n  if not d: break\n  out+=d\nexcept OSError: pass\n"
        script += "print(out, os.waitstatus_to_exitcode(os.waitpid(p,0)[1]))"
        self.command("cat >s.py <<'X'\r" + script.replace("\n", "\r") + "\rX", r"")
        self.command("/usr/bin/python3 s.py", r"b'/dev/pts/\d+\\r\\n0 0\\r\\n' 5")

    def test_hang_up_ends_the_sandbox(self):
        self.terminal.send("sleep 1000\r")
        time.sleep(0.3)
        os.close(self.terminal.master)
        self.terminal.master = os.open("/dev/null", os.O_RDWR)
        self.terminal.process.send_signal(signal.SIGHUP)
        try:
            self.terminal.process.wait(20)
        except subprocess.TimeoutExpired:
            self.fail("still there 20 s after the terminal hung up")


if __name__ == "__main__":
    main()
