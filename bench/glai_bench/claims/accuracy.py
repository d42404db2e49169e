"""Claim 2: no loss of accuracy. Accuracy and time to accuracy of all contenders, random gates always beside trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from glai_bench.claims.accuracy_tables import pictures, tables
from glai_bench.claims.cell import Cell, Settings
from glai_bench.claims.contenders import Contender, contenders
from glai_bench.claims.data import load_split
from glai_bench.solvers.runs import Curve, Split, best, seconds_to

__all__ = ["cells", "pictures", "quickest_settings", "tables"]

BASELINE = "MLP"


def cells(settings: Settings) -> Iterator[Cell]:
    """Tuning of all on the first seed, then seed by seed, so that all contenders meet the same state of the machine."""
    for name in settings.data_sets:
        split = load_split(settings, name)
        field = list(contenders(split, settings.quick))
        for contender in field:
            key = tuning_key(name, contender.key)
            if contender.omitted is None:
                yield Cell(key, partial(_tune, split, contender, settings))
            else:
                yield Cell(key, partial(dict, omitted=contender.omitted))
        for seed in settings.seeds:
            for contender in field:
                if contender.omitted is None:
                    key = f"accuracy/{name}/{contender.key}/seed={seed}"
                    yield Cell(key, partial(_compete, split, contender, seed, settings))


def tuning_key(name: str, contender: str) -> str:
    return f"accuracy/{name}/{contender}/tuning"


def quickest_settings(settings: Settings, name: str, contender: Contender) -> Any:
    """Those that came to the target first in tuning; where none did, those of the highest validation accuracy."""
    return contender.settings[settings.result_of(tuning_key(name, contender.key))["quickest"]]


def _tune(split: Split, contender: Contender, settings: Settings) -> dict[str, Any]:
    grid = contender.settings[: 2 if settings.quick else None]
    curves = [contender.run(split, s, settings.seeds[0]) for s in grid]
    tried = [best(curve) for curve in curves]
    # Equal accuracies: the quicker.
    chosen = min(range(len(grid)), key=lambda i: (-tried[i].validation, tried[i].seconds))
    result = {
        "chosen": chosen,
        "tried": [{"settings": str(s), **asdict(point)} for s, point in zip(grid, tried, strict=True)],
        "validation": tried[chosen].validation,
        "validation samples": len(split.x_val),
    }
    baseline = result if contender.key == BASELINE else settings.result_of(tuning_key(split.name, BASELINE))
    seconds = [seconds_to(curve, target_of(baseline)) for curve in curves]
    reached = {i: value for i, value in enumerate(seconds) if value is not None}
    return result | {"quickest": min(reached, key=reached.__getitem__, default=chosen)}


def target_of(tuned: dict[str, Any]) -> float:
    """What time is taken to: the baseline's best validation accuracy in tuning, less one standard error of it."""
    share, n = tuned["validation"], tuned["validation samples"]
    return float(share - (share * (1 - share) / n) ** 0.5)


def _compete(split: Split, contender: Contender, seed: int, settings: Settings) -> dict[str, Any]:
    """Once with the settings of the highest accuracy and, for the time, once with the quickest where they differ."""
    target = target_of(settings.result_of(tuning_key(split.name, BASELINE)))
    accurate = contender.settings[settings.result_of(tuning_key(split.name, contender.key))["chosen"]]
    quickest = quickest_settings(settings, split.name, contender)
    curve: Curve = contender.run(split, accurate, seed)
    race = curve if quickest == accurate else contender.run(split, quickest, seed)
    total, trained = contender.parameters(split, accurate)
    point = best(curve)
    return {
        "settings": str(accurate),
        "parameters": total,
        "trained parameters": trained,
        "samples": contender.samples,
        "validation": point.validation,
        "test": point.test,
        "best epoch": point.epoch,
        "curve": [asdict(p) for p in curve],
        "quickest settings": str(quickest),
        "target": target,
        "seconds to target": seconds_to(race, target),
        # The first point at the target; where none is, the best.
        "raced to": asdict(next((p for p in race if p.validation >= target), best(race))),
        "race": [asdict(p) for p in race],
    }
