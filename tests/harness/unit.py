"""Builds with Bazel and runs its unit tests; counts gtest's cases from the XML that each test wrote."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import typing
import urllib.parse
import xml.etree.ElementTree

from . import protocol
from .bundle import REPOSITORY


def _bazel() -> typing.List[str]:
    """$BAZEL may name another command with bazel's verbs."""
    return os.environ.get("BAZEL", "bazel").split()


def _progress() -> typing.List[str]:
    if sys.stdout.isatty():
        return []
    return ["--color=no", "--curses=no", "--show_progress_rate_limit=10"]


def build(targets: typing.Sequence[str]) -> bool:
    """Whether all of them built; goes on past failures."""
    return (
        subprocess.run(
            [*_bazel(), "build", *_progress(), "--keep_going", *targets], cwd=REPOSITORY, stdin=subprocess.DEVNULL
        ).returncode
        == 0
    )


def _cases(xml_path: pathlib.Path, label: str) -> typing.List[protocol.CaseResult]:
    try:
        tree = xml.etree.ElementTree.parse(xml_path)
    except (OSError, xml.etree.ElementTree.ParseError):
        return []
    results = []
    for case in tree.iter("testcase"):
        name = f"{label} {case.get('classname', '')}.{case.get('name', '')}"
        failures = case.findall("failure") + case.findall("error")
        if failures:
            results.append(protocol.CaseResult(name, protocol.FAILED, "\n".join((f.text or "") for f in failures)))
        elif case.find("skipped") is not None or case.get("status") == "notrun":
            results.append(protocol.CaseResult(name, protocol.SKIPPED))
        else:
            results.append(protocol.CaseResult(name, protocol.PASSED))
    return results


def _events(path: str) -> typing.Iterator[dict]:
    with open(path, encoding="utf-8") as f:
        for line in f:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return


def test(pattern: str = "", jobs: int = 2) -> typing.List[protocol.CaseResult]:
    """Runs the unit tests whose label contains `pattern`. A test that does not build or crashes counts as failed."""
    query = subprocess.run(
        [*_bazel(), "query", "--noshow_progress", "--keep_going", "tests(//...) except attr(tags, manual, //...)"],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    labels = [l for l in query.stdout.split() if l.startswith("//") and pattern in l]
    results = []
    if query.returncode != 0:  # A package that does not load; the others still do.
        results.append(protocol.CaseResult("bazel query", protocol.FAILED, query.stderr[-3000:]))
    if not labels:
        return results
    with tempfile.NamedTemporaryFile(suffix=".json") as events:
        command = [*_bazel(), "test", *_progress(), "--keep_going", f"--local_test_jobs={jobs}"]
        subprocess.run(
            [*command, f"--build_event_json_file={events.name}", *labels], cwd=REPOSITORY, stdin=subprocess.DEVNULL
        )
        statuses: typing.Dict[str, str] = {}
        xmls: typing.Dict[str, pathlib.Path] = {}
        for event in _events(events.name):
            result = event.get("testResult")
            if result is None:
                continue
            label = event["id"]["testResult"]["label"]
            statuses[label] = result.get("status", "NO_STATUS")
            for output in result.get("testActionOutput", []):
                if output.get("name") == "test.xml":
                    xmls[label] = pathlib.Path(urllib.parse.unquote(urllib.parse.urlparse(output["uri"]).path))
    for label in labels:
        status = statuses.get(label, "FAILED TO BUILD")
        cases = _cases(xmls[label], label) if label in xmls else []
        results += cases
        failed = any(c.outcome == protocol.FAILED for c in cases)
        if status != "PASSED" and not failed:
            results.append(protocol.CaseResult(label, protocol.FAILED, f"{status}; its log: bazel-testlogs{_log(label)}"))
        elif status == "PASSED" and not cases:
            results.append(protocol.CaseResult(label, protocol.PASSED))
    return results


def _log(label: str) -> str:
    return label[1:].replace(":", "/") + "/test.log"
