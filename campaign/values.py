"""Bad values by type, for hypothesis: what a path, an address, a URL and so on can't be, one by one."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from qwen_rig import knobs

CONTROL = st.sampled_from(["\0", "\n", "\r", "\t", "\x1b[2J", "\u202e", "\u2028", "\x7f"])
BLANK = st.sampled_from([" ", "\u00a0", "\u3000"])
SHELL = st.sampled_from(["$(id)", "`id`", ";id", "|id", "&", "'", '"', "\\", "<x", "*", "?"])
SYSTEM = ("/", "/bin", "/boot", "/dev", "/dev/shm", "/etc", "/etc/x", "/lib", "/lib64/x", "/proc/self", "/run/x",
          "/sbin", "/sys", "/usr", "/usr/bin", "/usr/lib/python3", "/usr/../etc", "//", "/./", "/var/lib", "/usr/local")
NAME = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
LONG = st.integers(300, 9000).map(lambda n: "x" * n)
DEEP = st.builds(lambda mark, n: mark * n, st.sampled_from(["[", "{", '{"a":', "- ", "[{a: ", '[[{"b": [']),
                 st.integers(100, 60_000))


def spoilt(sound: st.SearchStrategy[str], *by: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A sound text with something in it, or behind it, that it can't hold."""
    return st.builds(lambda text, mark, at: text[:at % (len(text) + 1)] + mark + text[at % (len(text) + 1):],
                     sound, st.one_of(*by), st.integers(0, 99))


FOLDERS = NAME.map(lambda name: f"/data/{name}")
BAD_PATH = st.one_of(spoilt(FOLDERS, CONTROL, BLANK, SHELL), NAME, st.just(""), NAME.map(lambda name: f"~{name}"),
                     st.just("~"), LONG.map(lambda name: f"/{name}"), NAME.map(lambda name: f"/a/../{name}"),
                     NAME.map(lambda name: f"-{name}"), NAME.map(lambda name: f"/a:/{name}"))
BAD_FOLDER = BAD_PATH | st.sampled_from(SYSTEM)
BAD_PREFIX = BAD_FOLDER | st.sampled_from(["/home", "/opt", "/root", "/tmp", "/mnt", "/srv/"])
BAD_ADDRESS = st.one_of(
    st.lists(st.integers(0, 999), min_size=2, max_size=6).filter(lambda ns: len(ns) != 4 or max(ns) > 255)
    .map(lambda ns: ".".join(map(str, ns))), spoilt(NAME, CONTROL, BLANK, SHELL), NAME.map(lambda name: f"-o{name}"),
    NAME.map(lambda name: f"me@{name}"), NAME.map(lambda name: f"{name}:22"), NAME.map(lambda name: f"{name}..lab"),
    st.integers(64, 999).map(lambda n: "a" * n), st.sampled_from(["[::1]", ":::", "1::2::3", "fe80::1%", "fe80::1%a b",
                                                                  "2130706433", "0x7f000001", "é.example"]))
BAD_URL = st.one_of(
    BAD_ADDRESS.filter(lambda host: host != "[::1]" and not host.endswith(":22") and "?" not in host)
    .map(lambda host: f"https://{host}/x"),
    NAME, NAME.map(lambda name: f"https:/{name}"), st.sampled_from(["https://", "http:///x", "https://[::1", "://h"]),
    NAME.map(lambda scheme: f"{scheme}x://h/"), st.just("javascript://h"), NAME.map(lambda name: f"https://u:p@{name}/"),
    st.integers(65536, 10 ** 9).map(lambda port: f"https://h:{port}/"), st.just("http://h:0/"), st.just("http://h:x/"),
    spoilt(NAME.map(lambda name: f"https://h/{name}"), CONTROL, BLANK, st.sampled_from(["'", '"', "\\"])))
BAD_SHA = st.one_of(st.text("0123456789abcdef", max_size=63), st.text("ghxyz", min_size=64, max_size=64),
                    st.just("0" * 65), st.just("٣" * 64))
BAD_FINGERPRINT = st.one_of(st.text("0123456789ABCDEF", max_size=39), st.text("XYZ", min_size=40, max_size=40))
BAD_ENV = st.one_of(st.sampled_from(["base", "root", "Base", "-rf", "-", ".", "..", "", "é", "a/b"]),
                    NAME.map(lambda name: f"-{name}"), spoilt(NAME, CONTROL, BLANK, SHELL), LONG)
BAD_MODEL = st.one_of(NAME, st.sampled_from(["../..", "a/b/c", "/", "a/", "/b", "-/-", "a/b--c", "a/b..c", "é/b"]),
                      spoilt(NAME.map(lambda name: f"Qwen/{name}"), CONTROL, BLANK, SHELL), LONG.map("a/{}".format))
BAD_PORT = st.one_of(st.integers(65536, 10 ** 30), st.integers(max_value=0), st.floats(), st.booleans(),
                     st.sampled_from(["²", "ssh", "", "22x", "٢٢", "-1"]))
BAD_SECONDS = st.one_of(st.integers(max_value=0), st.integers(32 * 24 * 3600, 10 ** 30), st.floats(), st.booleans(),
                        st.sampled_from(["²", "soon", "1e3", "10s", "٣"]))
BAD_COUNT = st.one_of(st.integers(max_value=0), st.integers(10_000, 10 ** 30), st.booleans(), st.just("²"))
BAD_USER = st.one_of(NAME.map(lambda name: f"-o{name}"),
                     spoilt(NAME, CONTROL, BLANK, SHELL.filter(lambda mark: mark != "\\")),
                     st.sampled_from(["@x", "a@", "é", "-", "."]), st.integers(300, 999).map(lambda n: "a" * n))
BAD_RELEASE = st.one_of(spoilt(NAME, CONTROL, BLANK, SHELL), NAME.map(lambda name: f"../{name}"), LONG)
BAD_LOCAL = st.one_of(NAME.map(lambda name: f"~nobody-{name}/x"), LONG.map(lambda name: f"/tmp/{name}"),
                      spoilt(NAME.map(lambda name: f"/nosuch/{name}"), CONTROL),
                      NAME.map(lambda name: f"/nosuch/{name}/" + "d/" * 3000))
BAD_WORD = st.one_of(NAME.map(lambda name: f"{name}x9"), spoilt(NAME, CONTROL, BLANK))
BAD_STEPS = spoilt(NAME, CONTROL, SHELL) | st.sampled_from(["", ",", "Driver", "driver,,,,env", "step9", "-env"])
URLS = ("source_pip_index", "source_torch_index", "source_conda_channel", "source_miniforge", "source_nvidia_apt",
        "source_flash_attn", "source_huggingface", "proxy", "source_apt")
BY_KNOB: dict[str, st.SearchStrategy[Any]] = {
    "env_name": BAD_ENV, "conda_prefix": BAD_PREFIX, "data_dir": BAD_FOLDER, "proxy_script": BAD_PATH,
    "launch_address": BAD_ADDRESS, "launch_port": BAD_PORT, "prefetch_model": BAD_MODEL, "model": BAD_MODEL,
    **dict.fromkeys(("only_steps", "skip_steps"), BAD_STEPS),
    "source_miniforge_sha256": BAD_SHA, "source_miniforge_version": BAD_RELEASE,
    "source_nvidia_apt_key": BAD_FINGERPRINT, "bundle": BAD_LOCAL, "conda_lock": BAD_LOCAL, "mirrors": BAD_LOCAL,
    "stack": BAD_LOCAL | BAD_WORD, "trust_domain": spoilt(NAME, CONTROL, BLANK, SHELL) | st.sampled_from(["all", "-x"]),
    **dict.fromkeys(("nvidia_driver_branch", "expect_gpus", "flash_attn_jobs"), BAD_COUNT),
    **dict.fromkeys(URLS, BAD_URL), **dict.fromkeys(knobs.CHOICES, BAD_WORD),
    "source_apt": BAD_URL.filter(lambda url: url == url.strip(" \t\n")),  # a blank separates these
    **{name: BAD_SECONDS for name in knobs.NAMES if name.startswith("timeout_")},
}
ODD = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | CONTROL | DEEP
                   | st.sampled_from(["²", "x" * 5000, "-oProxyCommand=x", "None", "../../x"]),
                   lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                   max_leaves=6)
KNOB = st.sampled_from(sorted(BY_KNOB)).flatmap(lambda name: st.tuples(st.just(name), BY_KNOB[name]))
FLAT = KNOB.filter(lambda pair: not str(pair[1]).isdecimal() or str(pair[1]).isascii())  # ٢٢ is a number to pyinfra
