"""--host-uds: unix sockets of the host that a mount shows."""

import os
import socket
import threading

from harness import Bundle, TestCase, bind, main, rootfs

PLATFORMS = ("ptrace", "systrap")

CLIENT = """
import array, os, select, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.connect(sys.argv[1])
print(s.getpeername(), repr(s.getsockname()))
s.sendall(b"x" * 300000 + b"\\n")
print(s.makefile().readline().strip())
p = select.poll(); p.register(s, select.POLLIN)
print(p.poll(50))
s.sendall(b"again\\n")
print(p.poll(5000) == [(s.fileno(), select.POLLIN)], s.recv(3, socket.MSG_PEEK), s.recv(100))
try:
    s.connect(sys.argv[1])
except OSError as e:
    print(e.strerror)
try:
    s.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
except OSError as e:
    print(e.strerror)
s.shutdown(socket.SHUT_WR)
print(s.recv(100))
"""


class HostUds(TestCase):
    def setUp(self):
        self.data = os.path.join(self.work, "data")
        os.mkdir(self.data)

    def listen(self, serve, kind=socket.SOCK_STREAM):
        listener = socket.socket(socket.AF_UNIX, kind)
        self.addCleanup(listener.close)
        listener.bind(os.path.join(self.data, "sock"))
        if kind != socket.SOCK_DGRAM:
            listener.listen(5)
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        return thread

    def python(self, script, *args, policy=None, mount=None):
        mounts = [mount or bind(self.data, "/data")]
        bundle = Bundle(self.work, rootfs.debian(self.work), ["/usr/bin/python3", "-c", script, *args], mounts=mounts)
        if policy:
            self.runtime.flags += ["--host-uds", policy]
        return self.runtime.run(bundle)

    def test_a_stream(self):
        def serve(listener):
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                connection.sendall(b"%d bytes\n" % len(lines.readline()))
                connection.sendall(b"echo " + lines.readline())
                connection.sendall(b"rest %d" % len(lines.read()))

        self.listen(serve)
        done = self.python(CLIENT, "/data/sock", policy="open")
        self.assertSuccess(done)
        self.assertEqual(
            done.stdout.decode().splitlines(),
            ["/data/sock ''", "300001 bytes", "[]", "True b'ech' b'echo again\\n'", "Transport endpoint is already connected",
             "Operation not supported", "b'rest 0'"],
        )

    def test_a_socket_mounted_by_itself_and_a_volume_of_do(self):
        script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(9))"

        def serve(listener):
            for _ in range(2):
                connection, _ = listener.accept()
                connection.sendall(b"hello")
                connection.close()

        self.listen(serve)
        done = self.python(script, "/tmp/x.sock", policy="open", mount=bind(os.path.join(self.data, "sock"), "/tmp/x.sock"))
        self.assertEqual((done.returncode, done.stdout), (0, b"b'hello'\n"), done.stderr)
        done = self.runtime.call("do", "--volume", f"{self.data}:/mnt", "/usr/bin/python3", "-c", script, "/mnt/sock")
        self.assertEqual((done.returncode, done.stdout), (0, b"b'hello'\n"), done.stderr)

    def test_packets_and_datagrams(self):
        def serve(listener):
            connection, _ = listener.accept()
            with connection:
                for _ in range(2):
                    connection.send(b"<%d>" % len(connection.recv(1 << 20)))

        self.listen(serve, socket.SOCK_SEQPACKET)
        script = "import socket; s=socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('/data/sock')\n"
        script += "for n in (5, 100000): s.send(b'x'*n); print(s.recv(5))"
        done = self.python(script, policy="open")
        self.assertEqual((done.returncode, done.stdout.split()), (0, [b"b'<5>'", b"b'<1000'"]), done.stderr)

        os.remove(os.path.join(self.data, "sock"))
        got = []
        thread = self.listen(lambda listener: got.extend(listener.recv(100) for _ in range(2)), socket.SOCK_DGRAM)
        script = "import socket; s=socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect('/data/sock'); s.send(b'one'); s.send(b'two')"
        self.assertSuccess(self.python(script))
        thread.join(20)
        self.assertEqual(got, [b"one", b"two"])

    def test_refused_unless_asked_for(self):
        self.listen(lambda listener: None)
        script = "import socket; s=socket.socket(socket.AF_UNIX)\ntry: s.connect('/data/sock')\nexcept OSError as e: print(e.strerror)"
        done = self.python(script)
        self.assertEqual((done.returncode, done.stdout), (0, b"Connection refused\n"), done.stderr)

    def test_nobody_listens(self):
        self.listen(lambda listener: listener.close()).join(20)
        script = "import socket; s=socket.socket(socket.AF_UNIX)\ntry: s.connect('/data/sock')\nexcept OSError as e: print(e.strerror)"
        done = self.python(script, policy="open")
        self.assertEqual((done.returncode, done.stdout), (0, b"Connection refused\n"), done.stderr)

    def test_sockets_of_the_guest_stay_its_own(self):
        script = "import os,socket; l=socket.socket(socket.AF_UNIX); l.bind('/data/own'); l.listen(1); c=socket.socket(socket.AF_UNIX)\n"
        script += "c.connect('/data/own'); a,_=l.accept(); a.send(b'in'); print(c.recv(9))"
        done = self.python(script, policy="open")
        self.assertEqual((done.returncode, done.stdout), (0, b"b'in'\n"), done.stderr)

    def test_what_cannot_be_honoured_is_said(self):
        for policy in ("create", "all"):
            done = self.runtime.call("--host-uds", policy, "list")
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("host-uds", done.stderr.decode() + self.runtime.log_tail())


if __name__ == "__main__":
    main()
