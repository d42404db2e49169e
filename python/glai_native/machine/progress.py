"""This module draws progress bars on standard error, on terminals."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


def epoch_progress(enabled: bool) -> Progress:
    """Make a progress bar on standard error that shows on terminals only; elsewhere it writes nothing."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not (enabled and console.is_terminal),
    )


# After so many seconds without an end a bar is worth showing.
BAR_SECONDS = 2.0


@contextmanager
def samples_bar(name: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show a bar on standard error, on terminals, from two seconds on; give what to call with samples done."""
    bar, started = epoch_progress(True), time.monotonic()
    task = bar.add_task(name, total=total)

    def done(samples: int) -> None:
        bar.advance(task, samples)
        if not bar.live.is_started and time.monotonic() - started > BAR_SECONDS:
            bar.start()

    try:
        yield done
    finally:
        bar.stop()


class _Rate(ProgressColumn):
    """How many samples a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


def sample_progress(enabled: bool) -> Progress:
    """Make a bar of samples, with how many a second and the time that is left, on standard error, on terminals only."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (enabled and console.is_terminal),
    )


# A bar shows from so many multiply-adds on, about two seconds of one core.
BAR_MULTIPLY_ADDS = 1e11


@contextmanager
def multiply_adds_bar(name: str, total: float, enabled: bool) -> Iterator[Callable[[float], object]]:
    """Show a bar on standard error, on terminals, of work that is worth one; give what to call with work done."""
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not (enabled and console.is_terminal and total >= BAR_MULTIPLY_ADDS),
    )
    with bar:
        task = bar.add_task(name, total=total)
        yield lambda done: bar.advance(task, done)
