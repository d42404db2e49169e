"""Operands of each op, and what its results are held to: its float64 reference, within the bound of accuracy.py."""

import torch
from torch.nn.functional import linear

import glai_native as glai
import glai_native._native as _native
from accuracy import EPS, EPS_TF32, assert_accurate
from glai_native.ops import oracle as ref

# --- gated_matmul and its gradients ---


def draw_products(n, p, d, c, dtype=torch.float32, density=0.4, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn((n, d), generator=g, dtype=dtype)
    weight = torch.randn((p, d, c), generator=g, dtype=dtype)
    bias = torch.randn((p, c), generator=g, dtype=dtype)
    dy = torch.randn((n, c), generator=g, dtype=dtype)
    bits = torch.rand((n, p), generator=g) < density
    return x, weight, bias, dy, bits


def draw_as(shape, dtype, **options):
    *values, bits = draw_products(*shape, dtype=torch.float64, **options)
    return *(v.to(dtype) for v in values), bits


def added(bits, form):
    """How often a form adds each path's terms: reference plus deviation adds the majority's, then corrects."""
    if form != "reference":
        return bits
    majority = 2 * bits.sum(0) > len(bits)
    return majority.int() + (bits != majority).int()


def check_forward(y, x, bits, weight, bias, form="compaction", **rounding):
    x, weight = x.double(), weight.double()
    bias = None if bias is None else bias.double()
    sizes = None if bias is None else bias.abs()
    times = added(bits, form)
    expected = ref.gated_matmul_ref(x, bits, weight, bias)
    terms = ref.gated_matmul_ref(x.abs(), times, weight.abs(), sizes)
    of_a_path = x.shape[1] + (bias is not None)
    counts = (times.sum(1, keepdim=True) * of_a_path).expand(expected.shape)
    assert_accurate(y, expected, terms, counts, **rounding)


def check_weight_grad(dw, x, bits, dy, added_to=None, **rounding):
    x, dy = x.double(), dy.double()
    expected, terms = (
        ref.gated_matmul_weight_grad_ref(x, bits, dy),
        ref.gated_matmul_weight_grad_ref(x.abs(), bits, dy.abs()),
    )
    counts = bits.sum(0).view(-1, 1, 1).expand(expected.shape)
    if added_to is not None:
        expected, terms, counts = expected + added_to.double(), terms + added_to.double().abs(), counts + 1
    assert_accurate(dw, expected, terms, counts, **rounding)


def check_bias_grad(db, bits, dy, **rounding):
    dy = dy.double()
    assert_accurate(
        db,
        ref.gated_matmul_bias_grad_ref(bits, dy),
        ref.gated_matmul_bias_grad_ref(bits, dy.abs()),
        ref.gated_matmul_bias_grad_ref(bits, torch.ones_like(dy)),
        **rounding,
    )


def check_input_grad(dx, dy, bits, weight, form="compaction", **rounding):
    dy, weight = dy.double(), weight.double()
    times = added(bits, form)
    expected = ref.gated_matmul_input_grad_ref(dy, bits, weight)
    terms = ref.gated_matmul_input_grad_ref(dy.abs(), times, weight.abs())
    counts = (times.sum(1, keepdim=True) * dy.shape[1]).expand(expected.shape)
    assert_accurate(dx, expected, terms, counts, **rounding)


def form_of(op, gates, weight):
    """The form that is chosen where none is asked for."""
    return _native.explain_form(op, gates.words, gates.n_gates, *weight.shape[1:])["form"]


# --- gated_linear ---


def draw_linear(n, p, d, dtype=torch.float32):
    generator = torch.Generator().manual_seed(n + p + d)
    sizes = ((n, d), (p, d), (p,), (n, p))
    x, u, bias, dh = (torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) for size in sizes)
    return x, u, bias, dh, torch.rand((n, p), generator=generator) < 0.5


def check_linear(h, x, bits, u, bias, **rounding):
    x, u = x.double(), u.double()
    bias = torch.zeros(len(u), dtype=torch.float64) if bias is None else bias.double()
    terms = ref.gated_linear_ref(x.abs(), bits, u.abs(), bias.abs())
    counts = torch.full_like(terms, x.shape[1] + 1)
    assert_accurate(h, ref.gated_linear_ref(x, bits, u, bias), terms, counts, **rounding)
    assert bool((h[~bits] == 0).all())


def check_linear_gradients(gradients, x, bits, u, dh):
    """dx, du, dbias: float64 products of the masked dh, held to the bound of sums of so many terms."""
    masked = ref.apply_gates_ref(dh.double(), bits)
    x, u, on = x.double(), u.double(), bits.double()
    products = (
        (masked @ u, masked.abs() @ u.abs(), on @ torch.ones_like(u)),
        (masked.T @ x, masked.abs().T @ x.abs(), on.T @ torch.ones_like(x)),
        (masked.sum(0), masked.abs().sum(0), on.sum(0)),
    )
    for actual, expected in zip(gradients, products, strict=True):
        assert_accurate(actual, *expected)


# --- path_gram, path_kernel ---


def draw_gram(n, p, d, dtype=torch.float32, density=0.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn((n, d), generator=g, dtype=dtype)
    bits = torch.rand((n, p), generator=g) < density
    return x, bits, torch.randn(n, generator=g, dtype=dtype)


def check_gram(gram, x, bits, weight=None, added_to=None, **rounding):
    x = x.double()
    weight = torch.ones(len(x), dtype=torch.float64) if weight is None else weight.double()
    expected = ref.path_gram_ref(x, bits, weight)
    terms = ref.path_gram_ref(x.abs(), bits, weight.abs())
    counts = ref.path_gram_ref(torch.ones_like(x), bits)
    if added_to is not None:
        expected, terms, counts = expected + added_to.double(), terms + added_to.double().abs(), counts + 1
    assert_accurate(gram, expected, terms, counts, **rounding)


def draw_kernel(n, d, units, dtype=torch.float32, seed=0, density=0.4):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn((n, d), generator=g, dtype=dtype)
    return x, [torch.rand((n, h), generator=g) < density for h in units]


def pack(layers):
    return [glai.pack_gates(layer) for layer in layers]


def check_kernel(kernel, xa, layers_a, xb, layers_b, **rounding):
    xa, xb = xa.double(), xb.double()
    assert_accurate(
        kernel,
        ref.path_kernel_ref(xa, layers_a, xb, layers_b),
        ref.path_kernel_ref(xa.abs(), layers_a, xb.abs(), layers_b),
        torch.full(kernel.shape, xa.shape[1] + 1),
        **rounding,
    )


# --- selector_gates ---


def draw_selector(n, d, h, dtype=torch.float32):
    generator = torch.Generator().manual_seed(n + d + h)
    values = [torch.randn(size, generator=generator, dtype=torch.float64) for size in ((n, d), (h, d), (h,))]
    return [v.to(dtype) for v in values]


def check_gates(gates, x, weight, bias, tf32=False):
    eps = EPS_TF32 if tf32 else EPS[x.dtype]
    x, weight = x.double(), weight.double()
    bias = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.double()
    pre_activation = linear(x, weight, bias)
    bound = eps * (8 + (x.shape[1] + 1) ** 0.5) * linear(x.abs(), weight.abs(), bias.abs())
    certain = pre_activation.abs() > bound
    bits = ref.selector_gates_ref(x, weight, bias)
    assert torch.equal(gates.unpack().cpu()[certain], bits[certain])
    assert gates.n_gates == len(weight)
    packed_again = ref.pack_gates_ref(gates.unpack().cpu())
    assert torch.equal(gates.words.cpu(), packed_again)  # padding bits are zero


# --- integer_gram, class_sums ---


def draw_bytes(n, m, seed=0):
    """Features, uint8 [n, m], 0 to 127: uniform, but for a third of the columns, which are mostly small."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randint(128, (n, m), generator=generator, dtype=torch.uint8)
    features[:, ::3] >>= 4
    return features
