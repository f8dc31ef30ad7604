"""A round of trials, one a host, and one run for all of them: each host is right, something is taken from it, a fault
strikes, the run ends truthfully; the fault heals, the next run converges, and the one after that has nothing to do."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from random import Random

from . import tally
from .faults import STARTS, Fault, damages, obstacles, strokes
from .lab import Lab, Run, Spot
from .tally import Tally

TRIES = 3  # runs after a fault; the first must converge, the others only bring the hosts back for the next round
SHARED = 0.3  # the part of the rounds whose fault strikes the run itself
BLAME = re.compile(r"Traceback|mistake of qwen-rig's|^Exception in|object at 0x", re.MULTILINE)
EMPTY_ADVICE = re.compile(r"→ (read the log\b|see its lines above|)\s*($|log )")
NO_HOST = re.compile(r"^qwen-rig: .+ · .+", re.MULTILINE)
NOTHING, CHANGED = "✓ no change", "✓ changed"


class Trial:
    """One host's start and one or two faults. `shared`: the fault that strikes the whole run, where there is one."""

    def __init__(self, spot: Spot, score: Tally, seed: str, shared: Fault | None, only: str = "") -> None:
        self.spot, self.score, self.random, self.shared = spot, score, Random(f"{seed} {spot.host}"), shared
        self.start = self.random.choice([*STARTS][1 if shared and shared.at_work else 0:])
        hurt = damages(self.random)
        pools = [[each for each in pool if only in each.name and not each.shared]
                 for pool in (hurt, obstacles(self.random, spot), strokes(self.random))]
        self.faults = [shared or self.random.choice(self.random.choice([pool for pool in pools if pool] or [hurt]))]
        if not only and self.random.random() < 0.3 and self.faults[0] not in hurt:
            self.faults.append(self.random.choice(hurt))
        self.kind = " + ".join(fault.name for fault in self.faults)
        self.case = f"--trial {seed!r}, {spot.host}: {self.start}, then {self.kind}"

    @property
    def heals(self) -> bool:
        """Whether something is taken back, so that the run after may find more to do."""
        return any(fault.heals for fault in self.faults)

    def found(self, counted: str, said: object) -> None:
        """Something that must not be."""
        self.score.found(counted, self.kind, self.case, said)

    def strike(self) -> None:
        """The start and what the faults do before the run."""
        self.score.thrown(self.kind)
        self.spot.on(STARTS[self.start])
        for fault in self.faults:
            if fault.before:
                fault.before(self.spot)
            if fault.do:
                self.spot.on(fault.do)

    def heal(self) -> None:
        """What the faults did is taken back."""
        for fault in self.faults:
            if fault.undo:
                self.spot.on(fault.undo)
            if fault.after:
                fault.after(self.spot)

    def judge(self, run: Run) -> None:
        """What the run said of this host is true, its card says what and what to do."""
        fault, shown = self.faults[0], run.card(self.spot.host)
        well = run.outcome(self.spot.host) in (NOTHING, CHANGED)
        if run.code == 0 and not well:
            self.found(tally.EXIT, f"0, and the host is told as {run.outcome(self.spot.host) or 'nothing'}")
        if well and not self.heals and (wrong := self.spot.sound()):
            self.found(tally.TAKEN, f"told as right, and the env is broken: {wrong}")
        if shown and fault.ends == Fault("").ends:
            if "→" not in shown or EMPTY_ADVICE.search(shown):
                self.found(tally.CARD, f"nothing to do: {shown}")
            elif len(self.faults) == 1 and fault.says and not re.search(fault.says, shown):
                self.found(tally.CARD, f"doesn't name {fault.says}: {shown}")

    def converged(self, before: Run, run: Run) -> None:
        """The run after the fault brought the host back; where the one before called it right, it had nothing to do."""
        host, wrong = self.spot.host, ""
        if run.outcome(host) not in (NOTHING, CHANGED) or (wrong := self.spot.sound()):
            self.found(tally.UNCONVERGED, wrong or run.card(host) or run.said[-1500:])
        elif before.outcome(host) in (NOTHING, CHANGED) and not self.heals and run.outcome(host) != NOTHING:
            self.found(tally.TAKEN, f"told as right, and there was more to do: {run.said[-1500:]}")

    def left(self) -> None:
        """Nothing is left by halves, and no jobs overlapped."""
        for each in self.spot.overlaps():
            self.found(tally.OVERLAP, each)
        for each in self.spot.leftovers():
            self.found(tally.HALF, each)
            self.spot.on(f"rm -rf {each}")


class Round:
    """A trial on each host, chosen by a seed of its own."""

    def __init__(self, lab: Lab, score: Tally, seed: str, only: str = "") -> None:
        self.lab, self.random = lab, Random(seed)
        spot = self.random.choice(lab.spots)
        pools = [[each for each in pool if each.shared and only in each.name]
                 for pool in (obstacles(self.random, spot), strokes(self.random))]
        chosen = [pool for pool in pools if pool]
        struck = chosen and (self.random.random() < SHARED or (only and not any(
            only in each.name and not each.shared for each in self._all(spot))))
        self.shared = self.random.choice(self.random.choice(chosen)) if struck else None
        self.trials = [Trial(each, score, seed, self.shared, only) for each in lab.spots]

    def _all(self, spot: Spot) -> list[Fault]:
        return [*damages(Random(0)), *obstacles(Random(0), spot), *strokes(Random(0))]

    def go(self) -> None:
        """The whole of it; what is wrong is in the tally, and the hosts are right again."""
        for trial in self.trials:
            trial.strike()
        run = self._faulty()
        self._judge(run)
        for trial in self.trials:
            trial.heal()
        self._converge(run)
        for trial in self.trials:
            trial.left()

    def _faulty(self) -> Run:
        shared = self.shared or Fault("none")
        said = self.lab.folder / "fault.log"
        process = self.lab.begin(said, *(word for pair in shared.data for word in ("--data", pair)),
                                 within=shared.around, **dict(shared.environment))
        struck = [self.random.choice(self.trials)] if shared.at_work else self.trials
        threads = [threading.Thread(target=act, args=(trial.spot, process, trial.random), daemon=True)
                   for trial in struck if (act := trial.faults[0].at_work)]
        for thread in threads:
            thread.start()
        run = self.lab.end(process, said)
        for thread in threads:
            thread.join(120)
        return run

    def _judge(self, run: Run) -> None:
        first = self.trials[0]
        ends = (self.shared or Fault("")).ends
        if run.code is None:
            first.found(tally.SLOW, run.said[-800:])
        elif run.code not in ends:
            first.found(tally.EXIT, f"{run.code}: {run.said[-800:]}")
        if found := BLAME.search(run.said):
            self._blamed(self.trials, run).found(tally.TRACEBACK, run.said[max(0, found.start() - 1500):][:2000])
        cards = [trial for trial in self.trials if run.card(trial.spot.host)]
        if run.code in (1, 3, 4) and not cards and not NO_HOST.search(run.said):
            first.found(tally.CARD, f"no card: {run.said[-800:]}")
        if run.code in (0, 1, 3, 4):
            for trial in self.trials:
                trial.judge(run)

    def _blamed(self, trials: Sequence[Trial], run: Run) -> Trial:
        """The trial whose host's card has the traceback, else the first."""
        return next((trial for trial in trials if BLAME.search(run.card(trial.spot.host))), trials[0])

    def _converge(self, before: Run) -> None:
        run = self.lab.run()
        if found := BLAME.search(run.said):
            self._blamed(self.trials, run).found(tally.TRACEBACK, run.said[max(0, found.start() - 1500):][:2000])
        for trial in self.trials:
            trial.converged(before, run)
        if run.code == 0 and "No changes." in run.said:
            return  # the run after it would be this very run again
        for _ in range(TRIES - 1):
            if run.code == 0:
                break
            run = self.lab.run()
        else:
            for trial in self.trials:  # the next round's hosts are right, whatever this one has left
                if run.card(trial.spot.host):
                    trial.spot.on(STARTS["no env"])
            self.lab.run()
        last = self.lab.run()
        for trial in self.trials:
            if last.outcome(trial.spot.host) != NOTHING:
                trial.found(tally.REPEATED, last.card(trial.spot.host) or last.said[-1500:])
