"""Lines that apt, dpkg, bash, tar and similar programs wrote in another language, in English again.

The message catalogues that are installed on this machine are read backwards: sentence of another language → the
program's own English one (data/doctor/languages.yml names those that rows know). What no catalogue has stays as it is.
"""

from __future__ import annotations

import errno
import gettext
import os
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

from qwen_rig.catalog import datafile
from qwen_rig.catalog.datafile import MaybeTexts, PatternText, Text, Texts
from qwen_rig.doctor.forms import DATA
from qwen_rig.frozen import frozen

FOLDERS = (Path("/usr/share/locale"), Path("/usr/share/locale-langpack"))
MOST = 200  # lines of one log that are looked up
_SLOT = re.compile(r"%(?:(\d+)\$)?[-\d.]*l?[sdiu]")
_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOMEM, errno.EMFILE,
                     errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.EADDRINUSE, errno.EIO,
                     errno.EPERM, errno.EBUSY, errno.ENOEXEC})
# Scripts that no English line is written in: Han, kana, Hangul, Cyrillic, Greek, Arabic, Hebrew, Thai.
_SCRIPTS = re.compile("[\u0370-\u03ff\u0400-\u04ff\u0590-\u06ff\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_ACCENTS = re.compile("[\u00c0-\u024f]")


@frozen
class Program(datafile.Row):
    """A program's catalogues: `says`: how its lines begin, `domains`: its catalogues' names (libapt-pkg*), `sentences`:
    as its source has them."""

    says: PatternText
    domains: Texts
    sentences: MaybeTexts = ()


@frozen
class LanguagesFile(datafile.Row):
    """The form of languages.yml."""

    source: Text
    programs: tuple[Program, ...]


def english(lines: Mapping[int, str], folders: Iterable[Path] = FOLDERS) -> dict[int, str]:
    """Those of the lines that a catalogue knows, in English."""
    programs = datafile.load(DATA / "languages.yml", LanguagesFile).programs
    told = ((at, program) for at, line in lines.items() for program in programs if re.search(program.says, line))
    wanted = dict(islice(told, MOST))
    found: dict[int, str] = {}
    for folder in _catalogues(folders) if wanted else ():
        for at in [at for at in wanted if at not in found]:
            turned = _turned(lines[at], wanted[at], folder)
            if turned != lines[at]:
                found[at] = turned
        if len(found) == len(wanted):
            break
    return found


def foreign(lines: Iterable[str]) -> bool:
    """Whether lines that a program wrote for people are in no English."""
    programs = datafile.load(DATA / "languages.yml", LanguagesFile).programs
    told = [line for line in lines if any(re.search(program.says, line) for program in programs)]
    return any(_SCRIPTS.search(line) or len(_ACCENTS.findall(line)) >= 2 for line in told[:MOST])


def _catalogues(folders: Iterable[Path]) -> list[Path]:
    return sorted(path for folder in folders if folder.is_dir() for path in folder.glob("*/LC_MESSAGES"))


def _turned(line: str, program: Program, folder: Path) -> str:
    """The line with what this language's catalogues know of it in English."""
    for domain in (*program.domains, "libc"):
        for path in sorted(folder.glob(f"{domain}.mo")):
            try:
                with path.open("rb") as file:
                    catalogue = gettext.GNUTranslations(file)
            except (OSError, ValueError, UnicodeError, LookupError):
                continue
            sentences = [os.strerror(code) for code in _ERRORS] if domain == "libc" else program.sentences
            for sentence in sentences:
                if (said := catalogue.gettext(sentence)) != sentence:
                    line = _replaced(line, said.strip(), sentence.strip())
    return line


def _replaced(line: str, said: str, sentence: str) -> str:
    """The line with a foreign sentence in it as the program's own English one, its values in their places."""
    slots = [found[1] for found in _SLOT.finditer(said)]
    fixed = _SLOT.split(said)[::2]
    if max(map(len, fixed)) < 4:
        return line
    found = re.search(r"(.+?)".join(map(re.escape, fixed)) + ("$" if not fixed[-1] else ""), line)
    if not found:
        return line
    filled = enumerate(zip(slots, found.groups(), strict=True), 1)
    values = {int(slot or number): value for number, (slot, value) in filled}
    number = iter(range(1, len(values) + 1))
    made = _SLOT.sub(lambda slot: values.get(int(slot[1] or next(number)), ""), sentence)
    return line[:found.start()] + made + line[found.end():]
