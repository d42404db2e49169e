"""What torch sees of every op: schemas and fakes, transforms of functions, derivatives forward and backward."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

import glai_native as glai
from glai_native.gates import words
from glai_native.gates.packing import selector_gates
from glai_native.machine.watching import REGISTERED
from glai_native.ops import integer_sums, path_matrices

N, P, D, C = 7, 40, 5, 3


def draw(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"x": (N, D), "weight": (P, D, C), "bias": (P, C), "u": (P, D), "beta": (P,), "dy": (N, C)}
    tensors = {name: torch.randn(size, generator=generator, dtype=dtype) for name, size in sizes.items()}
    return tensors, glai.pack_gates(torch.rand((N, P), generator=generator) < 0.5)


TENSORS, GATES = draw()
X, W, B, U, BETA, DY = TENSORS.values()
BYTES = (50 * X.abs()).clamp(max=127).to(torch.uint8)
MEAN = torch.ones(D) / 3
LAYER = integer_sums.IntegerLayer(
    (9 * U).to(torch.int8), (100 * BETA).int(), (2000 * BETA.abs()).int(), 12
)  # D to P
UNITS = [glai.pack_gates(torch.rand(N, h) < 0.5) for h in (33, 4)]

CALLS = {
    "pack_gates": (words.PACK, (X,)),
    "unpack_gates": (words.UNPACK, (GATES.words, P)),
    "gate_counts": (words.COUNTS, (GATES.words, P)),
    "gate_hamming": (words.HAMMING, (GATES.words, GATES.words.flip(0).contiguous(), P)),
    "selector_gates": (words.SELECT, (X, U, BETA)),
    "path_gates": (words.PATHS, ([layer.words for layer in UNITS], [33, 4])),
}


@pytest.mark.parametrize("name", CALLS)
def test_ops_on_gates_are_registered_and_their_plain_form_is_the_same(name):
    ways, arguments = CALLS[name]
    torch.library.opcheck(ways[REGISTERED], arguments)
    bare, *others = (way(*arguments) for way in ways)
    assert all(torch.equal(other, bare) for other in others)


def test_path_matrices_are_registered():
    units, widths = [layer.words for layer in UNITS], [33, 4]
    torch.library.opcheck(path_matrices._registered_path_kernel, (X, units, None, [], widths))
    torch.library.opcheck(path_matrices._registered_path_kernel, (X, units, X.flip(0), units, widths))
    small = glai.pack_gates(torch.rand(N, 3) < 0.5)
    torch.library.opcheck(path_matrices._registered_path_gram, (X, small.words, 3, None))
    torch.library.opcheck(path_matrices._registered_path_gram, (X, small.words, 3, X[:, 0].contiguous()))


def test_integer_sums_are_registered():
    classes = torch.arange(N) % C
    torch.library.opcheck(integer_sums._registered_integer_gram, (BYTES, -1))
    torch.library.opcheck(integer_sums._registered_class_sums, (BYTES, classes, C, 1))
    layers = [[one] for one in LAYER]
    torch.library.opcheck(integer_sums._registered_integer_features, (X.float(), MEAN, MEAN + 9, *layers))


# Public calls of x [N, D] and words of one's own gates.
SEEN = {
    "pack_gates": lambda x: glai.pack_gates(x).words,
    "selector_gates": lambda x: selector_gates(x, U, BETA).words,
    "path_gates": lambda x: glai.path_gates([glai.pack_gates(x), glai.pack_gates(x[:, :2] > 0)]).words,
    "unpack": lambda x: glai.pack_gates(x).unpack(),
    "counts": lambda x: glai.pack_gates(x).counts(),
    "hamming": lambda x: glai.pack_gates(x).hamming(glai.pack_gates(-x)),
    "of words": lambda x: glai.PackedGates(glai.pack_gates(x).words, D).unpack(),
    "gated_matmul": lambda x: glai.gated_matmul(x, selector_gates(x, U), W, B),
    "weight_grad": lambda x: glai.gated_matmul_weight_grad(x, selector_gates(x, U), x),
    "weight_grad out": lambda x: glai.gated_matmul_weight_grad(
        x, glai.pack_gates(x), x, out=x.new_ones(D, D, D), accumulate=True
    ),
    "input_grad": lambda x: glai.gated_matmul_input_grad(x[:, :C], selector_gates(x, U), W),
    "gated_linear": lambda x: glai.gated_linear(x, selector_gates(x, U), U, BETA),
    "path_kernel": lambda x: glai.path_kernel(x, [glai.pack_gates(x)]),
    "path_kernel out": lambda x: glai.path_kernel(
        x, [glai.pack_gates(x)], x + 1, [glai.pack_gates(-x)], out=x.new_zeros(x.shape[0], x.shape[0])
    ),
    "integer_gram": lambda x: glai.integer_gram(x.abs().to(torch.uint8)),
    "integer_gram out": lambda x: glai.integer_gram(
        x.abs().to(torch.uint8), out=x.new_ones(D, D, dtype=torch.int64), sign=-1
    ),
    "class_sums": lambda x: integer_sums.class_sums(
        x.abs().to(torch.uint8), (x[:, 0] > 0).to(torch.int64), n_classes=2
    ),
    "integer_features": lambda x: integer_sums.integer_features(x.float(), MEAN, MEAN + 9, [LAYER]),
    "path_gram": lambda x: glai.path_gram(x, glai.pack_gates(x)),
    "path_gram out": lambda x: glai.path_gram(
        x, glai.pack_gates(x), x[:, 0], out=x.new_ones(D * (D + 1), D * (D + 1))
    ),
}
FLOATING = [name for name in SEEN if SEEN[name](X).is_floating_point()]


@pytest.mark.parametrize("name", SEEN)
def test_what_is_traced_is_computed_anew(name):
    call, other = SEEN[name], draw(1)[0]["x"]
    expected = call(other)
    for tracing_mode in ("real", "symbolic"):
        traced = make_fx(call, tracing_mode=tracing_mode, _allow_non_fake_inputs=True)(X)
        torch.testing.assert_close(traced(other), expected)
    torch.testing.assert_close(make_fx(call, pre_dispatch=True)(X)(other), expected)
    torch.testing.assert_close(torch.jit.trace(call, X, check_trace=False)(other), expected)
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(other), expected)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = call(mode.from_tensor(X))
    assert (fake.shape, fake.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize("name", [name for name in SEEN if not name.endswith("out")])
def test_transforms_see_through_every_op(name):
    call = SEEN[name]
    batch = torch.stack([draw(seed)[0]["x"] for seed in range(3)])
    torch.testing.assert_close(torch.vmap(call)(batch), torch.stack([call(x) for x in batch]))
    torch.testing.assert_close(make_fx(torch.vmap(call))(batch)(batch + 1), torch.vmap(call)(batch + 1))
    if name not in FLOATING:
        return
    jacobian = torch.func.jacrev(call)(X)
    torch.testing.assert_close(torch.func.jacfwd(call)(X), jacobian)
    tangent = draw(2)[0]["x"]
    expected = torch.einsum(jacobian, [..., 0, 1], tangent, [0, 1], [...])
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(call(forward_ad.make_dual(X, tangent)))
    torch.testing.assert_close(dual.tangent, expected)
    if name in ("path_kernel", "path_gram"):
        return
    torch.testing.assert_close(torch.autograd.functional.jacobian(call, X), jacobian)
    torch.testing.assert_close(torch.autograd.functional.jacobian(call, X, vectorize=True), jacobian)


def test_transforms_refuse_what_kernels_refuse():
    for call in (
        lambda x: glai.gated_matmul(x, GATES[:1], W),
        lambda x: glai.gated_matmul(x, GATES, W[:1]),
        lambda x: glai.gated_linear(x, GATES, U, BETA[:1]),
        lambda x: glai.gated_matmul_input_grad(x[:, :C], GATES[:1], W),
        lambda x: glai.path_gram(x, GATES[:1]),
    ):
        with pytest.raises(ValueError, match=r"must be \[.*\], got \["):
            torch.func.vjp(call, X)


def test_forward_mode_through_a_graph_is_refused():
    """torch would drop the derivative at a registered op without a word."""
    graph = make_fx(lambda x: glai.gated_matmul(x, GATES, W, B))(X)
    with pytest.raises(RuntimeError, match="forward-mode derivatives must be taken of the model itself"):
        torch.func.jvp(graph, (X,), (X,))


def test_modes_see_the_op():
    class Seen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    names = []
    expected = glai.gated_matmul(X, GATES, W, B)
    with Seen():
        got = glai.gated_matmul(X, GATES, W, B)
    assert names == ["glai_native.gated_matmul.default"]
    assert torch.equal(got, expected)


def test_counted_gates_are_compiled_once():
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(
        lambda x, gates: glai.gated_matmul(x, gates, W, B), backend=counter, fullgraph=True
    )
    generator = torch.Generator().manual_seed(3)
    for share in (0.0, 0.1, 0.35, 0.5, 0.9, 1.0):
        gates = glai.pack_gates(torch.rand((N, P), generator=generator) < share)
        gates.density()
        torch.testing.assert_close(compiled(X, gates), glai.gated_matmul(X, gates, W, B))
    assert counter.frame_count == 1
    assert gates.estimate == (1.0, 0.0)
    assert gates.coarse_estimate == (1.0, 0.0)
