"""Stored gates under PyTorch's own loaders."""

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, RandomSampler, Subset, random_split

import glai_native as glai
from conftest import make_mlp


@pytest.fixture
def dataset(tmp_path, samples):
    selector = glai.PathSelector(make_mlp(6, 33, 9, 4))
    store = glai.GateStore.create(tmp_path / "gates", selector)
    store.append(selector.unit_gates(samples[:25]))
    store.append(selector.unit_gates(samples[25:]))
    return glai.GateDataset(store, samples, torch.arange(40))


def require_batches(loader, dataset, size):
    """Batches are those of ``dataset.loader``; returns the samples in the order in which they came."""
    seen = []
    for gates, x, y in loader:
        assert isinstance(gates, glai.PackedGates)
        assert len(gates) == len(x) == len(y) <= size
        expected, *_ = dataset[y]
        assert torch.equal(gates.words, expected.words)
        assert gates.structure_id == expected.structure_id
        assert gates.estimate == expected.estimate
        assert torch.equal(x, dataset.tensors[0][y])
        seen += y.tolist()
    return seen


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_loader(dataset, workers):
    assert require_batches(DataLoader(dataset, 16, num_workers=workers), dataset, 16) == list(range(40))
    shuffled = DataLoader(dataset, 7, shuffle=True, num_workers=workers, drop_last=True)
    seen = require_batches(shuffled, dataset, 7)
    assert len(set(seen)) == 35
    assert seen != sorted(seen)
    batches = BatchSampler(RandomSampler(dataset), 6, drop_last=False)
    loader = DataLoader(dataset, batch_sampler=batches, num_workers=workers)
    assert sorted(require_batches(loader, dataset, 6)) == list(range(40))


def test_spawned_workers(dataset):
    loader = DataLoader(dataset, 16, num_workers=1, multiprocessing_context="spawn")
    assert require_batches(loader, dataset, 16) == list(range(40))


def test_parts_and_joins(dataset):
    assert require_batches(DataLoader(Subset(dataset, [3, 1, 30]), 2), dataset, 2) == [3, 1, 30]
    parts = random_split(dataset, [30, 10], torch.Generator().manual_seed(0))
    seen = [i for part in parts for i in require_batches(DataLoader(part, 8), dataset, 8)]
    assert sorted(seen) == list(range(40))
    assert require_batches(DataLoader(ConcatDataset([dataset, dataset]), 16), dataset, 16) == 2 * list(
        range(40)
    )


def test_one_sample_at_a_time(dataset):
    assert require_batches(DataLoader(dataset, 1), dataset, 1) == list(range(40))
    assert require_batches(DataLoader(dataset, batch_size=None), dataset, 1) == list(range(40))
    for i in (7, np.int64(7), torch.tensor(7)):
        gates, x, y = dataset[i]
        assert (len(gates), x.shape, y.tolist()) == (1, (1, 6), [7])
    assert dataset[5:9][2].tolist() == [5, 6, 7, 8]
    assert len(list(iter(dataset))) == 40


def test_a_collate_function_of_ones_own_gets_the_samples(dataset):
    sizes = [len(batch) for batch in DataLoader(dataset, 16, collate_fn=lambda batch: batch)]
    assert sizes == [16, 16, 8]


def test_it_trains(dataset):
    estimator = glai.PathEstimator(dataset.store.batch([0]).n_gates, 6, 40)
    for gates, x, y in DataLoader(dataset, 16, shuffle=True):
        torch.nn.functional.cross_entropy(estimator(x, gates), y).backward()
    assert bool(estimator.weight.grad.any())


def test_a_store_comes_first():
    with pytest.raises(TypeError, match="GateDataset: store must be a GateStore, got Tensor"):
        glai.GateDataset(torch.zeros(3), torch.zeros(3))
