"""`rig verify`: the name that `rig certify` had before 0.2.0, kept for one release."""

from __future__ import annotations

import argparse

from qwen_rig.cli import _output, certify

SUMMARY = "the former name of certify, kept for this release"
EXAMPLES = ("qwen-rig certify",)
arguments = certify.arguments


def run(options: argparse.Namespace) -> int:
    """As certify's."""
    _output.Output.of(options).talk("qwen-rig: verify is now certify: qwen-rig certify")
    return certify.run(options)
