"""InputProjection: centring, scaling, principal components."""

import pytest
import torch

import glai_native as glai
from conftest import make_mlp
from glai_native.structure import projection


def test_identity():
    x = torch.randn(5, 3)
    assert glai.InputProjection.identity(3)(x) is x


def test_centring(generator):
    x = torch.randn((500, 7), generator=generator) * torch.arange(1, 8) + 5
    projection = glai.InputProjection.fit(x)
    z = projection(x)
    assert projection.kind == "centring"
    torch.testing.assert_close(z.mean(0), torch.zeros(7), atol=1e-5, rtol=0)
    assert float(z.square().mean()) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(z, (x - x.mean(0)) * projection.scale)  # one scale for all features


def test_rotation_keeps_the_strongest_directions(generator):
    x = torch.randn((400, 6), generator=generator, dtype=torch.float64) * torch.tensor(
        [9, 5, 1, 0.1, 0.1, 0.1]
    )
    projection = glai.InputProjection.fit(x, n_components=2)
    z = projection(x)
    assert projection.kind == "rotation"
    assert z.shape == (400, 2)
    assert float(z.square().mean()) == pytest.approx(1)
    identity = projection.rotation.T @ projection.rotation
    torch.testing.assert_close(identity, torch.eye(2, dtype=torch.float64))
    kept = (z / projection.scale).square().sum() / (x - x.mean(0)).square().sum()
    assert kept > 0.98


def test_fit_on_integers_and_constants():
    assert (
        glai.InputProjection.fit(torch.randint(0, 255, (9, 4), dtype=torch.uint8)).mean.dtype == torch.float32
    )
    constant = glai.InputProjection.fit(torch.full((5, 3), 2.0))
    assert torch.equal(constant(torch.full((5, 3), 2.0)), torch.zeros(5, 3))


@pytest.mark.parametrize(
    ("x", "n_components", "sentence"),
    [
        (torch.zeros(0, 3), None, r"x must be \[N >= 1, D >= 1\], got \[0, 3\]"),
        (torch.zeros(3), None, r"got \[3\]"),
        ([1.0], None, "got list"),
        (torch.tensor([[1.0, float("nan")]]), None, "must be finite"),
        (torch.tensor([[1.0, float("inf")]]), None, "must be finite"),
        (torch.tensor([[1e30], [-1e30]]), None, "x must have squares that fit in float32, got larger values"),
        (torch.zeros(4, 3, dtype=torch.complex64), None, "x must be .* numbers, got torch.complex64"),
        (torch.zeros(4, 3, dtype=torch.bool), None, "x must be floating or integer numbers, got torch.bool"),
        (torch.zeros(4, 3), 4, r"n_components must be an int in \[1, min\(N=4, D=3\)\], got 4"),
        (torch.zeros(4, 3), 0, "got 0"),
    ],
)
def test_fit_refuses(x, n_components, sentence):
    with pytest.raises(ValueError, match=sentence):
        glai.InputProjection.fit(x, n_components)


def test_projection_parts_belong_together():
    with pytest.raises(ValueError, match="mean and scale must come together"):
        glai.InputProjection(3, mean=torch.zeros(3))


def spectrum(n, d, generator, dtype=torch.float64, offset=0.0):
    """Samples whose principal components fall off, around an offset."""
    basis = torch.linalg.qr(torch.randn((d, d), generator=generator, dtype=torch.float64))[0]
    strengths = 0.7 ** torch.arange(d, dtype=torch.float64)
    return (torch.randn((n, d), generator=generator, dtype=torch.float64) * strengths @ basis + offset).to(
        dtype
    )


def reference_axes(x, k):
    centred = x.double() - x.double().mean(0)
    values, axes = torch.linalg.svd(centred, full_matrices=False)[1:]
    return axes[:k].T, values[:k].square() / len(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("shape", [(300, 20), (31, 33), (20, 64)])
def test_principal_components(monkeypatch, generator, shape, wide, dtype):
    monkeypatch.setattr(projection, "COVARIANCE_FEATURES", 0 if wide else 2000)
    monkeypatch.setattr(projection, "COVARIANCE_ROWS", 64)
    x = spectrum(*shape, generator, dtype, offset=3.0)
    fitted = glai.InputProjection.fit(x, n_components=5)
    axes, variances = reference_axes(x, 5)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    aligned = (fitted.rotation.double() * axes).sum(0).abs()
    torch.testing.assert_close(aligned, torch.ones(5, dtype=torch.float64), atol=tolerance, rtol=0)
    assert float(fitted.scale) == pytest.approx(float(variances.mean()) ** -0.5, rel=1e-5)
    z = fitted(x).double()
    torch.testing.assert_close(z.square().mean(0).sum(), torch.tensor(5.0).double(), rtol=1e-4, atol=0)
    again = glai.InputProjection.fit(x, n_components=5)
    assert torch.equal(again.rotation, fitted.rotation)
    largest = fitted.rotation.gather(0, fitted.rotation.abs().argmax(0, keepdim=True))
    assert bool((largest > 0).all())


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_explained_variance(monkeypatch, generator, wide, share):
    monkeypatch.setattr(projection, "COVARIANCE_FEATURES", 0 if wide else 2000)
    monkeypatch.setattr(projection, "FIRST_COMPONENTS", 2)
    x = spectrum(400, 30, generator)
    shares = reference_axes(x, 30)[1].cumsum(0)
    expected = int((shares / shares[-1] < share).sum()) + 1
    assert glai.InputProjection.fit(x, explained_variance=share).out_features == expected


@pytest.mark.parametrize("wide", [False, True])
def test_all_variance_needs_as_many_components_as_there_are(monkeypatch, generator, wide):
    monkeypatch.setattr(projection, "COVARIANCE_FEATURES", 0 if wide else 2000)
    x = torch.randn((200, 3), generator=generator) @ torch.randn((3, 12), generator=generator)
    assert glai.InputProjection.fit(x, explained_variance=1.0).out_features == 3


def test_global_randomness_is_left_alone(monkeypatch, generator):
    monkeypatch.setattr(projection, "COVARIANCE_FEATURES", 0)
    x = spectrum(50, 20, generator)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    glai.InputProjection.fit(x, 3, seed=7)
    assert torch.equal(torch.rand(1), expected)


def test_a_large_mean_costs_no_digits(generator):
    x = torch.randn((500, 4), generator=generator) + 4096.0
    axes, variances = reference_axes(x, 2)
    fitted = glai.InputProjection.fit(x, n_components=2)
    torch.testing.assert_close(
        (fitted.rotation.double() * axes).sum(0).abs(), torch.ones(2).double(), atol=1e-6, rtol=0
    )
    assert float(fitted.scale) == pytest.approx(float(variances.mean()) ** -0.5, rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"n_components": 1}, {"explained_variance": 0.5}])
@pytest.mark.parametrize("value", [0.1, 12345.678])
@pytest.mark.parametrize("n", [1, 3, 50])
def test_what_does_not_vary_is_zero(options, value, n):
    x = torch.full((n, 7), value)
    fitted = glai.InputProjection.fit(x, **options)
    assert float(fitted.scale) == 1.0
    assert torch.equal(fitted(x), torch.zeros(n, fitted.out_features))


def test_a_constant_feature_among_others(generator):
    x = torch.randn((60, 5), generator=generator)
    x[:, 2] = 7.0
    fitted = glai.InputProjection.fit(x, n_components=4)
    torch.testing.assert_close(fitted.rotation[2], torch.zeros(4), atol=1e-6, rtol=0)
    assert glai.InputProjection.fit(x, explained_variance=1.0).out_features == 4


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"explained_variance": 0.0}, r"explained_variance must be a share in \(0, 1\], got 0.0"),
        ({"explained_variance": 1.5}, "got 1.5"),
        ({"explained_variance": float("nan")}, "got nan"),
        ({"n_components": 2.0}, "n_components must be an int in .*, got 2.0"),
        ({"n_components": True}, "got True"),
        ({"n_components": 2, "explained_variance": 0.5}, "must not be given both, got 2 and 0.5"),
    ],
)
def test_fit_refuses_options(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        glai.InputProjection.fit(torch.randn(9, 3), **options)


def test_rows_are_projected_in_chunks(monkeypatch, generator):
    x = torch.randn((100, 8), generator=generator)
    fitted = glai.InputProjection.fit(x, n_components=3)
    expected = (x - fitted.mean) * fitted.scale @ fitted.rotation
    monkeypatch.setattr(projection, "PROJECT_ROWS", 7)
    torch.testing.assert_close(fitted(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fitted(x.double()), expected.double(), rtol=1e-5, atol=1e-5)
    assert fitted(x[:0]).shape == (0, 3)
    x.requires_grad_()
    fitted(x).sum().backward()
    torch.testing.assert_close(x.grad, (fitted.rotation * fitted.scale).sum(1).expand_as(x))


@pytest.mark.parametrize("options", [{"n_components": 3}, {"explained_variance": 0.8}])
def test_a_model_with_components_saves_loads_and_merges(tmp_path, samples, options):
    fitted = glai.InputProjection.fit(samples, **options)
    selector = glai.PathSelector(make_mlp(fitted.out_features, 5, 4), fitted)
    assert (
        selector.structure_id
        != glai.PathSelector(
            make_mlp(fitted.out_features, 5, 4), glai.InputProjection.fit(samples * 2, **options)
        ).structure_id
    )
    model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector))
    model.estimator.record(selector.gates(samples))
    model.save(tmp_path)
    loaded = glai.GLAI.load(tmp_path)
    assert loaded.structure_id == selector.structure_id
    assert torch.equal(loaded(samples), model(samples))
    torch.testing.assert_close(glai.merge([loaded, model])(samples), model(samples))
