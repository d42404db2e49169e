"""The dual closed form, held to float64 solutions over path features that are written out."""

import warnings

import pytest
import torch

import glai_native as glai
from conftest import make_mlp
from glai_native.machine.writing import write_files
from glai_native.solvers.dual import nystrom
from glai_native.solvers.dual.cholesky import BlockCholesky, NotPositiveDefiniteError
from glai_native.solvers.samples import Samples

TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-11}


@pytest.fixture
def two_layers():
    """D=6 through layers of 33 and 5 units, float64: P=204."""
    x = torch.randn(80, 6, generator=torch.Generator().manual_seed(3)).double() * 3 + 1
    return glai.PathSelector(make_mlp(6, 33, 5, 4, dtype=torch.float64), glai.InputProjection.fit(x))


def data(n=70, seed=5, dtype=torch.float64):
    """x ``[N, 6]`` and y in ``[0, 4)``."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64) * 3 + 1
    return x.to(dtype), torch.randint(4, (n,), generator=generator)


def path_features(selector, x):
    """``[N, P·(D+1)]`` in float64: what the model never forms."""
    z = torch.nn.functional.pad(selector.project(x).double(), (0, 1), value=1.0)
    return (selector.gates(x).unpack().double().unsqueeze(2) * z.unsqueeze(1)).flatten(1)


def ridge(features, targets, l2, weight=None):
    """Weights of all paths, from the normal equations over them."""
    weighted = features if weight is None else features * weight.double().unsqueeze(1)
    gram = features.T @ weighted + l2 * torch.eye(features.shape[1]).double()
    return torch.linalg.solve(gram, weighted.T @ targets.double())


def one_hot(y):
    return torch.nn.functional.one_hot(y, 4).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [2, 31, 32, 33, 70])
def test_fit_is_ridge_over_all_paths(two_layers, dtype, n):
    selector = two_layers.to(dtype)
    x, y = data(n, dtype=dtype)
    new, _ = data(31, seed=6, dtype=dtype)
    model = glai.PathKernelModel(selector).fit(x, y, l2=20.0, n_outputs=4)
    expected = path_features(selector, new) @ ridge(path_features(selector, x), one_hot(y), 20.0)
    scores = model.predict(new)
    assert scores.dtype == dtype
    torch.testing.assert_close(scores.double(), expected, rtol=0, atol=TOLERANCE[dtype])


def test_values_and_sample_weights(two_layers):
    x, _ = data()
    y = torch.randn(70, 3, generator=torch.Generator().manual_seed(8)).double()
    weight = torch.rand(70, generator=torch.Generator().manual_seed(9))
    weight[::7] = 0.0
    model = glai.PathKernelModel(two_layers).fit(x, y, l2=20.0, sample_weight=weight)
    features = path_features(two_layers, x)
    torch.testing.assert_close(
        model.predict(x), features @ ridge(features, y, 20.0, weight), rtol=0, atol=1e-11
    )
    assert model.n_samples == 60
    assert model.loo_accuracy is None
    nothing = glai.PathKernelModel(two_layers).fit(x, y, l2=20.0, sample_weight=weight, n_centres=60)
    torch.testing.assert_close(nothing.alpha, model.alpha)


@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out_is_leaving_one_out(two_layers, weighted):
    x, y = data(40)
    weight = torch.rand(40, generator=torch.Generator().manual_seed(9)).double() + 0.1 if weighted else None
    model = glai.PathKernelModel(two_layers).fit(x, y, l2=20.0, sample_weight=weight)
    s = torch.ones(40).double() if weight is None else weight
    squares, right = 0.0, 0.0
    for n in range(40):
        rest = torch.arange(40) != n
        one = glai.PathKernelModel(two_layers).fit(
            x[rest], y[rest], l2=20.0, n_outputs=4, sample_weight=s[rest]
        )
        scores = one.predict(x[n : n + 1])[0]
        squares += float(s[n] * (one_hot(y)[n] - scores).square().sum())
        right += float(s[n] * (scores.argmax() == y[n]))
    assert model.loo_error == pytest.approx(squares / float(s.sum()), rel=1e-10)
    assert model.loo_accuracy == pytest.approx(right / float(s.sum()), rel=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_some_are_left_out_as_all_would_be(two_layers, weighted):
    x, y = data(40)
    weight = torch.rand(40, generator=torch.Generator().manual_seed(9)).double() + 0.1 if weighted else None
    samples = Samples.of_raw("a test", two_layers, x, y, 4, weight=weight).canonical()
    rows = torch.tensor([30, 3, 17])
    every = glai.PathKernelModel(two_layers).fit_samples(samples, 20.0)
    some = glai.PathKernelModel(two_layers).fit_samples(samples, 20.0, left_out=rows)
    torch.testing.assert_close(some.loo_scores, every.loo_scores[rows])
    torch.testing.assert_close(some.predict(x), every.predict(x))
    assert some.loo_error != every.loo_error


def test_l2_by_leave_one_out_is_the_best_of_its_grid(two_layers):
    x, y = data()
    x[:, 0] += 2 * y
    model = glai.PathKernelModel(two_layers).fit(x, y)
    for factor in (0.1, 10):
        assert model.loo_error <= glai.PathKernelModel(two_layers).fit(x, y, model.l2 * factor).loo_error


@pytest.mark.parametrize("scale", [1e-6, 1 / 70, 1e5])
def test_the_scale_of_weights_does_not_matter(two_layers, scale):
    """Weights that sum to 1 are common; the grid of l2 goes with them."""
    x, y = data()
    weight = torch.rand(70, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.1
    model = glai.PathKernelModel(two_layers).fit(x, y, sample_weight=weight)
    scaled = glai.PathKernelModel(two_layers).fit(x, y, sample_weight=scale * weight)
    assert scaled.l2 == pytest.approx(scale * model.l2)
    torch.testing.assert_close(scaled.predict(x), model.predict(x), rtol=1e-6, atol=1e-8)


def test_many_samples_choose_l2_on_some(two_layers, monkeypatch):
    monkeypatch.setattr("glai_native.solvers.dual.ridge.TRIAL_LEAST", 40)
    x, y = data(160)
    model = glai.PathKernelModel(two_layers).fit(x, y)
    assert len(model.alpha) == 160
    some = torch.randperm(160, generator=torch.Generator().manual_seed(0))[:40]
    alone = glai.PathKernelModel(two_layers).fit(x[some], y[some])
    assert model.l2 == pytest.approx(2 * alone.l2)


def test_conjugate_gradients_find_what_cholesky_finds(two_layers, monkeypatch):
    monkeypatch.setattr(nystrom, "ROWS", 128)
    monkeypatch.setattr(nystrom, "TOLERANCE", 1e-9)
    monkeypatch.setattr(nystrom, "MOST_ITERATIONS", 60)
    x, y = data(300)
    weight = torch.rand(300, generator=torch.Generator().manual_seed(9)) + 0.5
    exact = glai.PathKernelModel(two_layers).fit(x, y, l2=50.0, sample_weight=weight)
    model = glai.PathKernelModel(two_layers).fit(x, y, l2=50.0, sample_weight=weight, memory=2_500_000)
    assert model.loo_error is None
    assert len(model.alpha) == 300
    torch.testing.assert_close(model.alpha, exact.alpha, rtol=0, atol=1e-7 * float(exact.alpha.abs().max()))


def test_conjugate_gradients_say_when_they_stop_short(two_layers, monkeypatch):
    monkeypatch.setattr(nystrom, "ROWS", 128)
    monkeypatch.setattr(nystrom, "MOST_ITERATIONS", 1)
    x, y = data(700)
    assert glai.PathKernelModel(two_layers).fit(x, y, l2=1e-3, memory=3 * 10**6).unsolved > 1e-2


def test_centres_are_the_best_fit_in_their_span(two_layers):
    x, y = data(200)
    model = glai.PathKernelModel(two_layers).fit(x, y, l2=20.0, n_centres=50)
    assert len(model.alpha) == 50
    assert model.n_samples == 200
    kernel = path_features(two_layers, x) @ path_features(two_layers, x).T
    ids = torch.randperm(200, generator=torch.Generator().manual_seed(0))[:50].sort().values
    rows = kernel[:, ids]
    gram = rows.T @ rows + 20.0 * rows[ids]
    expected = torch.linalg.solve(gram, rows.T @ one_hot(y))
    torch.testing.assert_close(model.predict(x), rows @ expected, rtol=0, atol=1e-8)
    leverage = (rows @ torch.linalg.inv(gram) * rows).sum(1, keepdim=True)
    residuals = (one_hot(y) - rows @ expected) / (1 - leverage)
    assert model.loo_error == pytest.approx(float(residuals.square().sum(1).mean()), rel=1e-6)


def test_more_centres_than_path_features():
    """Their kernel matrix is singular, and rounding makes it indefinite; the model is that of all samples."""
    x, y = data(700)
    selector = glai.PathSelector(make_mlp(6, 8, 6, 4, dtype=torch.float64))
    whole = glai.PathKernelModel(selector).fit(x, y, l2=5.0)
    some = glai.PathKernelModel(selector).fit(x, y, l2=5.0, n_centres=699)
    torch.testing.assert_close(some.predict(x), whole.predict(x), rtol=0, atol=1e-6)
    assert some.loo_error == pytest.approx(whole.loo_error, rel=1e-6)


def test_predict_in_blocks_equals_at_once(two_layers, monkeypatch):
    x, y = data()
    model = glai.PathKernelModel(two_layers).fit(x, y, l2=20.0)
    at_once = model.predict(x)
    monkeypatch.setattr("glai_native.solvers.dual.fitted.BLOCK_BYTES", 70 * 8 * 3)
    torch.testing.assert_close(model.predict(x), at_once, rtol=0, atol=1e-12)
    assert model.predict(x[:0]).shape == (0, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_centres", [None, 40])
def test_estimator_is_the_same_function(two_layers, dtype, n_centres, monkeypatch):
    monkeypatch.setattr("glai_native.solvers.dual.fitted.GATE_ROWS", 32)
    selector = two_layers.to(dtype)
    x, y = data(dtype=dtype)
    model = glai.PathKernelModel(selector).fit(x, y, l2=20.0, n_centres=n_centres)
    whole = glai.GLAI(selector, model.to_estimator())
    assert (whole(x) - model.predict(x)).abs().max() <= (1e-5 if dtype == torch.float32 else 1e-11)
    assert int(whole.estimator.samples_seen) == 70


def test_estimator_is_the_same_function_where_terms_cancel():
    generator = torch.Generator().manual_seed(7)
    x, y = torch.randn(900, 32, generator=generator), torch.randint(20, (900,), generator=generator)
    selector = glai.PathSelector(make_mlp(32, 40, 20))
    model = glai.PathKernelModel(selector).fit(x, y, l2=10.0)  # a hundredth of the mean diagonal
    new = torch.randn(200, 32, generator=generator)
    assert (glai.GLAI(selector, model.to_estimator())(new) - model.predict(new)).abs().max() <= 1e-5


def test_estimator_must_fit(two_layers):
    x, y = data()
    model = glai.PathKernelModel(two_layers).fit(x, y, l2=20.0)
    with pytest.raises(MemoryError, match=r"to_estimator: weights \[P=204, D=6, C=4\] take .* GB"):
        model.to_estimator(memory=1000)


def test_save_warns_and_load_gives_the_same_model(two_layers, tmp_path):
    x, y = data()
    model = glai.PathKernelModel(two_layers).fit(x, y, n_centres=40)
    with pytest.warns(UserWarning, match="contains training data, 40 projected samples"):
        model.save(tmp_path / "model")
    loaded = glai.PathKernelModel.load(tmp_path / "model")
    assert torch.equal(loaded.predict(x), model.predict(x))
    assert (loaded.l2, loaded.n_samples, loaded.loo_error, loaded.loo_accuracy) == (
        model.l2,
        model.n_samples,
        model.loo_error,
        model.loo_accuracy,
    )
    assert "M=40" in repr(loaded)


def test_load_refuses_another_structure(two_layers, selector, tmp_path):
    x, y = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        glai.PathKernelModel(two_layers).fit(x, y, l2=20.0).save(tmp_path)
    write_files({tmp_path / "structure.safetensors": selector.to_bytes()})
    with pytest.raises(ValueError, match="must be of structure_id"):
        glai.PathKernelModel.load(tmp_path)
    (tmp_path / "path_kernel.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        glai.PathKernelModel.load(tmp_path)


def test_save_keeps_a_model_of_another_structure(two_layers, selector, tmp_path):
    x, y = data()
    (tmp_path / "structure.safetensors").write_bytes(selector.to_bytes())
    model = glai.PathKernelModel(two_layers).fit(x, y, l2=20.0)
    with pytest.raises(ValueError, match="PathKernelModel.save: .* holds a model of another structure"):
        model.save(tmp_path)
    with pytest.warns(UserWarning, match="training data"):
        model.save(tmp_path, overwrite=True)
    assert torch.equal(glai.PathKernelModel.load(tmp_path).predict(x), model.predict(x))


def poisoned(value):
    x, _ = data()
    x[3, 2] = value
    return x


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": poisoned(float("nan"))}, ValueError, "fit: x must be finite"),
        ({"x": poisoned(float("inf"))}, ValueError, "fit: x must be finite"),
        ({"x": torch.zeros(70, 5)}, ValueError, r"x must be \[N, D=6\], got \[70, 5\]"),
        ({"x": torch.zeros(0, 6).double()}, ValueError, "at least one sample"),
        ({"y": torch.zeros(70, dtype=torch.long)}, ValueError, "at least 2 classes, got class 0 only"),
        ({"y": torch.zeros(69, dtype=torch.long)}, ValueError, r"y must be class indices \[N=70\]"),
        ({"y": torch.zeros(70)}, ValueError, "y must be values"),
        ({"y": torch.full((70, 2), float("nan"))}, ValueError, "y must be finite"),
        ({"y": torch.tensor(1.0)}, ValueError, "y must be values"),
        (
            {"y": torch.zeros(70, dtype=torch.complex64)},
            ValueError,
            "y must be class indices or floating values",
        ),
        ({"y": torch.full((70,), -1)}, ValueError, r"class indices in \[0, C=1\), got -1 to -1"),
        ({"y": [0, 1]}, TypeError, "y must be a torch.Tensor"),
        ({"n_outputs": 3}, ValueError, r"class indices in \[0, C=3\)"),
        ({"l2": -1.0}, ValueError, 'l2 must be a number >= 0 or "loo", got -1.0'),
        ({"l2": float("nan")}, ValueError, "l2 must be a number >= 0"),
        ({"l2": "gcv"}, ValueError, "l2 must be a number >= 0"),
        ({"n_centres": 0}, ValueError, "n_centres must be an int >= 1, got 0"),
        ({"n_centres": 2.5}, ValueError, "n_centres must be an int >= 1, got 2.5"),
        ({"memory": -1, "l2": "loo"}, ValueError, "memory must be an int >= 1, got -1"),
        ({"x": data()[0] * 1e160, "l2": "loo"}, ValueError, "products that fit in float64, got values up to"),
        (
            {"y": torch.full((70, 1), 1e160, dtype=torch.float64), "l2": "loo"},
            ValueError,
            "products that fit in float64",
        ),
        ({"memory": 1000}, MemoryError, "GB are needed and memory allows"),
        ({"sample_weight": torch.zeros(70)}, ValueError, "must be > 0 for at least one sample"),
        ({"sample_weight": torch.ones(3)}, ValueError, r"sample_weight must be \[N=70\]"),
    ],
)
def test_bad_input(two_layers, change, error, message):
    x, y = data()
    arguments = {"x": x, "y": y, "l2": 20.0} | change
    with pytest.raises(error, match=message):
        glai.PathKernelModel(two_layers).fit(**arguments)


def test_one_sample(two_layers):
    x, _ = data(1)
    values = torch.ones(1, 2).double()
    with pytest.raises(ValueError, match="needs at least 2 samples that differ"):
        glai.PathKernelModel(two_layers).fit(x, values)
    model = glai.PathKernelModel(two_layers).fit(x, values, l2=0.0)
    torch.testing.assert_close(model.predict(x), values)


@pytest.mark.parametrize("arguments", [{}, {"n_centres": 50}, {"memory": 3 * 10**6}])
def test_no_ridge_on_equal_samples(two_layers, arguments, monkeypatch):
    monkeypatch.setattr(nystrom, "ROWS", 128)
    x, y = data(700)
    x[100:] = x[:1]
    if arguments.get("n_centres"):
        x, y = x[100:], y[100:]
    with pytest.raises(ValueError, match=r"l2=0.0 cannot be factored in float64, give a larger l2"):
        glai.PathKernelModel(two_layers).fit(x, y, l2=0.0, **arguments)


def test_a_failed_fit_leaves_the_model(two_layers):
    x, y = data()
    model = glai.PathKernelModel(two_layers).fit(x, y, l2=20.0)
    before = model.predict(x)
    with pytest.raises(ValueError, match="finite"):
        model.fit(poisoned(float("nan")), y)
    assert torch.equal(model.predict(x), before)


def test_needs_a_selector_and_a_fit(two_layers):
    with pytest.raises(TypeError, match="must be a PathSelector"):
        glai.PathKernelModel(make_mlp(6, 3, 2))
    with pytest.raises(ValueError, match="must be float32 or float64"):
        glai.PathKernelModel(two_layers.half())
    for verb in ("to_estimator", "save", "predict"):
        with pytest.raises(ValueError, match=f"{verb}: the model is not fitted"):
            getattr(glai.PathKernelModel(two_layers.float()), verb)(
                *(["x"] if verb != "to_estimator" else [])
            )


@pytest.mark.parametrize("n", [1, 31, 64, 65, 200])
def test_block_cholesky(n, monkeypatch):
    monkeypatch.setattr("glai_native.solvers.dual.cholesky.BLOCK", 64)
    a = torch.randn(n, n + 3, generator=torch.Generator().manual_seed(n)).double()
    matrix, ridge_ = a @ a.T / n, torch.linspace(0.5, 2, n).double()
    full = matrix + torch.diag(ridge_)
    right = torch.randn(n, 3, generator=torch.Generator().manual_seed(1)).double()
    work = matrix.clone()
    for scale in (3.0, 1.0):  # in the same memory
        factor = BlockCholesky(work, ridge_ * scale)
    torch.testing.assert_close(factor.solve(right), torch.linalg.solve(full, right))
    for last in {n, (n + 1) // 2, 1, 0}:
        expected = torch.linalg.inv(full).diagonal()[n - last :]
        torch.testing.assert_close(factor.inverse_diagonal(last), expected)
    torch.testing.assert_close(factor.solve_lower(right), torch.linalg.cholesky(full).inverse() @ right)
    assert torch.equal(work.triu(), matrix.triu())
    with pytest.raises(NotPositiveDefiniteError):
        BlockCholesky(work, ridge_ - 100)
