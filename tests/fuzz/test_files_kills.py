"""Writers are killed at every step that changes a folder, and at random moments: the old state is there, or the new.

``python -m fuzz.test_files_kills 300``, in ``tests``, kills three hundred times, and counts.
"""

import collections
import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import glai_native as glai
from fuzz.file_formats import digest
from glai_native.machine import writing

STEPS = ("open", "fsync", "replace", "link", "rename", "unlink", "flock")
N = 24


def selector(seed: int) -> Any:
    torch.manual_seed(seed)
    return glai.PathSelector(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)))


def samples() -> tuple[Any, Any]:
    return torch.randn(N, 3, generator=torch.Generator().manual_seed(1)), torch.arange(N) % 2


def solved(seed: int, rows: int) -> Any:
    """A model with statistics of the first rows."""
    owner, (x, y) = selector(seed), samples()
    statistics = glai.PathStatistics(owner.n_paths, 3, 2, structure_id=owner.structure_id)
    statistics.update(owner.project(x[:rows]), owner.gates(x[:rows]), y[:rows])
    return glai.GLAI(owner, statistics.solve(0.1, dtype=torch.float32), statistics)


def state(folder: Path) -> str:
    """All that a model's folder says, as one that goes on from it finds it; ``"none"`` where there is none."""
    try:
        model = glai.GLAI.load(folder)
    except FileNotFoundError:
        return "none"
    sums = None if model.statistics is None else model.statistics.sums()
    return digest([model.structure_id, dict(model.estimator.named_parameters()), sums])


def training(path: Path, epochs: int) -> Any:
    owner, (x, y) = selector(0), samples()
    estimator = glai.PathEstimator(owner.n_paths, 3, 2, structure_id=owner.structure_id)
    return glai.train_estimator(
        estimator, owner.project(x), owner.gates(x), y, epochs=epochs, batch_size=8, checkpoint=path, progress=False
    ), estimator  # fmt: skip


def accumulation(path: Path) -> Any:
    owner, (x, y) = selector(0), samples()
    statistics = glai.PathStatistics(owner.n_paths, 3, 2, structure_id=owner.structure_id)
    options = {"chunk": 4, "checkpoint": path, "save_every": 1, "progress": False}
    return glai.accumulate(statistics, owner.project(x), owner.gates(x), y, **options)


def integers(folder: Path, rows: int, save: bool) -> Any:
    """Statistics of the first rows, saved, or accumulated with a checkpoint."""
    x, y = samples()
    statistics = glai.IntegerStatistics(glai.IntegerFeatures.fit(x, 3), 2)
    if save:
        statistics.update(x[:rows], y[:rows])
        statistics.save(folder / "e.safetensors")
        return statistics
    options = {"chunk": 6, "checkpoint": folder / "c.safetensors", "save_seconds": 0.0, "progress": False}
    statistics.accumulate(x[:rows], y[:rows], **options)
    return statistics


def trained_state(folder: Path) -> str:
    """What a training that goes on from the checkpoint comes to, whatever it had reached."""
    history, estimator = training(folder / "c.safetensors", 4)
    return digest([[epoch.loss for epoch in history], dict(estimator.named_parameters())])


@dataclass(frozen=True)
class Job:
    """``before`` makes a folder, ``change`` is killed in it; ``state`` is what it then holds.

    That must be the state before, or after a whole change.
    """

    before: Callable[[Path], Any]
    change: Callable[[Path], Any]
    state: Callable[[Path], str]


def kernel(folder: Path, rows: int) -> None:
    x, y = samples()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        glai.PathKernelModel(selector(0)).fit(x[:rows], y[:rows], l2=1.0, progress=False).save(folder)


def kernel_state(folder: Path) -> str:
    model = glai.PathKernelModel.load(folder)
    return digest([model.n_samples, model.alpha, model.centres.z, model.structure_id])


def store_state(folder: Path) -> str:
    try:
        store = glai.GateStore.open(folder)
    except FileNotFoundError:
        return "none"
    return digest([store.structure_id, [layer.words for layer in store.unit_gates(slice(None))]])


JOBS = {
    "a new model": Job(lambda at: None, lambda at: solved(0, 9).save(at), state),
    "a model of new numbers": Job(lambda at: solved(0, 9).save(at), lambda at: solved(0, 20).save(at), state),
    "a model of a new structure": Job(
        lambda at: solved(0, 9).save(at), lambda at: solved(1, 20).save(at, overwrite=True), state
    ),
    "a model that loses its statistics": Job(
        lambda at: solved(0, 9).save(at),
        lambda at: glai.GLAI(selector(0), solved(0, 20).estimator).save(at, overwrite=True),
        state,
    ),
    "a kernel model": Job(lambda at: kernel(at, 9), lambda at: kernel(at, 20), kernel_state),
    "a new store": Job(lambda at: None, lambda at: glai.GateStore.create(at, selector(0)), store_state),
    "an append": Job(
        lambda at: glai.GateStore.create(at, selector(0)).append(selector(0).unit_gates(samples()[0])),
        lambda at: glai.GateStore.open(at).append(selector(0).unit_gates(samples()[0] + 1)),
        store_state,
    ),
    "a training": Job(
        lambda at: training(at / "c.safetensors", 2),
        lambda at: training(at / "c.safetensors", 4),
        trained_state,
    ),
    "integer statistics": Job(
        lambda at: integers(at, 9, save=True),
        lambda at: integers(at, 20, save=True),
        lambda at: glai.IntegerStatistics.load(at / "e.safetensors").digest(),
    ),
    "an accumulation of integers": Job(
        lambda at: None,
        lambda at: integers(at, N, save=False),
        lambda at: integers(at, N, save=False).digest(),
    ),
    "an accumulation": Job(
        lambda at: None,
        lambda at: accumulation(at / "a.safetensors"),
        lambda at: digest(accumulation(at / "a.safetensors").sums()),
    ),
}


def die_at(step: str, number: int) -> None:
    """Kill this process at the ``number``-th call of a function that changes files, before or after it is done."""
    owner = fcntl if step == "flock" else os
    name, calls = step, [0]
    call = open if step == "open" else getattr(owner, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == (number + 1) // 2 and number % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        found = call(*arguments, **named)
        if calls[0] == number // 2 and number % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    if step == "open":
        writing.open = counted  # type: ignore[attr-defined]
    else:
        setattr(owner, name, counted)


def changed(job: str, folder: Path, step: str, number: int) -> int:
    """Run the change in a child that dies at that step, or after so many microseconds; return its status."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            if step != "moment":
                die_at(step, number)
            else:
                signal.setitimer(signal.ITIMER_REAL, number / 1e6)
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
            JOBS[job].change(folder)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def kills(place: Path, n: int, seed: int) -> collections.Counter:
    """Kills n times; raises at the first state that is neither the old nor the new."""
    rng, counts = random.Random(seed), collections.Counter()
    known: dict[str, tuple[set[str], float]] = {}
    for name, job in JOBS.items():
        folder = place / "whole"
        folder.mkdir()
        job.before(folder)
        shutil.copytree(folder, place / name)
        old = {job.state(folder)}
        shutil.rmtree(folder)
        shutil.copytree(place / name, folder)
        started = time.perf_counter()
        job.change(folder)
        known[name] = old | {job.state(folder)}, time.perf_counter() - started
        shutil.rmtree(folder)
    plan = [
        (name, step, number)
        for name in JOBS
        for step in STEPS
        for number in range(1, 2 * limit(name, step, place) + 1)
    ]
    rng.shuffle(plan)
    placed = plan[: n * 2 // 3]
    random_moments = [
        (name, "moment", rng.randrange(1, 1 + int(known[name][1] * 1e6)))
        for name in rng.choices(sorted(JOBS), k=n - len(placed))
    ]
    for name, step, number in placed + random_moments:
        folder = place / "killed"
        shutil.copytree(place / name, folder)
        status = changed(name, folder, step, number)
        found = JOBS[name].state(folder)
        where = f"{name}, killed at {step} {number}"
        assert found in known[name][0], f"{where}: neither the old state nor the new"
        if name != "a new store" or found == "none":
            JOBS[name].change(folder)  # the next writer
        left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
        assert not left, f"{where}: the next writer leaves {left}"
        counts[name, "at a step" if step != "moment" else "at a moment", os.WIFSIGNALED(status)] += 1
        shutil.rmtree(folder)
    return counts


def limit(name: str, step: str, place: Path) -> int:
    """Return how often a change calls a step, counted once."""
    folder, calls = place / "counted", [0]
    shutil.copytree(place / name, folder)
    owner = writing if step == "open" else fcntl if step == "flock" else os
    call = open if step == "open" else getattr(owner, step)

    def counted(*arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        return call(*arguments, **named)

    setattr(owner, step, counted)
    try:
        JOBS[name].change(folder)
    finally:
        if step == "open":
            del writing.open  # type: ignore[attr-defined]
        else:
            setattr(owner, step, call)
        shutil.rmtree(folder)
    return calls[0]


def in_a_process_of_its_own(n: int, seed: int) -> None:
    """Children are forked, which wants a process of one thread."""
    folder = Path(__file__).parents[1]
    command = [sys.executable, "-m", "fuzz.test_files_kills", str(n), str(seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_some_kills():
    in_a_process_of_its_own(20, seed=1)


@pytest.mark.slow
def test_three_hundred_kills():
    in_a_process_of_its_own(300, seed=2)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        found = kills(Path(made), int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3)
    for (job, where, killed), times in sorted(found.items()):
        print(f"{job:36} {where:12} {'killed' if killed else 'finished before':16} {times:4}")
