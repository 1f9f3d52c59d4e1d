"""What there is to run: guest programs (tests/syscalls) on native and on each platform, and Python suites."""

import ast
import dataclasses
import difflib
import hashlib
import itertools
import os
import pathlib
import platform as host_platform
import re
import shutil
import tempfile
import typing

from . import process, protocol
from .bundle import REPOSITORY, Bundle, debian, guest, unmount
from .runtime import PLATFORMS, Runtime, run, runsc_path

PYTHON_FOLDERS = ("runsc", "security", "workloads", "containerd", "fuzz")
_TESTS = REPOSITORY / "tests"


@dataclasses.dataclass(frozen=True)
class Suite:
    name: str  # "syscalls/pipe_basic"
    on: str  # "native", a platform, or "any"
    source: pathlib.Path

    @property
    def title(self) -> str:
        return self.name if self.on == "any" else f"{self.name} [{self.on}]"

    @property
    def needs_runsc(self) -> bool:
        return self.on != "native"

    def fingerprint(self, common: str) -> str:
        """Changes when the outcome could: the runsc binary, the harness, the suite itself, the host's kernel."""
        digest = hashlib.sha256(f"{common} {self.title}".encode())
        for path in self.inputs():
            digest.update(path.read_bytes())
        if self.needs_runsc:
            digest.update(_binary_digest(runsc_path()))
        return digest.hexdigest()

    def inputs(self) -> typing.List[pathlib.Path]:
        return [self.source]

    def execute(self, work: str) -> typing.List[protocol.CaseResult]:
        raise NotImplementedError


_digests: typing.Dict[str, bytes] = {}


def _binary_digest(path: str) -> bytes:
    if path not in _digests:
        _digests[path] = hashlib.sha256(pathlib.Path(path).read_bytes()).digest()
    return _digests[path]


def common_fingerprint() -> str:
    digest = hashlib.sha256(host_platform.release().encode())
    for path in sorted((_TESTS / "harness").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class GuestProgram(Suite):
    """One static program. When a case ends the program or hangs, the program goes on behind that case."""

    def inputs(self):
        return [guest_program(self.source)]

    def _settings(self) -> typing.Dict[str, str]:
        """`// guest-test: timeout=60 uid=1000` in the source."""
        match = re.search(r"^// guest-test:(.*)$", self.source.read_text(encoding="utf-8"), re.M)
        return dict(word.split("=", 1) for word in match.group(1).split()) if match else {}

    def execute(self, work):
        settings = self._settings()
        silence_s = float(settings.get("timeout", 30))
        results: typing.List[protocol.CaseResult] = []
        first = 0
        while True:
            reader, why = self._attempt(work, first, silence_s, settings)
            if why:
                reader.fail_running(why)
            results += reader.results
            if reader.ended or reader.started == 0:
                break
            first += reader.started
            if reader.count is not None and first >= reader.count:
                break
            if len(results) > 2000:
                break
        return results

    def _attempt(self, work, first, silence_s, settings):
        runtime = Runtime.named(self.on, work)
        root = guest(work)
        uid = int(settings.get("uid", 0))
        bundle = Bundle(work, root, [f"/tests/{self.source.stem}", f"--from={first}"], uid=uid, gid=uid)
        container = runtime.new_id()
        reader = protocol.Reader()
        child = process.LineProcess(runtime.command("run", "--bundle", bundle.path, container))
        why = ""
        try:
            for line in child.lines(silence_s, total_s=float(settings.get("total", 300))):
                reader.feed(line)
            status = child.status()
            if not reader.ended:
                why = f"ended with {describe_status(status)}"
            elif status != 0:
                why = f"all cases done, but ended with {describe_status(status)}"
                reader.running = "(exit)"
        except TimeoutError as late:
            why = str(late)
            for pid in [child.pid] + process.descendants(child.pid):
                why += f"\n  {process.describe(pid)}"
        finally:
            child.kill()
            if why or os.path.exists(os.path.join(runtime.state, container)):
                runtime.remove(container)
            unmount(root)
        if why and runtime.log_tail():
            why += "\nlog:\n" + runtime.log_tail()
        return reader, why


class WorkloadScript(Suite):
    """A script of tests/workloads: what it prints under runc is what it must print under runsc.

    A line "### name" starts a section; each section is a case. Standard error is shown, not compared.
    """

    INTERPRETERS = {".sh": "/bin/bash", ".py": "/usr/bin/python3", ".pl": "/usr/bin/perl", ".js": "/usr/bin/node"}

    def execute(self, work):
        if not os.path.exists(self.INTERPRETERS[self.source.suffix]):
            return [protocol.CaseResult("(interpreter)", protocol.SKIPPED)]
        wanted = self._run(Runtime.native(work), work)
        if wanted.failure:
            return [protocol.CaseResult("(native run)", protocol.FAILED, wanted.failure)]
        if self.on == "native":
            return [protocol.CaseResult(name, protocol.PASSED) for name in wanted.sections]
        runtime = Runtime.named(self.on, work)
        got = self._run(runtime, work)
        results = []
        for name, lines in wanted.sections.items():
            if got.sections.get(name) == lines:
                results.append(protocol.CaseResult(name, protocol.PASSED))
            else:
                theirs = got.sections.get(name, ["(this section was not reached)"])
                diff = difflib.unified_diff(lines, theirs, "native", self.on, lineterm="", n=1)
                results.append(protocol.CaseResult(name, protocol.FAILED, "\n".join(itertools.islice(diff, 40))))
        if got.failure:
            detail = got.failure + "\nlog:\n" + runtime.log_tail()
            results.append(protocol.CaseResult("(exit)", protocol.FAILED, detail))
        return results

    def _run(self, runtime: Runtime, work: str) -> "_Output":
        root = debian(work)
        try:
            folder = os.path.join(root, "caisson-workload")
            os.mkdir(folder, 0o755)
            os.mkdir(os.path.join(folder, "here"), 0o755)
            shutil.copy(self.source, folder)
            args = [self.INTERPRETERS[self.source.suffix], f"/caisson-workload/{self.source.name}"]
            bundle = Bundle(work, root, args, cwd="/caisson-workload/here", env={"PYTHONDONTWRITEBYTECODE": "1"})
            try:
                done = runtime.run(bundle, timeout=self._timeout_s())
            except TimeoutError as late:
                return _Output(_sections(str(late).partition("stdout: ")[2]), str(late))
            failure = ""
            if done.returncode != 0:
                failure = f"{describe_status(done.returncode)}\n{done.stderr[-3000:].decode(errors='replace')}"
            return _Output(_sections(done.stdout.decode(errors="replace")), failure)
        finally:
            unmount(root)

    def _timeout_s(self) -> float:
        match = re.search(r"^(?:#|//) workload:.*timeout=(\d+)", self.source.read_text(encoding="utf-8"), re.M)
        return float(match.group(1)) if match else 60.0


@dataclasses.dataclass
class _Output:
    sections: typing.Dict[str, typing.List[str]]
    failure: str


def _sections(text: str) -> typing.Dict[str, typing.List[str]]:
    found: typing.Dict[str, typing.List[str]] = {}
    lines: typing.List[str] = []
    for line in text.splitlines():
        if line.startswith("### "):
            lines = found.setdefault(line[4:], [])
        else:
            lines.append(line)
    return found


class PythonSuite(Suite):
    """One file under tests/<folder>/test_*.py."""

    def inputs(self):
        # Suites of a folder share helper modules.
        return sorted(p for p in self.source.parent.glob("*") if p.is_file())

    def execute(self, work):
        timeout_s = float(_module_constant(self.source, "TIMEOUT_S", 600))
        environment = dict(
            os.environ,
            CAISSON_PLATFORM=self.on,
            CAISSON_TEST_TMP=work,
            PYTHONPATH=str(_TESTS),
            PYTHONDONTWRITEBYTECODE="1",
        )
        reader = protocol.Reader()
        child = process.LineProcess(["/usr/bin/python3", "-u", str(self.source)], env=environment)
        why = ""
        try:
            for line in child.lines(timeout_s, timeout_s):
                reader.feed(line)
            status = child.status()
            if not reader.ended:
                why = f"ended with {describe_status(status)}"
        except TimeoutError as late:
            why = str(late)
        finally:
            child.kill()
        if why:
            reader.fail_running(why)
        return reader.results


def describe_status(status: int) -> str:
    if status < 0:
        return f"signal {-status}"
    return f"exit status {status}" + (f" (signal {status - 128})" if status > 128 else "")


def guest_program(source: pathlib.Path) -> pathlib.Path:
    return REPOSITORY / "bazel-bin/tests/syscalls" / source.stem


def _module_constant(source: pathlib.Path, name: str, default):
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == name for t in node.targets):
            return ast.literal_eval(node.value)
    return default


def discover(platforms: typing.Sequence[str]) -> typing.List[Suite]:
    """All suites, the native run of a guest program before the others."""
    suites: typing.List[Suite] = []
    sources = sorted(p for p in (_TESTS / "syscalls").glob("*.cc") if p.name != "guest_test_main.cc")
    for on in ("native", *platforms):
        suites += [GuestProgram(f"syscalls/{s.stem}", on, s) for s in sources]
    scripts = sorted(
        p
        for p in (_TESTS / "workloads").glob("*")
        if p.suffix in WorkloadScript.INTERPRETERS and not p.name.startswith("test_")
    )
    for on in ("native", *platforms):
        suites += [WorkloadScript(f"workloads/{s.stem}", on, s) for s in scripts]
    for folder in PYTHON_FOLDERS:
        for source in sorted((_TESTS / folder).glob("test_*.py")):
            name = f"{folder}/{source.stem.removeprefix('test_')}"
            for on in _module_constant(source, "PLATFORMS", PLATFORMS):
                if on == "any" or on == "native" or on in platforms:
                    suites.append(PythonSuite(name, on, source))
    return suites


def make_work(parent: str) -> str:
    work = tempfile.mkdtemp(prefix="suite-", dir=parent)
    os.chmod(work, 0o755)
    return work


def execute(suite: Suite, parent: str) -> typing.List[protocol.CaseResult]:
    """Runs one suite in this process's care; what it leaves behind is a failure of its own."""
    work = make_work(parent)
    try:
        results = suite.execute(work)
    except Exception as error:  # pylint: disable=broad-except
        results = [protocol.CaseResult("(harness)", protocol.FAILED, f"{type(error).__name__}: {error}")]
    left = process.end_leftovers()
    if left:
        results.append(protocol.CaseResult("(leaves no process)", protocol.FAILED, "\n".join("  " + l for l in left)))
    run(["sh", "-c", f"for m in $(grep -o ' {work}[^ ]*' /proc/mounts | sort -r); do umount -l $m; done"])
    run(["rm", "-rf", "--one-file-system", work])
    return results
