"""linux.resources.memory.limit: who takes more dies of it, and nobody else."""

from harness import Bundle, TestCase, main, rootfs

_LIMIT = 96 << 20

# Three times: what the dead held is there again for the next. The second way touches a page here and there first, so that
# much is reserved before much is used.
_GREEDY = """
import mmap, os, sys
def child(step):
    memory = mmap.mmap(-1, 400 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in list(range(0, len(memory), step)) + list(range(0, len(memory), 4096)):
        memory[at] = 1
    os._exit(0)
for step in (400 << 20, 2 << 20, 400 << 20):
    pid = os.fork()
    if pid == 0:
        child(step)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
kept = bytearray(20 << 20)
print(len(kept) >> 20)
"""

_MEMINFO = """
total = next(int(l.split()[1]) for l in open("/proc/meminfo") if l.startswith("MemTotal"))
kept = bytearray(b"x") * (30 << 20)
free = next(int(l.split()[1]) for l in open("/proc/meminfo") if l.startswith("MemFree"))
print(total << 10, 0 < free <= total - (30 << 10))
"""


class MemoryLimit(TestCase):
    def run_python(self, script):
        bundle = Bundle(self.work, rootfs.debian(self.work), ["/usr/bin/python3", "-c", script])
        bundle.spec["linux"]["resources"]["memory"] = {"limit": _LIMIT, "swap": _LIMIT}
        bundle.write()
        return self.runtime.run(bundle)

    def test_kills_the_process_and_not_the_sandbox(self):
        done = self.run_python(_GREEDY)
        self.assertSuccess(done)
        self.assertEqual(done.stdout.split(), [b"-9", b"-9", b"-9", b"20"])

    def test_first_process_ends_as_if_killed(self):
        done = self.run_python("memory = bytearray(b'x') * (400 << 20)")
        # Python may be told ENOMEM first, and then says so.
        self.assertIn(done.returncode, (137, 1))

    def test_meminfo_tells_of_the_limit(self):
        if self.runtime.is_native:
            self.skipTest("Linux shows the host's memory")
        done = self.run_python(_MEMINFO)
        self.assertSuccess(done)
        self.assertEqual(done.stdout.split(), [str(_LIMIT).encode(), b"True"])


if __name__ == "__main__":
    main()
