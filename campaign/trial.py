"""One trial of a fault: the host is right, something is taken from it, a fault strikes, the run ends truthfully; the
fault heals, the next run converges, and the one after that has nothing to do."""

from __future__ import annotations

import re
import threading
from random import Random

from . import tally
from .faults import STARTS, Fault, damages, obstacles, strokes
from .lab import Lab, Run, card
from .tally import Tally

TRIES = 3  # runs after a fault; the first must converge, the others only bring the host back for the next trial
BLAME = re.compile(r"Traceback|mistake of qwen-rig's|^Exception in|object at 0x", re.MULTILINE)
EMPTY_ADVICE = re.compile(r"→ (read the log\b|see its lines above|)\s*($|log )")


class Trial:
    """One start and one or two faults, chosen by a seed of its own."""

    def __init__(self, lab: Lab, score: Tally, seed: str, only: str = "") -> None:
        self.lab, self.score, self.random = lab, score, Random(seed)
        self.start = self.random.choice([*STARTS])
        pools = [damages(self.random), obstacles(self.random, lab), strokes(self.random)]
        if only:
            pools = [[fault for pool in pools for fault in pool if only in fault.name]]
        self.faults = [self.random.choice(self.random.choice([pool for pool in pools if pool]))]
        if not only and self.random.random() < 0.3 and self.faults[0].name not in {each.name for each in pools[0]}:
            self.faults.append(self.random.choice(pools[0]))
        self.kind = " + ".join(fault.name for fault in self.faults)
        self.case = f"--trial {seed!r}: {self.start}, then {self.kind}"

    def go(self) -> None:
        """The whole of it; what is wrong is in the tally, and the host is right again."""
        self.score.thrown(self.kind)
        self.lab.on(STARTS[self.start])
        for fault in self.faults:
            if fault.before:
                fault.before(self.lab)
            if fault.do:
                self.lab.on(fault.do)
        run = self._faulty()
        self._judge(run)
        self._heal()
        self._converges(run)
        for each in self.lab.overlaps():
            self._found(tally.OVERLAP, each)
        for each in self.lab.leftovers():
            self._found(tally.HALF, each)
            self.lab.on(f"rm -rf {each}")

    def _found(self, counted: str, said: object) -> None:
        self.score.found(counted, self.kind, self.case, said)

    def _faulty(self) -> Run:
        lab, fault = self.lab, self.faults[0]
        data = [word for pair in fault.data for word in ("--data", pair)]
        said = lab.folder / "fault.log"
        process = lab.begin(said, *data, within=fault.around, **dict(fault.environment))
        strike = None
        if act := fault.at_work:
            strike = threading.Thread(target=act, args=(lab, process, self.random), daemon=True)
            strike.start()
        run = lab.end(process, said)
        if strike:
            strike.join(60)
        return run

    def _heal(self) -> None:
        for fault in self.faults:
            if fault.undo:
                self.lab.on(fault.undo)
            if fault.after:
                fault.after(self.lab)

    def _judge(self, run: Run) -> None:
        """Its exit status is true, its card says what and what to do."""
        fault, shown = self.faults[0], card(run.said)
        if run.code is None:
            self._found(tally.SLOW, run.said[-800:])
        elif run.code not in fault.ends:
            self._found(tally.EXIT, f"{run.code}: {run.said[-800:]}")
        if BLAME.search(run.said):
            self._found(tally.TRACEBACK, run.said[-1500:])
        if run.code == 0 and not fault.heals and (wrong := self.lab.sound()):
            self._found(tally.TAKEN, f"exit 0, and the env is broken: {wrong}")
        if run.code in (1, 3, 4) and fault.ends == Fault("").ends:
            if not shown and not re.search(r"^qwen-rig: .+ · .+", run.said, re.MULTILINE):
                self._found(tally.CARD, f"no card: {run.said[-800:]}")
            elif shown and ("→" not in shown or EMPTY_ADVICE.search(shown)):
                self._found(tally.CARD, f"nothing to do: {shown}")
            elif len(self.faults) == 1 and fault.says and not re.search(fault.says, shown or run.said):
                self._found(tally.CARD, f"doesn't name {fault.says}: {shown or run.said[-800:]}")

    def _converges(self, before: Run) -> None:
        for number in range(TRIES):
            run = self.lab.run()
            if number == 0 and (run.code != 0 or (wrong := self.lab.sound())):
                self._found(tally.UNCONVERGED, card(run.said) or run.said[-1500:] if run.code else wrong)
            if BLAME.search(run.said):
                self._found(tally.TRACEBACK, run.said[-1500:])
            if number == 0 and before.code == 0 and not any(fault.heals for fault in self.faults) \
                    and "No changes." not in run.said:
                self._found(tally.TAKEN, f"exit 0, and there was more to do: {run.said[-800:]}")
            if run.code == 0:
                break
        else:
            self.lab.on(STARTS["no env"])  # the next trial's host is right, whatever this one has left
            self.lab.run()
        last = self.lab.run()
        if last.code != 0 or "No changes." not in last.said:
            self._found(tally.REPEATED, last.said[-1500:])
