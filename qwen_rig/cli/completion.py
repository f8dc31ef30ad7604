"""`rig completion SHELL`: the lines that have a shell complete verbs, options, steps and files."""

from __future__ import annotations

import argparse

from qwen_rig import exits
from qwen_rig.cli import _output

SUMMARY = "print what your shell needs to complete verbs, options and steps: bash, zsh or fish"
EXAMPLES = ('eval "$(qwen-rig completion bash)"      # in ~/.bashrc',
            'eval "$(qwen-rig completion zsh)"       # in ~/.zshrc, below compinit',
            "qwen-rig completion fish | source       # in ~/.config/fish/config.fish")
SHELLS = ("bash", "zsh", "fish")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))


def run(options: argparse.Namespace) -> int:
    """0: told."""
    from argcomplete.shell_integration import shellcode

    from qwen_rig.cli import PROGRAMS

    script = shellcode(PROGRAMS, shell=options.shell)
    _output.Output.of(options).result({"shell": options.shell, "script": script}, lambda: script.rstrip("\n"))
    return exits.OK
