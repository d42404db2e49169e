"""IntegerStatistics.accumulate: data on disk or in chunks, kills, and going on."""

import numpy as np
import pytest
import torch

import glai_native as glai
from glai_native.solvers.exact import accumulating

N, D, C = 100, 4, 3


@pytest.fixture(scope="module")
def data():
    g = torch.Generator().manual_seed(0)
    return torch.randn((N, D), generator=g), torch.randint(0, C, (N,), generator=g)


@pytest.fixture(scope="module")
def features(data):
    return glai.IntegerFeatures.fit(data[0], 11)


@pytest.fixture(scope="module")
def expected(data, features):
    statistics = glai.IntegerStatistics(features, C)
    statistics.update(*data)
    return statistics.digest()


def run(features, *arguments, **options):
    options = {"chunk": 16, "progress": False} | options
    statistics = glai.IntegerStatistics(features, C)
    statistics.accumulate(*arguments, **options)
    return statistics


def chunks(x, y, size=13):
    for begin in range(0, N, size):
        yield x[begin : begin + size], y[begin : begin + size]


@pytest.fixture(params=["archive", "packed archive", "train archive", "array", "map", "tensor", "chunks"])
def source(request, tmp_path, data):
    """What makes arguments anew."""
    x, y = (each.numpy() for each in data)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.savez(tmp_path / "a.npz", x=x, y=y, id=np.arange(N))
    np.savez_compressed(tmp_path / "b.npz", x=x, y=y)
    np.savez(tmp_path / "c.npz", x_train=x, y_train=y, x_test=x[:5])
    return {
        "archive": lambda: (tmp_path / "a.npz",),
        "packed archive": lambda: (tmp_path / "b.npz",),
        "train archive": lambda: (tmp_path / "c.npz",),
        "array": lambda: (x, y),
        "map": lambda: (tmp_path / "x.npy", tmp_path / "y.npy"),
        "tensor": lambda: data,
        "chunks": lambda: (chunks(*data),),
    }[request.param]


def test_any_source(features, source, expected):
    assert run(features, *source()).digest() == expected
    statistics = glai.IntegerStatistics(features, C)
    statistics.accumulate(*source(), chunk=64, progress=False)
    with pytest.warns(UserWarning, match="merge: 100 samples are, to 7 bits, in both"):
        statistics.accumulate(*source(), chunk=64, progress=False)
    assert statistics.n_samples == 2 * N


@pytest.mark.parametrize("killed_at", [1, 2, 7])
def test_goes_on_after_a_kill_with_the_same_digest(
    tmp_path, monkeypatch, features, source, expected, killed_at
):
    path = tmp_path / "checkpoint.safetensors"
    update, calls = glai.IntegerStatistics.update, []

    def killed(self, *arguments):
        calls.append(len(arguments[0]))
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        return update(self, *arguments)

    monkeypatch.setattr(glai.IntegerStatistics, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        run(features, *source(), checkpoint=path, save_seconds=0)
    assert path.exists() == (killed_at > 1)
    done = glai.IntegerStatistics.load(path).n_samples if path.exists() else 0
    assert done == sum(calls[:-1])
    calls.clear()
    killed_at = 0
    whole = run(features, *source(), checkpoint=path, chunk=30)
    assert whole.digest() == expected
    assert sum(calls) == N - done
    assert run(features, *source(), checkpoint=path).digest() == expected  # all is in it


def test_labels_are_encoded_as_they_come(tmp_path, data, features):
    x, y = data
    np.savez(tmp_path / "a.npz", x=x, y=np.array(["b", "c", "a"])[y])
    statistics = glai.IntegerStatistics(features, 1)
    statistics.class_labels = ["b"]

    def encode(part, labels, weight):
        part.add_classes(sorted(set(labels.tolist())))
        return torch.tensor([part.class_labels.index(label) for label in labels.tolist()])

    statistics.accumulate(tmp_path / "a.npz", encode=encode, chunk=7, progress=False)
    joint = glai.IntegerStatistics(features, C)
    joint.class_labels = ["b", "c", "a"]
    joint.update(x, y)
    assert statistics.digest() == joint.digest()
    assert statistics.class_labels == ["a", "b", "c"]


def test_what_fails_adds_nothing(tmp_path, data, features):
    x, y = data
    statistics = glai.IntegerStatistics(features, C)
    statistics.update(x[:5], y[:5])
    before = statistics.digest()
    bad = x.clone()
    bad[70, 2] = float("nan")
    with pytest.raises(ValueError, match="got nan in row 6, column 2"):
        statistics.accumulate(bad, y, chunk=16, progress=False)
    assert statistics.digest() == before
    for arguments, sentence in (
        ((x,), "targets must be given with x, got none"),
        ((x, y[1:]), "all must be of the same N samples, got x 100, targets 99"),
        (([x],), r"chunk 0 must be \(x, targets\), .* got Tensor"),
        ((5,), "data must be a path, x with targets, or an iterable"),
    ):
        with pytest.raises(ValueError, match=sentence):
            statistics.accumulate(*arguments, progress=False)
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        statistics.accumulate(tmp_path / "none.npz", progress=False)
    with pytest.raises(ValueError, match="statistics of values must have a step="):
        glai.IntegerStatistics(features, 1, targets="values").accumulate(x, y, progress=False)
    np.savez(tmp_path / "a.npz", y=y)
    with pytest.raises(ValueError, match="must hold x, y or x_train, y_train; got y"):
        statistics.accumulate(tmp_path / "a.npz", progress=False)
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(x), y=y)
    with pytest.raises(ValueError, match=r"x must be an array \[N, ...\] .* in Fortran order"):
        statistics.accumulate(tmp_path / "a.npz", progress=False)
    assert statistics.digest() == before


def test_checkpoints_of_other_data_are_refused(tmp_path, data, features):
    x, y = data
    path = tmp_path / "checkpoint.safetensors"
    run(features, x, y, checkpoint=path)
    for arguments in ((x[:50], y[:50]), (x + 1, y), (x.double(), y), (chunks(x, y),)):
        with pytest.raises(ValueError, match="checkpoint .* is of other data"):
            run(features, *arguments, checkpoint=path)
    run(features, chunks(x, y), checkpoint=tmp_path / "chunks.safetensors")
    with pytest.raises(ValueError, match="data must be those that were begun with, got 26 samples where"):
        run(features, list(chunks(x, y))[:2], checkpoint=tmp_path / "chunks.safetensors")
    other = glai.IntegerFeatures.fit(x, 11, seed=1)
    with pytest.raises(ValueError, match="features_id must be"):
        run(other, x, y, checkpoint=path)
    assert accumulating.find_file(path) is not None


def test_samples_that_changed_after_a_checkpoint_are_refused(tmp_path, data, features):
    """What is in the sums already must be what is there now: labels, ids, weights and late rows too."""
    x, y = data
    ids, weight = np.array([f"s{i}" for i in range(N)]), np.ones(N)
    calls = []

    def encode(part, targets, weights):
        calls.append(len(targets))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return targets

    def begun():
        calls.clear()
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            glai.IntegerStatistics(features, C).accumulate(
                x, y, weight, ids, encode=encode, chunk=20, checkpoint=path, save_seconds=0, progress=False
            )
        return path

    def changed(values, row, to):
        values = values.clone() if isinstance(values, torch.Tensor) else values.copy()
        values[row] = to
        return values

    for row, refused in ((55, True), (60, False)):  # three chunks are in the sums
        for arguments in (
            (changed(x, row, 1.0), y, weight, ids),
            (x, changed(y, row, (int(y[row]) + 1) % C), weight, ids),
            (x, y, changed(weight, row, 2.0), ids),
            (x, y, weight, changed(ids, row, "t")),
        ):
            path = begun()
            statistics = glai.IntegerStatistics(features, C)
            if refused:
                with pytest.raises(
                    ValueError, match="of other data, the first 60 samples have changed since"
                ):
                    statistics.accumulate(*arguments, chunk=7, checkpoint=path, progress=False)
            else:
                statistics.accumulate(*arguments, chunk=7, checkpoint=path, progress=False)
                assert len(statistics.ledger) >= N


def test_chunks_of_other_data_are_refused(tmp_path, data, features):
    x, y = data
    run(features, chunks(x, y), checkpoint=tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="is of other data, first_rows must be"):
        run(features, chunks(x.flip(0), y.flip(0)), checkpoint=tmp_path / "c.safetensors")
    again = run(features, chunks(x, y, size=40), checkpoint=tmp_path / "c.safetensors")  # cut otherwise
    assert again.n_samples == N
    with pytest.raises(ValueError, match="chunk 0 must be"):
        run(features, iter([3]))
    assert run(features, iter([])).n_samples == 0


def test_lists_may_be_cut_otherwise(tmp_path, data, features):
    """Of which one part may hold integers alone, and another floats too."""
    x, _ = data
    targets = [[float(i) if i % 50 == 49 else i] for i in range(N)]
    path = tmp_path / "c.safetensors"

    def cut(size):
        return [(x[at : at + size], targets[at : at + size]) for at in range(0, N, size)]

    for size in (30, 70):
        sums = glai.IntegerStatistics(features, 1, targets="values", step=1.0)
        sums.accumulate(
            cut(size),
            encode=lambda part, values, weight: torch.tensor(values, dtype=torch.float64),
            checkpoint=path,
            progress=False,
        )
        assert sums.n_samples == N
