"""Work whose libraries have threads and processes that would outlive an interrupt is ended at once here."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


@contextmanager
def ends_at_once(owner: str, on_end: Callable[[], str]) -> Iterator[None]:
    """End this process and all that it has started at a SIGINT or SIGTERM within: one sentence, status 128 + signal.

    No exception is raised: a library may hold it up until threads are joined that never end. It is for the main
    thread of a program; no ``finally`` of the caller runs.

    Args:
        owner: begins the sentence.
        on_end: called once the processes below this one are gone; what is left to do, and how the sentence ends.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for other in before:  # an impatient second one must not disturb this
            signal.signal(other, signal.SIG_IGN)
        for process in _descendants(os.getpid()):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:  # it has ended
                continue
        ending = "interrupted"
        try:
            ending += on_end()
        finally:  # whatever happens, nobody waits for threads
            os.write(2, f"{owner}: {ending}\n".encode())
            os._exit(128 + number)

    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN  # as in a job that a script put into the background
    }
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _descendants(process: int) -> list[int]:
    """Return the processes that ``process`` has started, and theirs."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state parent ...: a name may hold anything
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    found = [process]
    for one in found:
        found += children.get(one, [])
    return found[1:]
