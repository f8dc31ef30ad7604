"""`rig train HOST…`: a fine-tuning on a host, or one over several, which goes on when this terminal is closed."""

from __future__ import annotations

import argparse

from qwen_rig import say
from qwen_rig.cli import _hosts, _output
from qwen_rig.errors import RigError
from qwen_rig.finetune import data, options, record, several, words

SUMMARY = "fine-tune on a host: check, send the data, train in a job that goes on when this terminal closes"
EXAMPLES = ("qwen-rig train lab-01 --model_name_or_path Qwen/Qwen3-0.6B --dataset_name chat.jsonl",
            "qwen-rig train lab-01 --model_name_or_path Qwen/Qwen3-8B --dataset_name host:/data/chat.jsonl "
            "--load_in_4bit --name support",
            "qwen-rig train lab-01 lab-02 --model_name_or_path Qwen/Qwen3-8B --dataset_name chat.jsonl")
ON_HOST = "host:"  # before a path that is the host's


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("hosts", nargs="+", metavar="HOST",
                        help="a host of the inventory; of several the first is rank 0, and has progress and adapter")
    parser.add_argument("--name", metavar="NAME", help="the run's (default: after model and data); a name is one run")
    _hosts.arguments(parser, limit=False)
    options.declare(parser)


def run(options_: argparse.Namespace) -> int:
    """0: trained, or stopped with a checkpoint · 1: refused or failed, or bad input · 3: unreachable."""
    given, output = options.given(options_), _output.Output.of(options_)
    name = options_.name
    if name is not None and record.path(name).exists():
        raise record.taken(name)
    if not (source := given.get("dataset_name")):
        raise RigError("no data set was given", "--dataset_name",
                       "a file here (.jsonl, .json, .csv, .parquet), a data set "
                       f"of the hub (OWNER/NAME), or {ON_HOST}/PATH on the host")
    on_host = source.startswith(ON_HOST)
    found = data.looked_at(source.removeprefix(ON_HOST), on_host)
    if len(options_.hosts) > 1:
        several.carried(found, on_host)
    from qwen_rig.cli import _session as session
    from qwen_rig.run import finetune
    from qwen_rig.run import several as crew

    with session.opened(options_.inventory, options_.hosts, options_.data, output, table=False) as opened:
        wanted = finetune.Wanted(name or "", opened.asked["inventory"], tuple(options_.data), given, found)
        if len(names := crew.hosts_of(opened, options_.hosts)) > 1:
            several.carried(found, on_host)
            made = [crew.begin(opened, names, wanted)]
        else:
            made = opened.work(lambda host: finetune.begin(host, wanted))
        status = opened.status()
    if options_.json:
        say.as_json([words.shown(each) for each in made])
    return status
