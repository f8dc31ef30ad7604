"""`rig host-keys`: the host keys that are kept by name, and a changed one accepted."""

from __future__ import annotations

import argparse

from qwen_rig import exits, project
from qwen_rig.cli import _output, _types
from qwen_rig.errors import RigError
from qwen_rig.hostkeys import FINGERPRINT, NAME, KnownHosts, default, shown

SUMMARY = "host keys of rented machines: list them, accept one that was refused, forget one"
EXAMPLES = ("qwen-rig host-keys list", "qwen-rig host-keys accept vast-123456 SHA256:…",
            "qwen-rig host-keys forget vast-123456")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("action", choices=("list", "accept", "forget"),
                        help="accept: the refused key of that fingerprint · forget: the next key is a first one")
    parser.add_argument("name", nargs="?", help="the machine's name, as the refusal had it (vast-123456)")
    parser.add_argument("fingerprint", nargs="?", help="for accept: the key's SHA256:…, as the refusal had it")
    parser.add_argument("--file", type=_types.path, metavar="KNOWN_HOSTS",
                        help="default: inventories/cloud.known_hosts")


def run(options: argparse.Namespace) -> int:
    """0: done. Raises RigError where there's no such key."""
    kept = KnownHosts(options.file or default(project.find()))
    output = _output.Output.of(options)
    if options.action == "list":
        rows = kept.all()
        found = [{"name": name, "key": key, "refused": refused} for name, key, refused in rows]
        output.result(found, lambda: "\n".join(f"{name}  {key}{'  refused' * refused}" for name, key, refused in rows))
        return exits.OK
    if not options.name or not NAME.fullmatch(options.name) or (options.fingerprint and options.action != "accept"):
        raise RigError(f"host-keys {options.action} takes the name of one machine", shown(kept.path),
                       "`rig host-keys list` shows them")
    if options.action == "accept":
        key = kept.accept(options.name, _meant(kept, options))
        output.result({"name": options.name, "accepted": key}, lambda: f"{options.name}: host key {key} is accepted")
    else:
        count = kept.forget(options.name)
        output.result({"name": options.name, "forgotten": count}, lambda: f"{options.name}: its host key is forgotten")
    return exits.OK


def _meant(kept: KnownHosts, options: argparse.Namespace) -> str:
    """The fingerprint that the user has seen and means. Raises RigError where none is named: the key that was refused
    last may be another one than the key that was shown."""
    if options.fingerprint and FINGERPRINT.fullmatch(options.fingerprint):
        return str(options.fingerprint)
    refused = kept.refused_fingerprints(options.name)
    last = f"; refused last: {refused[-1]}" if refused else ""
    raise RigError("host-keys accept takes the fingerprint of the key, SHA256:…, as the refusal showed it",
                   shown(kept.path), f"compare it with the machine's own (ssh-keygen -lf){last}")
