"""accumulate: data on disk, kills, and going on."""

import numpy as np
import pytest
import torch

import glai_native as glai
from glai_native.solvers.statistics import accumulating


@pytest.fixture
def job(tmp_path, selector):
    """Raw x as a memory map, a store of its gates, targets."""
    generator = torch.Generator().manual_seed(8)
    x = torch.randn((100, 6), generator=generator) * 3 + 1
    np.save(tmp_path / "x.npy", x.numpy())
    store = glai.GateStore.create(tmp_path / "gates", selector)
    store.append(selector.unit_gates(x[:64]))
    store.append(selector.unit_gates(x[64:]))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    return x, mapped, store, torch.arange(100) % 4


def run(selector, job, **options):
    _, mapped, store, targets = job
    statistics = glai.PathStatistics(selector.n_paths, 6, 4)
    return glai.accumulate(statistics, mapped, store, targets, project=selector.project, chunk=16, **options)


def assert_same(a, b):
    assert a.n_samples == b.n_samples
    for mine, theirs in zip(a._sums(), b._sums(), strict=True):
        assert torch.equal(mine, theirs)


def test_as_in_one_go(selector, job):
    x, _, _, targets = job
    statistics = run(selector, job)
    whole = glai.PathStatistics(selector.n_paths, 6, 4)
    whole.update(selector.project(x), selector.gates(x), targets)
    assert statistics.n_samples == 100
    assert statistics.structure_id == selector.structure_id
    torch.testing.assert_close(statistics.solve(0.1).weight, whole.solve(0.1).weight, rtol=1e-9, atol=1e-12)
    in_memory = glai.PathStatistics(selector.n_paths, 6, 4)
    glai.accumulate(
        in_memory, selector.project(x), selector.gates(x), targets, torch.ones(100), chunk=16, progress=False
    )
    torch.testing.assert_close(in_memory.solve(0.1).weight, whole.solve(0.1).weight, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("killed_at", [1, 3, 7])
def test_goes_on_after_a_kill_with_the_same_bits(tmp_path, monkeypatch, selector, job, killed_at):
    expected = run(selector, job)
    checkpoint = tmp_path / "statistics.safetensors"
    update, calls = glai.PathStatistics.update, 0

    def killed(self, *args):
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise KeyboardInterrupt
        update(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(glai.PathStatistics, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            run(selector, job, checkpoint=checkpoint, save_every=2)
    assert checkpoint.exists() == (killed_at > 2)
    assert_same(run(selector, job, checkpoint=checkpoint, save_every=2), expected)
    assert_same(glai.PathStatistics.load(checkpoint), expected)
    assert_same(run(selector, job, checkpoint=checkpoint), expected)  # nothing left to do


def test_a_kill_while_it_saves_leaves_the_one_before(tmp_path, monkeypatch, selector, job):
    checkpoint = tmp_path / "statistics.safetensors"
    write, calls = accumulating.write_files, 0

    def killed(contents):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        write(contents)

    with monkeypatch.context() as patch:
        patch.setattr(accumulating, "write_files", killed)
        with pytest.raises(KeyboardInterrupt):
            run(selector, job, checkpoint=checkpoint, save_every=2)
    assert glai.PathStatistics.load(checkpoint).n_samples == 32
    assert_same(run(selector, job, checkpoint=checkpoint), run(selector, job))


def test_goes_on_from_samples_before(tmp_path, selector, job):
    x, mapped, store, targets = job
    checkpoint = tmp_path / "statistics.safetensors"

    def before():
        statistics = glai.PathStatistics(selector.n_paths, 6, 4)
        statistics.update(selector.project(x[:7]), selector.gates(x[:7]), targets[:7])
        return statistics

    results = [
        glai.accumulate(before(), mapped, store, targets, project=selector.project, checkpoint=checkpoint)
        for _ in range(2)
    ]
    assert results[0].n_samples == 107
    assert_same(*results)


def test_refuses(tmp_path, selector, job):
    _, mapped, store, targets = job
    checkpoint = tmp_path / "statistics.safetensors"
    run(selector, job, checkpoint=checkpoint)
    statistics = glai.PathStatistics(selector.n_paths, 6, 4)
    options = {"project": selector.project, "checkpoint": checkpoint, "progress": False}
    with pytest.raises(ValueError, match="is of another job, targets_crc32 must be"):
        glai.accumulate(statistics, mapped, store, targets.flip(0), chunk=16, **options)
    with pytest.raises(ValueError, match="is of another job, weights_crc32 must be [0-9]+, got 'none'"):
        glai.accumulate(statistics, mapped, store, targets, torch.full((100,), 2.0), chunk=16, **options)
    with pytest.raises(ValueError, match="is of another job, x_crc32 must be"):
        glai.accumulate(statistics, mapped + 1, store, targets, chunk=16, **options)
    with pytest.raises(ValueError, match="is of another job, chunk must be 17, got '16'"):
        glai.accumulate(statistics, mapped, store, targets, chunk=17, **options)
    with pytest.raises(ValueError, match="gates must be of N=50 samples like x, got N=100"):
        glai.accumulate(statistics, mapped[:50], store, targets[:50])
    with pytest.raises(ValueError, match="chunk must be an int >= 1, got 0"):
        glai.accumulate(statistics, mapped, store, targets, chunk=0)
    statistics.save(checkpoint)
    with pytest.raises(ValueError, match="is of another job, rows must be 100, got None"):
        glai.accumulate(statistics, mapped, store, targets, **options)
    smaller = glai.PathStatistics(selector.n_paths, 6, 5)
    run(selector, job, checkpoint=tmp_path / "other")
    with pytest.raises(ValueError, match=r"restore: statistics must be \[P=34, D=6, C=5\]"):
        glai.accumulate(
            smaller, mapped, store, targets, chunk=16, **(options | {"checkpoint": tmp_path / "other"})
        )
