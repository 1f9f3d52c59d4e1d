"""Every process of a running sandbox, read back from /proc: filter, privileges, capabilities, root, namespaces, descriptors.

The guest is at work meanwhile, so that what appears only then is seen too.
"""

import os
import re
import stat
import subprocess
import time

from harness import Bundle, TestCase, bind, main, process, rootfs

# Of the gofer, and of nobody else: it acts on files for guest processes of any user.
GOFER_CAPABILITIES = {"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "LINUX_IMMUTABLE"}
_NAMES = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE".split() + [
    f"#{n}" for n in range(10, 27)
] + ["MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"] + [f"#{n}" for n in range(32, 64)]
# What a descriptor may be, besides files beneath the container's own mounts.
HARMLESS = re.compile(r"^(memfd:|/memfd:|anon_inode:|socket:|pipe:|/dev/null$|/proc/\d+/|/dev/zero$)")
NAMESPACES = ("mnt", "net", "ipc", "uts", "pid")

_BUSY = """
i=0; while :; do i=$((i + 1)); echo $i >/tmp/f; cat /tmp/f | cat >/dev/null; ls -l /bin /data >/dev/null; echo $i >/data/f
[ $i = 3 ] && echo busy; sleep 0.01; done
"""


class Confinement(TestCase):
    @classmethod
    def capabilities(cls, mask):
        return {_NAMES[bit] for bit in range(64) if int(mask, 16) >> bit & 1}

    def setUp(self):
        self.data = os.path.join(self.work, "data")
        os.mkdir(self.data)
        self.root = rootfs.guest(self.work)
        bundle = Bundle(self.work, self.root, ["/bin/sh", "-c", _BUSY], mounts=[bind(self.data, "/data")])
        self.container = self.runtime.new_id()
        self.output = os.path.join(self.work, "out")
        with open(self.output, "wb") as out:
            subprocess.run(
                self.runtime.command("run", "--detach", "--bundle", bundle.path, self.container),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=60, check=True, env={"SECRET": "of the caller", "PATH": "/bin"},
            )
        end = time.monotonic() + 30
        while b"busy" not in open(self.output, "rb").read():
            self.assertLess(time.monotonic(), end, open(self.output, "rb").read())
            time.sleep(0.05)
        self.pids = [p for p in process.descendants(os.getpid()) if not process.is_zombie(p)]

    def tearDown(self):
        self.runtime.remove(self.container)

    def is_in_container(self, path, status_of):
        for base in (self.root, self.data):
            try:
                if os.path.samestat(os.stat(base + path), status_of):
                    return True
            except OSError:
                pass
        return False

    def every(self, check):
        """Runs `check(pid, status fields)` for each process; those that end meanwhile do not count."""
        checked = 0
        for pid in self.pids:
            try:
                with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
                    status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
            except (FileNotFoundError, ProcessLookupError):
                continue
            with self.subTest(process=process.describe(pid)):
                try:
                    check(pid, status)
                    checked += 1
                except (FileNotFoundError, ProcessLookupError):
                    pass
        # At least the sentry, the gofer and one stub.
        self.assertGreaterEqual(checked, 3)

    def test_every_thread_is_filtered(self):
        def check(pid, _):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/status", encoding="ascii", errors="replace") as f:
                    text = f.read()
                self.assertRegex(text, r"Seccomp:\t2", f"thread {thread}")
                self.assertRegex(text, r"NoNewPrivs:\t1", f"thread {thread}")

        self.every(check)

    def test_capabilities(self):
        holders = []

        def check(pid, status):
            have = self.capabilities(status["CapPrm"]) | self.capabilities(status["CapEff"])
            if have:
                holders.append(pid)
                self.assertLessEqual(have, GOFER_CAPABILITIES)
            self.assertEqual(self.capabilities(status["CapInh"]) | self.capabilities(status["CapAmb"]), set())

        self.every(check)
        self.assertLessEqual(len(holders), 1, "only the gofer may keep any")

    def test_roots_are_empty_or_the_containers(self):
        def check(pid, _):
            entries = set(os.listdir(f"/proc/{pid}/root"))
            self.assertNotIn("boot", entries)
            self.assertFalse(os.path.exists(f"/proc/{pid}/root/etc/debian_version"), "sees the host's root")
            self.assertFalse(os.path.exists(f"/proc/{pid}/root{self.work}"), "sees the host's paths")
            self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), os.readlink(f"/proc/{pid}/root"))

        self.every(check)

    def test_namespaces_are_their_own(self):
        def check(pid, _):
            for name in NAMESPACES:
                self.assertNotEqual(os.readlink(f"/proc/{pid}/ns/{name}"), os.readlink(f"/proc/self/ns/{name}"), name)

        self.every(check)

    def test_no_network_interface_but_loopback(self):
        def check(pid, _):
            with open(f"/proc/{pid}/net/dev", encoding="ascii") as f:
                names = [line.split(":")[0].strip() for line in f if ":" in line]
            self.assertLessEqual(set(names), {"lo", "sit0", "tunl0", "ip6tnl0", "gre0", "gretap0", "erspan0"})

        self.every(check)

    def test_descriptors(self):
        allowed = (self.root, self.data, self.output, self.runtime.log)
        devices = {os.stat(self.root).st_dev, os.stat(self.data).st_dev}

        def check(pid, status):
            is_gofer = bool(self.capabilities(status["CapPrm"]))
            for fd in os.listdir(f"/proc/{pid}/fd"):
                try:
                    target = os.readlink(f"/proc/{pid}/fd/{fd}")
                except FileNotFoundError:
                    continue
                if HARMLESS.match(target) or target.startswith(allowed):
                    continue
                status_of = os.stat(f"/proc/{pid}/fd/{fd}")
                # Regular files that the gofer donated; their paths are relative to the container's mounts.
                if stat.S_ISREG(status_of.st_mode) and self.is_in_container(target, status_of):
                    continue
                # The gofer's paths are relative to its detached copies of the container's mounts.
                if is_gofer and status_of.st_dev in devices:
                    continue
                # And its own /proc/self/fd, by which it opens again what it holds.
                if is_gofer and target == "/" and set(os.listdir(f"/proc/{pid}/fd/{fd}")) <= set(map(str, range(1 << 16))):
                    continue
                # /dev/null of a mount that this process no longer has appears as /null.
                if stat.S_ISCHR(status_of.st_mode) and status_of.st_rdev == os.makedev(1, 3):
                    continue
                self.fail(f"descriptor {fd} is {target} (mode {status_of.st_mode:o})")

        self.every(check)

    def test_callers_environment_is_not_kept(self):
        def check(pid, _):
            with open(f"/proc/{pid}/environ", "rb") as f:
                self.assertNotIn(b"SECRET", f.read())

        self.every(check)

    def test_users_cannot_reach_them(self):
        # ptrace and /proc/pid/mem are for root alone: not dumpable.
        def check(pid, _):
            self.assertEqual(os.stat(f"/proc/{pid}/mem").st_uid, 0)

        self.every(check)


if __name__ == "__main__":
    main()
