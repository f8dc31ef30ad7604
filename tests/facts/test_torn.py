"""What is torn of an env, by its packages' and its Python's own records: in real shells, on make-believe envs."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qwen_rig.facts.env import EnvPackages

from .test_shell import _run, _script, _stdlib, each_shell

RECORDS = {  # package → its RECORD; beside them lie x,y.py (2 bytes), qu"o.py (1), shared.py (3), bin/a outside
    "a-1": '"x,y.py",sha256=q,2\nshared.py,sha256=1,3\n"qu""o.py",sha256=z,1\n../../../bin/a,sha256=1,9\n'
           'a-1.dist-info/INSTALLER,h,4\na-1.dist-info/RECORD,,\na/__pycache__/x.pyc,,\n'
           'a/__pycache__/y.pyc,sha256=1,77\n__pycache__/z.pyc,sha256=1,5\n',  # as numpy 2.2.6 has one
    "b-1": "shared.py,sha256=1,4\n", "c_d-2": "x,y.py,h,1\n/abs.py,h,1\n", "lost-3": "lost/__init__.py,h,3\r\n",
    "cut-4": 'shared.py,,3\n"x,y.py",sha256=q,7\ncut.py,sha256=h,2', "no-5": None}


@each_shell
def test_a_packages_files_are_held_to_its_record(shell: list[str], tmp_path: Path) -> None:
    """Quoted paths, what two packages claim, what lies outside, what has no size, what is compiled; two torn ones."""
    site = tmp_path / "lib" / "python3.10" / "site-packages"
    for package, record in RECORDS.items():
        (site / f"{package}.dist-info").mkdir(parents=True)
        (site / f"{package}.dist-info" / "METADATA").touch()
        if record is not None:
            (site / f"{package}.dist-info" / "RECORD").write_text(record)
    for name, size in (("x,y.py", 2), ('qu"o.py', 1), ("shared.py", 3), ("cut.py", 3), ("unclaimed.py", 1)):
        (site / name).write_text("x" * size)
    _stdlib(tmp_path)
    _script(tmp_path / "bin" / "python", "")

    def read() -> dict[str, Any]:
        found = EnvPackages().process(_run(EnvPackages().command(str(tmp_path)), shell))
        assert found is not None
        return found

    assert read()["torn"] == {"cut": "cut.py was changed", "lost": "lost/__init__.py is gone"}
    (site / "lost").mkdir()
    (site / "lost" / "__init__.py").symlink_to(site / "shared.py")
    (site / "cut.py").write_text("xx")
    assert read()["torn"] == {} and read()["gone"] is None
    (tmp_path / "conda-meta").mkdir()
    assert read()["gone"] == "conda's record of its Python is gone"
    (tmp_path / "conda-meta" / "python-3.10.1-0.json").write_text("{}")
    assert read()["gone"] is None
    (tmp_path / "lib" / "python3.10" / "os.py").unlink()
    assert read()["gone"] == "its Python's standard library is gone"
    base = tmp_path / "base"  # a venv's is elsewhere, and has no record
    _stdlib(base)
    (tmp_path / "pyvenv.cfg").write_text(f"home = {base}/bin\nversion = 3.10.1\n")
    assert read()["gone"] is None
    (base / "lib" / "python3.10" / "json.py").unlink()
    assert "/base/lib/python3.10/json is gone" in read()["gone"]
    (tmp_path / "pyvenv.cfg").write_text("version = 3.10.1\n")  # nobody knows where
    assert read()["gone"] is None
    (tmp_path / "bin" / "python").unlink()
    (tmp_path / "bin" / "python").symlink_to("python3.10")
    assert (read()["gone"], read()["python"]) == ("its Python is gone", None)


BASE = {  # path → (its size, what conda's record says besides)
    "lib/python3.10/json/__init__.py": (40, {}), "lib/python3.10/json/decoder.py": (9, {}),
    "lib/python3.10/lib-dynload/_lzma.so": (7, {}), "lib/libpython3.10.so.1.0": (12, {}), "include/python3.10/Python.h":
    (3, {}), "bin/python3.10": (30, {"file_mode": "binary", "prefix_placeholder": "/opt/x"}),
    "bin/pydoc3": (20, {"file_mode": "text", "prefix_placeholder": "/opt/x"}), "lib/libssl.so.3": (5, {}),
    "lib/python3.10/x y.py": (4, {})}
LINKS = {"bin/python": "python3.10", "lib/libpython3.10.so": "libpython3.10.so.1.0"}
IGNORED = ("lib/python3.10/test/test_x.py", "lib/python3.10/__pycache__/a.pyc", "lib/python3.10/site-packages/pip/x.py",
           "share/man/x.1", "lib/libpython3.10.a")
TEARS = [  # what is done in the env's folder, and the file that is named
    ("rm -r lib/python3.10/json", "lib/python3.10/json/__init__.py is gone"),
    ("rm lib/python3.10/json/decoder.py", "lib/python3.10/json/decoder.py is gone"),
    (": >lib/python3.10/json/decoder.py", "lib/python3.10/json/decoder.py was changed"),
    ("echo >>lib/python3.10/'x y.py'", "lib/python3.10/x y.py was changed"),
    ("rm lib/python3.10/lib-dynload/*", "lib/python3.10/lib-dynload/_lzma.so is gone"),
    ("rm lib/libpython3.10.so", "lib/libpython3.10.so is gone"), ("rm lib/libssl.so.3", "lib/libssl.so.3 is gone"),
    ("rm lib/libpython3.10.so.1.0", "lib/libpython3.10.so is gone"),
    ("echo >>bin/python3.10", "bin/python3.10 was changed"),
    ("rm include/python3.10/Python.h; mkdir include/python3.10/Python.h", "include/python3.10/Python.h is gone"),
    ("rm bin/pydoc3", "bin/pydoc3 is gone"),
    ("ln -sf nowhere lib/libssl.so.3", "lib/libssl.so.3 is gone"),
    ("rm bin/python", "its Python is gone"), ("rm conda-meta/python-3*", "conda's record of its Python is gone"),
    ("rm lib/python3.10/os.py", "its Python's standard library is gone")]
UNTORN = [  # and what says nothing of a Python
    "echo longer >>bin/pydoc3", "rm conda-meta/openssl-*", "mv lib/libssl.so.3 lib/real; ln -s real lib/libssl.so.3",
    "rm bin/python; cp bin/python3.10 bin/python", "echo >>lib/own.so", ": >conda-meta/openssl-3.0-0.json"]


@each_shell
@pytest.mark.parametrize("indent", [2, None], ids=["as conda has it", "in one line"])
def test_an_envs_python_is_held_to_condas_record(shell: list[str], indent: int | None, tmp_path: Path) -> None:
    """Each kind of tear is named by its file; what installs change, and what nobody needs, is not."""
    env = tmp_path / "env"
    _stdlib(env)
    for file, (size, _) in BASE.items():
        (env / file).parent.mkdir(parents=True, exist_ok=True)
        (env / file).write_text("x" * size)
        (env / file).chmod(0o755)
    for link, to in LINKS.items():
        (env / link).symlink_to(to)
    rows = {file: {"_path": file, "path_type": "hardlink", "sha256": "0" * 64, "size_in_bytes": size, **more}
            for file, (size, more) in BASE.items()}
    ignored = {file: {"_path": file, "path_type": "hardlink", "size_in_bytes": 1} for file in IGNORED}
    links = {link: {"_path": link, "path_type": "softlink", "size_in_bytes": 0} for link in LINKS}
    openssl = rows.pop("lib/libssl.so.3")
    told = [*rows.values(), *ignored.values(), *links.values(), {**rows["bin/python3.10"], "size_in_bytes": 1}]
    (env / "conda-meta").mkdir()
    for name, depends, paths in (("python-3.10.1-0", ["openssl >=3,<4", "tzdata", "nothere"], told),
                                 ("openssl-3.0-0", [], [openssl])):
        (env / "conda-meta" / f"{name}.json").write_text(json.dumps(
            {"depends": depends, "files": [row["_path"] for row in paths], "link": {"type": 1},
             "paths_data": {"paths": paths, "paths_version": 1}, "size": 9}, indent=indent))
    script = EnvPackages().command(".")
    for tear, said in [("true", None), *TEARS, *((each, None) for each in UNTORN)]:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(env, copy, symlinks=True)
        subprocess.run(["sh", "-ec", tear], cwd=copy, check=True)
        found = EnvPackages().process(_run(f"cd {shlex.quote(str(copy))}\n{script}", shell))
        assert found is not None
        assert (found["gone"] or "").endswith(said or "") and bool(found["gone"]) == bool(said), (tear, found["gone"])
