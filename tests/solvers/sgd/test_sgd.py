"""The native training loop: a PyTorch loop's numbers, equal bits for any number of threads, resuming, stopping."""

import copy

import pytest
import torch

import glai_native as glai
from glai_native.data.canonical import canonical_form
from glai_native.machine.ranks import Ranks
from glai_native.solvers.samples import Samples
from glai_native.solvers.sgd.group import GroupLoop
from glai_native.solvers.sgd.native import NativeLoop, SgdSettings
from glai_native.solvers.sgd.training import train_estimator

N, P, D, C = 230, 33, 7, 5


def make_samples(dtype=torch.float64, n=N, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=generator, dtype=dtype)
    bits = torch.rand(n, P, generator=generator) < 0.5
    bits[:, 3], bits[:, P - 1] = False, True
    y = torch.randint(0, C, (n,), generator=generator)
    return x, glai.pack_gates(bits), y


def make_estimator(kind, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    directions = None
    if kind == "directions":
        directions = torch.randn(P, C, generator=generator, dtype=dtype)
        directions[-1] = 0
    estimator = glai.PathEstimator(P, D, C, directions=directions, dtype=dtype)
    with torch.no_grad():
        for parameter in estimator.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) * 0.1)
        if kind == "directions":
            estimator.u[-1], estimator.beta[-1] = 0, 0
    return estimator


def torch_loop(estimator, x, gates, targets, *, weight, epochs, batch, rate, decay, average, seed):
    """The same training, written out; returns the estimator with the last epoch's mean."""
    optimizer = torch.optim.AdamW(estimator.parameters(), lr=rate, weight_decay=decay)
    mean = copy.deepcopy(estimator)
    losses = []
    for epoch in range(1, epochs + 1):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        for step, ids in enumerate(torch.randperm(len(x), generator=generator).split(batch), 1):
            output = estimator(x[ids], gates[ids])
            if targets.is_floating_point():
                loss = (output - targets[ids]).square().mean(1)
            else:
                loss = torch.nn.functional.cross_entropy(output, targets[ids], reduction="none")
            loss = (loss if weight is None else loss * weight[ids] * len(x) / weight.sum()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            with torch.no_grad():
                for m, p in zip(mean.parameters(), estimator.parameters(), strict=True):
                    m += (p - m) / step
    return (mean if average else estimator), losses


@pytest.mark.parametrize("kind", ["full", "directions"])
@pytest.mark.parametrize(
    ("values", "weighted", "decay", "average"),
    [
        (False, False, 0.0, True),
        (False, True, 0.1, True),
        (True, False, 0.0, False),
        (True, True, 0.01, True),
    ],
)
def test_equals_a_torch_loop_after_a_hundred_steps(kind, values, weighted, decay, average):
    x, gates, y = make_samples()
    targets = torch.randn(N, C, dtype=x.dtype, generator=torch.Generator().manual_seed(3)) if values else y
    weight = torch.rand(N, dtype=x.dtype, generator=torch.Generator().manual_seed(4)) if weighted else None
    if weighted:  # in an order of their own
        x, gates, targets, weight = (
            part[canonical_form([x, targets, gates.words], weight).rows]
            for part in (x, gates, targets, weight)
        )
    ours, theirs = make_estimator(kind), make_estimator(kind)
    # 13 batches of 18 samples, the last of 14
    history = train_estimator(
        ours, x, gates, targets, sample_weight=weight, epochs=8, batch_size=18, learning_rate=1e-2,
        weight_decay=decay, average=average, seed=5, progress=False,
    )  # fmt: skip
    theirs, losses = torch_loop(
        theirs, x, gates, targets, weight=weight, epochs=8, batch=18, rate=1e-2, decay=decay,
        average=average, seed=5,
    )  # fmt: skip
    assert len(losses) == 104
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert (a - b).abs().max() <= 1e-10 * b.abs().max(), name
    assert history[-1].loss == pytest.approx(sum(losses[-13:-1]) * 18 / N + losses[-1] * 14 / N, rel=1e-9)
    if kind == "full" and not decay:  # never on: no gradient, so AdamW leaves it alone
        assert torch.equal(ours.weight[3], make_estimator(kind).weight[3])


@pytest.mark.parametrize("kind", ["full", "directions"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_for_any_number_of_threads(kind, dtype):
    x, gates, y = make_samples(dtype, n=700)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            estimator = make_estimator(kind, dtype)
            train_estimator(estimator, x, gates, y, epochs=2, batch_size=300, progress=False)
            results.append(torch.cat([p.flatten() for p in estimator.parameters()]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_float32_follows_float64():
    x, gates, y = make_samples()
    wide, narrow = make_estimator("full"), make_estimator("full", torch.float32)
    narrow.load_state_dict(wide.state_dict())
    train_estimator(wide, x, gates, y, epochs=3, batch_size=64, progress=False)
    train_estimator(narrow, x.float(), gates, y, epochs=3, batch_size=64, progress=False)
    assert (wide.weight - narrow.weight).abs().max() < 1e-4


def test_far_logits_have_a_finite_loss_and_a_gradient():
    x, gates, _ = make_samples(torch.float32, n=8)
    estimator = glai.PathEstimator(P, D, C)
    with torch.no_grad():
        estimator.bias[-1] = torch.tensor([300.0, -300, 0, 88, -88])
    y = torch.arange(8) % C
    history = train_estimator(estimator, x, gates, y, epochs=1, progress=False)
    reference = torch.nn.functional.cross_entropy(
        torch.tensor([[300.0, -300, 0, 88, -88]]).expand(8, -1).double(), y
    )
    assert history[0].loss == pytest.approx(float(reference), rel=1e-6)


@pytest.mark.parametrize("kind", ["full", "directions"])
def test_a_killed_training_goes_on_bit_for_bit(kind, tmp_path):
    x, gates, y = make_samples()
    settings = {"epochs": 5, "batch_size": 32, "seed": 2, "progress": False}
    held_out = make_samples(seed=9)
    whole = make_estimator(kind)
    history = train_estimator(whole, x, gates, y, validation=held_out, patience=4, **settings)

    class Killed(Exception):
        pass

    def kill(epoch):
        if epoch.epoch == 3:
            raise Killed

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Killed):
        train_estimator(
            make_estimator(kind), x, gates, y, validation=held_out, patience=4, on_epoch=kill,
            checkpoint=path, **settings,
        )  # fmt: skip
    resumed = make_estimator(kind)
    again = train_estimator(
        resumed, x, gates, y, validation=held_out, patience=4, checkpoint=path, **settings
    )
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [e.loss for e in again] == [e.loss for e in history]
    settings |= {"checkpoint": path, "validation": held_out}
    for other in (
        {"seed": 3},
        {"targets": y.flip(0)},
        {"sample_weight": torch.rand(N)},
        {"validation": None},
        {"validation": make_samples(seed=10)},
    ):
        with pytest.raises(ValueError, match="is a checkpoint of another training"):
            train_estimator(
                **({"estimator": resumed, "x": x, "gates": gates, "targets": y} | settings | other)
            )
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="truncated or not a safetensors file"):
        train_estimator(resumed, x, gates, y, **settings)


def test_stops_early_with_the_best_epoch():
    x, gates, _ = make_samples(n=40)
    y = torch.randint(0, C, (40,), generator=torch.Generator().manual_seed(7))
    held_out = make_samples(seed=11)
    estimator = make_estimator("full")
    seen = []

    def keep(epoch):
        seen.append((epoch, estimator.weight.detach().clone()))

    history = train_estimator(
        estimator, x, gates, y, epochs=50, batch_size=8, learning_rate=0.1, validation=held_out,
        patience=3, on_epoch=keep, progress=False,
    )  # fmt: skip
    assert len(history) < 50
    best = max(range(len(history)), key=lambda i: (history[i].validation_score, -history[i].validation_loss))
    assert best == len(history) - 4
    assert torch.equal(estimator.weight, seen[best][1])
    accuracy = (estimator(*held_out[:2]).argmax(1) == held_out[2]).double().mean()
    assert float(accuracy) == history[best].validation_score
    assert [e.epoch for e, _ in seen] == list(range(1, len(history) + 1))


@pytest.mark.parametrize("held_out", [None, make_samples(seed=11)], ids=["alone", "validation"])
@pytest.mark.parametrize("where", ["on_epoch", "within an epoch"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_ends_a_training_early_leaves_the_best_epoch(monkeypatch, held_out, where, error):
    x, gates, _ = make_samples(n=40)
    y = torch.randint(0, C, (40,), generator=torch.Generator().manual_seed(7))
    estimator = make_estimator("full")
    seen = []

    def keep(epoch):
        seen.append((epoch.validation_score, -epoch.validation_loss, estimator.weight.detach().clone()))
        if len(seen) == 6:
            if where == "on_epoch":
                raise error
            monkeypatch.setattr(NativeLoop, "_run_steps", stop)

    def stop(*_):
        raise error

    with pytest.raises(error):
        train_estimator(
            estimator, x, gates, y, epochs=50, batch_size=8, learning_rate=0.1, validation=held_out,
            on_epoch=keep, progress=False,
        )  # fmt: skip
    best = 5 if held_out is None else max(range(6), key=lambda i: seen[i][:2])
    assert (best < 5) == (held_out is not None)
    assert torch.equal(estimator.weight, seen[best][2])


def test_a_training_that_explodes_stops_with_a_sentence():
    x, gates, _ = make_samples(torch.float32)
    estimator = make_estimator("full", torch.float32)
    before = estimator.weight.detach().clone()
    targets = torch.full((N, C), 1e20)
    with pytest.raises(
        FloatingPointError, match=r"not finite at the end of epoch 1; pass a smaller learning_rate"
    ):
        train_estimator(estimator, x * 1e20, gates, targets, progress=False)
    assert torch.equal(estimator.weight, before)
    x, gates, _ = make_samples()
    with pytest.raises(FloatingPointError, match=r"the loss is inf at step 1 of epoch 1"):
        train_estimator(make_estimator("full"), x, gates, targets.double() * 1e180, progress=False)


def test_values_and_classes_under_squared_error():
    x, gates, y = make_samples()
    a, b = make_estimator("full"), make_estimator("full")
    train_estimator(a, x, gates, y, loss="squared", epochs=2, progress=False)
    train_estimator(b, x, gates, torch.nn.functional.one_hot(y, C).double(), epochs=2, progress=False)
    assert torch.equal(a.weight, b.weight)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"loss": "hinge"}, "loss must be one of cross_entropy, squared, got 'hinge'"),
        ({"epochs": 0}, "epochs must be an int >= 1, got 0"),
        ({"batch_size": 0.5}, "batch_size must be an int >= 1, got 0.5"),
        ({"patience": 2}, "patience needs validation"),
        ({"learning_rate": 0}, "learning_rate must be > 0, got 0"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0, got -1.0"),
        ({"x": torch.zeros(N, D)}, "x must be torch.float64 on cpu like the estimator, got torch.float32"),
        ({"x": torch.zeros(N, D + 1).double()}, r"x must be \[N, D=7\], got \[230, 8\]"),
        ({"x": torch.full((N, D), torch.nan).double()}, "x must be finite"),
        ({"gates": glai.pack_gates(torch.ones(N, P + 1))}, "gates must be of N=230 samples and P=33 paths"),
        ({"targets": torch.full((N,), C)}, r"class indices in \[0, C=5\), got 5 to 5"),
        (
            {"targets": torch.zeros(N, C).double(), "loss": "cross_entropy"},
            "class indices .* for cross-entropy",
        ),
        ({"sample_weight": torch.zeros(N)}, "sample_weight must have a sum > 0"),
        ({"sample_weight": -torch.ones(N)}, "sample_weight must be >= 0"),
        ({"learning_rate": "1e-3"}, "learning_rate must be > 0, got '1e-3'"),
        ({"weight_decay": None}, "weight_decay must be >= 0, got None"),
        ({"seed": 1.5}, "seed must be an int, got 1.5"),
        ({"seed": None}, "seed must be an int, got None"),
        ({"validation": make_samples()[:2]}, r"validation must be \(x, gates, targets\), got 2 of them"),
        ({"validation": torch.zeros(3)}, r"validation must be \(x, gates, targets\), got Tensor"),
        ({"validation": (torch.zeros(1, D + 1), 0, 0)}, r"validation: x must be \[N, D=7\], got \[1, 8\]"),
        ({"checkpoint": "no/such/folder"}, "checkpoint must be a file in a folder that exists, got no/such"),
        ({"estimator": torch.nn.Linear(1, 1)}, "estimator must be a PathEstimator, got Linear"),
    ],
)
def test_refuses(change, sentence):
    x, gates, y = make_samples()
    arguments = {"x": x, "gates": gates, "targets": y, "progress": False} | change
    estimator = make_estimator("full")
    before = copy.deepcopy(estimator.state_dict())
    with pytest.raises((ValueError, TypeError), match=sentence):
        train_estimator(**({"estimator": estimator} | arguments))
    assert torch.equal(estimator.weight, before["weight"])


def test_refuses_numbers_that_no_learning_rate_mends():
    x, gates, _ = make_samples(torch.float32)
    estimator = make_estimator("full", torch.float32)
    with pytest.raises(ValueError, match=r"targets as torch.float32 must be finite"):
        train_estimator(estimator, x, gates, torch.full((N, C), 1e300, dtype=torch.float64), progress=False)
    with torch.no_grad():
        estimator.bias[1, 1] = torch.nan
    with pytest.raises(ValueError, match="the estimator's bias must be finite"):
        train_estimator(estimator, x, gates, torch.zeros(N, C), progress=False)


def test_native_steps_check_what_they_are_given():
    import glai_native._native as _native

    x, gates, y = make_samples()
    k = P * (D + 1) * C
    flat = ("parameters", "exp_avg", "exp_avg_sq", "mean", "gradient")
    given = {name: torch.zeros(k, dtype=x.dtype) for name in flat} | {
        "x": x,
        "words": gates.words,
        "n_gates": P,
        "targets": y,
        "sample_weight": None,
        "directions": None,
        "step": 0,
        "averaged": 0,
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "batch_x": torch.empty(4, D + 1, dtype=x.dtype),
        "batch_words": torch.empty(4, 2, dtype=torch.int32),
        "output": torch.empty(4, C, dtype=x.dtype),
        "row_losses": torch.empty(4, dtype=torch.float64),
        "losses": torch.zeros(1, dtype=torch.float64),
        "threads": 1,
    }

    def call(order, **wrong):
        _native.train_steps(**(given | wrong), order=order)

    with pytest.raises(ValueError, match=r"order must be samples in \[0, N=230\), got 230"):
        call(torch.tensor([0, 230]))
    with pytest.raises(ValueError, match=r"targets must be classes in \[0, C=5\), got 7"):
        call(torch.tensor([0, 1]), targets=y + 7 - y[0])
    with pytest.raises(ValueError, match=r"losses must be float64 \[steps=2\]"):
        call(torch.arange(5))
    with pytest.raises(ValueError, match=r"parameters must be float64 \[K=1320\]"):
        call(torch.arange(2), **{name: given[name][:-1] for name in flat})


def test_the_loss_of_an_epoch_does_not_depend_on_the_clock(monkeypatch):
    x, gates, y = make_samples(n=120)
    losses = []
    for first_span in (1, 7, 1000):
        monkeypatch.setattr("glai_native.solvers.sgd.native.FIRST_SPAN", first_span)
        monkeypatch.setattr("glai_native.solvers.sgd.native.SPAN_SECONDS", 0.0 if first_span == 1 else 1e6)
        history = train_estimator(make_estimator("full"), x, gates, y, epochs=4, batch_size=2, progress=False)
        losses.append([epoch.loss for epoch in history])
    assert losses[0] == losses[1] == losses[2]


@pytest.mark.parametrize("values", [False, True])
def test_strided_inputs_train_as_their_copies(values):
    x, gates, y = make_samples()
    targets = torch.randn(N, C, dtype=x.dtype, generator=torch.Generator().manual_seed(3)) if values else y
    strided = torch.stack([targets, targets], dim=-1)[..., 0]
    a, b = make_estimator("full"), make_estimator("full")
    train_estimator(a, x, gates, targets, epochs=1, progress=False)
    train_estimator(b, x.T.contiguous().T, gates, strided, epochs=1, progress=False)
    assert torch.equal(a.weight, b.weight)


def test_weights_of_samples_count_by_their_shares_alone():
    x, gates, y = make_samples()
    results = []
    for scale in (1.0, 1e308, 5e-324):  # whose sums overflow, or scale to infinity
        estimator = make_estimator("full")
        weight = torch.full((N,), scale, dtype=torch.float64)
        weight[::3] = 0
        train_estimator(estimator, x, gates, y, sample_weight=weight, epochs=1, progress=False)
        results.append(estimator.weight.detach())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_sums_over_samples_have_the_same_bits_for_any_number_of_threads():
    """torch's sum of more than 32768 numbers depends on it."""
    before = torch.get_num_threads()
    n, gates = 40_000, glai.pack_gates(torch.ones(40_000, 1))
    try:
        for seed in range(12):
            generator = torch.Generator().manual_seed(seed)
            x, t, weight = (torch.rand(n, 1, generator=generator, dtype=torch.float64) for _ in range(3))
            seen = set()
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                estimator = glai.PathEstimator(1, 1, 1, dtype=torch.float64)
                history = train_estimator(
                    estimator, x, gates, t, sample_weight=weight[:, 0], validation=(x, gates, t), epochs=1,
                    batch_size=n, progress=False,
                )  # fmt: skip
                seen.add((estimator.weight.item(), history[0].loss, history[0].validation_loss))
            assert len(seen) == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_loop_of_ranks_takes_gradients_where_they_are_off(mode):
    with mode():
        x, gates, y = make_samples(n=40)
        data, settings = Samples(x, y, C, gates=gates), SgdSettings("cross_entropy", 16, 1e-2, 0.0, True, 0)
        loops = [
            NativeLoop(make_estimator("full"), data, settings),
            GroupLoop(make_estimator("full"), data, settings, Ranks("test")),
        ]
        for loop in loops:
            loop.run_epoch([(data, torch.arange(40))], 40, lambda share: None)
    torch.testing.assert_close(loops[0].result(), loops[1].result(), rtol=1e-10, atol=1e-12)
