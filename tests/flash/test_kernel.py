"""The rungs beside flash-attn 2's wheels: Hugging Face's kernel, from what `make pins` asks to what training is told;
and flash-attn 4, on the cards and head dimensions that it can do with.

STAND-INS: the Hub and its kernel (testbed/hub.py), `kernels`, torch and the proof's figures. Real: the Hub's form, the
hashes, what lies on the host afterwards. tests/training/test_today.py gives the same kernel to the real transformers.
"""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pip
import pytest
import yaml
from packaging.version import Version

from qwen_rig.catalog import flash4, hub_kernel
from qwen_rig.catalog.lock import read_lock, select
from qwen_rig.catalog.sources import load_sources
from qwen_rig.catalog.stack import DATA, load_stack
from qwen_rig.deploy.flash_attn import answers, plan
from qwen_rig.deploy.training.plan import settings
from qwen_rig.errors import RigError
from qwen_rig.plan import Context
from qwen_rig.run.network import Network
from scripts import pins
from testbed import hub
from testbed.httpd import Server, Site
from tests.plan.states import context
from tests.plan.test_plan import converged
from tests.plan.test_stored_form import SMI

HOST = DATA.parent / "host"
ROW = load_sources().flash_attn.kernel
TORCH, PINS = load_stack("qwen3.5").torch, load_stack("qwen3.5").pins
KERNELS = """import importlib.util, os
from pathlib import Path

def get_kernel(repo):  # a stand-in for `kernels`: what LOCAL_KERNELS names, of the one build that lies there
    name, _, folder = os.environ["LOCAL_KERNELS"].partition("=")
    assert name == repo
    file, = Path(folder).glob("build/*/__init__.py")
    spec = importlib.util.spec_from_file_location("kernel", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
"""
PASSES = """
def check(head_dims, attention):
    function_of(attention)
    return verdict("pass", version="", worst=0.003, speed=[{"head_dim": d, "ms": 1, "sdpa_ms": 2} for d in head_dims])

"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    shutil.copytree(hub.folder(), tmp_path / "hub")
    made = Server(("127.0.0.1", 0), Site(str(tmp_path), {}, {"hub": str(tmp_path / "hub")}))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/hub"


def pin(tmp_path: Path, address: str) -> Path:
    """What `make pins` does about the kernel, in a copy of the data."""
    (tmp_path / "data" / "locks").mkdir(parents=True, exist_ok=True)
    shutil.copy(DATA / "sources.yml", tmp_path / "data")
    return pins.hub_kernel(pins.parser().parse_args(["--data", str(tmp_path / "data"), "--hub", address]), ROW)


@pytest.fixture
def opened(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The Hub's address, once its kernel's files are pinned."""
    lock = pin(tmp_path, address)
    row = SimpleNamespace(flash_attn=SimpleNamespace(kernel=replace(ROW, lock=str(lock))))
    monkeypatch.setattr(hub_kernel, "load_sources", lambda: row)
    return address


def host(attention: dict[str, Any] | None = None, stack: str = "qwen3.5", **knobs: Any) -> Context:
    """A host with one RTX 5090 and an env, for which that stack is asked."""
    state = converged("guide")
    state["gpus"] = SMI[:1]
    state["generations"][0]["records"]["flash_attn"] = attention
    return context(state, stack, **knobs)


@pytest.fixture
def deciding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """attention.py on a host's .rig: torch, `kernels` and the proof's figures are stand-ins."""
    monkeypatch.syspath_prepend(str(HOST))
    program, rig = importlib.import_module("attention"), tmp_path / "rig"
    rig.mkdir()
    check = (HOST / "flash_attn_check.py").read_text()
    (rig / "flash_attn_check.py").write_text(check.replace("def main():", f"{PASSES}def main():"))
    (rig / "torch.py").write_text("")
    (rig / "kernels.py").write_text(KERNELS)
    monkeypatch.setattr(program, "HERE", rig)

    def decide(wheels: list[Any], **more: Any) -> tuple[dict[str, Any], Path]:
        spec = {"package": "rig-none-of-these", "check": "flash_attn_check.py", "gpu": True, "tried": [],
                "rejected": [], "companions": [], "wheels": [wheel.to_json() for wheel in wheels], "last": True,
                "build": None, "fingerprint": "f", "minutes": 0, "head_dims": [256], "faster_pct": 2, "index": None,
                "seconds": {"install": 60, "import": 60, "check": 60}, **more}
        made = program.decide(json.loads(json.dumps(spec)))
        (rig / "flash_attn.json").write_text(json.dumps(made))
        return made, rig

    return decide


def test_the_kernel_is_closed_until_make_pins_has_asked_for_its_files() -> None:
    ctx = host()
    closed = f"{ROW.repo} v3, torch-stable-abi210-cu130-x86_64-linux"
    assert not any(wheel.rung == "kernel" for wheel in plan.flash_spec(ctx).wheels)
    assert f"kernel {ROW.repo} v3: {plan.UNASKED}" in plan.step(ctx, []).why
    assert any(rule.text == f"closed: {closed}: {plan.UNASKED}" for rule in plan.explain(ctx)[1])
    assert plan.step(ctx, []).fetches == ("flash_attn",)


@pytest.mark.parametrize(("stack", "capability", "glibc", "build"), [
    ("qwen3.5", "12.0", "2.39", "cu130"), ("qwen3.5-cu128", "8.6", "2.39", "cu128"), ("grpo", "9.0", "2.28", "cu130"),
    ("qwen3.5", "7.5", "2.39", None), ("qwen3.5", "12.0", "2.27", None), ("qwen3.5", "11.0", "2.39", None),
    ("guide", "12.0", "2.39", None), ("qwen3", "12.0", "2.39", None), ("standin", "12.0", "2.39", None)])
def test_the_kernel_fits_stacks_whose_transformers_takes_it_and_cards_that_it_has_code_for(
        stack: str, capability: str, glibc: str, build: str | None) -> None:
    of = load_stack(stack)
    found = hub_kernel.kernel(of.pins, of.torch, glibc, [Version(capability)])
    assert (found and found.name) == (build and f"{ROW.repo} v3, torch-stable-abi210-{build}-x86_64-linux")


def test_a_closed_kernel_leaves_the_decision_on_record_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = plan.flash_spec(host()).fingerprint
    monkeypatch.setattr(plan, "kernel", lambda *_: None)
    assert plan.flash_spec(host()).fingerprint == with_it


def test_the_kernel_comes_by_its_pins_and_training_is_told_where_it_lies(opened: str, deciding: Any) -> None:
    ctx = host(source_huggingface=opened)
    wheels = plan.flash_spec(ctx).wheels
    assert [wheel.rung for wheel in wheels] == ["kernel"] and "huggingface" in plan.step(ctx, []).fetches
    assert f"kernel {ROW.repo} v3 at {hub.COMMIT[:12]}, else " in plan.step(ctx, []).wanted
    made, rig = deciding(Network(lambda: pytest.fail("no tunnel")).flash_wheels(ctx, wheels))
    assert (made["attention"], made["rung"], made["came"]) == (ROW.repo, "kernel", []), made
    laid = rig / "kernels" / ROW.repo
    assert {str(path.relative_to(laid / hub.BUILD)): path.read_bytes() for path in laid.rglob("*") if path.is_file()
            and path.suffix != ".pyc"} == hub.KERNEL_FILES
    said = answers.proven([json.dumps(made)])
    assert said and said["version"] == f"v3 at {hub.COMMIT[:12]}" and "SDPA 2.00 ms" in said["speed"]
    want = settings(host(made))
    env = f"/root/miniforge3/envs/{ctx.knobs.env_name}"
    assert want["attn_implementation"] == ROW.repo and want["attention_from"]["rung"] == "kernel"
    assert want["environment"]["LOCAL_KERNELS"] == f"{ROW.repo}={env}/.rig/kernels/{ROW.repo}"
    assert "environment" not in settings(host({**made, "attention": "flash_attention_2"}))
    four = settings(host({**made, "attention": "flash_attention_4"}))
    assert four["environment"]["FLASH_ATTENTION_CUTE_DSL_CACHE_DIR"] == f"{env}/.rig/kernels/flash-attn-4"


@pytest.mark.parametrize("name", ["__init__.py", "_flash_attn2_cuda_standin.abi3.so"])
def test_a_file_of_other_bytes_is_no_kernel_and_nothing_of_it_stays(opened: str, deciding: Any, tmp_path: Path,
                                                                     name: str) -> None:
    (tmp_path / "hub" / "kernels" / ROW.repo / "resolve" / hub.COMMIT / hub.BUILD / name).write_bytes(b"another")
    ctx = host(source_huggingface=opened)
    made, rig = deciding(Network(lambda: pytest.fail("no tunnel")).flash_wheels(ctx, plan.flash_spec(ctx).wheels))
    assert made["rung"] == "sdpa" and made["tried"][0]["why_not"] == (
        f"not installed: {name}: its bytes aren't those of the sha256 that is pinned")
    assert not (rig / "kernels").exists()


def test_a_decision_for_something_else_takes_the_kernel_away(opened: str, deciding: Any) -> None:
    ctx = host(source_huggingface=opened)
    made, rig = deciding(Network(lambda: pytest.fail("no tunnel")).flash_wheels(ctx, plan.flash_spec(ctx).wheels))
    assert made["rung"] == "kernel"
    assert deciding([])[0]["rung"] == "sdpa" and not (rig / "kernels").exists()


@pytest.mark.parametrize("path", ["../../../etc/cron.d/x", "/etc/x", "a/../../x", "a/.ssh", "$(id)", "x\ny"])
def test_a_hub_names_no_place_of_a_host(tmp_path: Path, address: str, path: str) -> None:
    row = {"type": "file", "size": 1, "path": f"{hub.BUILD}/{path}", "lfs": {"oid": "0" * 64}}
    (tmp_path / "hub" / "api" / "kernels" / ROW.repo / "tree" / hub.COMMIT / hub.BUILD).write_text(json.dumps([row]))
    with pytest.raises(RigError) as error:
        pin(tmp_path, address)
    assert "name a file below" in str(error.value.remedy) and not list((tmp_path / "data" / "locks").iterdir())


@pytest.mark.parametrize("answer", ["[]", "{}", '{"sha": 5}', '["x"]', '{"sha": "main"}'])
def test_what_is_no_hub_is_told_and_nothing_is_written(tmp_path: Path, address: str, answer: str) -> None:
    (tmp_path / "hub" / "api" / "kernels" / ROW.repo / "revision" / "v3").write_text(answer)
    with pytest.raises(pins.Unreachable, match=r"Hub|has no build"):
        pin(tmp_path, address)
    assert not list((tmp_path / "data" / "locks").iterdir())
    assert (tmp_path / "data" / "sources.yml").read_bytes() == (DATA / "sources.yml").read_bytes()


def test_make_pins_writes_the_lock_and_its_name_and_nothing_else(tmp_path: Path, address: str) -> None:
    lock = yaml.safe_load(pin(tmp_path, address).read_text())
    assert lock["revision"] == hub.COMMIT and [*lock["builds"]] == ["torch-stable-abi210-cu130-x86_64-linux"]
    before, after = (yaml.safe_load((folder / "sources.yml").read_text()) for folder in (DATA, tmp_path / "data"))
    before["source_flash_attn"]["kernel"]["lock"] = "hub-kernel.yml"
    assert after == before


FITS = ("9.0", [64, 128, 256]), ("10.0", [256]), ("10.3", [128]), ("11.0", [256]), ("12.0", [64, 128]), ("12.1", [128])
UNFIT = ("8.0", [64]), ("8.9", [128]), ("7.5", [64]), ("12.0", [64, 256]), ("12.1", [256])


@pytest.mark.parametrize(("capability", "dims"), FITS)
def test_flash_attn_4_goes_first_where_it_is_asked_for(capability: str, dims: list[int]) -> None:
    found, why = flash4.candidate(PINS, TORCH, "3.12", [Version(capability)], dims)
    assert found and not why and found.own and found.own["attention"] == "flash_attention_4"


@pytest.mark.parametrize(("capability", "dims"), UNFIT)
def test_flash_attn_4_is_refused_by_data_where_it_cant_train(capability: str, dims: list[int]) -> None:
    found, why = flash4.candidate(PINS, TORCH, "3.12", [Version("9.0"), Version(capability)], dims)
    assert found is None and len(why) == 1 and f"sm_{capability.replace('.', '')}" in why[0], why
    assert "flash-attention#2902" in why[0] or not capability.startswith("12")


def test_flash_attn_4_is_opt_in_and_says_why_it_is_out() -> None:
    assert not any("flash-attn 4" in line for line in plan.flash_spec(host()).rejected)
    asked = host(flash_attn="fa4", model="Qwen/Qwen3.5-9B")
    assert "too little shared memory for head_dim 256" in plan.step(asked, []).why
    assert any(rule.text.startswith("out: flash-attn 4: sm_120") and rule.source == plan.FA4_FILE
               for rule in plan.explain(asked)[1])
    fits = host(flash_attn="fa4", model="Qwen/Qwen3-8B")
    assert plan.flash_spec(fits).wheels[0].rung == "fa4"
    assert plan.step(fits, []).wanted.startswith("wheel flash_attn_4-4.0.0b36, else ")


def test_flash_attn_4_comes_with_what_the_env_lacks_and_goes_with_it(deciding: Any,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    program, there, lines = sys.modules["attention"], {"einops": "0.8.2", "rig-none-of-these": "2.8"}, list[str]()

    def pip(*words: str, seconds: int) -> tuple[int, list[str]]:
        if words[0] == "uninstall":
            for name in words[3:]:
                del there[name]
        else:
            wanted = Path(words[words.index("-r") + 1]).read_text().splitlines()
            lines.extend(wanted)
            there.update(line.split()[0].split("==") for line in wanted)
        return 0, []

    monkeypatch.setattr(program, "pip", pip)
    monkeypatch.setattr(program, "installed", there.get)
    monkeypatch.setattr(program.importlib.metadata, "files", lambda name: [])
    monkeypatch.setattr(program, "prove", lambda spec, limits: (None, {"speed": []}))
    found, _ = flash4.candidate(PINS, TORCH, "3.12", [Version("12.0")], [128])
    made, _ = deciding([found])
    row = flash4.flash4()
    assert (made["attention"], made["version"], made["rung"]) == ("flash_attention_4", row.version, "fa4")
    assert lines[0] == f"flash-attn-4=={row.version} --hash=sha256:{row.sha256}"
    assert all("--hash=" in line for line in lines)
    assert "rig-none-of-these" not in there, "flash-attn 2 and 4 share a folder: never both"
    assert "nvidia-cutlass-dsl" in made["came"] and "einops" not in made["came"]
    assert deciding([])[0]["rung"] == "sdpa" and there == {"einops": "0.8.2"}


def test_what_is_taken_out_leaves_no_folder_that_an_import_takes_for_it(tmp_path: Path) -> None:
    """With real pip, in an env of its own. Seen on an H200: pip leaves flash_attn/ of flash_attn/cute, and the next
    certificate failed."""
    venv.create(tmp_path / "env", symlinks=True)
    python, seen = tmp_path / "env/bin/python", {"PYTHONPATH": f"{HOST}:{Path(pip.__file__).parents[1]}"}
    wheels = [wheel(tmp_path, "four", {"shared/cute/__init__.py": "", "shared/cute/deep/er/x.py": "", "alone.py": ""}),
              wheel(tmp_path, "two", {"shared/ours/__init__.py": "", "gone/data/x.txt": ""})]
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-index", *wheels], env=seen, check=True)
    said = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    for names, left in ((("four", "nosuch"), ["shared", "shared.ours", "gone"]), (("two",), [])):
        looked = ["shared", *(["shared.ours"] if left else []), "gone", "alone"]
        for program in (f"import attention; attention.uninstall(*{names!r})", said):
            told = subprocess.check_output([python, "-c", program, *looked], env=seen, text=True)
        assert told.strip() == str(left)


def wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A wheel with those files."""
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
             f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    with zipfile.ZipFile(path, "w") as made:
        for file, text in files.items():
            made.writestr(file, text)
        made.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD")))
    return path


def test_the_wheel_of_flash_attn_4_is_the_one_that_its_lock_has() -> None:
    row = flash4.flash4()
    for python in row.pythons:
        held = select(read_lock(DATA / "locks" / row.lock, {}), python)
        assert f"sha256:{row.sha256}" in held["flash-attn-4"].hashes and held["flash-attn-4"].version == row.version
        assert "torch" not in held and "nvidia-cutlass-dsl-libs-cu13" in held
