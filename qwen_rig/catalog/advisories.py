"""Known faults of versions: qwen_rig/data/advisories.yml, loaded, checked and asked for a set of packages. Pure but for
reading that file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from qwen_rig.catalog import schema

DATA = Path(__file__).parents[1] / "data"


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


@cache
def load_advisories() -> tuple[Advisory, ...]:
    """All of them. Raises RigError naming file and key."""
    table = schema.read(DATA / "advisories.yml")
    found = []
    for row in table.tables("advisories"):
        when = []
        for name, wanted in row.take("when", dict).items():
            try:
                when.append((str(name), SpecifierSet(wanted)))
            except (InvalidSpecifier, TypeError, AttributeError):
                raise row.error(f"{row.key('when')}.{name} must be like \">=4.46,<4.47\", not {wanted!r}") from None
        found.append(Advisory(row.take("text", str), row.take("source", str), tuple(when)))
        row.done()
    table.done()
    return tuple(found)


def about(versions: Mapping[str, str]) -> tuple[Advisory, ...]:
    """Those that are about a set of packages (canonical name → version)."""
    return tuple(advisory for advisory in load_advisories() if advisory.about(versions))
