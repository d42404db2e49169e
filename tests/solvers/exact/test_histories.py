"""A thousand random histories of learning, forgetting, merging, saving, loading and dying leave one digest.

``pytest -m 'slow or not slow'`` goes through all of them, else through the first two hundred.
"""

import random
from collections import Counter

import pytest
import torch

import glai_native as glai
import glai_native._native as _native
from glai_native.solvers.exact import adding, samples

POOL, D, UNITS, OUTPUTS = 40, 5, 26, 2
LABELS = ["ant", "bee", "cat", "dog"]
SHARD = 25
STEP = 2.0**-12

g = torch.Generator().manual_seed(0)
X = torch.randn((POOL, D), generator=g)
CLASSES = [LABELS[i] for i in torch.randint(0, 4, (POOL,), generator=g).tolist()]
VALUES = torch.randn((POOL, OUTPUTS), generator=g)
# What is left in the end: some samples twice, and some that were only passing through not at all.
GOAL = Counter({i: 1 + i % 2 for i in range(POOL) if i % 5})


class Died(BaseException):
    """What a step that is killed leaves is never seen: sums are read again from where they were saved."""


class Party:
    """Statistics that come to hold ``goal``, by ways that only the history's number knows."""

    def __init__(self, rng, features, kind, goal, folder):
        self.rng, self.goal, self.held, self.folder = rng, goal, Counter(), folder
        self.kind = kind
        if kind == "values":
            self.sums = glai.IntegerStatistics(features, OUTPUTS, targets="values", step=STEP)
        else:
            known = rng.sample(LABELS, rng.randint(1, 4))
            self.sums = glai.IntegerStatistics(features, len(known))
            self.sums.class_labels = known
        self.saved = None

    def targets(self, rows):
        if self.kind == "values":
            return VALUES[rows]
        labels = [CLASSES[i] for i in rows]
        new = sorted(set(labels) - set(self.sums.class_labels))
        if new and self.rng.random() < 0.5:
            self.sums.add_classes(new)
        elif new:
            self.rng.shuffle(new)
            self.sums.add_outputs(len(new), new)
        return torch.tensor([self.sums.class_labels.index(label) for label in labels], dtype=torch.int64)

    def learn(self, counts):
        """In any of the ways that there are."""
        rows, weight = self.listed(counts)
        y = self.targets(rows)
        way = self.rng.randrange(3)
        if way == 0:
            self.sums.update(X[rows], y, weight)
        elif way == 1:
            self.sums.update_features(self.sums.features.transform(X[rows]), y, weight)
        else:
            cut = self.rng.randint(0, len(rows))
            parts = [slice(0, cut), slice(cut, None)]
            chunks = [(X[rows][p], y[p], None if weight is None else weight[p]) for p in parts]
            self.sums.accumulate(chunks, progress=False)
        self.held += counts

    def forget(self, counts):
        rows, weight = self.listed(counts)
        self.sums.downdate(X[rows], self.targets(rows), weight)
        self.held -= counts

    def listed(self, counts):
        """The samples one by one, or each with a weight, in any order."""
        rows = list(counts.elements())
        weight = None
        if self.rng.random() < 0.5:
            rows = [*counts, *self.rng.sample(range(POOL), 2)]
            weight = torch.tensor([*counts.values(), 0, 0])
        order = self.rng.sample(range(len(rows)), len(rows))
        return [rows[i] for i in order], None if weight is None else weight[order]

    def some(self, counts):
        rows = list(counts.elements())
        return Counter(self.rng.sample(rows, self.rng.randint(0, len(rows))))

    def save(self):
        path = self.folder / f"{id(self)}.safetensors"
        self.sums.save(path)
        self.saved = path, self.held.copy()

    def die(self):
        """In the middle of a step, or between two; whoever goes on reads what was saved, or goes on from before."""
        add, left = adding._add_chunk, self.rng.randint(0, 3)

        def dies(*arguments):
            nonlocal left
            left -= 1
            if left == -1:  # and not again where what it had begun is taken back
                raise Died
            add(*arguments)

        before = self.held.copy()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(adding, "_add_chunk", dies)
            try:
                self.learn(Counter(range(POOL)))
            except Died:
                assert self.held == before
        if self.saved is not None and self.rng.random() < 0.5:
            path, held = self.saved
            self.sums, self.held = glai.IntegerStatistics.load(path), held.copy()

    def step(self):
        missing, surplus = self.goal - self.held, self.held - self.goal
        choice = self.rng.random()
        if choice < 0.3:
            self.learn(self.some(missing))
        elif choice < 0.4:
            self.learn(Counter(self.rng.sample(range(POOL), 5)))
        elif choice < 0.7:
            self.forget(self.some(surplus))
        elif choice < 0.78:
            self.save()
        elif choice < 0.82:
            self.die()
        elif choice < 0.9:
            torch.set_num_threads(self.rng.randint(1, 2))
        else:
            _native.force_cpu_isa(self.rng.choice(_native.cpu_isas()))

    def finish(self):
        self.forget(self.held - self.goal)
        self.learn(self.goal - self.held)

    def merge(self, other):
        self.sums.merge(other.sums)
        self.held, self.goal, self.saved = self.held + other.held, self.goal + other.goal, None


def history(number, features, folder):
    rng = random.Random(number)
    torch.set_num_threads(1)  # until a step says otherwise: where cores are taken, two wait for each other
    kind = "values" if number % 4 == 3 else "classes"
    goals = [Counter() for _ in range(rng.randint(1, 3))]
    for row in GOAL.elements():
        rng.choice(goals)[row] += 1
    parties = [Party(rng, features, kind, goal, folder) for goal in goals]
    for _ in range(rng.randint(4, 24)):
        rng.choice(parties).step()
        if len(parties) > 1 and rng.random() < 0.1:
            parties[0].merge(parties.pop())
    for party in parties:
        party.finish()
    rng.shuffle(parties)
    whole = parties.pop()
    while parties:
        whole.merge(parties.pop())
    assert len(whole.sums.ledger) == whole.sums.n_samples == GOAL.total()
    return kind, whole.sums.digest()


def in_one_go(features, kind):
    rows = list(GOAL.elements())
    if kind == "values":
        statistics = glai.IntegerStatistics(features, OUTPUTS, targets="values", step=STEP, ledger=False)
        statistics.update(X[rows], VALUES[rows])
    else:
        statistics = glai.IntegerStatistics(features, len(LABELS), per_class=True)
        statistics.class_labels = LABELS
        statistics.update(X[rows], torch.tensor([LABELS.index(CLASSES[i]) for i in rows]))
    return statistics.digest()


@pytest.mark.filterwarnings("ignore:merge")
@pytest.mark.parametrize("shard", [pytest.param(n, marks=[pytest.mark.slow] * (n >= 8)) for n in range(40)])
def test_one_digest(shard, tmp_path, monkeypatch):
    monkeypatch.setattr(samples, "CHUNK_ROWS", (16, 16))
    threads, isa = torch.get_num_threads(), _native.cpu_isa()
    features = glai.IntegerFeatures.fit(X, UNITS)
    expected = {kind: in_one_go(features, kind) for kind in ("classes", "values")}
    try:
        for number in range(shard * SHARD, (shard + 1) * SHARD):
            kind, found = history(number, features, tmp_path)
            assert found == expected[kind], f"history {number}"
    finally:
        torch.set_num_threads(threads)
        _native.force_cpu_isa(isa)
