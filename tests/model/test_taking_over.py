"""A checkpoint goes into a network built anew; casts; replicas of what PyTorch's users do with a state."""

import copy

import pytest
import torch
from torch import nn

import glai_native as glai
from conftest import make_mlp

D, C = 6, 3
X = torch.randn(40, D, generator=torch.Generator().manual_seed(0)) + 1


def build(seed, widths=(8,), directions=False, projection=None, dtype=torch.float32):
    network = nn.Sequential(make_mlp(D, D, seed=seed), nn.Tanh(), make_mlp(D, *widths, C, seed=seed + 1)).to(
        dtype
    )
    glai.replace_mlp(network, "2", directions=directions, projection=projection)
    return network


def trained(seed=0, **kinds):
    network = build(seed, **kinds)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    head = network[2][0]
    head.estimator.class_labels = ["a", "b", "c"]
    head.estimator.record(head.gates(X), torch.arange(len(X)) % C)
    return network


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("assign", [True, False])
@pytest.mark.parametrize(
    "kinds",
    [
        {},
        {"widths": (5, 4)},
        {"directions": True},
        {"directions": "units", "widths": (5, 4)},
        {"projection": glai.InputProjection.fit(X)},
        {"projection": glai.InputProjection.fit(X, D)},
    ],
    ids=["one layer", "two layers", "directions", "units", "centred", "rotated"],
)
def test_a_network_built_anew_takes_a_checkpoint(kinds, strict, assign, tmp_path):
    before = trained(**kinds)
    torch.save(before.state_dict(), tmp_path / "checkpoint.pt")
    after = build(7, **{name: value for name, value in kinds.items() if name != "projection"})
    head = after[2][0]
    state = torch.load(tmp_path / "checkpoint.pt")
    after.load_state_dict(state, strict=strict, assign=assign)
    assert torch.equal(after(X), before(X))
    assert after[2][0] is head
    assert head.structure_id == before[2][0].structure_id == head.estimator.structure_id
    assert head.class_labels == ["a", "b", "c"]
    assert int(head.estimator.samples_seen) == len(X)
    head.save(tmp_path / "head")
    z = after[1](after[0](X))
    assert torch.equal(glai.GLAIHead.load(tmp_path / "head")(z), after[2](z))
    other = build(9, **{name: value for name, value in kinds.items() if name != "projection"})
    other.load_state_dict(after.state_dict())
    assert torch.equal(other(X), before(X))


def test_a_shared_selector_stays_with_others():
    before = trained()
    head = build(7)[2][0]
    other = glai.GLAI(head.selector, copy.deepcopy(head.estimator))
    y = other(X)
    head.load_state_dict(before[2][0].state_dict())
    assert torch.equal(other(X), y)


def test_sums_of_another_structure_do_not_stay():
    selector = build(7)[2][0].selector
    model = glai.fit(selector, X, torch.arange(len(X)) % C, solver="statistics", progress=False).model
    assert model.has_statistics
    model.load_state_dict(trained()[2][0].state_dict())
    assert not model.has_statistics


def test_what_does_not_fit_changes_nothing():
    before, head = trained(), build(7)[2][0]
    state = before[2][0].state_dict()
    wide = trained(widths=(9,))[2][0].state_dict()
    damaged = {**state, "selector.hidden_bias_0": state["selector.hidden_bias_0"] + 1}
    only_numbers = {k: v for k, v in state.items() if k.startswith("estimator.")}
    y = head(X)
    for wrong, sentence in (
        (
            wide,
            r"must hold all of a model of the same sizes, but of selector.hidden_weight_0 \[8, 6\] it has \[9, 6\]",
        ),
        (
            only_numbers,
            "but of selector.hidden_weight_0 .* it has nothing; build the network with the same layers",
        ),
        (damaged, "must hold the structure that it states"),
        ({"weight": torch.zeros(8, D), "bias": torch.zeros(8)}, "load the MLP's state before replace_mlp"),
    ):
        for strict in (True, False):
            with pytest.raises(ValueError, match=sentence):
                head.load_state_dict(wrong, strict=strict)
            assert torch.equal(head(X), y)


def test_the_mlps_own_state_is_told_from_the_heads():
    network = nn.Sequential(make_mlp(D, D), nn.Tanh(), make_mlp(D, 8, C))
    state, after = network.state_dict(), build(7)
    for strict in (True, False):
        with pytest.raises(ValueError, match="load the MLP's state before replace_mlp"):
            after.load_state_dict(state, strict=strict)


@pytest.mark.parametrize("seed", [0, 7], ids=["of the same structure", "of another"])
def test_a_state_of_another_kind_is_refused_by_name(seed):
    kinds = {"full paths": False, "output directions": True, "units": "units"}
    for mine, directions in kinds.items():
        head = build(0, directions=directions)[2]
        y = head(X)
        for theirs, other in kinds.items():
            if theirs != mine:
                with pytest.raises(
                    ValueError, match=f"must be of {mine} like this model, got one of {theirs};"
                ):
                    head.load_state_dict(trained(seed, directions=other)[2].state_dict())
        assert torch.equal(head(X), y)


def test_parts_of_a_state_of_the_same_structure():
    before = trained()
    after = copy.deepcopy(before)
    with torch.no_grad():
        after[2][0].estimator.weight.zero_()
    numbers = {k: v for k, v in before.state_dict().items() if "estimator" in k}
    assert not after.load_state_dict(numbers, strict=False).unexpected_keys
    assert torch.equal(after(X), before(X))


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
@pytest.mark.parametrize(
    "kinds", [{}, {"widths": (5, 4)}, {"directions": True}], ids=["one", "two", "directions"]
)
def test_casts_to_16_bits_round_numbers_and_leave_gates(kinds, dtype, tmp_path):
    network = trained(**kinds)
    head = network[2][0]
    z = network[1](network[0](X)).detach()
    y, gates, identity = head(z).detach(), head.gates(z), head.structure_id
    cast = copy.deepcopy(head).to(dtype)
    assert (cast.structure_id, cast.estimator.structure_id) == (identity, identity)
    assert torch.equal(cast.gates(z).words, gates.words)
    for x in (z.to(dtype), z):
        got = cast(x)
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), y, rtol=0.03, atol=0.03)
        with torch.no_grad():
            assert torch.equal(cast(x), got)
    assert copy.deepcopy(network).to(dtype)(X.to(dtype)).dtype == dtype
    cast.save(tmp_path / "cast")  # as float32, which rounds nothing
    torch.testing.assert_close(glai.GLAIHead.load(tmp_path / "cast")(z).to(dtype), cast(z))
    cast(z).float().square().sum().backward()
    for name, parameter in cast.named_parameters():
        assert parameter.grad.dtype == dtype, name
    fresh = build(7, **kinds)[2][0].to(dtype)
    fresh.load_state_dict(cast.state_dict())
    assert torch.equal(fresh(z), cast(z))
    back = cast.float()
    assert (back.structure_id, back(z).dtype) == (identity, torch.float32)
    close = torch.compile(copy.deepcopy(head).to(dtype), backend="eager", fullgraph=True)(z)
    torch.testing.assert_close(close, got)
    torch.testing.assert_close(
        glai.to_torch(copy.deepcopy(head).to(dtype))(z).to(dtype), got, rtol=0.01, atol=0.01
    )


@torch.no_grad()
def refine(layer):
    """Makes weights that float32 would round."""
    if isinstance(layer, nn.Linear):
        layer.weight *= 1 + 1e-10


def test_a_structure_that_is_rounded_is_another():
    head = glai.replace_mlp(nn.Sequential(*(layer.double() for layer in make_mlp(D, 8, C))).apply(refine))
    gates, identity = head.gates(X.double()), head.structure_id
    head.float()
    assert head.structure_id == head.estimator.structure_id != identity
    assert head.selector.parent_id == identity
    head(X)
    with pytest.raises(ValueError, match="gates must be of structure_id"):
        head(X, gates)
    selector = trained()[2][0].selector
    before = selector.structure_id
    assert selector.half().structure_id != before
    exact = trained()[2][0]
    identity = exact.structure_id
    assert exact.double().float().structure_id == identity  # nothing was rounded


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_training_of_a_16_bit_model_is_refused_or_right(dtype):
    head, y = trained()[2][0], torch.arange(len(X)) % C
    head.estimator.class_labels = None
    cast = copy.deepcopy(head).to(dtype)
    for solver in ("statistics", "dual"):
        for one in (head, cast):
            glai.fit(one, X, y, solver=solver, progress=False)
        assert cast(X).dtype == dtype
        torch.testing.assert_close(cast(X).float(), head(X), rtol=0.02, atol=0.02)
    for call in (
        lambda: glai.fit(cast, X, y, solver="sgd", progress=False),
        lambda: glai.merge([cast, cast], "samples"),
        lambda: glai.prune(cast, cast.selector.unit_gates(X), keep=0.5),
        lambda: glai.grow(cast, 0, 4),
    ):
        with pytest.raises(
            ValueError, match=r"must be (torch.)?float32 or (torch.)?float64.*, got torch.(b?)float16"
        ):
            call()


def tensors_alone(state):
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def test_a_state_of_tensors_alone_brings_the_structure_that_they_make():
    before, after = trained(), build(7)
    after.load_state_dict(tensors_alone(before.state_dict()), strict=False)
    assert torch.equal(after(X), before(X))
    assert after[2][0].structure_id == before[2][0].structure_id == after[2][0].estimator.structure_id


@pytest.mark.parametrize("names_alone", [True, False])
def test_numbers_of_another_structure_do_not_come_in_under_the_own_name(names_alone):
    model = build(7)[2][0]
    own, output = (
        {k: v.clone() for k, v in model.state_dict().items() if torch.is_tensor(v)},
        model(X).detach(),
    )
    state = own | {"selector.hidden_bias_0": own["selector.hidden_bias_0"] + 1}
    if names_alone:
        state = {"selector.hidden_bias_0": state["selector.hidden_bias_0"]}
    else:
        state |= {"selector._extra_state": model.structure_id}
    with pytest.raises(ValueError, match="structure"):
        model.load_state_dict(state, strict=False)
    selector = {k.removeprefix("selector."): v for k, v in state.items() if k.startswith("selector.")}
    with pytest.raises(ValueError, match="PathSelector: the state must hold the numbers of structure_id"):
        model.selector.load_state_dict(selector, strict=False)
    assert torch.equal(model(X), output)
    model.load_state_dict(own, strict=False)  # its own come in again, and parts of them
    model.load_state_dict({"selector.hidden_bias_0": own["selector.hidden_bias_0"]}, strict=False)
    assert torch.equal(model(X), output)
