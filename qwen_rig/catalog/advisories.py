"""Known faults of versions: qwen_rig/data/advisories.yml, loaded, checked and asked for a set of packages, the cards
that they shall run on and the model that is wanted. Pure but for reading that file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from qwen_rig.catalog.datafile import DATA, MaybeTexts, Row, SpecifierText, Text, load
from qwen_rig.frozen import frozen


@frozen
class Advisory:
    """What the user should know of some versions, with its source; `when` names them ({} : always), `cards` the compute
    capabilities that it is about (None: all), `families` those of transformers ((): all)."""

    text: str
    source: str
    when: tuple[tuple[str, SpecifierSet], ...] = ()
    cards: SpecifierSet | None = None
    families: tuple[str, ...] = ()

    def about(self, versions: Mapping[str, str], cards: Iterable[Version | None] = (None,),
              family: str | None = None) -> bool:
        """Whether these packages (canonical name → version), on one of these cards (by compute capability, None: not
        known, which may be any), for a model of that family (None: whichever the stack trains) are what it is about."""
        return (all(name in versions and wanted.contains(versions[name], prereleases=True)
                    for name, wanted in self.when)
                and (self.cards is None or any(card is None or card in self.cards for card in cards))
                and (not self.families or family is None or family in self.families))


@frozen
class _Entry(Row):
    when: dict[Text, SpecifierText]
    text: Text
    source: Text
    cards: SpecifierText | None = None
    families: MaybeTexts = ()


@frozen
class AdvisoriesFile(Row):
    """The form of advisories.yml."""

    advisories: tuple[_Entry, ...]


@cache
def load_advisories() -> tuple[Advisory, ...]:
    """All of them. Raises RigError naming file and key."""
    return tuple(Advisory(row.text, row.source, tuple((name, SpecifierSet(text)) for name, text in row.when.items()),
                          SpecifierSet(row.cards) if row.cards else None, row.families)
                 for row in load(DATA / "advisories.yml", AdvisoriesFile).advisories)


def about(versions: Mapping[str, str], cards: Sequence[Version | None] = (None,),
          family: str | None = None) -> tuple[Advisory, ...]:
    """Those that are about a set of packages, on these cards, for a model of that family (Advisory.about)."""
    return tuple(advisory for advisory in load_advisories() if advisory.about(versions, cards, family))
