"""An OCI runtime as a test sees it: runc for the native run, Caisson's runsc on each platform.

    runtime = Runtime.native(work)
    runtime = Runtime.caisson(work, "systrap")
    done = runtime.run(bundle, stdin=b"…", timeout=30)       # .returncode .stdout .stderr
    runtime.call("create", "--bundle", bundle.path, "--pid-file", p, "c1")
"""

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import typing

from . import process
from .bundle import REPOSITORY, Bundle

PLATFORMS = ("ptrace", "systrap")
_serial = itertools.count(1)


def runsc_path() -> str:
    return os.environ.get("CAISSON_RUNSC") or str(REPOSITORY / "bazel-bin/runsc/runsc")


class Runtime:
    def __init__(self, name: str, binary: str, flags: typing.Sequence[str], work: typing.Union[str, os.PathLike]):
        self.name = name
        self.binary = binary
        self.state = tempfile.mkdtemp(prefix=f"state-{name}-", dir=work)
        self.log = os.path.join(self.state + ".log")
        self.flags = list(flags)

    @classmethod
    def native(cls, work) -> "Runtime":
        return cls("native", shutil.which("runc") or "/usr/sbin/runc", [], work)

    @classmethod
    def caisson(cls, work, platform: str, *flags: str) -> "Runtime":
        return cls(platform, runsc_path(), ["--platform", platform, *flags], work)

    @classmethod
    def named(cls, name: str, work) -> "Runtime":
        return cls.native(work) if name == "native" else cls.caisson(work, name)

    @property
    def is_native(self) -> bool:
        return self.name == "native"

    def command(self, *args: str) -> typing.List[str]:
        return [self.binary, "--root", self.state, "--log", self.log, *self.flags, *args]

    def new_id(self) -> str:
        return f"caisson-test-{os.getpid()}-{next(_serial)}"

    def call(
        self,
        *args: str,
        stdin: bytes = b"",
        timeout: float = 60,
        check: bool = False,
        **popen,
    ) -> subprocess.CompletedProcess:
        """One command to its end, output captured. Past `timeout` it is killed with its descendants: TimeoutError."""
        return run(self.command(*args), stdin=stdin, timeout=timeout, check=check, **popen)

    def run(
        self, bundle: Bundle, *, stdin: bytes = b"", timeout: float = 60, container: typing.Optional[str] = None
    ) -> subprocess.CompletedProcess:
        """`run` of the bundle in the foreground, then a forced delete if anything of it is left."""
        container = container or self.new_id()
        try:
            return self.call("run", "--bundle", bundle.path, container, stdin=stdin, timeout=timeout)
        finally:
            if os.path.exists(os.path.join(self.state, container)):
                self.remove(container)

    def remove(self, container: str) -> None:
        """Best-effort end of a container; for clean-up after a failure."""
        for args in (("kill", container, "KILL"), ("delete", "--force", container)):
            try:
                self.call(*args, timeout=20)
            except TimeoutError:
                pass

    def log_tail(self, lines: int = 20) -> str:
        try:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                return "".join(f.readlines()[-lines:])
        except OSError:
            return ""


def run(
    command: typing.Sequence[str], *, stdin: bytes = b"", timeout: float = 60, check: bool = False, **popen
) -> subprocess.CompletedProcess:
    """subprocess.run that captures, and on time-out ends all descendants too. Raises TimeoutError."""
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **popen
    )
    try:
        stdout, stderr = child.communicate(stdin, timeout)
    except subprocess.TimeoutExpired:
        for pid in [child.pid] + process.descendants(child.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            stdout, stderr = child.communicate(timeout=5)
        except subprocess.TimeoutExpired as still:
            stdout, stderr = still.stdout or b"", still.stderr or b""
        raise TimeoutError(
            f"not done after {timeout:.0f} s: {' '.join(map(str, command))}\n"
            f"stdout: {stdout[-2000:].decode(errors='replace')}\nstderr: {stderr[-2000:].decode(errors='replace')}"
        ) from None
    done = subprocess.CompletedProcess(command, child.returncode, stdout, stderr)
    if check and done.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(str, command))}: exit status {done.returncode}\n"
            f"stdout: {stdout[-2000:].decode(errors='replace')}\nstderr: {stderr[-2000:].decode(errors='replace')}"
        )
    return done
