"""Samples that stay where they are stored: what solvers find of them is what they find of the same in memory."""

import numpy as np
import pytest
import torch

import glai_native as glai
from glai_native.data import stored_rows
from glai_native.data.stored_rows import StoredRows
from glai_native.solvers.samples import Samples
from glai_native.solvers.sgd.training import train_on
from glai_native.solvers.streamed import StreamedSamples

N, D, C = 700, 6, 3


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(stored_rows, "WINDOW_BYTES", 4 * D * 64)
    monkeypatch.setattr(stored_rows, "WINDOW_ROWS", 64)
    monkeypatch.setattr(stored_rows, "BLOCK_ROWS", 16)


@pytest.fixture
def selector():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(D, 7), torch.nn.ReLU(), torch.nn.Linear(7, C))
    return glai.PathSelector(network, glai.InputProjection.identity(D))


@pytest.fixture
def stored(tmp_path):
    """x on disk, and y."""
    random = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", random.normal(size=(N, D)).astype(np.float32))
    y = torch.from_numpy(random.integers(C, size=N))
    return np.load(tmp_path / "x.npy", mmap_mode="r"), y


def test_reads_rows_as_they_are_stored(stored):
    x, _ = stored
    rows = StoredRows("x", x)
    assert (len(rows), rows.n_features, rows.n_bytes) == (N, D, 4 * N * D)
    part = rows.part(np.array([3, 5, 699])).part(slice(1, 3))
    np.testing.assert_array_equal(part.read(slice(None)), x[[5, 699]])
    np.testing.assert_array_equal(torch.cat([part for _, part in rows.parts()]), x)


@pytest.mark.parametrize("kept", [slice(None), np.arange(0, N, 3)])
def test_windows_hold_every_row_once(stored, kept):
    x, _ = stored
    rows = StoredRows("x", x).part(kept)
    windows = list(rows.windows(torch.Generator().manual_seed(1), 10))
    assert len(windows) > 3
    assert all(len(window.rows) % 10 == 0 for window in windows[:-1])
    for window in windows:
        np.testing.assert_array_equal(window.x, x[kept][window.rows])
        assert sorted(window.order.tolist()) == list(range(len(window.rows)))
    assert torch.cat([window.rows for window in windows]).sort().values.tolist() == list(range(len(rows)))
    again = list(rows.windows(torch.Generator().manual_seed(1), 10))
    assert all(
        torch.equal(a.rows, b.rows) and torch.equal(a.order, b.order)
        for a, b in zip(windows, again, strict=True)
    )
    # Of blocks all over the data, not of neighbours.
    assert int(windows[0].rows.max() - windows[0].rows.min()) > len(windows[0].rows)


def test_a_value_that_is_none_is_named_by_its_row(stored, tmp_path):
    x = np.array(stored[0])
    x[400, 2] = np.nan
    np.save(tmp_path / "bad.npy", x)
    rows = StoredRows("bad", np.load(tmp_path / "bad.npy", mmap_mode="r"))
    with pytest.raises(ValueError, match=r"bad: x must be finite.*column 2.*it is row 400 of 700"):
        list(rows.parts())


def test_an_error_in_reading_ahead_is_raised(stored):
    class Failing(StoredRows):
        def read(self, rows):
            raise OSError("disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        list(Failing("x", stored[0]).parts())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["full paths", "units"])
def test_a_window_of_all_is_what_samples_in_memory_are(stored, selector, monkeypatch, kind, weighted):
    """The same steps in the same order leave the same bits, where what is stored is projected to the same bits.

    A matrix library may round a row as its place among others has it, and projects parts of what is stored at a time.
    """
    monkeypatch.setattr(stored_rows, "WINDOW_ROWS", 1024)
    x, y = stored
    weight = torch.arange(N) % 4 / 2 if weighted else None
    streamed = StreamedSamples.of_raw("test", selector, StoredRows("x", x), y, C, weight)
    # Raw samples that weigh nothing are left out of both; the streamed ones are in the order in which they are stored.
    z = selector.project(torch.from_numpy(np.array(x)))
    rows = torch.arange(N) if weight is None else weight.nonzero().squeeze(1)
    kept = None if weight is None else weight[rows]
    memory = Samples.of_canonical(selector, z[rows], y[rows], C, kept, None)
    found = []
    for samples in (streamed, memory):
        directions = "units" if kind == "units" else None
        estimator = glai.PathEstimator.from_selector(selector, directions)
        if kind == "units":
            samples = samples.units()
        order = next(iter(streamed.windows(torch.Generator().manual_seed(5), 32)))[1]
        monkeypatch.setattr(type(samples), "windows", lambda self, *_, order=order: iter([(self[:], order)]))
        history = train_on(estimator, samples, None, epochs=3, batch_size=32, progress=False)
        found.append(([epoch.loss for epoch in history], list(estimator.parameters())))
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if kind == "units" else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(*(torch.tensor(losses) for losses, _ in found), **tolerance)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("threads", [1, 2])
def test_training_is_the_same_again(stored, selector, threads):
    x, y = stored
    before, results = torch.get_num_threads(), []
    for count in (1, threads):
        torch.set_num_threads(count)
        samples = StreamedSamples.of_raw("test", selector, StoredRows("x", x), y, C).units()
        estimator = glai.PathEstimator.from_selector(selector, "units")
        train_on(estimator, samples, samples[:50], epochs=4, batch_size=32, progress=False)
        results.append(list(estimator.parameters()))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_training_that_stops_goes_on(stored, selector, tmp_path):
    x, y = stored

    class Stop(Exception):
        pass

    def stop(epoch):
        if epoch.epoch == 2:
            raise Stop

    results = []
    for interrupted in (False, True):
        samples = StreamedSamples.of_raw("test", selector, StoredRows("x", x), y, C).units()
        estimator = glai.PathEstimator.from_selector(selector, "units")
        settings = {"epochs": 5, "batch_size": 32, "progress": False}
        if interrupted:
            settings["checkpoint"] = tmp_path / "state"
            with pytest.raises(Stop):
                # Told of an epoch before it is saved: of two, one is.
                train_on(estimator, samples, None, on_epoch=stop, **settings)
            estimator = glai.PathEstimator.from_selector(selector, "units")
        history = train_on(estimator, samples, None, **settings)
        results.append(([epoch.loss for epoch in history], list(estimator.parameters())))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))


@pytest.mark.parametrize("values", [False, True])
def test_statistics_are_those_of_the_same_samples(stored, selector, values):
    x, y = stored
    y = torch.nn.functional.one_hot(y, C).float() if values else y
    sums = []
    for samples in (
        StreamedSamples.of_raw("test", selector, StoredRows("x", x), y, C),
        Samples.of_raw("test", selector, torch.from_numpy(np.array(x)), y, C),
    ):
        statistics = glai.PathStatistics(selector.n_paths, D, C, structure_id=selector.structure_id)
        for part in samples.parts():
            statistics.add(part)
        assert statistics.n_samples == N
        sums.append(statistics.sums())
    for name, one in sums[0].items():
        torch.testing.assert_close(one, sums[1][name], rtol=1e-12, atol=1e-12)


def test_what_weighs_nothing_is_left_out(stored, selector):
    x, y = stored
    weight = torch.zeros(N)
    weight[5:9] = 2
    samples = StreamedSamples.of_raw("test", selector, StoredRows("x", x), y, C, weight)
    assert (len(samples), samples.count) == (4, 8)
    np.testing.assert_array_equal(samples[:].z, x[5:9])
    with pytest.raises(ValueError, match="sample_weight must be > 0"):
        StreamedSamples.of_raw("test", selector, StoredRows("x", x), y, C, torch.zeros(N))
