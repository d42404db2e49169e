"""IntegerFeatures: the same integers for every order, dtype and machine; a selector becomes integers."""

import hashlib

import numpy as np
import pytest
import torch

import glai_native as glai
from glai_native.machine.files import TensorFile
from glai_native.structure.integer_layers import random_numbers, random_weights, random_windows
from glai_native.structure.network import relu_network


@pytest.fixture
def x(generator):
    return torch.randn((300, 9), generator=generator) * torch.arange(1, 10) + 3


def test_random_numbers_are_those_of_every_machine():
    numbers = random_numbers(7, 33, 5)
    assert numbers.dtype == torch.int8
    digest = hashlib.sha256(numbers.numpy().tobytes()).hexdigest()
    assert digest == "e083ff6d767a5d8eca648c817e5dd4cfff64390834979efa79d4e17ef668db9e"
    assert torch.equal(random_numbers(7, 11, 5), numbers[:11])  # more units leave the first as they are
    many = random_numbers(0, 1000, 100).double()
    assert abs(float(many.mean())) < 0.5
    assert float(many.std()) == pytest.approx(36.94, abs=0.3)
    assert int(many.abs().max()) <= 126


@pytest.mark.parametrize("width", [1, 2, 3, 33, 1280])
@pytest.mark.parametrize("windows", [1, 2])
def test_every_second_unit_reads_a_window_of_features(width, windows):
    begin, length = random_windows(7, 500, width, windows)
    least, most = (min(width, 2), width) if windows == 1 else (min(width, 4), min(width, max(12, width // 4)))
    assert int(length.min()) >= least
    assert int(length.max()) <= most
    assert int(begin.min()) == 0 or (windows, width) == (2, 1280)
    assert int((begin + length).max()) == width or (windows, width) == (2, 1280)
    assert torch.equal(random_windows(7, 9, width, windows)[0], begin[:9])
    weight, bias = random_weights(7, 1001, width, windows)
    assert torch.equal(random_weights(7, 11, width, windows)[0], weight[:11])
    assert torch.equal(weight[::2], random_numbers(7, 1001, width + 1)[::2, :-1])
    place = torch.arange(width)
    outside = (place < begin[:, None]) | (place >= (begin + length)[:, None])
    assert not weight[1::2][outside].any()
    assert bool((weight[1::2] != 0).any(1).all()) or width < 33
    assert bias.dtype == torch.int32


def test_maps_of_the_first_rule_stay_what_they_were(x, tmp_path):
    """Their files do not name a rule, and hold the seed alone."""
    fitted = glai.IntegerFeatures.fit(x, 20, seed=3)
    weight, _ = random_weights(3, 20, 9, 1)
    layer = fitted.layers[0]._replace(weight=weight)
    before = glai.IntegerFeatures(fitted.mean, fitted.scale, [layer], 3, windows=1)
    state = before.to_state()
    assert "weight_0" not in state
    assert "windows" not in state
    assert glai.IntegerFeatures.from_state(state).features_id == before.features_id != fitted.features_id
    assert glai.IntegerFeatures.from_state(fitted.to_state()).features_id == fitted.features_id
    for features, version in ((before, "1"), (fitted, "2")):
        features.save(tmp_path / "features.safetensors")
        file = TensorFile(tmp_path / "features.safetensors", "glai-integer-features", newest=2, whole_from=1)
        assert file.metadata["version"] == version
        again = glai.IntegerFeatures.load(tmp_path / "features.safetensors")
        assert (again.features_id, again.windows) == (features.features_id, features.windows)
    del before.__dict__["windows"]  # as one that was pickled then
    assert before.to_state().keys() == state.keys()
    with pytest.raises(ValueError, match="windows must be drawn by a rule of 1 to 2, got 3: a newer version"):
        glai.IntegerFeatures.from_state(state | {"windows": torch.tensor(3)})


@pytest.mark.parametrize("scale", ["global", "features"])
def test_inputs_and_units_fill_their_range(x, scale):
    features = glai.IntegerFeatures.fit(x, 50, scale=scale)
    assert (features.in_features, features.n_units, features.n_features) == (9, 50, 60)
    phi = features.transform(x)
    h, q = phi[:, :50].double(), phi[:, 50:59].double() - 64
    assert phi.dtype == torch.uint8
    assert bool((phi[:, -1] == 127).all())
    assert torch.equal(phi[:, 50:59], features.inputs(x))
    on = h.any(0)  # a unit whose window holds features of little variance may never be
    assert int(on.sum()) >= 49
    expected = torch.full((50,), 127 / 6).double()[on]
    torch.testing.assert_close(h[:, on].square().mean(0).sqrt(), expected, rtol=0.4, atol=0)
    expected = ((x - features.mean) * features.scale).round().clamp(-63, 63).double()
    assert torch.equal(q, expected)
    assert float(q.square().mean().sqrt()) == pytest.approx(16, rel=0.05)
    assert len(features.scale.unique()) == (1 if scale == "global" else 9)


def test_order_and_type_of_samples_change_nothing(generator):
    x = torch.randint(-50, 50, (1500, 5), generator=generator)
    features = glai.IntegerFeatures.fit(x, 20)
    assert features.seed == 0
    shuffled = x[torch.randperm(1500, generator=generator)]
    for same in (shuffled, x.double(), x.half(), x.numpy(), x.numpy().astype(np.uint64).astype(np.int64)):
        assert glai.IntegerFeatures.fit(same, 20).features_id == features.features_id
        assert torch.equal(features.transform(same)[0], features.transform(same[:1])[0])
    assert glai.IntegerFeatures.fit(x, 20, seed=1).features_id != features.features_id
    assert glai.IntegerFeatures.fit(x, 21).features_id != features.features_id
    assert features.transform(x[:0]).shape == (0, 26)


@pytest.mark.parametrize("widths", [[7], [12, 6], [8, 8, 5]])
@pytest.mark.parametrize("kind", ["identity", "centring", "rotation"])
def test_selectors_become_integers(x, widths, kind):
    projection = {
        "identity": None,
        "centring": glai.InputProjection.fit(x),
        "rotation": glai.InputProjection.fit(x, n_components=4),
    }[kind]
    torch.manual_seed(0)
    mlp = relu_network([9 if projection is None else projection.out_features, *widths, 3])
    with torch.no_grad():
        for linear in mlp[::2]:
            linear.bias += 0.5  # no unit is off for all
    selector = glai.PathSelector(mlp, projection)
    features = glai.IntegerFeatures.fit(x, None, selector)
    assert features.seed is None
    assert features.n_units == widths[-1]
    h = selector.project(x)
    for weight, bias in selector.hidden:
        h = torch.relu(h @ weight.T + bias)
    integers = features.transform(x)[:, : widths[-1]].float()
    gain = (integers * h).sum(0) / h.square().sum(0)
    error = (integers / gain - h).square().mean().sqrt() / h.square().mean().sqrt()
    assert float(error) < 0.1  # seven bits of inputs, and what passes four root mean squares is cut


def test_shaped_weights_follow_the_samples(x, generator):
    features = glai.IntegerFeatures.fit(x, 4000, weights="covariance")
    q = features.inputs(x).double() - 64
    weight = features.layers[0].weight.double()
    shaped, expected = weight[::2].T @ weight[::2], q.T @ q
    torch.testing.assert_close(shaped / shaped.trace(), expected / expected.trace(), atol=0.05, rtol=0)
    plain = glai.IntegerFeatures.fit(x, 4000)
    assert torch.equal(features.layers[0].weight[1::2], plain.layers[0].weight[1::2])  # those of windows
    assert features.seed is None
    again = x[torch.randperm(len(x), generator=generator)]
    layer = glai.IntegerFeatures.fit(again, 4000, weights="covariance").layers[0]
    assert torch.equal(layer.weight, features.layers[0].weight)
    alone = glai.IntegerFeatures.fit(x[:1], 3, weights="covariance")  # nothing differs: as drawn
    assert torch.equal(alone.layers[0].weight, glai.IntegerFeatures.fit(x[:1], 3).layers[0].weight)
    with pytest.raises(ValueError, match="weights must be 'random' or 'covariance', got 'pairs'"):
        glai.IntegerFeatures.fit(x, 3, weights="pairs")


def test_constant_and_single_samples(generator):
    for x in (torch.full((4, 3), 2.5), torch.zeros(1, 2), torch.randn((1, 4), generator=generator) * 1e30):
        features = glai.IntegerFeatures.fit(x, 5, scale="features")
        assert bool((features.transform(x)[:, 5:-1] == 64).all())
    tiny = torch.tensor([[1e-44], [3e-44]])
    assert glai.IntegerFeatures.fit(tiny, 2).transform(tiny).shape == (2, 4)


def test_files(x, tmp_path):
    torch.manual_seed(0)
    trained = glai.IntegerFeatures.fit(x, None, glai.PathSelector(relu_network([9, 6, 4, 2])))
    random = glai.IntegerFeatures.fit(x, 100)
    for features in (random, trained):
        path = tmp_path / "features.safetensors"
        features.save(path)
        loaded = glai.IntegerFeatures.load(path)
        assert loaded.features_id == features.features_id
        assert loaded.seed == features.seed
        assert torch.equal(loaded.transform(x), features.transform(x))
        assert loaded.to_bytes() == features.to_bytes()
    assert sum(t.numel() * t.element_size() for t in random.to_state().values()) < 1000  # a seed, no weights
    state = trained.to_state()
    del state["bias_1"]
    with pytest.raises(ValueError, match="the state must hold 'bias_1', got none"):
        glai.IntegerFeatures.from_state(state)


def test_bad_samples_are_refused(x):
    features = glai.IntegerFeatures.fit(x, 5)
    for value in (float("nan"), float("-inf")):
        bad = x.clone()
        bad[7, 3] = value
        with pytest.raises(
            ValueError, match=f"x must be finite float32 numbers, got {value} in row 7, column 3"
        ):
            features.transform(bad)
        with pytest.raises(ValueError, match="row 7, column 3"):
            glai.IntegerFeatures.fit(bad, 5)
    with pytest.raises(ValueError, match="got inf in row 0, column 0"):
        features.transform(torch.full((1, 9), 1e300, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"x must be \[N, D=9\], got \[300, 8\]"):
        features.transform(x[:, :8])
    with pytest.raises(TypeError, match="x must be a tensor or array of real numbers, got list"):
        features.transform([[1.0] * 9])
    with pytest.raises(ValueError, match=r"x must be \[N >= 1, D >= 1\], got \[0, 9\]"):
        glai.IntegerFeatures.fit(x[:0], 5)
    with pytest.raises(ValueError, match="n_units must be the 4 of the selector's last layer, got 5"):
        glai.IntegerFeatures.fit(x, 5, glai.PathSelector(relu_network([9, 4, 2])))
    with pytest.raises(ValueError, match="scale must be one of 'auto', 'global', 'features', got 'each'"):
        glai.IntegerFeatures.fit(x, 5, scale="each")


def test_numbers_that_32_bits_may_not_hold_are_refused(x):
    features = glai.IntegerFeatures.fit(x, 5)
    (layer,) = features.layers
    for changed, sentence in (
        (layer._replace(bias=layer.bias + 2**31 - 70000), "biases to"),
        (layer._replace(shift=63), "a shift from 1 to 62, got 63"),
        (layer._replace(multiplier=layer.multiplier + 2**16), "multipliers"),
        (layer._replace(weight=layer.weight[:, 1:]), r"weight \[H, 9\]"),
        (layer._replace(weight=layer.weight.int()), "numbers must be torch.int8, got torch.int32"),
    ):
        with pytest.raises(ValueError, match=sentence):
            glai.IntegerFeatures(features.mean, features.scale, [changed])
