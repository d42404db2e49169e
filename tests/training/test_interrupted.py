"""An interrupt at any line leaves sums, models and learners as they were, or as they are to be."""

import copy
import signal
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import glai_native as glai
from glai_native.machine.interrupts import uninterrupted
from glai_native.solvers.statistics import adding

N = 40


@pytest.fixture(autouse=True)
def _handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def interrupt_at(line):
    """Sends SIGINT when the package has begun so many lines, counted from 1; yields the count."""
    begun = [0]

    def trace(frame, event, _):
        if "glai_native" not in frame.f_code.co_filename:
            return None
        if event == "line":
            begun[0] += 1
            if begun[0] == line:
                signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield begun
    finally:
        sys.settrace(before)


def values(tensors):
    return [t.detach().clone() for t in tensors]


def same(a, b):
    return len(a) == len(b) and all(
        x.shape == y.shape and torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
        for x, y in zip(a, b, strict=True)
    )


def statistics_state(statistics):
    return [
        *values(statistics._sums()),
        statistics.n_samples,
        statistics.structure_id,
        statistics.class_labels,
    ]


def model_state(model):
    estimator = model.estimator
    state = values([*estimator.parameters(), *estimator.buffers()])
    sums = [] if model.statistics is None else statistics_state(model.statistics)
    return [*state, *sums, estimator.class_labels, model.has_statistics]


def learner_state(learner):
    statistics = getattr(learner, "_statistics", None)
    sums = None if statistics is None else statistics_state(statistics)
    return [*([] if sums is None else sums), list(getattr(learner, "classes_", [])), sums is None]


def check(make, act, state, places=25):
    """Interrupts ``act`` on what ``make`` makes at evenly spread lines; every state is the old one or the new."""
    old = state(make())
    with interrupt_at(-1) as begun:
        changed = make()
        begun[0] = 0
        act(changed)
    new, lines = state(changed), begun[0]
    assert not same(old, new)
    interrupted = 0
    for line in sorted(
        {1 + i * (lines - 1) // (places - 1) for i in range(places)} | set(range(lines - 8, lines + 1))
    ):
        changed = make()
        try:
            with interrupt_at(line):
                act(changed)
        except KeyboardInterrupt:
            interrupted += 1
        found = state(changed)
        assert same(found, old) or same(found, new), f"line {line} of {lines}"
    assert interrupted > places // 2


@pytest.fixture
def parts(selector):
    x = torch.randn(N, 6, generator=torch.Generator().manual_seed(2)) * 3 + 1
    return selector.project(x), selector.gates(x), torch.arange(N) % 4


@pytest.fixture
def filled(selector, parts):
    def make():
        statistics = glai.PathStatistics(selector.n_paths, 6, 4, structure_id=selector.structure_id)
        statistics.update(*parts)
        return statistics

    return make


@pytest.mark.parametrize(
    "name", ["update", "downdate", "merge", "add_outputs", "accumulate", "permute_outputs"]
)
def test_statistics(name, selector, parts, filled, monkeypatch):
    monkeypatch.setattr(adding, "CHUNK_ROWS", 16)
    other = filled()
    acts = {
        "update": lambda s: s.update(*parts),
        "downdate": lambda s: s.downdate(*(part[:9] for part in parts)),
        "merge": lambda s: s.merge(other),
        "add_outputs": lambda s: s.add_outputs(2),
        "accumulate": lambda s: glai.accumulate(s, *parts, chunk=8, progress=False),
        "permute_outputs": lambda s: s.permute_outputs(torch.tensor([2, 0, 3, 1])),
    }
    check(filled, acts[name], statistics_state)


@pytest.mark.parametrize("error", [MemoryError("none"), RuntimeError("not enough memory")])
def test_memory_that_ends_within_a_chunk(parts, filled, monkeypatch, error):
    monkeypatch.setattr(adding, "CHUNK_ROWS", 16)
    gram, calls = adding.path_gram, []

    def fail(*arguments, **named):
        calls.append(1)
        if len(calls) % 2 == 0:
            raise error
        return gram(*arguments, **named)

    statistics = filled()
    before = statistics_state(statistics)
    monkeypatch.setattr(adding, "path_gram", fail)
    for act in (statistics.update, statistics.downdate):
        with pytest.raises(type(error)):
            act(*parts)
        assert same(statistics_state(statistics), before)


def test_what_shares_sums_keeps_them(selector, parts, filled):
    statistics = filled()
    before = statistics_state(statistics)
    kept, sums = copy.copy(statistics), statistics.sums()
    restored = glai.PathStatistics(selector.n_paths, 6, 4)
    restored.restore(statistics)
    old = {name: tensor.clone() for name, tensor in sums.items()}
    for _ in range(2):  # the first makes sums of its own, to which the second adds in place
        statistics.update(*parts)
    assert same(statistics_state(kept), before)
    assert same(statistics_state(restored), before)
    assert same(list(sums.values()), list(old.values()))
    restored.update(*parts)
    restored.update(*parts)
    assert same(statistics_state(restored), statistics_state(statistics))
    assert same(statistics_state(kept), before)


def test_a_chunk_is_added_in_place(parts, filled):
    statistics = filled()
    gram, state = statistics._gram, statistics.state
    statistics.update(*parts)
    assert statistics._gram is gram
    assert statistics.state != state
    again = filled().copy()
    again.update(*parts)
    assert same(statistics_state(again), statistics_state(statistics))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGALRM, signal.SIGTERM])
def test_no_signal_comes_between_the_gram_and_the_counts(number, parts, filled, monkeypatch):
    def end(*_):
        raise TimeoutError

    gram = adding.path_gram

    def signalled(*arguments, **named):
        gram(*arguments, **named)
        signal.raise_signal(number)

    before = signal.signal(number, end)
    try:
        statistics = filled()
        monkeypatch.setattr(adding, "path_gram", signalled)
        with pytest.raises(TimeoutError):
            statistics.update(*parts)
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)
    monkeypatch.undo()
    whole = filled()
    whole.update(*parts)
    assert same(statistics_state(statistics), statistics_state(whole))


def test_signals_that_are_held_all_arrive():
    came = []

    def end(number, _):
        came.append(number)
        raise TimeoutError

    def raise_all():
        with uninterrupted():
            for number in numbers:
                signal.raise_signal(number)
            assert not came

    numbers = [signal.SIGUSR1, signal.SIGALRM]
    before = [signal.signal(number, end) for number in numbers]
    try:
        with pytest.raises(TimeoutError):
            raise_all()
        assert sorted(came) == sorted(numbers)
        assert all(signal.getsignal(number) is end for number in numbers)
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def test_memory_that_ends_before_the_gram(parts, filled, monkeypatch):
    statistics = filled()
    before = statistics_state(statistics)

    def fail(*arguments, **named):
        raise MemoryError

    for op in ("path_gram", "gated_matmul_weight_grad"):
        monkeypatch.setattr(adding, op, fail)
        with pytest.raises(MemoryError):
            statistics.update(*parts)
        assert same(statistics_state(statistics), before)
        monkeypatch.undo()


@pytest.mark.parametrize("name", ["add_outputs", "permute_outputs", "add_classes", "record"])
def test_models(name, selector, parts, filled):
    def make():
        statistics = filled()
        model = glai.GLAI(selector, statistics.solve(0.1, dtype=torch.float32), statistics)
        model.class_labels = [0, 1, 2, 4]
        return model

    acts = {
        "add_outputs": lambda m: m.add_outputs(2, labels=[7, 9]),
        "permute_outputs": lambda m: m.permute_outputs(torch.tensor([2, 0, 3, 1])),
        "add_classes": lambda m: m.add_classes([3, -1]),
        "record": lambda m: m.estimator.record(*parts[1:]),
    }
    if name == "record":
        check(lambda: glai.GLAI(selector, make().estimator), acts[name], model_state)
        return
    check(make, acts[name], model_state)


def test_retrain(selector, parts, filled):
    x = torch.randn(N, 6, generator=torch.Generator().manual_seed(2)) * 3 + 1

    def make():
        statistics = filled()
        return glai.GLAI(selector, statistics.solve(0.1, dtype=torch.float32), statistics)

    def act(model):
        glai.retrain(model, x, (parts[2] + 1) % 5, increment=True, progress=False)

    check(make, act, model_state, places=15)


def test_partial_fit():
    x = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
    y = np.array(["a", "b", "c", "d"])[np.arange(N) % 4]
    first = glai.GLAIClassifier((4,), structure_epochs=1).partial_fit(
        x[:20], np.where(y[:20] == "a", "b", "d")
    )

    def make():
        learner = glai.GLAIClassifier((4,), structure_epochs=1)
        learner.__dict__ = dict(first.__dict__)
        return learner

    check(make, lambda learner: learner.partial_fit(x, y), learner_state, places=15)
