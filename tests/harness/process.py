"""Processes of tests: started in sessions of their own, bounded in time, and ended by pid."""

import ctypes
import os
import select
import signal
import subprocess
import time
import typing

_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 0x4000 | (1 << 18)
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Orphaned descendants become our children, so that what a test leaves behind is seen and ended."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def enter_private_mounts() -> None:
    """A mount namespace of our own: whatever a test mounts is gone with us."""
    if _libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    if _libc.mount(b"none", b"/", None, _MS_REC_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "mount --make-rprivate /")


def _parents() -> typing.Dict[int, int]:
    parents = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as f:
                parents[int(entry)] = int(f.read().rsplit(b")", 1)[1].split()[1])
        except (OSError, IndexError):
            pass
    return parents


def descendants(root: int) -> typing.List[int]:
    """Pids of all that descends from `root`, children before their own children."""
    children: typing.Dict[int, typing.List[int]] = {}
    for pid, parent in _parents().items():
        children.setdefault(parent, []).append(pid)
    found, todo = [], [root]
    while todo:
        for child in children.get(todo.pop(0), []):
            found.append(child)
            todo.append(child)
    return found


def describe(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            command = f.read(300).replace(b"\0", b" ").decode(errors="replace").strip()
        with open(f"/proc/{pid}/stat", "rb") as f:
            stat = f.read().decode(errors="replace")
        name = stat[stat.index("(") : stat.rindex(")") + 1]
        return f"{pid} {name} {stat[stat.rindex(')') + 2]} {command}"
    except (OSError, ValueError, IndexError):
        return str(pid)


def reap() -> None:
    """Collects children that ended, ours and adopted."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] > 0:
            pass
    except ChildProcessError:
        pass


def is_zombie(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read().rsplit(b")", 1)[1].split()[0] in (b"Z", b"X")
    except OSError:
        return True


def end_leftovers(grace_s: float = 2.0) -> typing.List[str]:
    """Ends what descends from this process, and says what there was after `grace_s` seconds."""
    deadline = time.monotonic() + grace_s
    while True:
        reap()
        left = [pid for pid in descendants(os.getpid()) if not is_zombie(pid)]
        if not left or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    described = [describe(pid) for pid in left]
    deadline = time.monotonic() + 10
    while left and time.monotonic() < deadline:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
        reap()
        left = [pid for pid in descendants(os.getpid()) if not is_zombie(pid)]
    return described


class LineProcess:
    """A child whose output (both streams) is read line by line with a deadline per line."""

    def __init__(self, command, *, env=None, cwd=None, stdin=subprocess.DEVNULL):
        self._process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        self._buffer = b""
        os.set_blocking(self._process.stdout.fileno(), False)

    def lines(self, silence_s: float, total_s: float) -> typing.Iterator[str]:
        """Yields lines until end of file. Raises TimeoutError after `silence_s` without one or `total_s` in all."""
        fd = self._process.stdout.fileno()
        end = time.monotonic() + total_s
        quiet_end = time.monotonic() + silence_s
        exited_at = None
        while True:
            now = time.monotonic()
            if now > end:
                raise TimeoutError(f"not done after {total_s:.0f} s")
            if now > quiet_end:
                raise TimeoutError(f"silent for {silence_s:.0f} s")
            ready, _, _ = select.select([fd], [], [], min(0.2, max(0.01, quiet_end - now)))
            if ready:
                part = os.read(fd, 65536)
                if not part:
                    break
                self._buffer += part
                quiet_end = time.monotonic() + silence_s
                *complete, self._buffer = self._buffer.split(b"\n")
                for line in complete:
                    yield line.decode(errors="replace")
                if len(self._buffer) > 1 << 20:
                    self._buffer = self._buffer[: 1 << 16]
                continue
            # Something else may hold the pipe open after the child itself has ended.
            if self._process.poll() is not None:
                exited_at = exited_at or now
                if now - exited_at > 1.0:
                    break
        if self._buffer:
            yield self._buffer.decode(errors="replace")
            self._buffer = b""

    def status(self, wait_s: float = 10.0) -> int:
        """Exit status, negative for a signal. Raises TimeoutError."""
        try:
            return self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError("closed its output but does not end") from None

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """Ends the child and its descendants."""
        for pid in [self._process.pid] + descendants(self._process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._process.wait()
        self._process.stdout.close()

    def close(self) -> None:
        self._process.stdout.close()
