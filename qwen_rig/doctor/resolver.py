"""What pip and uv say when requirements exclude each other, in one sentence that names the packages. Pure."""

from __future__ import annotations

import re

_MARKER = re.compile(r"\{[^{}]*\}")  # uv writes torch{sys_platform == 'linux'}==2.7.1
_END = re.compile(r"^\s*(?:hint:|help:|$)")


def uv(lines: list[str]) -> dict[str, str] | None:
    """The two that exclude each other, or the one that no index has; None where uv's words are of another form."""
    said = []
    for number, line in enumerate(lines):
        if number and _END.match(line):
            break
        said.append(line.strip(" │╰─▶×\t"))
    text = _MARKER.sub("", " ".join(" ".join(said).split()))
    if "Because" not in text:
        return None
    if pairs := re.findall(r"conclude that ([^\s,]+) and (?:all of: )?([^,]+?) are incompatible", text):
        first, second = pairs[-1]
        why = re.findall(r"(?:[Bb]ecause|And because|and) ([^\s,]+) depends on ([^\s,]+)", text)
        reason = ", and ".join(f"{who} wants {what}" for who, what in dict(why).items())
        return {"name": "requirements-exclude-each-other", "first": first, "second": second,
                "cause": f"{first} and {second} exclude each other" + (f": {reason}" if reason else ""),
                "do": "ask for one of the two alone and let uv choose the other, or pin a pair that goes together"}
    if gone := re.search(r"there (?:is|are) no versions? of ([^\s,]+)", text) or \
            re.search(r"([^\s,]+) was not found in the package registry", text):
        return {"name": "no-such-version", "cause": f"the index has no version of {gone[1].rstrip('.')}",
                "do": "check the name and the version, and which index uv is told to use (--index-url, UV_INDEX)"}
    if wheel := re.search(r"([^\s,]+) has no (?:usable )?wheels? with a matching ([^(,]+?) tag", text):
        return {"name": "no-such-wheel", "cause": f"{wheel[1]} has no wheel for this {wheel[2]}",
                "do": "take a Python (or a machine) that it has wheels for, or another version of it"}
    if python := re.search(r"([^\s,]+) depends on (Python[^\s,]+)", text):
        return {"name": "other-python-wanted", "cause": f"{python[1]} wants {python[2]}",
                "do": "take a Python that it allows, or an older version of it"}
    if why := re.findall(r"([^\s,]+) depends? on ([^\s,]+(?:,[<>=!~][^\s,]+)*)", text):
        reason = ", and ".join(f"{who} wants {what}" for who, what in why[:4])
        asked = re.findall(r"you require ([^\s,]+(?:,[<>=!~][^\s,]+)*)", text)
        needs = dict.fromkeys(each.rstrip(".") for each in asked)
        return {"name": "requirements-exclude-each-other", "do": "loosen one of these",
                "cause": f"the requirements exclude each other: {reason}" + (f"; asked for: {', '.join(needs)}" if needs
                                                                             else "")}
    return None


def pip(lines: list[str]) -> dict[str, str]:
    """What pip's "The conflict is caused by" lists; where it lists nothing that can be read, that they do."""
    wants = []
    for line in lines:
        if found := re.match(r"^ *(?P<who>[\w.-]+ \S+|The user requested(?: \(constraint\))?)(?: depends on)? "
                             r"(?P<what>[\w.-]+\S*(?: ?(?:[<>=!~]=?)[^;]*)?)(?:;.*)?$", line.rstrip()):
            wants.append((found["who"].replace("The user requested", "you").strip(), found["what"].strip()))
        if line.startswith("To fix this"):
            break
    wants = [(who, what) for who, what in wants if re.search(r"\d|^you", who) and not what.startswith("because")]
    if not wants:
        return {"name": "requirements-exclude-each-other", "cause": "the requirements exclude each other",
                "do": "pip names them in the lines above: loosen or change one of these versions"}
    reason = "; ".join(f"{who} {'want' if who.startswith('you') else 'wants'} {what}" for who, what in wants[:6])
    return {"name": "requirements-exclude-each-other", "cause": f"the requirements exclude each other: {reason}",
            "do": "loosen or change one of these versions"}


def offered(package: str, around: str) -> dict[str, str]:
    """Why an index had nothing for a requirement, by the versions that pip lists and what stands around."""
    listed = re.search(r"\(from versions: ([^)]*)\)", around)
    versions = [each.strip() for each in listed[1].split(",")] if listed else []
    if re.search(r"NewConnectionError|Temporary failure in name resolution|ProxyError|ConnectTimeoutError|SSLError"
                 r"|Connection refused|ReadTimeoutError", around):
        return {"name": "index-unreachable", "cause": f"pip could not reach its index, and so found no {package}",
                "do": "see the network, proxy and index there (pip config list, PIP_INDEX_URL); a mirror: "
                      "source_pip_index"}
    if versions and versions != ["none"]:
        return {"cause": f"the index has no {package}; the newest that fits this Python and machine is {versions[-1]}",
                "do": "take a version that it has, or another index (torch's CUDA builds: --index-url of that CUDA) "
                      "or Python"}
    if versions == ["none"]:
        return {"cause": f"the index has nothing for {package} that fits this Python and machine, or no such package",
                "do": "check the name; `python -V` and the wheels that the package has; which index pip uses "
                      "(pip config list)"}
    return {"cause": f"the index has no {package} that fits this Python and machine",
            "do": "check name and version, `python -V`, and which index pip uses (pip config list)"}
