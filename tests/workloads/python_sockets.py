# python3: TCP, UDP, AF_UNIX, epoll, IPv6.
# workload: timeout=120
import os
import select
import socket
import struct
import threading


def say(name):
    print("###", name, flush=True)


def sockets():
    say("sockets")
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        for _ in range(10):
            c, _ = server.accept()
            with c:
                while part := c.recv(65536):
                    c.sendall(part)

    t = threading.Thread(target=serve)
    t.start()
    payload = bytes(range(256)) * 2000
    for i in range(10):
        with socket.create_connection(server.getsockname()) as c:
            send = threading.Thread(target=lambda: (c.sendall(payload), c.shutdown(socket.SHUT_WR)))
            send.start()
            got = b""
            while part := c.recv(65536):
                got += part
            send.join()
            if got != payload:
                print("corrupt")
    t.join()
    print("tcp ok")
    try:
        socket.create_connection(("127.0.0.1", 1))
    except ConnectionRefusedError as e:
        print(e)
    a, b = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    a.bind(("127.0.0.1", 0))
    b.sendto(b"datagram", a.getsockname())
    print(a.recvfrom(100)[0])
    a.settimeout(0.05)
    try:
        a.recv(1)
    except socket.timeout as e:
        print(e)
    x, y = socket.socketpair()
    with open("sent.txt", "w+") as f:
        f.write("passed by descriptor")
        f.flush()
        socket.send_fds(x, [b"fd"], [f.fileno()])
    message, fds, _, _ = socket.recv_fds(y, 10, 1)
    print(message, os.pread(fds[0], 100, 0))
    x.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    y.send(b"c")
    print(struct.unpack("3i", x.recvmsg(10, 100)[1][0][2])[1:])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\0abstract")
    listener.listen()
    c = socket.socket(socket.AF_UNIX)
    c.connect("\0abstract")
    s, _ = listener.accept()
    poll = select.epoll()
    poll.register(s, select.EPOLLIN)
    print(poll.poll(0))
    c.send(b"!")
    print([e for _, e in poll.poll(1)], select.select([s], [], [], 0)[0] == [s])
    six = socket.create_server(("::1", 0), family=socket.AF_INET6)
    c6 = socket.create_connection(six.getsockname()[:2])
    print(c6.family.name)
    print(socket.gethostbyname("localhost"))


if __name__ == "__main__":
    sockets()
