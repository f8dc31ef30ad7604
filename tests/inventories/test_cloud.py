"""Rented machines: what each source's output becomes (one YAML file a case), and cloud.yml's own mistakes."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_rig.cloud import load_cloud
from qwen_rig.cloud.inventory import SOURCES
from qwen_rig.errors import RigError
from qwen_rig.hostkeys import KnownHosts
from qwen_rig.ssh import shell_line
from tests import until

from .conftest import ROOT, Port, Ran

FOLDER = Path(__file__).parent / "cloud"
CASES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yaml"))}


@pytest.mark.parametrize("name", CASES)
def test_what_a_source_says(name: str) -> None:
    case = CASES[name]
    assert case["provenance"].startswith(("recorded", "synthesized"))
    text = case["output"]
    data = text if case["source"] == "ssh" else json.loads(text)
    read = SOURCES[case["source"]]
    if "error" in case:
        with pytest.raises(RigError) as error:
            for one in read(data, "cloud.yml:1", case.get("options", {})):
                if one.wrong:
                    raise one.wrong
        assert case["error"] in str(error.value) and "cloud.yml:1" in str(error.value)
        assert "\n" not in str(error.value)
        return
    found = [[i.name, i.address, i.port, i.user, "running" if i.running else i.state]
             for i in read(data, "cloud.yml:1", case.get("options", {}))]
    assert found == case["expect"]


def test_every_source_has_a_case() -> None:
    assert {case["source"] for case in CASES.values()} | {"ssh-config", "libcloud"} == set(SOURCES)


def test_libcloud_by_its_own_dummy_provider() -> None:
    """The library's real code path, with the provider that it brings for tests."""
    pytest.importorskip("libcloud")
    os.environ["RIG_DUMMY"] = "0"
    found = list(SOURCES["libcloud"](None, "cloud.yml:1", {"provider": "dummy", "arguments": ["RIG_DUMMY"]}))
    assert [(i.name, i.address, i.state) for i in found][:1] == [("dummy-1", "127.0.0.1", "running")]
    with pytest.raises(RigError, match="environment variable RIG_NONE is not set"):
        list(SOURCES["libcloud"](None, "w", {"provider": "dummy", "arguments": ["RIG_NONE"]}))
    with pytest.raises(RigError, match="libcloud: "):
        list(SOURCES["libcloud"](None, "w", {"provider": "no such", "arguments": []}))


def test_aws_through_libcloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libcloud's own EC2 driver, made as cloud.yml says, asks a server that gives a recorded answer."""
    pytest.importorskip("libcloud")
    asked: list[str] = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = (FOLDER / "libcloud-ec2.xml").read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("RIG_AWS_ID", "an-id")
    monkeypatch.setenv("RIG_AWS_SECRET", "a-secret")
    found = load_cloud(cloud(tmp_path, {"aws": {
        "source": "libcloud", "provider": "ec2", "arguments": ["RIG_AWS_ID", "RIG_AWS_SECRET"], "user": "ubuntu",
        "keywords": {"region": "us-east-1", "host": "127.0.0.1", "port": server.server_port, "secure": False},
        "tags": {"project": "qwen"}, "group": "aws"}}), tmp_path / "known")
    server.shutdown()
    server.server_close()
    (name, data), = found.groups["aws"]
    assert (name, data["ssh_hostname"], data["ssh_user"]) == ("ec2-i-c93c11e43cac98db8", "54.214.227.17", "ubuntu")
    assert data["x_label"] == "train-01; $(id)"
    assert found.idle == ["ec2-i-e955f5ee1d9b99f98 ('train-01; $(id)') is stopped: listed, not dialled"]
    assert asked and all("an-id" in path and "a-secret" not in path for path in asked)


def cloud(folder: Path, sources: dict[str, Any], **more: Any) -> Path:
    (folder / "cloud.yml").write_text(yaml.safe_dump({"sources": sources, **more}))
    return folder / "cloud.yml"


def listed(folder: Path, *rows: dict[str, Any]) -> str:
    (folder / "vast.json").write_text(json.dumps(list(rows)))
    return "vast.json"


def row(number: int, label: str = "", state: str = "running", **more: Any) -> dict[str, Any]:
    return {"id": number, "actual_status": state, "ssh_host": "192.0.2.1", "ssh_port": 40000 + number, "label": label,
            **more}


def test_filtered_by_label_and_state(tmp_path: Path) -> None:
    file = listed(tmp_path, row(1, "train-a"), row(2, "web"), row(3, "train-$(touch x)`id`", "exited"))
    path = cloud(tmp_path, {"v": {"source": "vast", "file": file, "label": "train-*", "x_note": "mine"}})
    found = load_cloud(path, tmp_path / "known")
    assert [(name, data["ssh_hostname"], data["ssh_port"], data["x_label"], data["x_note"])
            for name, data in found.groups["vast"]] == [("vast-1", "192.0.2.1", 40001, "train-a", "mine")]
    assert found.idle == ["vast-3 ('train-$(touch x)`id`') is exited: listed, not dialled"]
    assert not list(tmp_path.glob("x")), "a label is text and nothing else"


@pytest.mark.parametrize("odd", [{"ssh_host": None}, {"ssh_host": "a b"}, {"ssh_port": "?"}])
@pytest.mark.parametrize("wanted", [{"label": "train-*"}, {"state": "run*"}, {"tags": {"gpu": "RTX 5090"}}])
def test_what_is_filtered_out_may_be_as_odd_as_it_likes(tmp_path: Path, odd: dict[str, Any], wanted: dict[str, Any],
                                                        ) -> None:
    file = listed(tmp_path, row(1, "train-a", gpu_name="RTX 5090"), row(2, "web", "loading", **odd),
                  row(3, "web", gpu_name="T4", **(odd if "state" not in wanted else {})))
    found = load_cloud(cloud(tmp_path, {"v": {"source": "vast", "file": file, **wanted}}), tmp_path / "known")
    assert found.groups["vast"][0][0] == "vast-1"
    listed(tmp_path, row(1, "train-a", gpu_name="RTX 5090", **odd))
    with pytest.raises(RigError, match="instance vast-1 "):
        load_cloud(tmp_path / "cloud.yml", tmp_path / "known")


def test_a_state_that_is_left_out_is_not_even_named(tmp_path: Path) -> None:
    file = listed(tmp_path, row(1), row(2, state="exited"), row(3, state="loading"))
    found = load_cloud(cloud(tmp_path, {"v": {"source": "vast", "file": file, "state": "[rl]*"}}), tmp_path / "known")
    assert [name for name, _ in found.groups["vast"]] == ["vast-1"] and len(found.idle) == 1


def test_a_key_path_is_a_path_whatever_is_in_it(tmp_path: Path, keys: Path) -> None:
    (tmp_path / "k; touch x `id`").write_bytes((keys / "plain").read_bytes())
    line = f"ssh -p 2200 -i {shlex.quote('k; touch x `id`')} root@192.0.2.1"
    found = load_cloud(cloud(tmp_path, {"b": {"source": "ssh", "hosts": [line]}}), tmp_path / "known")
    name, data = found.groups["ssh"][0]
    assert data["ssh_key"] == f"{tmp_path}/k; touch x `id`"
    assert shell_line(name, data) == f"ssh -p 2200 -i {shlex.quote(data['ssh_key'])} root@192.0.2.1"
    assert shell_line("a", {"ssh_user": "me; id"}) == "ssh 'me; id@a'", "a user of lab.yml's own"
    assert shell_line("my-cluster", {"ssh_hostname": "my-cluster"}) == "ssh my-cluster"


def test_a_proxy_command_never_sees_a_field_that_is_no_address(tmp_path: Path, pyinfra: Callable[..., Ran]) -> None:
    """%h of the user's own ssh_config is the one place where an address becomes a command."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(f"Host *\n  ProxyCommand touch {tmp_path}/ran-%h\n")
    ask, env = ("inventories/cloud.py", "fact", "server.Date"), {"HOME": str(tmp_path)}

    def at(address: str) -> dict[str, str]:
        file = listed(tmp_path, row(1, ssh_host=address))
        return {**env, "CLOUD_HOSTS": str(cloud(tmp_path, {"v": {"source": "vast", "file": file}}))}

    for address in ("x;touch$IFS/x", "-oProxyCommand=id", "fe80::1%$(id)", "a b", "$(id)", "a\nb"):
        ran = pyinfra(*ask, **at(address))
        assert ran.code == 1 and len(ran.said) == 1 and "its address can't be" in ran.said[0]
    assert not list(tmp_path.glob("ran-*"))
    with subprocess.Popen([sys.executable, "-m", "pyinfra", *ask], cwd=ROOT, env={**os.environ, **at("192.0.2.1")},
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: list(tmp_path.glob("ran-*")) or process.poll() is not None)
        process.kill()
    assert [path.name for path in tmp_path.glob("ran-*")] == ["ran-192.0.2.1"], "what is an address does get there"


@pytest.mark.parametrize(("source", "user", "key"), [
    ({"source": "ssh", "hosts": ["ssh -i own root@192.0.2.1"]}, "root", "own"),
    ({"source": "ssh", "hosts": ["ssh -i own root@192.0.2.1"], "user": "me", "key": "block"}, "me", "block"),
    ({"source": "ssh", "hosts": ["ssh 192.0.2.1"]}, "default", "default"),
    ({"source": "vast", "file": "vast.json"}, "root", "default"),
    ({"source": "vast", "file": "vast.json", "user": "me"}, "me", "default"),
    ({"source": "runpod", "file": "runpod.json"}, "root", "own"),
    ({"source": "ssh-config", "hosts": ["my-cluster"]}, None, None),
    ({"source": "ssh-config", "hosts": ["my-cluster"], "user": "me", "key": "block"}, "me", "block"),
])
def test_the_blocks_own_settings_then_the_instances_then_the_defaults(
        tmp_path: Path, keys: Path, source: dict[str, Any], user: str | None, key: str | None) -> None:
    for name in ("own", "block", "default"):
        (tmp_path / name).write_bytes((keys / "plain").read_bytes())
    listed(tmp_path, row(1))
    (tmp_path / "runpod.json").write_text(json.dumps([{
        "id": "p", "ip": "192.0.2.1", "port": 9, "ssh_command": "ssh", "ssh_key": {"path": str(tmp_path / "own")}}]))
    path = cloud(tmp_path, {"s": source}, defaults={"user": "default", "key": "default"})
    ((_, data),), = load_cloud(path, tmp_path / "known").groups.values()
    assert (data.get("ssh_user"), data.get("ssh_key")) == (user, key and str(tmp_path / key))


def test_a_command_is_run_without_a_shell(tmp_path: Path) -> None:
    say = [sys.executable, "-c", "import sys; print(sys.argv[1])", json.dumps([row(1, "$(id); x")])]
    found = load_cloud(cloud(tmp_path, {"v": {"source": "vast", "command": say}}), tmp_path / "known")
    assert found.groups["vast"][0][1]["x_label"] == "$(id); x"


def test_what_is_piped_in(tmp_path: Path) -> None:
    path = cloud(tmp_path, {"az": {"source": "azure", "stdin": True, "user": "azureuser"},
                            "box": {"source": "ssh", "group": "autodl", "hosts": ["ssh -p 9 root@192.0.2.1"]}})
    done = subprocess.run([sys.executable, "-m", "pyinfra", "inventories/cloud.py", "debug-inventory", "--json"],
                          cwd=ROOT, input=CASES["azure"]["output"], capture_output=True, text=True,
                          env={**os.environ, "CLOUD_HOSTS": str(path), "HOME": str(tmp_path)})
    host, box = json.loads(done.stdout)
    assert (host["data"]["ssh_hostname"], host["data"]["ssh_user"]) == ("203.0.113.40", "azureuser")
    assert box["data"]["data_dir"] == "/root/autodl-tmp", "group_data/autodl.py"
    assert host["data"]["ssh_known_hosts_file"] == f"{tmp_path}/cloud.known_hosts", "one for each inventory"
    assert set(host["groups"]) == {"cloud", "azure"} and "('t2') is VM deallocated: listed, not dialled" in done.stderr


@pytest.mark.parametrize(("sources", "says"), [
    ({"v": {"source": "vas", "file": "vast.json"}}, "source v can't be of kind 'vas'"),
    ({"v": {"source": "vast", "fil": "vast.json"}}, "did you mean file?"),
    ({"v": {"source": "vast"}}, "wants exactly one of file, command, stdin, hosts, has 0"),
    ({"v": {"source": "vast", "command": "vastai show instances"}}, "must be a list of words"),
    ({"v": {"source": "vast", "command": ["false"]}}, "ended with 1"),
    ({"v": {"source": "vast", "command": ["no-such-tool"]}}, "can't be run"),
    ({"v": {"source": "vast", "command": ["echo", "no json"]}}, "is no JSON"),
    ({"v": {"source": "vast", "file": "no.json"}}, "can't be read"),
    ({"v": {"source": "vast", "file": "vast.json", "address": "1.2.3.4"}}, "finds addresses and ports itself"),
    ({"v": {"source": "vast", "file": "vast.json"}, "w": {"source": "vast", "file": "vast.json"}},
     "vast-1 has the name of vast-1"),
    ({"v": {"source": "ssh", "hosts": {"a": "ssh -p 9 root@192.0.2.1", "b": "ssh -p 9 root@192.0.2.1"}}},
     "b has the address and port of a"),
    ({"v": {"source": "vast", "file": "vast.json", "label": "none-*"}}, "no source has a running machine"),
    *(({"v": {"source": "vast", "file": "vast.json", "group": group}}, f"group of v can't be {group!r}")
      for group in ("my group", "cloud", "all", "_mine")),
    ({"cloud": {"source": "vast", "file": "vast.json", "group": 3}}, "group of cloud can't be 3"),
])
def test_mistakes_are_one_line_and_nobody_is_dialled(tmp_path: Path, sources: dict[str, Any], says: str) -> None:
    listed(tmp_path, row(1))
    with pytest.raises(RigError) as error:
        load_cloud(cloud(tmp_path, sources), tmp_path / "known")
    assert says in str(error.value) and "cloud.yml" in str(error.value) and "\n" not in str(error.value)


def test_refused_by_the_command_line(tmp_path: Path, port: Port, pyinfra: Callable[..., Ran]) -> None:
    path = cloud(tmp_path, {"good": {"source": "ssh", "hosts": [f"ssh -p {port.number} root@127.0.0.1"]},
                            "bad": {"source": "ssh", "hosts": ["ssh root@"]}})
    ran = pyinfra("inventories/cloud.py", "fact", "server.Date", CLOUD_HOSTS=str(path))
    assert ran.code == 1 and len(ran.said) == 1 and "Traceback" not in ran.err and not port.dialled, ran.err


def test_the_example_is_read(tmp_path: Path) -> None:
    """All of it that needs no account: the pasted line, with the group data of its provider."""
    given = yaml.safe_load((ROOT / "inventories" / "cloud.example.yml").read_text())
    assert set(SOURCES) == {source["source"] for source in given["sources"].values()}
    path = cloud(tmp_path, {"autodl": given["sources"]["autodl"]})
    name, data = load_cloud(path, tmp_path / "known").groups["autodl"][0]
    assert (name, data["ssh_port"], data["ssh_user"]) == ("box-1", 40123, "root")
    assert KnownHosts(tmp_path / "known").all() == [], "nothing is kept before anybody is dialled"
