"""A log as the doctor reads it: its lines without colours and prefixes, who says each, and where expressions may match.

Long logs repeat themselves: lines that differ in digits and case alone are looked at MOST times. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import chain

from qwen_rig import hosttext
from qwen_rig.doctor.forms import Row, Voice
from qwen_rig.doctor.needles import folded

LONGEST = 4_000  # characters of a line that are read
FIRST, LAST = 300, 100  # of the lines of one shape, so many of the first and of the last are looked at
AHEAD = 4  # lines after one that an expression may run on into
AROUND = 40  # lines before and after one, in which `near` may stand
_BREAKS = re.compile(r"[\n\r\x1b]|\\x0aNVRM:")
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
# What launchers, log drivers and syslog put before a line; several may follow each other.
_PREFIX = re.compile(
    r"(?:\[?rank ?\d+\]?:\s?|\[\d+,\d+\]<std(?:err|out)>:|\[default\d+\]:"      # torchrun, mpirun
    r"|\((?:\w+ ?)+pid=\d+[^)]*\)\s|[\w.-]+-\d+ +\| "                           # vllm and ray, docker compose
    r"|#\d+ \d+\.\d+ "                                                          # docker build
    r"|\[[ +]*\d+\.\d+\]\s|<\d>\s?"                                             # dmesg
    r"|[EWI]\d{4} \d\d:\d\d:\d\d\.\d+ (?:\d+ )?"                                # glog
    r"|(?:ERROR|WARNING|INFO) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?"                 # vllm
    r"|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ (?:kernel: |\S+\[\d+\]: )(?:\[ *\d+\.\d+\] )?"  # syslog
    r"|\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[\d.,:+Z-]*\]?:?\s)")


def split(text: str) -> list[str]:
    """A text's lines, fit to be shown: without colours, and a progress bar's states as lines of their own. The kernel's
    own buffer (/dev/kmsg) writes a break within a message as \\x0a."""
    text = text.replace("\\x0aNVRM:", "\nNVRM:")
    return hosttext.lines(_COLOUR.sub("", text).replace("\r\n", "\n").replace("\r", "\n")).split("\n")


def core(line: str) -> str:
    """A line without what others put before it."""
    line = line[:LONGEST].rstrip()
    at = 0
    while found := _PREFIX.match(line, at):
        at = found.end()
    return line[at:] if line[at:].strip() else line


class Log:
    """What was said. `speaker`: the voice of a line that nobody else claims: `ours` (one of our steps), `link` (our
    connection); '' where anybody may have written it."""

    def __init__(self, lines: Iterable[str], voices: tuple[Voice, ...], speaker: str = "") -> None:
        self.lines = list(chain.from_iterable(split(line) if _BREAKS.search(line) else [line]
                                              for line in lines))
        self._voices, self.speaker = voices, speaker
        self._cores: dict[int, str] = {}
        self._claims: dict[int, frozenset[str]] = {}

    def core(self, at: int) -> str:
        """The line without its prefixes."""
        if at not in self._cores:
            self._cores[at] = core(self.lines[at])
        return self._cores[at]

    def ahead(self, at: int) -> str:
        """The line and those after it, as an expression sees them."""
        return "\n".join(self.core(each) for each in range(at, min(at + AHEAD + 1, len(self.lines))))

    def around(self, at: int) -> str:
        """The lines before, at and after one."""
        return "\n".join(self.core(each) for each in
                         range(max(0, at - AROUND), min(at + AROUND + 1, len(self.lines))))

    def before(self, at: int, most: int = 2 * AROUND) -> list[str]:
        """The lines before one, the nearest first."""
        return [self.core(each) for each in range(at - 1, max(-1, at - 1 - most), -1)]

    def claims(self, at: int) -> frozenset[str]:
        """Whose line it is: the voices that claim it; empty where nobody does."""
        if at not in self._claims:
            heading = [self.core(at - 1)] if at and self.core(at - 1).endswith(":") else []  # as NCCL's "Last error:"
            found = frozenset(voice.name for voice in self._voices
                              for text in (self.core(at), *heading) if voice.says.search(text))
            self._claims[at] = found or frozenset([self.speaker] if self.speaker else [])
        return self._claims[at]

    def is_of(self, at: int, row: Row) -> bool:
        """Whether the row may speak of the line: it is its voice's, or, unless the row is general, nobody's."""
        claims = self.claims(at)
        return bool(claims & row.of) or (not claims and not row.general)

    @cached_property
    def _shapes(self) -> dict[str, list[int]]:
        shapes: dict[str, list[int]] = {}
        seen: dict[str, int] = {}
        for at, line in enumerate(self.lines):
            shape = folded(line[:LONGEST])
            found = shapes.setdefault(shape, [])
            if len(found) < FIRST + LAST:
                found.append(at)
            else:
                seen[shape] = seen.get(shape, 0) + 1
                found[FIRST + seen[shape] % LAST] = at
        return shapes

    def places(self, watched: Mapping[str, frozenset[int]]) -> dict[int, set[int]]:
        """Lines → the numbers under which a needle that stands in them is watched for. Lines in no order."""
        shapes = list(self._shapes)
        text = "\n".join(shapes)
        starts, at = [], 0
        for shape in shapes:
            starts.append(at)
            at += len(shape) + 1
        found: dict[int, set[int]] = {}
        for needle, numbers in watched.items():
            index = 0
            at = text.find(needle)
            while at >= 0:
                while index + 1 < len(starts) and starts[index + 1] <= at:
                    index += 1
                for line in self._shapes[shapes[index]]:
                    found.setdefault(line, set()).update(numbers)
                if index + 1 == len(starts):
                    break
                at = text.find(needle, starts[index + 1])
        return found
