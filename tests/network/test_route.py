"""The choice among sources (pure), and the script that measures them, run here against real HTTP on loopback."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from qwen_rig import knobs
from qwen_rig.catalog import sources
from qwen_rig.catalog.torch_index import TorchSource
from qwen_rig.deploy.planning import make_plan
from qwen_rig.errors import RigError
from qwen_rig.network import measure
from qwen_rig.network.measure import Probe
from qwen_rig.network.route import DEFAULT, Measured, Source, candidates, choose, needs, torch_sources, unmeasured
from qwen_rig.plan import Action
from tests import HANG_S
from tests.plan.states import RTX5090, bare, context

NAMES = ("one", "two", "three")
FOUND = {"pip_index": (Source("pip_index", DEFAULT, None),
                       *(Source("pip_index", name, f"http://{name}.test/simple") for name in NAMES))}


def seen(label: str, speed: int, verdict: str = "ok") -> Measured:
    return Measured("pip_index", label, speed, 1000, verdict)


@pytest.mark.parametrize(("rows", "order"), [
    ([seen(DEFAULT, 3_000_000), seen("one", 90_000_000)], [DEFAULT, "one"]),  # good enough: nobody changes its source
    ([seen(DEFAULT, 40_000), seen("one", 900_000), seen("two", 9_000_000)], ["two", "one", DEFAULT]),
    ([seen(DEFAULT, 0, "Could not resolve host"), seen("one", 30_000, "slow"), seen("two", 0, "404")], ["one"]),
    ([seen("one", 90_000_000, "lies"), seen("two", 5)], ["two"]),
    ([], [DEFAULT]),  # a host with neither curl nor wget: as if nothing was asked
])
def test_the_order_is_by_what_was_measured(rows: list[Measured], order: list[str]) -> None:
    route, wrong = choose(FOUND, rows)
    assert [source.label for source in route.of("pip_index")] == order and not wrong
    assert any(row.verdict == "lies" for row in rows) == any("isn't the locked one" in said for said in route.said)


def test_none_that_serves_is_said_with_each_reason() -> None:
    rows = [seen(DEFAULT, 0, "Could not resolve host"), seen("one", 0, "404"), seen("two", 5, "lies")]
    _, wrong = choose(FOUND, rows)
    assert len(wrong) == 1
    assert all(word in wrong[0] for word in ("packages can't be fetched", "resolve host", "404", "lies"))


@pytest.mark.parametrize(("role", "said"), [
    ("conda_channel", "Python for the env from mirror one, measured fastest: conda checks these against that mirror's "
                      "own list only; we hold no hash of them"),
    ("huggingface", "models from mirror one, measured fastest: they are checked against that mirror's own listing "
                    "only; we hold no hash of them"),
    ("pip_index", "packages from mirror one, measured fastest"),
])
def test_a_mirror_of_what_we_hold_no_hash_of_says_so(role: str, said: str) -> None:
    rows = tuple(Source(role, label, f"https://{label}.test") for label in (DEFAULT, "one"))
    route, _ = choose({role: rows}, [Measured(role, "one", 10, 1, "ok")])
    assert route.said == (said,)


def test_a_model_to_prefetch_is_reason_enough_to_measure_hubs() -> None:
    plan = make_plan(context(bare(RTX5090), prefetch_model="Qwen/Qwen2.5-0.5B"))
    env = plan.step("env")
    built = tuple(replace(step, action=Action.NONE) if step is env else step for step in plan.steps)
    assert "conda_channel" in needs(plan) and needs(plan).count("huggingface") == 1
    assert needs(replace(plan, steps=built)) == ("miniforge", "huggingface")
    done = tuple(replace(step, action=Action.NONE) if step.component == "prefetch" else step for step in built)
    assert needs(replace(plan, steps=done)) == ("miniforge",)


def test_the_users_own_source_has_no_rivals_and_off_asks_nobody() -> None:
    roles = ["pip_index", "conda_channel", "miniforge", "huggingface"]
    own = candidates(context(bare(RTX5090), source_pip_index="https://own.test/simple"), roles)
    assert [source.url for source in own["pip_index"]] == ["https://own.test/simple"]
    assert len(own["conda_channel"]) > 1 and all("{" not in (s.url or "") for rows in own.values() for s in rows)
    off = candidates(context(bare(RTX5090), mirrors="off"), roles)
    assert all(len(rows) == 1 for rows in off.values())
    assert unmeasured(off).first("pip_index") is None, "the client's own default stays its own business"


def test_pips_own_configuration_on_the_host_is_the_default_there() -> None:
    state = bare(RTX5090)
    state["host"]["network"]["pip_index"] = "https://lan.test/simple"
    assert candidates(context(state), ["pip_index"])["pip_index"][0].url == "https://lan.test/simple"
    state["host"]["network"]["pip_index"] = "https://***@lan.test/simple"  # a password: pip alone may know it
    assert candidates(context(state), ["pip_index"])["pip_index"][0].url is None


@pytest.mark.parametrize(("text", "said"), [
    ("mirrors: {Bad Name: {pip_index: 'https://a.test', source: x}}", "has the name 'Bad Name'"),
    ("mirrors: {a: {pip_index: a.test, source: x}}", "must be a URL"),
    ("mirrors: {a: {pip: 'https://a.test', source: x}}", "unknown key mirrors.a.pip"),
    ("[", "is no YAML"),
])
def test_a_mirrors_file_is_checked_like_ours(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text(text)
    with pytest.raises(RigError, match=said) as caught:
        knobs.check("mirrors", str(tmp_path / "mine.yml"))
    assert "\n" not in str(caught.value)
    with pytest.raises(RigError, match="can't be read"):
        knobs.check("mirrors", "fast")


def test_mirrors_written_out_where_they_are_used() -> None:
    said = knobs.check("mirrors", {"lan": {"pip_index": "https://lan.test/simple"}}, "lab.yml:3")
    assert sources.load_mirrors(said) == {"lan": {"pip_index": "https://lan.test/simple"}}
    found = candidates(context(bare(RTX5090), mirrors=said), ["pip_index"])["pip_index"]
    assert [source.label for source in found] == [DEFAULT, "lan"]
    for wrong, words in (({"lan": {"pip": "https://lan.test"}}, "unknown key mirrors.lan.pip"), ("{lan: x", "no JSON"),
                         ({"lan": 3}, "must be a mapping"),
                         ({"lan": {"pip_index": "https://x.lan/{arch}/"}}, "lan.pip_index has a placeholder .*none"),
                         ({"lan": {"miniforge": "https://x.lan/{}"}}, "it takes {version}"),
                         ({"lan": {"torch_index": "https://x.lan/{cuda"}}, "it takes {cuda}")):
        with pytest.raises(RigError, match=words) as caught:
            knobs.check("mirrors", wrong, "lab.yml:3")
        assert "\n" not in str(caught.value)


def test_our_own_mirrors_have_sources_and_known_roles() -> None:
    assert set().union(*sources.load_mirrors("auto").values()) == set(sources.ROLES)


BODY = b"the locked bytes" * 100


@pytest.fixture
def url() -> Iterator[str]:
    """Mirrors by first path segment: good, lying, gone, hashless (its page gives no hash)."""
    sha = hashlib.sha256(BODY).hexdigest()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, _, rest = self.path.strip("/").partition("/")
            if rest.startswith("simple/six") and kind != "gone":
                fragment = "" if kind == "hashless" else f"#sha256={sha}"
                text = ('<a href="../../f/six-1.16.0.tar.gz">old</a>\n'
                        f'<a class="x" href="../../f/six-1.17.0-py3.whl{fragment}"'
                        ' data-requires-python="&gt;=2.7">six</a>').encode()
            elif rest.startswith("f/six-1.17.0"):
                text = b"other" + BODY[5:] if kind == "lying" else BODY
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_the_host_times_and_hashes_a_locked_file(url: str) -> None:
    found = {"pip_index": tuple(Source("pip_index", label, f"{url}/{kind}/simple") for label, kind in
                                ((DEFAULT, "gone"), ("good", "good"), ("liar", "lying"), ("bare", "hashless")))}
    probe = Probe("six", "1.17.0", ("0" * 64, hashlib.sha256(BODY).hexdigest()))
    script = measure.script(found, probe, {}, {}, {"proxy": "", "secret_tunnel": ""})
    done = subprocess.run(["sh", "-c", script.text], input=script.stdin(), capture_output=True, text=True,
                          timeout=HANG_S)
    rows = {row.label: row for row in measure.read(done.stdout)}
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "404" in rows[DEFAULT].verdict
    assert (rows["good"].verdict, rows["good"].bytes) == ("ok", len(BODY))
    assert (rows["liar"].verdict, rows["bare"].verdict) == ("lies", "ok")


def test_torch_from_an_index_of_its_own_has_mirrors_only_where_hashes_guard_it() -> None:
    from qwen_rig.deploy.env.installers import options

    ctx = context(bare(RTX5090))
    hashed = TorchSource("https://torch.test/cu128", ("torch",), "torch==2.8.0+cu128 --hash=…\n", True, False, False)
    found = {source.role: options(source) for source in torch_sources(ctx, hashed)[1:]}
    assert found["torch_find_links"].startswith("--no-index --find-links "), "a flat listing is no index"
    assert found["torch_index"].startswith("--index-url ") and all("/cu128" in words for words in found.values())
    assert len(torch_sources(ctx, replace(hashed, hashed=False))) == 1
