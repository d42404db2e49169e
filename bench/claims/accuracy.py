"""Claim 2: no loss of accuracy. Accuracy and time to accuracy of all contenders, random gates always beside trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from claims.accuracy_tables import pictures, tables
from claims.cell import Cell, Settings
from claims.contenders import Contender, contenders
from claims.data import load_split
from solver_runs import Curve, Split, best, seconds_to

__all__ = ["cells", "chosen_settings", "pictures", "tables", "tuning_key"]

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


def chosen_settings(settings: Settings, name: str, contender: Contender) -> Any:
    """Those of the highest validation accuracy on the first seed."""
    return contender.settings[settings.result_of(tuning_key(name, contender.key))["chosen"]]


def _tune(split: Split, contender: Contender, settings: Settings) -> dict[str, Any]:
    grid = contender.settings[: 2 if settings.quick else None]
    tried = [best(contender.run(split, s, settings.seeds[0])) for s in grid]
    # Equal accuracies: the quicker.
    chosen = min(range(len(grid)), key=lambda i: (-tried[i].validation, tried[i].seconds))
    return {
        "chosen": chosen,
        "tried": [{"settings": str(s), **asdict(point)} for s, point in zip(grid, tried, strict=True)],
        "validation": tried[chosen].validation,
        "validation samples": len(split.x_val),
    }


def target_of(settings: Settings, name: str) -> float:
    """What time is taken to: the baseline's best validation accuracy in tuning, less one standard error of it."""
    tuned = settings.result_of(tuning_key(name, BASELINE))
    share, n = tuned["validation"], tuned["validation samples"]
    return float(share - (share * (1 - share) / n) ** 0.5)


def _compete(split: Split, contender: Contender, seed: int, settings: Settings) -> dict[str, Any]:
    how, target = chosen_settings(settings, split.name, contender), target_of(settings, split.name)
    curve: Curve = contender.run(split, how, seed)
    total, trained = contender.parameters(split, how)
    point = best(curve)
    return {
        "settings": str(how),
        "parameters": total,
        "trained parameters": trained,
        "samples": contender.samples,
        "validation": point.validation,
        "test": point.test,
        "best epoch": point.epoch,
        "target": target,
        "seconds to target": seconds_to(curve, target),
        "epoch of target": next((p.epoch for p in curve if p.validation >= target), None),
        "curve": [asdict(p) for p in curve],
    }
