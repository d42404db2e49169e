import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import glai_native as glai
from glai_native.ops import oracle as ref

SIZES = [0, 1, 31, 32, 33, 64, 65, 257]


def random_bits(n, p, seed=0, density=0.5):
    return torch.rand((n, p), generator=torch.Generator().manual_seed(seed)) < density


@pytest.mark.parametrize("n", [0, 1, 5, 300])
@pytest.mark.parametrize("p", SIZES)
def test_pack_matches_reference(isa, n, p):
    bits = random_bits(n, p)
    gates = glai.pack_gates(bits)
    assert gates.words.dtype == torch.int32
    assert torch.equal(gates.words, ref.pack_gates_ref(bits))
    assert torch.equal(gates.unpack(), bits)
    assert torch.equal(ref.unpack_gates_ref(gates.words, p), bits)
    assert len(gates) == n
    assert gates.n_gates == p


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32])
def test_pack_numbers_are_on_above_zero(isa, dtype):
    values = torch.randn((7, 45), generator=torch.Generator().manual_seed(1)).mul(4).to(dtype)
    values[0, :3] = 0
    assert torch.equal(glai.pack_gates(values).unpack(), values > 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pack_special_values(isa, dtype):
    tiny = torch.finfo(dtype).smallest_normal / 4
    row = [float("nan"), -float("nan"), float("inf"), -float("inf"), -0.0, 0.0, tiny, -tiny]
    values = torch.tensor([row * 5], dtype=dtype)
    assert torch.equal(
        glai.pack_gates(values).unpack(),
        torch.tensor([[False, False, True, False, False, False, True, False]]).repeat(1, 5),
    )


def test_pack_strided_inputs(isa):
    values = torch.randn((64, 80), generator=torch.Generator().manual_seed(2))
    for view in (values[3:40, 5:70], values.T, values[::2, ::3], values[:, :1], values[:1].expand(4, 80)):
        assert torch.equal(glai.pack_gates(view).unpack(), view > 0)


def test_counts_density_deviation(isa):
    bits = random_bits(1000, 70, density=0.3)
    bits[:, 5] = False
    bits[:, 6] = True
    gates = glai.pack_gates(bits)
    assert torch.equal(gates.counts(), ref.gate_counts_ref(bits))
    assert gates.counts().dtype == torch.int64
    assert gates.density() == pytest.approx(bits.double().mean().item())
    on = bits.double().mean(0)
    assert gates.deviation() == pytest.approx(torch.minimum(on, 1 - on).mean().item())


def test_what_is_known_of_gates_is_kept_and_inherited(isa):
    bits = random_bits(1000, 70, density=0.3)
    gates = glai.pack_gates(bits)
    assert gates.estimate is None
    density = gates.density()
    whole = gates.estimate
    assert whole == (density, gates.deviation())
    for part in (
        gates[3:9],
        gates[5],
        gates[torch.arange(4)],
        gates.to("cpu"),
        pickle.loads(pickle.dumps(gates)),
    ):
        assert part.estimate == whole
    part = gates[:10]
    assert part.density() == pytest.approx(bits[:10].double().mean().item())  # counted anew
    assert part.estimate != whole
    assert gates.estimate == whole
    other = glai.pack_gates(random_bits(500, 70, seed=1, density=0.9))
    assert glai.PackedGates.cat([gates, other]).estimate is None
    mean = (1000 * density + 500 * other.density()) / 1500
    both = glai.PackedGates.cat([gates, other, glai.pack_gates(bits[:0])])
    assert both.estimate.density == pytest.approx(mean)
    assert both.estimate.deviation == pytest.approx((1000 * whole.deviation + 500 * other.deviation()) / 1500)
    assert glai.PackedGates(gates.words, 70).estimate is None
    # Of a sample alone nothing deviates: the most that the density allows.
    alone = [gates[i] for i in range(20)]
    share = sum(part.density() for part in alone) / 20
    assert glai.PackedGates.cat(alone).estimate == pytest.approx((share, min(share, 1 - share)))


def test_what_is_known_of_path_gates():
    layers = [
        glai.pack_gates(random_bits(4000, width, seed, density))
        for seed, (width, density) in enumerate([(9, 0.2), (5, 0.9)])
    ]
    assert glai.path_gates(layers).estimate is None
    layers[0].density()
    assert glai.path_gates(layers).estimate is None
    alone = glai.path_gates(layers[:1])
    known = alone.estimate
    assert known == pytest.approx((alone.density(), alone.deviation()))
    layers[1].density()
    both = glai.path_gates(layers)
    known = both.estimate
    assert known.density == pytest.approx(both.density(), abs=0.01)
    assert both.deviation() <= known.deviation + 1e-9


def test_hamming_and_agreement(isa):
    a, b = random_bits(300, 100, 1), random_bits(300, 100, 2)
    packed_a, packed_b = glai.pack_gates(a), glai.pack_gates(b)
    assert torch.equal(packed_a.hamming(packed_b), ref.gate_hamming_ref(a, b))
    assert packed_a.agreement(packed_b) == pytest.approx((a == b).double().mean().item())
    assert packed_a.agreement(packed_a) == 1.0


def test_no_gates_at_all():
    empty = glai.pack_gates(torch.zeros(0, 5, dtype=torch.bool))
    assert torch.equal(empty.counts(), torch.zeros(5, dtype=torch.int64))
    for figure in (empty.density(), empty.deviation(), empty.agreement(empty)):
        assert figure != figure  # NaN
    assert empty.estimate is None


@pytest.mark.parametrize(
    "widths", [(1,), (31,), (32,), (33,), (3, 4), (31, 2), (32, 33), (0, 3), (2, 3, 4), (5, 1, 7, 2)]
)
def test_path_gates_match_reference(isa, widths):
    layers = [random_bits(37, width, seed) for seed, width in enumerate(widths)]
    paths = glai.path_gates([glai.pack_gates(bits) for bits in layers])
    expected = ref.path_gates_ref(layers)
    assert paths.n_gates == expected.shape[1]
    assert torch.equal(paths.unpack(), expected)
    assert torch.equal(paths.words, ref.pack_gates_ref(expected))  # padding bits are zero too
    assert bool(paths.unpack()[:, -1].all())  # the always-on path is the last


@given(st.integers(0, 70), st.lists(st.integers(0, 20), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_path_gates_property(n, widths, seed):
    layers = [random_bits(n, width, seed + i) for i, width in enumerate(widths)]
    paths = glai.path_gates([glai.pack_gates(bits) for bits in layers])
    assert torch.equal(paths.unpack(), ref.path_gates_ref(layers))


def test_index():
    bits = random_bits(20, 40)
    gates = glai.pack_gates(bits)
    ids = torch.tensor([5, 5, 0, 19])
    mask = torch.arange(20) % 3 == 0
    for index in (slice(2, 9), slice(None, None, 4), ids, mask, ids.tolist()):
        assert torch.equal(gates[index].unpack(), bits[index])
        assert gates[index].words.is_contiguous()
    assert torch.equal(gates[-1].unpack(), bits[-1:])
    with pytest.raises(IndexError, match="must be in"):
        gates[20]
    with pytest.raises(ValueError, match="selects samples only"):
        gates[torch.zeros(2, 2, dtype=torch.int64)]


def test_cat_to_repr_pickle():
    bits = random_bits(20, 40)
    gates = glai.pack_gates(bits)
    assert torch.equal(glai.PackedGates.cat([gates[:7], gates[7:]]).words, gates.words)
    assert torch.equal(gates.to("cpu").words, gates.words)
    assert repr(gates) == "PackedGates(N=20, P=40, device='cpu')"
    assert gates.nbytes == 20 * 2 * 4
    assert torch.equal(pickle.loads(pickle.dumps(gates)).words, gates.words)  # DataLoader workers do this
    with pytest.raises(ValueError, match="P=40, got P=3"):
        glai.PackedGates.cat([gates, glai.pack_gates(bits[:, :3])])
    with pytest.raises(ValueError, match="must not be empty"):
        glai.PackedGates.cat([])


def words(n, w, dtype=torch.int32):
    return torch.zeros((n, w), dtype=dtype)


@pytest.mark.parametrize(
    ("bad", "n_gates", "sentence"),
    [
        (words(3, 2, torch.int64), 40, r"words must be int32 \[N, ceil\(P/32\)=2\], got int64 \[3, 2\]"),
        (words(3, 1), 40, r"words must be int32 \[N, ceil\(P/32\)=2\], got int32 \[3, 1\]"),
        (words(3, 2)[0], 40, r"got int32 \[2\]"),
        (words(2, 3).T, 40, "words must be contiguous"),
        (
            torch.full((3, 2), -1, dtype=torch.int32),
            40,
            r"padding bits of words \(past gate P=40\) must be zero",
        ),
        (words(3, 2), -1, "n_gates must be >= 0, got -1"),
        (words(3, 2).to("meta"), 40, "must be on cpu or cuda"),
    ],
)
def test_packed_gates_refuses(bad, n_gates, sentence):
    with pytest.raises(ValueError, match=sentence):
        glai.PackedGates(bad, n_gates)


def test_op_arguments_refused():
    gates = glai.pack_gates(random_bits(4, 40))
    with pytest.raises(TypeError, match="words must be a torch.Tensor, got list"):
        glai.PackedGates([1, 2], 3)
    with pytest.raises(ValueError, match="P=40 gates, got P=3"):
        gates.hamming(glai.pack_gates(random_bits(4, 3)))
    with pytest.raises(ValueError, match=r"words_b must be int32 \[N=4"):
        gates.hamming(gates[:2])
    with pytest.raises(ValueError, match="must be a tensor \\[N, P\\], got 1 dim"):
        glai.pack_gates(torch.zeros(3))
    with pytest.raises(ValueError, match="must be a tensor \\[N, P\\], got list"):
        glai.pack_gates([[True]])
    with pytest.raises(ValueError, match="bits must be bool or real numbers, got torch.complex64"):
        glai.pack_gates(torch.zeros(2, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="at least one hidden layer"):
        glai.path_gates([])
    with pytest.raises(TypeError, match="sequence of PackedGates"):
        glai.path_gates([torch.zeros(2, 2)])
    with pytest.raises(ValueError, match=r"same number of samples, got \[2, 3\]"):
        glai.path_gates([gates[:2], gates[:3]])
    wide = glai.pack_gates(torch.zeros(1, 2**11 - 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="8589934592 paths"):
        glai.path_gates([wide, wide, wide])
