"""Known faults of versions: qwen_rig/data/advisories.yml, loaded, checked and asked for a set of packages. Pure but for
reading that file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from packaging.specifiers import SpecifierSet

from qwen_rig.catalog.datafile import DATA, Row, SpecifierText, Text, load


@dataclass(frozen=True)
class Advisory:
    """What the user should know of some versions, with its source; `when` names them ({} : always)."""

    text: str
    source: str
    when: tuple[tuple[str, SpecifierSet], ...] = ()

    def about(self, versions: Mapping[str, str]) -> bool:
        """Whether these packages (canonical name → version) are what it is about."""
        return all(name in versions and wanted.contains(versions[name], prereleases=True)
                   for name, wanted in self.when)


@dataclass(frozen=True)
class _Entry(Row):
    when: dict[Text, SpecifierText]
    text: Text
    source: Text


@dataclass(frozen=True)
class AdvisoriesFile(Row):
    """The form of advisories.yml."""

    advisories: tuple[_Entry, ...]


@cache
def load_advisories() -> tuple[Advisory, ...]:
    """All of them. Raises RigError naming file and key."""
    return tuple(Advisory(row.text, row.source, tuple((name, SpecifierSet(text)) for name, text in row.when.items()))
                 for row in load(DATA / "advisories.yml", AdvisoriesFile).advisories)


def about(versions: Mapping[str, str]) -> tuple[Advisory, ...]:
    """Those that are about a set of packages (canonical name → version)."""
    return tuple(advisory for advisory in load_advisories() if advisory.about(versions))
