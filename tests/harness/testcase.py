"""unittest, reporting in the protocol of protocol.py, for the Python suites of tests/.

    from harness import Bundle, TestCase, main, rootfs

    class Echo(TestCase):
        def test_says_hi(self):
            done = self.runtime.run(Bundle(self.work, rootfs.guest(self.work), ["/bin/echo", "hi"]))
            self.assertEqual((done.returncode, done.stdout), (0, b"hi\n"))

    if __name__ == "__main__":
        main()

A file runs once per platform; `self.runtime` is the runsc of that platform. A file that has the line
`PLATFORMS = ("any",)` runs once, and makes its own runtimes. `TIMEOUT_S = 300` bounds the file, `case_timeout_s` a case.
"""

import os
import shutil
import signal
import sys
import tempfile
import traceback
import unittest

from . import process
from .runtime import Runtime


class TestCase(unittest.TestCase):
    case_timeout_s = 120
    maxDiff = 4000

    runtime: Runtime
    work: str

    def run(self, result=None):
        self.work = tempfile.mkdtemp(prefix="case-", dir=os.environ.get("CAISSON_TEST_TMP"))
        os.chmod(self.work, 0o755)
        name = os.environ.get("CAISSON_PLATFORM", "native")
        self.runtime = Runtime.named("native" if name == "any" else name, self.work)

        def expired(_number, _frame):
            raise TimeoutError(f"case not done after {self.case_timeout_s} s")

        before = signal.signal(signal.SIGALRM, expired)
        signal.alarm(self.case_timeout_s)
        try:
            return super().run(result)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
            self._remove_work()

    def _remove_work(self):
        with open("/proc/self/mounts", encoding="utf-8") as f:
            mounted = [line.split()[1] for line in f]
        for point in sorted((m for m in mounted if m.startswith(self.work + "/")), reverse=True):
            os.system(f"umount -l '{point}'")
        shutil.rmtree(self.work, ignore_errors=True)

    def assertSuccess(self, done):
        """The finished command's exit status is 0."""
        if done.returncode != 0:
            self.fail(
                f"exit status {done.returncode}\nstdout: {done.stdout[-1500:].decode(errors='replace')}\n"
                f"stderr: {done.stderr[-1500:].decode(errors='replace')}\nlog: {self.runtime.log_tail()}"
            )


class _ProtocolResult(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self._bad = False

    @staticmethod
    def _name(test):
        return test.id().removeprefix("__main__.").replace(" ", "_")

    def _say(self, text):
        sys.stdout.flush()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def startTest(self, test):
        super().startTest(test)
        self._bad = False
        self._say(f"##run {self._name(test)}")

    def _failed(self, test, error):
        self._bad = True
        lines = "".join(traceback.format_exception(*error)).rstrip().splitlines()
        for line in lines[-60:]:
            self._say("  " + line)

    def addError(self, test, err):
        if isinstance(test, unittest.TestCase):
            self._failed(test, err)
        else:  # setUpClass and the like
            self._say(f"##run {self._name(test)}")
            self._failed(test, err)
            self._say(f"##fail {self._name(test)}")

    def addFailure(self, test, err):
        self._failed(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._say(f"  in {subtest}")
            self._failed(test, err)

    def addSkip(self, test, reason):
        if isinstance(test, unittest.TestCase):
            self._say(f"##skip {self._name(test)} {reason}")
        else:
            self._say(f"##run {self._name(test)}")
            self._say(f"##skip {self._name(test)} {reason}")
        self._bad = None

    def stopTest(self, test):
        super().stopTest(test)
        if self._bad is None:
            return
        self._say(f"##{'fail' if self._bad else 'ok'} {self._name(test)}")


def main():
    """Runs the file's test cases. Arguments are substrings of the names to run."""
    process.become_subreaper()
    if not os.environ.get("CAISSON_TEST_TMP"):
        process.enter_private_mounts()
    suite = unittest.TestSuite()
    for test in _flatten(unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])):
        if len(sys.argv) < 2 or any(word in test.id() for word in sys.argv[1:]):
            suite.addTest(test)
    print(f"##count {suite.countTestCases()}", flush=True)
    suite.run(_ProtocolResult())
    left = process.end_leftovers()
    if left:
        print("##run leaves_no_process")
        for line in left:
            print("  " + line)
        print("##fail leaves_no_process")
    print("##end", flush=True)


def _flatten(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from _flatten(item)
        else:
            yield item
