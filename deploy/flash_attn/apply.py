"""flash-attn, attempted rung by rung: a prebuilt wheel whose hash we hold, one that the trust domain has built, a wheel
that nobody vouches for (with consent), a build, else SDPA. Whichever it ends on is a good end, and on record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from packaging.version import Version

from qwen_rig.catalog.flash4 import FA4
from qwen_rig.catalog.flash_build import load
from qwen_rig.catalog.flash_wheels import Candidate
from qwen_rig.catalog.hub_kernel import RUNG as KERNEL
from qwen_rig.deploy.flash_attn import answers
from qwen_rig.deploy.flash_attn import fleet as _fleet
from qwen_rig.deploy.flash_attn.plan import AttentionPayload, BuildSpec, Here, built_on
from qwen_rig.deploy.toolkit.plan import beside_glibc
from qwen_rig.errors import RigError
from qwen_rig.flash import cache
from qwen_rig.flash.key import Key
from qwen_rig.plan import Context, Step
from qwen_rig.plan.context import version
from qwen_rig.program import load as shell
from qwen_rig.run import network, transfer
from qwen_rig.run.adapter import FunctionCommand, Host, State
from qwen_rig.run.converge import Applier, run_script
from qwen_rig.run.job import JobCommand, attend
from qwen_rig.run.job_protocol import Job, cause
from qwen_rig.run.programs import env_path, program
from qwen_rig.run.run import Run
from qwen_rig.run.writer import claim

PROVING = ("attention.py", "flash_attn_check.py", "flash_ready.py", "fatbin.py")
BUILDING = ("flash_build.py", "flash_ready.py", "fatbin.py")
CLEAR = shell("deploy/flash_attn/clear.sh")
STARTING_S = 120  # for Python and pip themselves, beside what they are given
FETCHING_S = 1800  # for sources and tools, before the build's own limit counts


def commands(run: Run, ctx: Context, step: Step) -> Iterator[FunctionCommand]:
    """One host's way down the rungs."""
    yield Attempt(run, ctx, step)


class Attempt(FunctionCommand):
    """One host's way down the rungs; `job` is its first, for people to see."""

    def __init__(self, run: Run, ctx: Context, step: Step) -> None:
        super().__init__(Attempt, (), {})
        self.run, self.ctx, self.spec = run, ctx, step.need(AttentionPayload)
        self.wheels = run.network.flash_wheels(ctx, self.spec.wheels)
        self.pinned = [wheel for wheel in self.wheels if wheel.sha256]
        self.tried: list[dict[str, Any]] = []
        self.made: dict[str, Any] | None = None  # the record of the rung that held, once one has
        self.minutes = 0.0
        self.lost = False  # the connection, for good: the card is written
        self.wheels_left = False  # in .rig/build, to be removed
        self.job = self._proof(self.pinned or self.wheels, not any(build.here for build in self._builds)).job

    def execute(self, state: State, host: Host, connector_arguments: Any) -> bool:
        self.host = host
        able, domain = [build for build in self._builds if build.here], self.ctx.domain
        with _fleet.taking_part(host, domain, [self._key(build) for build in able]):
            self._try_rungs(able, [] if able or not _fleet.builders(host, domain) else self._builds)
        if self.wheels_left:
            run_script(host, CLEAR(env_path(self.ctx)), 60)
        if self.made is not None:
            self._report(self.made)
        return self.made is not None

    def _try_rungs(self, able: Sequence[BuildSpec], foreign: Sequence[BuildSpec]) -> None:
        """Down the rungs until one holds. `able`: what this host can build; `foreign`: what only others may."""
        unpinned = [wheel for wheel in self.wheels if not wheel.sha256]
        if self.pinned:
            self._prove(self.pinned, last=not (unpinned or self._builds))
        if self._open and (second := [*self._shared(), *unpinned]):
            self._prove(second, last=not (able or foreign))
        for build in (*able, *foreign):
            if self._open and (vain := in_vain(build, self.tried)):
                self.tried.append({"rung": build.rung, "source": build.source, "why_not": vain, "last": []})
            elif self._open:
                self._from_source(build)
        if self._open:
            self._prove([], last=True)

    @property
    def _open(self) -> bool:
        """Whether no rung has held yet, and more may be tried."""
        return self.made is None and not self.lost

    def _report(self, made: Mapping[str, Any]) -> None:
        """Add a caveat where the attention isn't the one that was wanted first."""
        if made["rung"] == "sdpa" and made["tried"]:
            self.run.report.caveats[self.host.name].append(f"flash-attn: SDPA, since {made['why']}")
        elif made["rung"] != "sdpa":
            by = (made.get("built") or {}).get("host")
            origin = {"wheel": "a prebuilt wheel", FA4: "flash-attn 4", KERNEL: "Hugging Face's kernel"}.get(
                made["rung"], built_on(self.ctx, by) if by else "built here")
            code = f", code for {', '.join(made['archs'])}" if made["archs"] else ""
            lines = [f"flash-attn: {made['version']}, {origin}{code}, proven here{_figures(made)}"]
            lines += [f"flash-attn's {row['rung']} was not kept: {row['why_not']}" for row in made["tried"]
                      if row["why_not"]]
            self.run.report.caveats[self.host.name] += lines

    @property
    def _builds(self) -> tuple[BuildSpec, ...]:
        return self.spec.builds if self.spec.gpu else ()  # unproven is as good as none

    # -- wheels ------------------------------------------------------------------------------------------

    def _proof(self, wheels: Sequence[Candidate], last: bool, build: Mapping[str, Any] | None = None,
               ) -> JobCommand:
        """The job that installs and proves wheels in turn; the check stands beside it, for a process of its own."""
        source, bounds = load()
        own = self.spec.package == source.package
        spec = {"package": self.spec.package, "check": self.spec.check, "gpu": self.spec.gpu,
                "wheels": [wheel.to_json() for wheel in wheels], "tried": self.tried, "rejected": self.spec.rejected,
                "last": last, "build": build,
                "head_dims": list(self.spec.head_dims), "faster_pct": bounds.faster_pct,
                "fingerprint": self.spec.fingerprint, "minutes": round(self.minutes, 2),
                "index": self.run.network.source_index(self.ctx) if own else None,
                "companions": [{"name": c.name, "version": c.version, "hashes": [f"sha256:{c.sha256}"]}
                               for c in bounds.companions if own],
                "seconds": {"install": bounds.install_s, "import": bounds.import_s, "check": bounds.check_s}}
        check_s = max([bounds.check_s, *((wheel.own or {}).get("check_s", 0) for wheel in wheels)])
        each = bounds.install_s + bounds.import_s + check_s
        return program(self.ctx, PROVING, ["--spec", json.dumps(spec)], STARTING_S + max(1, len(wheels)) * each,
                       way_out=self.run.network.way_out(self.ctx),
                       script=self._turbo(wheel.url for wheel in wheels))

    def _prove(self, wheels: Sequence[Candidate], last: bool, build: Mapping[str, Any] | None = None,
               ) -> dict[str, Any]:
        """Try these; what the host says of it. The record is final where a rung holds, or where none is left."""
        outcome = attend(self.host, self._proof(wheels, last, build).job)
        said = answers.proven(outcome.lines)
        if not outcome.ok or said is None:
            self.lost = True  # no rung's fault, so nothing is decided: the step has failed
            return {"why": "the proof broke off"}
        for row in said["tried"][len(self.tried):]:
            if row["why_not"]:
                self.run.report.progress(self.host.name, f"{row['rung']} isn't kept: {row['why_not']}")
        self.tried, self.minutes = said["tried"], said["minutes"]
        if said["rung"] != "sdpa" or last:
            self.made = said
        return said

    @property
    def _wanting(self) -> set[str]:
        """The sha256 of the wheels that failed here."""
        return {row["sha256"] for row in self.tried if row.get("sha256") and row["why_not"]}

    def _shared(self) -> list[Candidate]:
        """The wheels of the host's trust domain that serve it, now on this host."""
        found = [cache.find(self.ctx.domain, build.key, lambda line: self.run.report.progress(self.host.name, line))
                 for build in self._builds]
        sent = [self._sent(each.path, each.record) for each in found if each]
        return [wheel for wheel in sent if wheel]

    def _sent(self, path: Path, record: Mapping[str, Any]) -> Candidate | None:
        """That wheel as a rung, once it is on the host; its not coming there is on record."""
        sha256 = cache.sha256_of(path)
        if sha256 in self._wanting:
            return None
        env, self.wheels_left = env_path(self.ctx), True
        try:
            there = transfer.send(self.host, path, str(Path(env).parent), f"{env}/.rig/build")
        except RigError as error:
            self.tried.append({"rung": "fleet", "wheel": path.name, "sha256": sha256, "why_not": str(error),
                               "last": []})
            return None
        return Candidate(path.name, Path(there).as_uri(), sha256, rung="fleet",
                         built={key: record[key] for key in ("host", "domain", "minutes", "jobs") if key in record})

    # -- building ----------------------------------------------------------------------------------------

    def _from_source(self, build: BuildSpec) -> None:
        """Have it built, here or by another host of the fleet, and prove the wheel here; the result is on record."""
        own, here, brought = build.key, build.here, list[Path]()
        if here:
            key = self._key(build)
            built = _fleet.build_once(self.host, self.ctx.domain, key, lambda: self._build(build, here, key, brought),
                                      self.ctx.knobs.flash_attn_leader_failed, own.archs, self._wanting)
        else:
            built = _fleet.of_others(self.host, self.ctx.domain, own, self._wanting)
        for path in brought:
            transfer.drop(path)
        if self.made is not None or self.lost:
            return
        if built.wheel is not None and (wheel := self._sent(built.wheel, built.record)):
            self._prove([wheel], last=False, build=built.record)
        elif built.wheel is None and here:
            self.tried.append({"rung": build.rung, "source": build.source, "why_not": built.why,
                               "last": list(built.record.get("last", [])), "minutes": built.record.get("minutes", 0.0)})

    def _build(self, build: BuildSpec, here: Here, key: Key, brought: list[Path]) -> _fleet.Built:
        """Build on this host, prove it here, and only then bring it here for the others."""
        self.run.report.progress(self.host.name, f"builds {build.source}, {here.arithmetic}")
        self.wheels_left = True
        outcome = attend(self.host, self._job(build, here, key))
        said = answers.built(outcome.lines)
        if said is None:
            self.lost = outcome.code is None
            why = cause(outcome.code, self.ctx.knobs.timeout_flash_build + FETCHING_S) or "the build broke off"
            said = {"ok": False, "why": why, "last": list(outcome.lines[-5:]), "begun": True}
        self.minutes += said.get("minutes", 0.0)
        if not said["ok"]:
            return _fleet.Built(None, said, said["why"], refused=not said["begun"])
        said.pop("asked", None)  # what it was told, which the plan tells
        name = Path(said["wheel"]).name
        wheel = Candidate(name, Path(said["wheel"]).as_uri(), said["sha256"], rung=build.rung)
        proven = self._prove([wheel], last=False, build=said)
        if self.made is None:
            # _from_source puts it on record, as this rung's.
            row = self.tried.pop() if proven.get("tried") else {"why_not": proven["why"], "last": []}
            return _fleet.Built(None, {**said, "last": row["last"]}, f"built and {row['why_not']}")
        try:
            brought.append(transfer.bring(self.host, self.ctx.domain, str(said["wheel"]), str(said["sha256"])))
        except RigError as error:
            return _fleet.Built(None, said, str(error), refused=True)  # good for this host all the same
        return _fleet.Built(brought[0], said)

    def _key(self, build: BuildSpec) -> Key:
        """What is built: for the cards of the domain's hosts in this run, as far as the sources know them."""
        words = _fleet.archs(self.run, self.ctx.domain) if build.cuda else ()
        return replace(build.key, archs=tuple(arch for arch in words if arch in build.known))

    def _job(self, build: BuildSpec, here: Here, key: Key) -> Job:
        bounds, limit = load()[1], self.ctx.knobs.timeout_flash_build
        words = ["--source", build.source, "--jobs", str(here.jobs), "--limit-s", str(limit), "--free-mib",
                 str(here.free_mib), "--oom", str(bounds.oom_score), "--requires",
                 "\n".join(self.ctx.stack.build_lines(here.requires, self.ctx.knobs.python))]
        words += ["--archs", ",".join(key.archs), "--nvcc", self._nvcc(key)] if build.cuda else ["--no-cuda"]
        words += ["--sha256", build.sha256] if build.sha256 else []
        words += ["--index", index] if (index := self.run.network.source_index(self.ctx)) else []
        words += ["--out", f"{env_path(self.ctx)}/.rig/build"]
        return program(self.ctx, BUILDING, words, limit + FETCHING_S, way_out=self.run.network.way_out(self.ctx),
                       script=self._turbo([build.source.removeprefix("git+")]), nice=bounds.nice).job

    def _nvcc(self, key: Key) -> str:
        """The least that compiles for all of them, cards of other hosts included, and beside this host's glibc."""
        cards = [Version(f"{arch[:-1]}.{arch[-1]}") for arch in key.archs]
        least = [self.ctx.rules.least_nvcc(card) for card in cards]
        return max([*least, *filter(None, [beside_glibc(self.ctx)])], key=Version)

    def _turbo(self, urls: Iterable[str]) -> str:
        """The host's own proxy script for a job that fetches these, where one of them is GitHub's."""
        return next(filter(None, (network.turbo(self.ctx, url) for url in urls)), "")


def in_vain(build: BuildSpec, tried: Iterable[Mapping[str, Any]]) -> str:
    """Why a build would come to what was tried already: the same release, with code for these cards, was right and no
    faster than SDPA. "" where it may come to something else."""
    wanted, archs = version(build.key.version), {f"sm_{arch}" for arch in build.key.archs}
    for row in tried:
        found = version(row.get("version"))
        if "proof" in row and row["why_not"] and archs <= set(row.get("archs") or ()) \
                and wanted and found and found.release == wanted.release:
            return f"not built: {wanted} is what the {row['rung']} is, which is right here, and no faster than SDPA"
    return ""


def _figures(made: Mapping[str, Any]) -> str:
    """What was measured of the rung that held."""
    proof, parts = made["proof"] or {}, []
    if isinstance(proof.get("worst"), (int, float)):
        parts.append(f"differs from the formula by {proof['worst']:.1e} at most")
    if made["speed"]:
        parts.append(f"faster than SDPA: {made['speed']}")
    if made["minutes"] >= 1:
        parts.append(f"{made['minutes']:.0f} min")
    return f" ({', '.join([*parts, 'sha256 ' + made['sha256'][:12]])})" if made["sha256"] else ""


APPLIER = Applier("flash-attn | Attempt flash-attn", commands, claim=claim)
