"""Every file in cases/<module.Fact>/ is one test of that fact: {source, output, fact} and, where it takes any, arg.

To add a case, drop a file. `source` begins with "captured" only where the output was really captured, else with
"synthesized"; `output` is what the fact's command prints.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyinfra_testing.facts import make_fact_tests

CASES = Path(__file__).parent / "cases"
FOLDERS = sorted(path for path in CASES.iterdir() if path.is_dir())
FILES = sorted(CASES.glob("*/*.yaml"))


def _suite(folder: Path) -> Any:
    return pytest.mark.filterwarnings("ignore:No command set")(make_fact_tests("facts", folder.name, folder))


with warnings.catch_warnings():
    for _folder in FOLDERS:
        globals()[f"Test{_folder.name}"] = _suite(_folder)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_case_says_where_its_text_is_from(path: Path) -> None:
    assert re.match("(captured|synthesized)\\b", yaml.safe_load(path.read_text())["source"])
