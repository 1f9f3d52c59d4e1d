"""The lines by which a test program tells its results, and what becomes of them.

    ##count N           how many cases there are (optional)
    ##run NAME          a case starts
    ##ok NAME           it passed
    ##fail NAME         it failed; the lines since ##run say why
    ##skip NAME REASON  it could not run here
    ##end               the program did all that it had to do

Every other line is detail, shown when a case fails.
"""

import dataclasses
import typing

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclasses.dataclass
class CaseResult:
    name: str
    outcome: str
    detail: str = ""


class Reader:
    """Feeds on output lines; keeps the results of finished cases and the name of the one under way."""

    MAX_DETAIL_LINES = 80

    def __init__(self) -> None:
        self.results: typing.List[CaseResult] = []
        self.count: typing.Optional[int] = None
        self.running: typing.Optional[str] = None
        self.started = 0
        self.ended = False
        self._detail: typing.List[str] = []

    def feed(self, line: str) -> None:
        line = line.rstrip("\r\n")
        if not line.startswith("##"):
            self._detail.append(line)
            if len(self._detail) > self.MAX_DETAIL_LINES:
                del self._detail[0]
            return
        word, _, rest = line[2:].partition(" ")
        if word == "count" and rest.isdigit():
            self.count = int(rest)
        elif word == "run":
            self.running = rest
            self.started += 1
            self._detail = []
        elif word == "ok":
            self._finish(rest, PASSED, "")
        elif word == "fail":
            self._finish(rest, FAILED, self.take_detail())
        elif word == "skip":
            name, _, reason = rest.partition(" ")
            self._finish(name, SKIPPED, reason)
        elif word == "end":
            self.ended = True
        else:
            self._detail.append(line)

    def fail_running(self, why: str) -> None:
        """The case under way ended the program, or never ended."""
        detail = self.take_detail()
        self._finish(self.running or "(start)", FAILED, (detail + "\n" if detail else "") + why)

    def take_detail(self) -> str:
        text = "\n".join(self._detail)
        self._detail = []
        return text

    def _finish(self, name: str, outcome: str, detail: str) -> None:
        self.results.append(CaseResult(name, outcome, detail))
        self.running = None
        self._detail = []
