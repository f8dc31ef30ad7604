"""What the card does: measurements of computing, memory and training → checks. Pure."""

from __future__ import annotations

from typing import Any

from qwen_rig.catalog.rules import covered
from qwen_rig.certificate._verdict import NONE_ON_RECORD, UNJUDGED, Case, against, check, number, version, worst
from qwen_rig.certificate.gates import Gate
from qwen_rig.certificate.judge_card import LANE_GBS, link
from qwen_rig.certificate.model import PEERS, PEERS_OFF, Check
from qwen_rig.errors import RigError
from qwen_rig.fits import most


def torch_build(case: Case, gate: Gate) -> Check:
    """The release (where the stack names one: a nightly has none) and CUDA of the stack, with code for this card."""
    data, want = case.data("torch_build"), case.stack.torch if case.stack else None
    measured = f"{data['version']}, CUDA {data['cuda'] or 'none'}"
    bad, expected = [], NONE_ON_RECORD
    if want:
        expected = f"{want.release or 'any release'}, CUDA {want.cuda}, code for this card"
        if want.release and str(data["version"]).split("+")[0] != want.release:
            bad.append(f"the stack's torch is {want.release}")
        if data["cuda"] != want.cuda:
            bad.append(f"built for CUDA {data['cuda'] or 'none'}, wanted {want.cuda}")
    capability = version(data.get("capability"))
    if capability and data["archs"] and not covered(data["archs"], capability):
        bad.append(f"no code for sm_{capability.major}{capability.minor}: it has {', '.join(data['archs'])}")
    return check(gate, "fail" if bad else "pass", measured, expected, "; ".join(bad),
                 facts={"torch": str(data["version"])})


def first_kernel(case: Case, gate: Gate) -> Check:
    """A right sum."""
    data = case.data("first_kernel")
    return check(gate, "pass" if data["right"] else "fail", str(data["sum"]), str(1 << 40), "the card computes wrongly")


def precision(case: Case, gate: Gate) -> Check:
    """Each format errs as its bits say: tf32 that errs like fp32 isn't on, bf16 that errs more is broken."""
    data = case.data("precision")
    bad = [f"fp32 errs by {data['fp32']:.1e}"] if not data["fp32"] < gate["fp32_most"] else []
    if data["dtype"] == "bf16" and not gate["tf32_least"] < data["tf32"] < gate["half_most"]:
        bad.append(f"tf32 errs by {data['tf32']:.1e}: it isn't on, or broken")
    if not data["half"] < gate["half_most"]:
        bad.append(f"{data['dtype']} errs by {data['half']:.1e}")
    return check(gate, "fail" if bad else "pass",
                 f"fp32 {data['fp32']:.0e}, tf32 {data['tf32']:.0e}, {data['dtype']} {data['half']:.0e}",
                 f"fp32 < {gate['fp32_most']:.0e}, tf32 > {gate['tf32_least']:.0e}, bf16 < {gate['half_most']:.0e}",
                 "; ".join(bad))


def matmul(case: Case, gate: Gate) -> Check:
    """The speed at 8192 against what this model was seen to do; where that size doesn't fit, the largest that does."""
    data = case.data("matmul")
    rows, dtype = data["rows"], data["dtype"]
    main = next((row for row in rows if row["size"] == 8192), rows[-1])
    comparable = main["size"] == 8192 and dtype == "bf16"
    seen = case.seen.matmul if case.seen and comparable else None
    status, expected, source, why = against(case, gate, main["tflops"], "TFLOP/s", seen,
                                            case.seen.source if case.seen else "")
    return check(gate, status, f"{main['tflops']:.0f} TFLOP/s {dtype} at {main['size']}", expected, why, source=source,
                 numbers=number(dtype, main["tflops"], "TFLOP/s"),
                 series={"TFLOP/s by size": [[row["size"], row["tflops"]] for row in rows]})


def sustained(case: Case, gate: Gate) -> Check:
    """The same without a pause, against this card's own short burst."""
    data = case.data("load")
    rows = case.data("matmul").get("rows") or []
    burst = next((row["tflops"] for row in rows if row["size"] == data["size"]), None)
    share = data["tflops"] / burst if burst else None
    measured = f"{data['tflops']:.0f} TFLOP/s over {data['seconds']:.0f} s"
    low = share is not None and share < gate["warn_below"]
    measured += f", {100 * share:.0f} % of the burst" if share else ""
    return check(gate, "pass" if burst and not low else "warn", measured,
                 f"≥ {100 * gate['warn_below']:.0f} % of its own burst" if burst else NONE_ON_RECORD,
                 "it slows down under load: heat, power, or others on the card" if burst else UNJUDGED,
                 numbers=number(f"{data['dtype']} sustained", data["tflops"], "TFLOP/s"))


def bandwidth(case: Case, gate: Gate) -> Check:
    """Copies within the card's memory against what this model was seen to do."""
    rows = case.data("bandwidth")["rows"]
    main = next((row for row in rows if row["mib"] == 1024), rows[-1])
    seen = case.seen.copy if case.seen and main["mib"] == 1024 else None
    status, expected, source, why = against(case, gate, main["gbs"], "GB/s", seen,
                                            case.seen.source if case.seen else "")
    return check(gate, status, f"{main['gbs']:.0f} GB/s at {main['mib']} MiB", expected, why, source=source,
                 numbers=number("memory bandwidth", main["gbs"], "GB/s"),
                 series={"GB/s by MiB": [[row["mib"], row["gbs"]] for row in rows]})


def transfer(case: Case, gate: Gate) -> Check:
    """Pinned copies each way against what the link that was seen under load can carry."""
    data, (generation, width, _, _) = case.data("transfer"), link(case)
    slowest = min(data["to_card_gbs"], data["to_host_gbs"])
    carries = LANE_GBS[generation] * width if generation in LANE_GBS and width else None
    low = carries is not None and slowest < gate["warn_below"] * carries
    expected = f"≥ {100 * gate['warn_below']:.0f} % of the link's {carries:.0f} GB/s" if carries else NONE_ON_RECORD
    return check(gate, "pass" if carries and not low else "warn",
                 f"{data['to_card_gbs']:.1f} GB/s to the card, {data['to_host_gbs']:.1f} back", expected,
                 UNJUDGED if not carries else
                 "the link carries little: a busy host, a switch shared with others, or a bad link"
                 + (f" (others use the card: {case.busy})" if case.busy else ""),
                 numbers=(*number("host to card", data["to_card_gbs"], "GB/s"),
                          *number("card to host", data["to_host_gbs"], "GB/s")))


def memory(case: Case, gate: Gate) -> Check:
    """Every word that was free came back as written."""
    data = case.data("memory")
    measured = (f"{data['tested_mib'] / 1024:.1f} of {data['total_mib'] / 1024:.1f} GiB, "
                f"{data['wrong_words']} words wrong")
    expected = f"none wrong in ≥ {100 * gate['tested_least']:.0f} % of the free memory"
    if data["wrong_words"]:
        return check(gate, "fail", measured, expected, f"memory loses data, first at byte {data['first_wrong_byte']}")
    little = data["tested_mib"] < gate["tested_least"] * data["free_mib"]
    return check(gate, "warn" if little else "pass", measured, expected, "less could be tested than was free")


def attention(case: Case, gate: Gate) -> Check:
    """SDPA's or flash-attn's largest relative difference."""
    data = case.data(gate.name)
    name = f"flash-attn {data['version']}" if data.get("version") else data.get("dtype", "")
    times = [f"head_dim {row['head_dim']}: {row['ms']:.2f} ms, SDPA {row['sdpa_ms']:.2f} ms"
             for row in data.get("speed") or ()]
    return check(gate, "pass" if data["worst"] < gate["most"] else "fail",
                 "; ".join([f"{name} differs by {data['worst']:.1e}", *times]), f"< {gate['most']:.0e}",
                 "attention computes wrongly")


def gated_delta(case: Case, gate: Gate) -> Check:
    """The largest difference of the linear layers' rule from the same written out; a missing fast kernel is a warning
    that says what it costs."""
    data = case.data("gated_delta")
    times = [f"{data[key]:.1f} ms{words}" for key, words in (("ms", ""), ("torch_ms", " by torch's own code"))
             if data[key]]
    measured = f"{data['kernel']} differs by {data['worst']:.1e}" + (f", {', '.join(times)}" if times else "")
    expected = f"< {gate['most']:.0e} by flash-linear-attention"
    if not data["worst"] < gate["most"]:
        return check(gate, "fail", measured, expected, "the linear layers compute wrongly")
    return check(gate, "warn" if data["missing"] else "pass", measured, expected, data["missing"] or "",
                 numbers=number("gated delta, forward and backward", data["ms"], "ms", "lower"))


def training(case: Case, gate: Gate) -> Check:
    """The loss falls, nothing is NaN, and bf16 and tf32 are what the running training really used."""
    data = case.data("training")
    losses, settings = [loss for _, loss in data["losses"]], data["settings"]
    first, last = (sum(part) / len(part) for part in (losses[:3], losses[-3:])) if len(losses) >= 6 else (1.0, 1.0)
    speed = f"{data['tokens_per_second']:.0f} tokens/s" if data["tokens_per_second"] else "no speed"
    measured = (f"loss {losses[0]:.2f} → {losses[-1]:.2f} in {len(losses)} steps, {speed}" if losses else "no loss") + (
        f", {data['peak_mib'] / 1024:.1f} GiB at most" if data["peak_mib"] else "")
    if data["device"] == "CPU":
        return check(gate, "not_run", f"on the CPU: {measured}", "", "no GPU: in small on the CPU, no proof")
    bad = [] if data["finite"] else ["a loss is NaN or infinite"]
    if len(losses) < data["steps"]:
        bad.append(f"{len(losses)} of {data['steps']} steps were told")
    if not last < gate["fall_to"] * first:
        bad.append(f"the loss doesn't fall: {first:.2f} → {last:.2f}")
    if settings["bf16"] and data["activations"] != "bfloat16":
        bad.append(f"bf16 isn't on: activations are {data['activations']}")
    if settings.get("tf32") and not (data["fp32_error"] or 0) > gate["tf32_least"]:
        bad.append("tf32 isn't on")
    batch = f"{settings['per_device_train_batch_size']} × {settings['gradient_accumulation_steps']}"
    return check(gate, "fail" if bad else "pass", measured,
                 f"{data['steps']} steps of batch {batch}, loss falls, bf16 and tf32 as set", "; ".join(bad),
                 numbers=(*number("training", data["tokens_per_second"], "tokens/s"),
                          *number("peak memory in training", data["peak_mib"], "MiB", "lower")),
                 facts={"batch": batch, "attention": str(settings["attn_implementation"])},
                 series={"loss by step": [[float(step), loss] for step, loss in data["losses"]]})


def _after(case: Case, part: str) -> tuple[dict[str, Any], str]:
    """What training found of a later part of it, and where it ran ('' on the card)."""
    data = case.data("training")
    return data[part], "on the CPU: " if data["device"] == "CPU" else ""


def save(case: Case, gate: Gate) -> Check:
    """The adapter on disk is the one in memory."""
    found, where = _after(case, "save")
    good = found["status"] == "measured"
    if where:
        return check(gate, "not_run" if good else "fail", f"{where}{found.get('tensors', 0)} tensors the same", "",
                     "no GPU" if good else found["why"])
    return check(gate, "pass" if good else "fail", f"{found.get('tensors', 0)} tensors the same", "all of them",
                 found.get("why", ""))


def resume(case: Case, gate: Gate) -> Check:
    """A run resumed from its checkpoint goes on as if it hadn't stopped; where it can't, training still works."""
    found, where = _after(case, "resume")
    expected = f"≤ {100 * gate['apart_most']:.0f} % of the first loss apart"
    if found["status"] != "measured":
        return check(gate, "warn", f"{where}could not resume", expected, found["why"])
    near = found["worst"] <= gate["apart_most"]
    measured = f"{where}{100 * found['worst']:.1f} % apart from the uninterrupted run"
    if where:
        return check(gate, "not_run" if near else "warn", measured, expected,
                     "no GPU" if near else "it goes on otherwise")
    return check(gate, "pass" if near else "warn", measured, expected, "it goes on otherwise than it would have")


def largest_batch(case: Case, gate: Gate) -> Check:
    """At least the settings' own batch goes through; else no fault of the card's, and the next apply lowers it."""
    data = case.data("largest_batch")
    _refuse_impossible(case, data["batch"])
    fits = data["batch"] >= data["settings_batch"]
    return check(gate, "pass" if fits else "warn", f"{data['batch']} samples of {data['tokens_a_sample']} tokens",
                 f"≥ {data['settings_batch']}, the settings' own",
                 "the settings don't fit this card: run deploy/5090.py again, which lowers them",
                 numbers=number("largest batch", data["batch"], "samples"))


def _refuse_impossible(case: Case, batch: Any) -> None:
    """Raises RigError for a batch that the card's memory can't hold, or that is no number: nobody measured that."""
    known = (case.card["smi"].get("memory.total"), case.model.memory_mib if case.model else None)
    memory = max(filter(None, known), default=None)  # which of the two is true, `identity` judges
    limit = most(memory) if memory else None
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 0 or (limit is not None and batch > limit):
        holds = f": {memory} MiB hold {limit} at most" if limit is not None else ""
        raise RigError(f"a largest batch of {batch!r} was not measured on {case.card['name']}{holds}", "",
                       "run qwen_rig/host/certify.py there again, from this release")


def peers(case: Case, gate: Gate) -> Check:
    """Copies between the cards arrive whole."""
    pairs = case.data("peers")["pairs"]
    wrong = [f"{pair['from']} → {pair['to']}" for pair in pairs if not pair["right"]]
    slowest = min(pair["gbs"] for pair in pairs)
    direct = all(pair["direct"] for pair in pairs)
    return check(gate, "fail" if wrong else "pass",
                 f"{len(pairs)} pairs, {'direct' if direct else 'through the host'}, {slowest:.0f} GB/s the slowest",
                 "each arrives whole", f"wrong: {', '.join(wrong)}", numbers=number("peer copy", slowest, "GB/s"),
                 facts={"peer access": "direct" if direct else "through the host"})


def all_reduce(case: Case, gate: Gate) -> Check:
    """NCCL's bus bandwidth against what as many of these cards were seen to do."""
    data = case.data("all_reduce")
    known = case.seen.all_reduce.get(data["ranks"]) if case.seen else None
    status, expected, source, why = against(case, gate, data["bus_gbs"], "GB/s", (known, known) if known else None,
                                            case.seen.source if case.seen else "")
    measured = f"{data['bus_gbs']:.0f} GB/s over {data['ranks']} cards, NCCL {data['version']}"
    if broken := data.get("without_peers"):
        return check(gate, "warn", f"{measured}, {case.rules.peer_remedy}", expected,
                     f"NCCL's peer-to-peer fails on this machine ({broken}); it works with {case.rules.peer_remedy}, "
                     "which training and launch set from now on", source=case.rules.source("pcie_peers"),
                     numbers=number("all-reduce", data["bus_gbs"], "GB/s"), facts={PEERS: PEERS_OFF})
    return check(gate, worst([status]), measured, expected, why, source=source,
                 numbers=number("all-reduce", data["bus_gbs"], "GB/s"))
