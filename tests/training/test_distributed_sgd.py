"""Ranks of a gloo group that train together give what one process gives, or all refuse in one sentence."""

import pytest
import torch
import torch.distributed as dist

import glai_native as glai
from glai_native.training import distributed
from training.conftest import C, D, N, group_of_ranks, make_estimator, make_samples


def train(kind, values, weighted, dtype, options):
    """On the ranks, or in the test's own process; rank 1 starts from zeros, which must not matter."""
    x, gates, y, weight = make_samples(dtype=dtype)
    held_out = make_samples(n=37, dtype=dtype, seed=9)[:3]
    if values:
        y = torch.randn(N, C, dtype=dtype, generator=torch.Generator().manual_seed(3))
        held_out = *held_out[:2], torch.zeros(37, C, dtype=dtype)
    estimator = make_estimator(kind, dtype)
    if dist.is_initialized() and dist.get_rank() == 1:
        with torch.no_grad():
            for parameter in estimator.parameters():
                parameter.zero_()
    options = {"batch_size": 20, "epochs": 17, "learning_rate": 1e-2, "seed": 5, "progress": False} | options
    if "patience" in options:
        options["validation"] = held_out
    history = glai.train_estimator(
        estimator, x, gates, y, sample_weight=weight if weighted else None, process_group=group_of_ranks(), **options
    )  # fmt: skip
    figures = [[e.epoch, e.loss, e.validation_loss, e.validation_score] for e in history]
    return [p.detach() for p in estimator.parameters()], torch.tensor(figures, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["full", "directions"])
@pytest.mark.parametrize(
    ("values", "weighted", "dtype", "options"),
    [
        (False, False, torch.float64, {}),  # six steps an epoch, the last of one sample: rank 0 has none
        (False, True, torch.float64, {"weight_decay": 0.1, "average": False}),
        (True, True, torch.float64, {"batch_size": 33, "epochs": 30}),
        (False, False, torch.float64, {"learning_rate": 0.1, "epochs": 60, "patience": 3}),
        (True, False, torch.float64, {"learning_rate": 0.1, "epochs": 60, "patience": 3}),
        (False, True, torch.float32, {}),
    ],
)
def test_training_equals_one_process(ranks, kind, values, weighted, dtype, options):
    (first, history), (second, other) = ranks.run(train, kind, values, weighted, dtype, options)
    alone, expected = train(kind, values, weighted, dtype, options)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert torch.equal(history.nan_to_num(), other.nan_to_num())
    torch.testing.assert_close(history, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    if "patience" in options:
        assert len(history) < options["epochs"]
    for mine, theirs, one in zip(first, second, alone, strict=True):
        assert torch.equal(mine, theirs)
        assert (mine - one).abs().max() <= tolerance * one.abs().max()


def test_a_checkpoint_goes_on_with_other_ranks(ranks, tmp_path):
    whole, history = train("full", False, False, torch.float64, {"epochs": 6, "patience": 6})
    options = {"epochs": 3, "patience": 6, "checkpoint": tmp_path / "training"}
    train("full", False, False, torch.float64, options)
    (first, figures), (second, _) = ranks.run(
        train, "full", False, False, torch.float64, options | {"epochs": 6}
    )
    torch.testing.assert_close(figures, history, rtol=1e-10, atol=1e-10)
    for mine, theirs, one in zip(first, second, whole, strict=True):
        assert torch.equal(mine, theirs)
        assert (mine - one).abs().max() <= 1e-10 * one.abs().max()


def train_differently(change):
    """Rank 1 has one argument different."""
    x, gates, y, _ = make_samples()
    arguments = {"x": x, "gates": gates, "targets": y, "progress": False, "process_group": group_of_ranks()}
    if dist.get_rank() == 1:
        arguments |= change
    glai.train_estimator(make_estimator("full"), **arguments)


def stop(epoch):
    raise RuntimeError(f"stopped at epoch {epoch.epoch}")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"batch_size": 8}, "batch_size must be alike on all ranks, got 512 on rank 0 and 8 on rank 1"),
        ({"targets": torch.zeros(N, dtype=torch.int64)}, "targets' CRC-32 must be alike on all ranks"),
        ({"x": torch.full((N, D), torch.nan).double()}, "x must be finite"),
        ({"epochs": 0}, "epochs must be an int >= 1, got 0"),
        ({"on_epoch": stop}, "stopped at epoch 1"),
    ],
)
def test_ranks_that_differ_stop_together(ranks, change, sentence):
    results = ranks.run(train_differently, change)
    for result in results:
        with pytest.raises((ValueError, RuntimeError), match=sentence):
            raise result


def explode():
    x, gates, _, _ = make_samples()
    targets = torch.full((N, C), 1e200, dtype=torch.float64)
    glai.train_estimator(
        make_estimator("full"), x, gates, targets, progress=False, process_group=group_of_ranks()
    )


def test_a_training_that_explodes_ends_on_all_ranks(ranks):
    for result in ranks.run(explode):
        with pytest.raises(FloatingPointError, match="the loss is inf at or before step 1 of epoch 1"):
            raise result


def test_what_is_no_group_is_refused():
    x, gates, y, _ = make_samples()
    with pytest.raises(TypeError, match="process_group must be a torch.distributed.ProcessGroup"):
        glai.train_estimator(make_estimator("full"), x, gates, y, process_group=2)


def train_by_hand(kind):
    """README's loop under DistributedDataParallel; alone without it."""
    x, gates, y, _ = make_samples(n=96)
    estimator = make_estimator(kind)
    model = estimator
    if dist.is_initialized():
        model = torch.nn.parallel.DistributedDataParallel(estimator, broadcast_buffers=False)
    for batch in torch.randperm(96, generator=torch.Generator().manual_seed(0)).split(32):
        ids = batch[distributed.rank_rows(len(batch))]
        loss = torch.nn.functional.cross_entropy(model(x[ids], gates[ids]), y[ids])
        estimator.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in estimator.parameters():
                parameter -= 0.1 * parameter.grad
    return [p.detach() for p in estimator.parameters()]


@pytest.mark.parametrize("kind", ["full", "directions"])
def test_distributed_data_parallel(ranks, kind):
    first, second = ranks.run(train_by_hand, kind)
    for mine, theirs, one in zip(first, second, train_by_hand(kind), strict=True):
        assert torch.equal(mine, theirs)
        assert (mine - one).abs().max() <= 1e-12 * one.abs().max()


def train_in_part():
    """In a group of rank 1 alone."""
    x, gates, y, _ = make_samples()
    group = dist.new_group([1])
    estimator = make_estimator("full")
    glai.train_estimator(estimator, x, gates, y, epochs=2, progress=False, process_group=group)
    return estimator.weight.detach()


def test_only_ranks_of_the_group_train(ranks):
    outside, inside = ranks.run(train_in_part)
    with pytest.raises(
        TypeError, match="process_group must be a torch.distributed.ProcessGroup that this process"
    ):
        raise outside
    x, gates, y, _ = make_samples()
    alone = make_estimator("full")
    glai.train_estimator(alone, x, gates, y, epochs=2, progress=False)
    assert torch.equal(inside, alone.weight)
