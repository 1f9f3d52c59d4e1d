"""tests/run: builds, runs unit tests, then guest programs and Python suites, and counts what really ran."""

import argparse
import fnmatch
import multiprocessing
import os
import pathlib
import queue
import shutil
import subprocess
import tempfile
import time
import typing

from . import bundle, process, protocol, runtime, suites, unit

CACHE = pathlib.Path(os.environ.get("CAISSON_CACHE", "/var/cache/caisson"))


KNOWN_FAILURES = pathlib.Path(__file__).resolve().parent.parent / "known_failures.txt"


def _known_failures() -> typing.List[typing.Tuple[str, str]]:
    """(pattern, reason) for each line "pattern  # reason"; a pattern matches "suite case" as fnmatch does."""
    rows = []
    if KNOWN_FAILURES.exists():
        for line in KNOWN_FAILURES.read_text(encoding="utf-8").splitlines():
            pattern, _, reason = line.partition("  # ")
            if pattern.strip() and not pattern.startswith("#"):
                rows.append((pattern.strip(), reason.strip()))
    return rows


class Tally:
    def __init__(self) -> None:
        self.counts = {protocol.PASSED: 0, protocol.FAILED: 0, protocol.SKIPPED: 0}
        self.failures: typing.List[str] = []
        self.known: typing.List[str] = []
        self.cached = 0
        self._expected = _known_failures()

    def add(self, where: str, results: typing.Sequence[protocol.CaseResult]) -> None:
        for result in results:
            outcome, name = result.outcome, f"{where} {result.name}".strip()
            if outcome == protocol.FAILED:
                reason = next((r for p, r in self._expected if fnmatch.fnmatchcase(name, p)), None)
                if reason is None:
                    self.failures.append(name)
                else:
                    # It ran and failed, as known_failures.txt says: neither a pass nor news.
                    self.known.append(f"{name}: {reason}")
                    outcome = protocol.SKIPPED
            self.counts[outcome] += 1

    def summary(self) -> str:
        text = f"{self.counts[protocol.PASSED]} passed, {self.counts[protocol.FAILED]} failed"
        if self.counts[protocol.SKIPPED]:
            text += f", {self.counts[protocol.SKIPPED]} skipped"
        return text


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/run", description="Builds Caisson and runs its tests.")
    parser.add_argument("filter", nargs="*", help="only what has one of these in its name: syscalls/pipe, //sentry, [ptrace]")
    parser.add_argument("--platform", action="append", choices=runtime.PLATFORMS, help="only this platform")
    parser.add_argument("--no-build", action="store_true", help="take bazel-bin as it is, and run no unit tests")
    parser.add_argument("--no-cache", action="store_true", help="run again what passed with the same inputs")
    parser.add_argument("--jobs", type=int, default=2, help="suites at a time (2)")
    parser.add_argument("--list", action="store_true", help="only print the names of the suites")
    options = parser.parse_args()

    found = suites.discover(options.platform or runtime.PLATFORMS)
    if options.filter:
        found = [s for s in found if any(word in s.title for word in options.filter)]
    if options.list:
        print("\n".join(s.title for s in found))
        return 0

    tally = Tally()
    if not options.no_build:
        _build(options.filter, found, tally)
    if found:
        _run_suites(found, tally, options)

    if tally.known:
        print("\nFailed as tests/known_failures.txt expects, counted as skipped:")
        for name in tally.known:
            print(f"  {name}")
    if tally.failures:
        print("\nFailed:")
        for name in tally.failures[:200]:
            print(f"  {name}")
    if tally.cached:
        print(f"({tally.cached} of the passes are from an earlier run with the same inputs; --no-cache runs them again)")
    print(tally.summary())
    return 1 if tally.counts[protocol.FAILED] or not sum(tally.counts.values()) else 0


def _build(words: typing.Sequence[str], found: typing.Sequence[suites.Suite], tally: Tally) -> None:
    targets = []
    if any(s.needs_runsc for s in found):
        targets.append("//runsc")
    targets += sorted({f"//tests/syscalls:{s.source.stem}" for s in found if isinstance(s, suites.GuestProgram)})
    if targets:
        print(f"== building runsc and {max(0, len(targets) - 1)} guest programs", flush=True)
        if not unit.build(targets):
            tally.add("", [protocol.CaseResult("bazel build", protocol.FAILED)])
    patterns = [w for w in words if w.startswith("//")] if words else [""]
    for pattern in patterns:
        print(f"== unit tests {pattern}", flush=True)
        results = unit.test(pattern)
        tally.add("", results)
        _report("unit tests " + pattern, results, 0, "")


def _report(title: str, results: typing.Sequence[protocol.CaseResult], seconds: float, note: str) -> None:
    failed = [r for r in results if r.outcome == protocol.FAILED]
    skipped = sum(r.outcome == protocol.SKIPPED for r in results)
    line = f"{'FAIL' if failed else 'ok  '} {title}: {len(results) - len(failed) - skipped} passed"
    line += f", {len(failed)} failed" if failed else ""
    line += f", {skipped} skipped" if skipped else ""
    line += f" ({seconds:.1f} s)" if seconds else ""
    print(line + note, flush=True)
    for result in failed:
        print(f"  FAIL {title} {result.name}")
        for detail in result.detail.splitlines():
            print(f"    {detail}")
    if failed:
        print(end="", flush=True)


# --- Suites, in a few worker processes -------------------------------------------------------------------------------


def _worker(todo: multiprocessing.Queue, done: multiprocessing.Queue, work: str) -> None:
    # A subreaper of its own, so that what is left behind has one suite to blame.
    process.become_subreaper()
    while True:
        index, suite = todo.get()
        if suite is None:
            return
        started = time.monotonic()
        results = suites.execute(suite, work)
        if any(r.outcome == protocol.FAILED for r in results):
            # Once more, so that one stall of a busy machine is told from a fault; which cases needed it is shown.
            first = [r.name for r in results if r.outcome == protocol.FAILED]
            results = suites.execute(suite, work)
            print(f"again {suite.title}: failed the first time: {', '.join(first[:20])}", flush=True)
        done.put((index, results, time.monotonic() - started))


def _cached_path(key: str) -> pathlib.Path:
    return CACHE / "passed" / key[:2] / key


def _run_suites(found: typing.List[suites.Suite], tally: Tally, options) -> None:
    have_runsc = os.access(runtime.runsc_path(), os.X_OK)
    common = suites.common_fingerprint()
    runnable: typing.List[typing.Tuple[suites.Suite, str]] = []
    for suite in found:
        missing = ""
        if suite.needs_runsc and not have_runsc:
            missing = f"there is no {runtime.runsc_path()}"
        elif isinstance(suite, suites.GuestProgram) and not os.access(suites.guest_program(suite.source), os.X_OK):
            missing = f"there is no {suites.guest_program(suite.source)}"
        if missing:
            result = [protocol.CaseResult("(build)", protocol.FAILED, missing)]
            tally.add(suite.title, result)
            _report(suite.title, result, 0, "")
            continue
        key = suite.fingerprint(common)
        cached = _cached_path(key)
        if not options.no_cache and cached.exists():
            passed, skipped = map(int, cached.read_text(encoding="ascii").split())
            tally.counts[protocol.PASSED] += passed
            tally.counts[protocol.SKIPPED] += skipped
            tally.cached += passed
            continue
        runnable.append((suite, key))
    if not runnable:
        return
    print(f"== {len(runnable)} suites, {options.jobs} at a time", flush=True)

    work = tempfile.mkdtemp(prefix="caisson-tests-")
    process.enter_private_mounts()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "caisson-tests", work], check=True)
    try:
        guest_root = bundle.make_busybox_root(os.path.join(work, "guest"))
        for source in sorted({s.source for s, _ in runnable if isinstance(s, suites.GuestProgram)}):
            shutil.copy2(suites.guest_program(source), guest_root / "tests" / source.stem)
        os.environ["CAISSON_GUEST_ROOT"] = str(guest_root)
        _drive(runnable, tally, options.jobs, work)
    finally:
        subprocess.run(["umount", "-l", work], check=False)
        os.rmdir(work)


def _drive(runnable, tally: Tally, jobs: int, work: str) -> None:
    context = multiprocessing.get_context("fork")
    todo, done = context.Queue(), context.Queue()
    for index, (suite, _) in enumerate(runnable):
        todo.put((index, suite))
    workers = [context.Process(target=_worker, args=(todo, done, work), daemon=False) for _ in range(jobs)]
    for worker in workers:
        todo.put((0, None))
        worker.start()
    finished = set()
    try:
        while len(finished) < len(runnable):
            try:
                index, results, seconds = done.get(timeout=5)
            except queue.Empty:
                if not any(w.is_alive() for w in workers):
                    lost = [s.title for i, (s, _) in enumerate(runnable) if i not in finished]
                    tally.add("", [protocol.CaseResult(f"(worker died) {title}", protocol.FAILED) for title in lost])
                    return
                continue
            finished.add(index)
            suite, key = runnable[index]
            if not results:
                results = [protocol.CaseResult("(no cases)", protocol.FAILED, "the suite reported nothing")]
            tally.add(suite.title, results)
            _report(suite.title, results, seconds, "")
            outcomes = [r.outcome for r in results]
            if protocol.FAILED not in outcomes:
                path = _cached_path(key)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{outcomes.count(protocol.PASSED)} {outcomes.count(protocol.SKIPPED)}", encoding="ascii")
    finally:
        for worker in workers:
            worker.join(timeout=15)
            if worker.is_alive():
                for pid in [worker.pid] + process.descendants(worker.pid):
                    try:
                        os.kill(pid, 9)
                    except ProcessLookupError:
                        pass
