"""Ranks of a gloo group together give what one process gives, or all refuse in one sentence."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist

import glai_native as glai
from glai_native.solvers.statistics import reducing
from glai_native.training import distributed
from training.conftest import C, D, N, P, group_of_ranks, make_estimator, make_samples

TRAIN_TWICE = """
import os, sys
import torch.distributed as dist
from torch.distributed import rendezvous
from glai_native.cli.train import run as train_run
from glai_native.cli.main import main

assert main([*sys.argv[1:], "--out", "model"]) == 0
store, rank, size = next(rendezvous("env://"))
store = dist.PrefixStore("again", store)  # or the second group would meet the first one's keys
sys.modules["torch.distributed.rendezvous"].rendezvous = lambda url: iter([(store, rank, size)])
if os.environ["RANK"] == "1":
    def fail(*_, **__):
        raise ValueError("no more room")
    train_run.fit = fail
raise SystemExit(main([*sys.argv[1:], "--out", "none"]))
"""


@pytest.mark.usefixtures("ranks")  # which start meanwhile
def test_train_under_torchrun(tmp_path):
    """One launch for both, since it takes longer than what it runs: rank 1 fails when it trains once more."""
    x, y = make_data(120)
    np.savez(tmp_path / "d.npz", x=x.numpy(), y=y.numpy())
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    arguments = ["train", "d.npz", "--hidden", "8", "--structure-epochs", "3", "--json"]
    done = subprocess.run(
        [sys.executable, *launch, sys.executable, "-c", TRAIN_TWICE, *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    report = json.loads(done.stdout)  # of one rank, once
    assert report["solver"] == "sgd"
    assert glai.GLAI.load(tmp_path / "model").structure_id == report["structure"]["structure_id"]
    sentences = [line for line in done.stderr.splitlines() if line.startswith("glai train: ")]
    assert sentences == ["glai train: no more room"]
    assert done.returncode != 0
    assert not (tmp_path / "none").exists()


def sum_shares(dtype, piece_bytes, cut):
    """Rank 0 takes the first ``cut`` samples in; cut 0: none, and so no structure_id."""
    reducing.PIECE_BYTES = piece_bytes
    x, gates, y, weight = make_samples()
    gates.structure_id = "a" * 64
    rows = slice(0, cut) if dist.get_rank() == 0 else slice(cut, None)
    statistics = glai.PathStatistics(P, D, C, dtype)
    if cut or dist.get_rank():
        statistics.update(x[rows].to(dtype), gates[rows], y[rows], weight[rows].to(dtype))
    distributed.all_reduce(statistics)
    return statistics.n_samples, statistics.structure_id, *statistics._sums()


def sum_integers(cut, step):
    """Rank 0 takes the first ``cut`` samples in."""
    x, _, y, _ = make_samples()
    statistics = glai.IntegerStatistics(
        glai.IntegerFeatures.fit(x, 20),
        C,
        targets=(step and "values") or "classes",
        step=2**-14 if step else None,  # the ranks' first values have other centres
    )
    rows = slice(0, cut) if dist.get_rank() == 0 else slice(cut, None)
    targets = torch.nn.functional.one_hot(y, C) * step if step else y
    if cut or dist.get_rank():
        statistics.update(x[rows], targets[rows], ids=list(range(N))[rows])
    distributed.all_reduce(statistics)
    return (
        statistics.n_samples,
        statistics.digest(),
        len(statistics.ledger),
        sorted(statistics.ledger.ids.tolist()),
    )


@pytest.mark.parametrize(("cut", "step"), [(50, 0), (0, 0), (31, 3.5), (0, 3.5)])
def test_integer_statistics_have_the_digest_of_one_process(ranks, cut, step):
    x, _, y, _ = make_samples()
    whole = glai.IntegerStatistics(
        glai.IntegerFeatures.fit(x, 20),
        C,
        targets=(step and "values") or "classes",
        step=2**-14 if step else None,
    )
    whole.update(x, torch.nn.functional.one_hot(y, C) * step if step else y)
    assert ranks.run(sum_integers, cut, step) == [(N, whole.digest(), N, list(range(N)))] * 2


@pytest.mark.parametrize(
    ("dtype", "piece_bytes", "cut"),
    [(torch.float64, 1, 50), (torch.float64, 4096, 0), (torch.float32, 1 << 26, 101)],
)
def test_statistics_add_up_to_those_of_one_process(ranks, dtype, piece_bytes, cut):
    whole = glai.PathStatistics(P, D, C, dtype)
    x, gates, y, weight = make_samples()
    whole.update(x.to(dtype), gates, y, weight.to(dtype))
    first, second = ranks.run(sum_shares, dtype, piece_bytes, cut)
    assert first[:2] == second[:2] == (N, "a" * 64)
    for mine, theirs, expected in zip(first[2:], second[2:], whole._sums(), strict=True):
        assert torch.equal(mine, theirs)
        bound = torch.finfo(dtype).eps * (8 + N**0.5) * N * 20  # |terms| < 20
        assert (mine - expected).abs().max() <= bound
    assert torch.equal(first[5], whole.on_counts)


def sum_different(sizes):
    sizes, structure_id, dtype = sizes[dist.get_rank()]
    distributed.all_reduce(glai.PathStatistics(*sizes, dtype, structure_id))


@pytest.mark.parametrize(
    ("mine", "theirs", "sentence"),
    [
        (((4, 3, 2), "a" * 64, torch.float64), ((4, 3, 2), "b" * 64, torch.float64), "structure_id must be alike"),
        (((4, 3, 2), None, torch.float64), ((4, 3, 5), None, torch.float64), r"C=2\] on rank 0 and \[P=4, D=3, C=5"),
        (((4, 3, 2), None, torch.float64), ((4, 3, 2), None, torch.float32), "dtype must be alike on all ranks"),
    ],
)  # fmt: skip
def test_statistics_that_differ_are_refused_on_all_ranks(ranks, mine, theirs, sentence):
    first, second = ranks.run(sum_different, (mine, theirs))
    assert isinstance(first, ValueError)
    assert str(first) == str(second)
    with pytest.raises(ValueError, match=sentence):
        raise first


def sum_nothing():
    distributed.all_reduce("statistics" if dist.get_rank() else glai.PathStatistics(2, 2, 2))


def test_a_mistake_on_one_rank_ends_all(ranks):
    first, second = ranks.run(sum_nothing)
    assert isinstance(first, RuntimeError)
    assert str(first) == f"{second} (on rank 1)"
    assert isinstance(second, TypeError)


def make_data(n=300):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return x, (x[:, :3].argmax(1) + (x[:, 3] > 1)) % 3


def make_selector():
    if dist.is_initialized():
        assert dist.get_rank() == 0
    torch.manual_seed(0)
    mlp = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).double()
    return glai.PathSelector(mlp, glai.InputProjection.fit(make_data()[0]))


def fit(solver, options):
    """By a structure that only rank 0 has at first."""
    selector = distributed.broadcast_selector(make_selector)
    result = glai.fit(
        selector, *make_data(), solver=solver, progress=False, process_group=group_of_ranks(), **options
    )
    model = result.model
    glai.retrain(
        model, *make_data(200), solver="sgd", epochs=2, progress=False, process_group=group_of_ranks()
    )
    return model.structure_id, [p.detach() for p in model.estimator.parameters()], result.score, result.reason


@pytest.mark.parametrize(
    ("solver", "options"), [("sgd", {"epochs": 4, "batch_size": 64}), ("statistics", {"l2": 0.1})]
)
def test_fit_equals_one_process(ranks, solver, options):
    first, second = ranks.run(fit, solver, options)
    alone = fit(solver, options)
    assert first[0] == second[0] == alone[0]
    assert first[2:] == second[2:] == alone[2:]
    for mine, theirs, one in zip(first[1], second[1], alone[1], strict=True):
        assert torch.equal(mine, theirs)
        assert (mine - one).abs().max() <= 1e-10 * one.abs().max()


def test_fit_by_ranks_takes_what_ranks_can_do(ranks):
    for *_, reason in ranks.run(fit, "auto", {"epochs": 1}):
        assert reason.startswith("sgd: 2 processes train together")
    for error in ranks.run(fit, "dual", {}):
        with pytest.raises(ValueError, match="the dual is solved by one process"):
            raise error


def fail_to_make():
    return distributed.broadcast_selector(lambda: glai.PathSelector(torch.nn.Linear(2, 2)))


def test_a_structure_that_fails_ends_all(ranks):
    first, second = ranks.run(fail_to_make)
    assert isinstance(first, ValueError)
    assert str(second) == f"{first} (on rank 0)"


def accumulate_share(folder):
    x, gates, y, _ = make_samples()
    statistics = glai.PathStatistics(P, D, C)
    rows = distributed.rank_rows(N)
    options = {"rows": rows, "chunk": 16, "checkpoint": folder / f"rank-{rows.start}", "progress": False}
    glai.accumulate(statistics, x, gates, y, **options)
    again = glai.PathStatistics(P, D, C)  # as after a kill: the checkpoint holds all of the share
    glai.accumulate(again, x, gates, y, **options)
    assert all(torch.equal(a, b) for a, b in zip(again._sums(), statistics._sums(), strict=True))
    return distributed.all_reduce(statistics).solve(0.1).weight.detach()


def test_accumulate_takes_a_rank_s_share(ranks, tmp_path):
    first, second = ranks.run(accumulate_share, tmp_path)
    x, gates, y, _ = make_samples()
    whole = glai.PathStatistics(P, D, C)
    whole.update(x, gates, y)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, whole.solve(0.1).weight.detach(), rtol=1e-9, atol=1e-11)
    with pytest.raises(ValueError, match="rows must be a slice without a step"):
        glai.accumulate(whole, x, gates, y, rows=slice(0, 10, 2))
    with pytest.raises(ValueError, match="is of another job, rows must be 0:10 of 101, got '0:50 of 101'"):
        glai.accumulate(
            glai.PathStatistics(P, D, C),
            x,
            gates,
            y,
            rows=slice(10),
            chunk=16,
            checkpoint=tmp_path / "rank-0",
        )


def train_on_gpu():
    """Two ranks share the GPU, which gloo allows and NCCL does not."""
    x, gates, y, _ = make_samples()
    x, gates, y = x.cuda(), gates.to("cuda"), y.cuda()
    estimator = make_estimator("full").cuda()
    glai.train_estimator(
        estimator, x, gates, y, epochs=4, batch_size=20, progress=False, process_group=group_of_ranks()
    )
    rows = distributed.rank_rows(N)
    statistics = glai.PathStatistics(P, D, C, device="cuda")
    statistics.update(x[rows], gates[rows], y[rows])
    distributed.all_reduce(statistics)
    return estimator.weight.detach().cpu(), statistics.solve(0.1).weight.detach().cpu()


@pytest.mark.gpu
def test_ranks_on_a_gpu(ranks):
    x, gates, y, _ = make_samples()
    alone, whole = make_estimator("full"), glai.PathStatistics(P, D, C)
    glai.train_estimator(alone, x, gates, y, epochs=4, batch_size=20, progress=False)
    whole.update(x, gates, y)
    for trained, solved in ranks.run(train_on_gpu):
        torch.testing.assert_close(trained, alone.weight.detach(), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(solved, whole.solve(0.1).weight.detach(), rtol=1e-8, atol=1e-10)


def retrain_with_nan_on_the_second():
    selector = distributed.broadcast_selector(make_selector)
    model = glai.GLAI(selector, glai.PathEstimator(9, 6, 3, dtype=torch.float64))
    x, y = make_data(40)
    if dist.get_rank():
        x[0, 0] = torch.nan
    glai.retrain(model, x, y, solver="sgd", epochs=1, progress=False, process_group=group_of_ranks())


def test_retraining_ends_on_all_ranks(ranks):
    first, second = ranks.run(retrain_with_nan_on_the_second)
    assert isinstance(second, ValueError)
    assert str(first) == f"{second} (on rank 1)"
