"""Is the audit log what was written?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.audit.chain import EMPTY, Head, closed_files, head_file, unseal

_MOST_PROBLEMS = 20


@dataclass(slots=True)
class Report:
    """
    Attributes:
        problems: what was changed, one sentence each; at most 20 and a last one that says so.
        incomplete: the last line was cut short, by a crash; it was never acknowledged.
    """

    files: int = 0
    lines: int = 0
    head: Head = EMPTY
    incomplete: bool = False
    problems: list[str] = field(default_factory=list)

    def complain(self, problem: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)
        elif len(self.problems) == _MOST_PROBLEMS:
            self.problems.append("and more")


def verify(path: Path, witnesses: Sequence[Head] = (), first: int = 1) -> Report:
    """Follow the chain through all files of a log.

    Args:
        witnesses: heads noted earlier, kept where nobody who can write the log can change them.
        first: number of the line to begin with; above 1 where older files are kept elsewhere.

    Raises:
        OSError: a file cannot be read.
    """
    report = Report(head=Head(first - 1, EMPTY.hash if first == 1 else ""))
    wanted = {head.seq: head for head in witnesses if head.seq}
    noted = head_file(path)
    if noted.exists() and (text := noted.read_text()):
        try:
            head = Head.parse(text)
            wanted.setdefault(head.seq, head)
        except ValueError as error:
            report.complain(f"{noted.name}: {error}")
    files = [*closed_files(path), *([path] if path.exists() else [])]
    for file in files:
        report.files += 1
        _follow(file, file == files[-1], report, wanted)
    for head in wanted.values():
        if head.seq > report.head.seq:
            report.complain(f"lines {report.head.seq + 1} to {head.seq} are missing at the end")
    return report


def _follow(file: Path, is_last: bool, report: Report, wanted: dict[int, Head]) -> None:
    with file.open("rb") as lines:
        for number, text in enumerate(lines, 1):
            where = f"{file.name}, line {number}"
            if not text.endswith(b"\n"):
                if is_last:
                    report.incomplete = True
                else:
                    report.complain(f"{where} is cut short")
                continue
            report.lines += 1
            try:
                line = unseal(text[:-1])
            except ValueError as error:
                report.complain(f"{where} {error}")
                # The next one is held to nothing but its number.
                report.head = Head(report.head.seq + 1, "")
                continue
            before = report.head
            if line.seq > before.seq + 1:
                report.complain(f"lines {before.seq + 1} to {line.seq - 1} are missing in {where}")
            elif line.seq <= before.seq:
                report.complain(f"{where} is out of order: number {line.seq} after {before.seq}")
            elif before.hash not in {"", line.previous}:
                report.complain(f"{where} does not follow from the line before")
            witness = wanted.get(line.seq)
            if witness is not None and witness.hash != line.hash:
                report.complain(f"{where} is not what it was when number {line.seq} was noted")
            report.head = line.head
