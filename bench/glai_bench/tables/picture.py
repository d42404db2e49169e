"""The picture of the tables: GLAI's score less that of each other learner, and its processor time over theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from glai_bench.tables.learners import BOOSTING, LIGHTGBM, MLP, TUNED
from glai_bench.tables.rows import Row, duels

MARKS = {MLP: "o", TUNED: "s", BOOSTING: "^", LIGHTGBM: "v"}
SCORE_TICKS = (-0.1, -0.03, -0.01, -0.003, 0, 0.003, 0.01, 0.03, 0.1, 0.3, 1)
TIME_TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
STRAIGHT = 0.01  # differences of scores below it are drawn to scale, beyond it by their logarithm


def draw(found: Sequence[Row], path: Path) -> None:
    """Draw a line for each data set, and on it a mark for each other learner."""
    from matplotlib.figure import Figure

    names = [row.name for row in found]
    picture = Figure(figsize=(12, 0.45 * len(names) + 1.8), layout="constrained")
    scores, times = picture.subplots(1, 2, sharey=True)
    for number, (learner, mark) in enumerate(MARKS.items()):
        pairs = duels(found, learner)
        # Beside each other, not upon each other.
        heights = [names.index(pair.name) + 0.16 * (number - 1.5) for pair in pairs]
        for panel, values in (
            (scores, [pair.difference for pair in pairs]),
            (times, [pair.ratio for pair in pairs]),
        ):
            panel.scatter(values, heights, marker=mark, color=f"C{number}", s=28, label=learner, zorder=3)
    scores.set_xscale("symlog", linthresh=STRAIGHT)
    scores.axvline(0, color="black", linewidth=1)
    scores.set(xlabel="accuracy or R2, less the other's (right: GLAI is better)")
    scores.margins(x=0.08)
    times.set_xscale("log")
    times.axvline(1, color="black", linewidth=1)
    times.axvline(1 / 3, color="C0", linestyle="--", linewidth=1)
    times.axvline(1 / 2, color="C1", linestyle="--", linewidth=1)
    times.set(xlabel="processor time, over the other's (dashed: asked)")
    for panel, ticks in ((scores, SCORE_TICKS), (times, TIME_TICKS)):
        low, high = panel.get_xlim()
        panel.set_xticks([tick for tick in ticks if low <= tick <= high])
        panel.xaxis.set_major_formatter(lambda tick, _: f"{tick:g}")
        panel.xaxis.set_minor_formatter(lambda tick, _: "")
        panel.grid(axis="x", alpha=0.3)
        for height in range(len(names) - 1):
            panel.axhline(height + 0.5, color="black", alpha=0.15, linewidth=0.6)
    scores.set_yticks(range(len(names)), names)
    scores.set_ylim(len(names) - 0.5, -0.5)
    handles, labels = scores.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=len(MARKS), frameon=False)
    picture.savefig(path, dpi=90)
