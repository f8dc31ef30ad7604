"""The drawing of one series: points on a page become places in an SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10

from qwen_rig.frozen import frozen

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM, TOP = 322, 210, 44, 18, 30, 26
TICKS = 5  # about so many lines across a plot

Points = Sequence[Sequence[float]]


@frozen
class Plot:
    """A line through the points, from zero up, and the earlier one behind it. In pixels, labels beside them.

    rows: (y, label) of each line across; columns: (x, label) below; now, before: points as a polyline has them; dots:
    (x, y, label).
    """

    name: str
    rows: tuple[tuple[float, str], ...]
    columns: tuple[tuple[float, str], ...]
    now: str
    before: str
    dots: tuple[tuple[float, float, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def scale(most: float) -> list[float]:
    """Round numbers from zero to the first that isn't below `most`, some TICKS of them."""
    rough = max(most, 1e-9) / TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))
    return [round(step * n, 12) for n in range(ceil(round(most / step, 9)) + 1)] if most > 0 else [0.0, step]


def plot(name: str, points: Points, before: Points | None, logarithmic: bool) -> Plot:
    """The drawing of these points. `logarithmic`: across."""
    everything = [*points, *(before or [])]

    def across(x: float) -> float:
        return log10(x) if logarithmic and x > 0 else x

    low, high = (f(across(x) for x, _ in everything) for f in (min, max))
    ticks = scale(max(y for _, y in everything))

    def at(x: float, y: float) -> tuple[float, float]:
        share = (across(x) - low) / ((high - low) or 1)
        return LEFT + share * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - max(y, 0) / ticks[-1] * (HEIGHT - BOTTOM - TOP)

    def line(some: Points) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in some))

    shown = points if len(points) <= 8 else [points[0], points[len(points) // 2], points[-1]]
    return Plot(name, rows=tuple((at(points[0][0], value)[1], f"{value:g}") for value in ticks),
                columns=tuple((at(x, 0)[0], f"{x:g}") for x, _ in shown), now=line(points), before=line(before or []),
                dots=tuple((*at(x, y), f"{x:g}: {y:.4g}") for x, y in points))
