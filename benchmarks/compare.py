"""The work of benchmarks/run: contestants in turn, medians, a table of ratios to the host, JSON."""

import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import typing

import programs
import report
from harness import Bundle, Runtime, process, rootfs, run, runsc_path, unit

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
MICRO = REPOSITORY / "bazel-bin/benchmarks/syscalls/micro"


class Contestant:
    def __init__(self, name: str, runtime: Runtime, work: str, *layers: str):
        self.name, self.runtime = name, runtime
        self.root = rootfs.overlay(work, *layers, "/")
        if MICRO.exists():
            shutil.copy2(MICRO, os.path.join(self.root, "micro"))
        self.work = work

    def version(self) -> str:
        done = subprocess.run([self.runtime.binary, "--version"], capture_output=True, text=True, check=False)
        return (done.stdout.splitlines() or ["unknown"])[0]

    def bundle(self, args: typing.Sequence[str]) -> Bundle:
        # Docker's capabilities and no namespaced oddities: what a container usually is.
        return Bundle(self.work, self.root, args, env={"PYTHONDONTWRITEBYTECODE": "1"})

    def micro(self, pattern: str, min_time: float) -> typing.Dict[str, float]:
        """Nanoseconds of real time per iteration, by benchmark."""
        args = ["/micro", "--benchmark_format=json", f"--benchmark_min_time={min_time}"]
        if pattern:
            args.append(f"--benchmark_filter={pattern}")
        done = self.runtime.run(self.bundle(args), timeout=600)
        text = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            print(f"  {self.name}: micro ended with {done.returncode}: {done.stderr.decode()[-400:]}", file=sys.stderr)
            text = text[: text.rfind("},") + 1] + "]}" if "}," in text else "{}"
        try:
            rows = json.loads(text).get("benchmarks", [])
        except json.JSONDecodeError:
            return {}
        scale = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}
        return {r["name"].removeprefix("BM_"): r["real_time"] * scale[r["time_unit"]] for r in rows if "real_time" in r}

    def program(self, args: typing.Sequence[str]) -> typing.Optional[float]:
        """Seconds from calling the runtime to its end."""
        bundle = self.bundle(args)
        container = self.runtime.new_id()
        command = self.runtime.command("run", "--bundle", bundle.path, container)
        started = time.monotonic()
        try:
            done = run(command, timeout=300)
        except TimeoutError as late:
            print(f"  {self.name}: {late}", file=sys.stderr)
            self.runtime.remove(container)
            return None
        seconds = time.monotonic() - started
        if done.returncode != 0:
            print(f"  {self.name}: {args[0]} ended with {done.returncode}: {done.stderr.decode()[-400:]}", file=sys.stderr)
            return None
        return seconds

    def workload(self, name: str) -> typing.Dict[str, float]:
        """Nanoseconds by figure."""
        try:
            done = self.runtime.run(self.bundle(programs.command(name)), timeout=600)
        except TimeoutError as late:
            print(f"  {self.name}: {late}", file=sys.stderr)
            return {}
        if done.returncode != 0:
            text = (done.stdout + done.stderr)[-400:].decode(errors="replace")
            print(f"  {self.name}: {name} ended with {done.returncode}: {text}", file=sys.stderr)
        return {title: seconds * 1e9 for title, seconds in programs.figures(done.stdout.decode(errors="replace")).items()}

    def sleeping_memory(self) -> typing.Optional[float]:
        """Proportional bytes of all processes of a container that sleeps, the runtime's own included."""
        bundle = self.bundle(["/bin/sleep", "1000"])
        container = self.runtime.new_id()
        child = subprocess.Popen(
            self.runtime.command("run", "--bundle", bundle.path, container),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(2)
        # The caller of `run` in the foreground is not part of what a detached container keeps.
        pids = [p for p in process.descendants(os.getpid()) if p != child.pid]
        total = 0
        for pid in pids:
            try:
                with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
                    total += sum(int(l.split()[1]) for l in f if l.startswith("Pss:")) * 1024
            except OSError:
                pass
        self.runtime.remove(container)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        process.end_leftovers()
        return float(total) if total else None


def _median(values: typing.Sequence[typing.Optional[float]]) -> typing.Optional[float]:
    good = [v for v in values if v is not None]
    return statistics.median(good) if good else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__)
    parser.add_argument("filter", nargs="*", help="only benchmarks with one of these words in their name")
    parser.add_argument("--only", default="", help="contestants, comma-separated: host,ptrace,systrap,gvisor")
    parser.add_argument("--gvisor", default="/usr/bin/runsc", help="the installed peer (/usr/bin/runsc)")
    parser.add_argument("--gvisor-platform", default="ptrace", help="its platform (ptrace: all that Debian's has)")
    parser.add_argument("--kind", default="micro,programs,workloads,memory", help="what to run, of these")
    parser.add_argument("--report", metavar="FILE", help="also a page in Markdown, with a plot beside it as SVG")
    parser.add_argument("--quick", action="store_true", help="one round, short times")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", default="benchmarks.json", help="where the figures go (benchmarks.json)")
    parser.add_argument("--no-build", action="store_true")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    kinds = options.kind.split(",")
    words = [w.lower() for w in options.filter]

    def wanted(title: str) -> bool:
        return not words or any(w in title.lower() for w in words)

    if not options.no_build and not unit.build(["//runsc", "//benchmarks/syscalls:micro"]):
        print("benchmarks/run: not everything was built", file=sys.stderr)
    if "micro" in kinds and not MICRO.exists():
        print(f"benchmarks/run: {MICRO} is not there; build it, or choose another --kind", file=sys.stderr)
        return 1
    process.become_subreaper()
    process.enter_private_mounts()
    work = tempfile.mkdtemp(prefix="caisson-benchmarks-")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "caisson-benchmarks", work], check=True)

    makers: typing.Dict[str, typing.Callable[[], Runtime]] = {"host": lambda: Runtime.native(work)}
    if os.access(runsc_path(), os.X_OK):
        for name in ("ptrace", "systrap"):
            makers[name] = lambda name=name: Runtime.caisson(work, name)
    if os.access(options.gvisor, os.X_OK):
        flags = [f"--platform={options.gvisor_platform}", "--network=none", "--ignore-cgroups"]
        makers["gvisor"] = lambda: Runtime("gvisor", options.gvisor, flags, work)
    chosen = options.only.split(",") if options.only else list(makers)
    unknown = [n for n in chosen if n not in makers]
    if unknown:
        print(f"benchmarks/run: not here: {', '.join(unknown)}", file=sys.stderr)
    data = os.path.join(work, "data")
    os.mkdir(data)
    if "workloads" in kinds:
        programs.make_data(data)
    contestants = [Contestant(n, makers[n](), work, data) for n in chosen if n in makers]
    names = [c.name for c in contestants]

    samples: typing.Dict[str, typing.Dict[str, list]] = {}
    units: typing.Dict[str, str] = {}

    def note(title: str, unit_name: str, who: str, value: typing.Optional[float]) -> None:
        units[title] = unit_name
        samples.setdefault(title, {}).setdefault(who, []).append(value)

    pattern = "" if not words else "|".join(w[:1].upper() + w[1:] + "|" + w for w in words)
    for number in range(rounds if "micro" in kinds else 0):
        for contestant in contestants:
            print(f"round {number + 1} of {rounds}: micro-operations, {contestant.name}", file=sys.stderr)
            for title, value in contestant.micro(pattern, 0.02 if options.quick else 0.1).items():
                note(title.removesuffix("/real_time"), "ns", contestant.name, value)
    for title, (args, count) in programs.PROGRAMS.items():
        if "programs" not in kinds or not wanted(title):
            continue
        print(title, file=sys.stderr)
        for _ in range(1 if options.quick else count):
            for contestant in contestants:
                value = contestant.program(args)
                note(title, "ns", contestant.name, None if value is None else value * 1e9)
    for name in programs.WORKLOADS:
        if "workloads" not in kinds or not wanted(name):
            continue
        if programs.lacking(name):
            print(f"{name}: left out, not installed: {', '.join(programs.lacking(name))}", file=sys.stderr)
            continue
        for number in range(rounds):
            for contestant in contestants:
                print(f"round {number + 1} of {rounds}: {name}, {contestant.name}", file=sys.stderr)
                for title, value in contestant.workload(name).items():
                    note(title, "ns", contestant.name, value)
    if "memory" in kinds and wanted("memory of a sleeping sandbox"):
        for _ in range(rounds):
            for contestant in contestants:
                note("memory of a sleeping sandbox", "bytes", contestant.name, contestant.sleeping_memory())

    results = {
        title: {"unit": units[title], "values": {n: _median(by.get(n, [])) for n in names}, "samples": by}
        for title, by in samples.items()
    }
    print(report.table(results, names))
    machine = {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "versions": {c.name: c.version() for c in contestants},
        "command": "benchmarks/run " + " ".join(sys.argv[1:]),
    }
    figures = {"machine": machine, "contestants": names, "results": results}
    with open(options.json, "w", encoding="utf-8") as f:
        json.dump(figures, f, indent=1)
    if options.report:
        report.write(options.report, figures)
    print(f"\nload {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs; figures in {options.json}", file=sys.stderr)
    process.end_leftovers()
    subprocess.run(["umount", "-R", "-l", work], check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
