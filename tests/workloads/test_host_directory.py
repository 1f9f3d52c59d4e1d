"""A host directory, mounted writable without an upper layer: what processes of the guest do to it at the same time is
what the host finds afterwards, and what the guest itself says of it, with either --file-access."""

import os
import subprocess

from harness import Bundle, Runtime, TestCase, bind, main, rootfs

# Readers who list and look at everything, and fill every cache, while writers rename, link, append and remove.
SCRIPT = r"""
cd "$1"
for d in $(seq 30); do
  mkdir -p d$d/e/f
  for i in $(seq 20); do echo $d.$i >d$d/$i; echo x >d$d/e/f/$i; done
done
work() {
  for round in 1 2 3 4; do
    find . -printf '%s %p\n' >/dev/null 2>&1
    for d in $(seq $1 4 30); do
      mv d$d/$round d$d/r$round
      echo more >>d$d/r$round
      rm d$d/e/f/$round
      ln d$d/r$round d$d/e/l$round
      mkdir d$d/n$round; mv d$d/n$round d$d/e/m$round
      ln -s ../r$round d$d/e/s$round; cat d$d/e/s$round >/dev/null
      truncate -s $((d * 100)) d$d/1$round; chmod 6$round d$d/1$round
    done
    ls -lR . >/dev/null 2>&1; grep -r more . >/dev/null 2>&1
  done
}
for w in 1 2 3 4; do work $w & done
wait
"""
DESCRIBE = r"""
cd "$1"
find . -type d -printf 'd %m %p\n' | sort
find . ! -type d -printf '%y %s %n %m %p %l\n' | sort
find . -type f | sort | xargs cksum
"""


def describe(directory: str) -> bytes:
    done = subprocess.run(["bash", "-c", DESCRIBE, "-", directory], stdout=subprocess.PIPE, check=True, timeout=60)
    return done.stdout


class HostDirectory(TestCase):
    TIMEOUT = 120

    def run_in(self, runtime) -> None:
        host = os.path.join(self.work, "host-" + str(len(os.listdir(self.work))))
        os.mkdir(host)
        root = rootfs.debian(self.work)
        bundle = Bundle(
            self.work, root, ["bash", "-c", SCRIPT + DESCRIBE, "-", "/host"], mounts=[bind(host, "/host", "rw")]
        )
        done = runtime.run(bundle, timeout=self.TIMEOUT)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertEqual(done.stdout.decode(), describe(host).decode())  # The guest's view, and the host's.
        self.assertEqual(done.stdout.decode(), self.expected())

    def expected(self) -> str:
        """The same natively."""
        plain = os.path.join(self.work, "plain")
        os.mkdir(plain)
        subprocess.run(["bash", "-c", SCRIPT, "-", plain], check=True, timeout=60)
        return describe(plain).decode()

    def test_exclusive(self):
        self.run_in(self.runtime)

    def test_shared(self):
        if self.runtime.is_native:
            self.skipTest("runc has no --file-access")
        self.run_in(Runtime.caisson(self.work, self.runtime.name, "--file-access=shared"))


main()
