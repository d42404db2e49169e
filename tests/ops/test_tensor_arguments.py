"""How kernels are told of tensors: by DLPack for torch's own types, by attributes for others."""

import pytest
import torch

import glai_native as glai
from conftest import make_mlp


class Subclass(torch.Tensor):
    """Read by its attributes, since what DLPack says of a type's subclasses is not what they are meant to be."""


@pytest.fixture
def product(generator):
    x, weight = (torch.randn(size, generator=generator) for size in ((6, 8), (5, 8, 3)))
    gates = glai.pack_gates(torch.rand((6, 5), generator=generator) < 0.5)
    return x, gates, weight


@torch.no_grad()
def test_both_ways_tell_the_same(product):
    x, gates, weight = product
    wide = torch.randn(6, 16)
    for rows in (x, x.double(), wide[:, 3:11], wide[::2, :8], x[:0]):
        bits, w = gates[: len(rows)], weight.to(rows.dtype)
        y = glai.gated_matmul(rows, bits, w)
        others = rows.as_subclass(Subclass), bits, w.as_subclass(Subclass)
        assert torch.equal(glai.gated_matmul(*others).as_subclass(torch.Tensor), y)
        assert torch.equal(glai.gated_matmul(torch.nn.Parameter(rows), bits, torch.nn.Parameter(w)), y)


@torch.no_grad()
@pytest.mark.parametrize("kind", [torch.Tensor, Subclass])
def test_what_no_kernel_reads_is_one_sentence(product, kind):
    x, gates, weight = product
    for wrong, sentence in (
        (torch._neg_view(x), "x is a lazily negated view, pass x.resolve_neg()"),
        (x.to(torch.complex64), r"x must be float32 or float64 \[N, D\], got another dtype \[6, 8\]"),
        (x.to(torch.float8_e5m2), r"x must be float32 or float64 \[N, D\], got another dtype \[6, 8\]"),
        (x.to(torch.int16), r"x must be float32 or float64 \[N, D\], got int16 \[6, 8\]"),
        (x.to("meta"), "x must be on cpu or cuda"),
    ):
        with pytest.raises(ValueError, match=sentence):
            glai.gated_matmul(wrong.as_subclass(kind), gates, weight)


@torch.no_grad()
def test_sparse_rows_are_refused_by_every_op(product):
    x, gates, weight = product
    csr, unit = x.to_sparse_csr(), weight[:, :, 0]
    for call in (
        lambda: glai.pack_gates(csr),
        lambda: glai.gated_linear(csr, gates, unit),
        lambda: glai.gated_matmul_weight_grad(csr, gates, x),
        lambda: glai.gated_matmul_input_grad(csr, gates, weight),
        lambda: glai.path_kernel(csr, [gates]),
        lambda: glai.path_gram(csr, gates),
    ):
        with pytest.raises(ValueError, match=r"must be a dense tensor, pass \w+.to_dense\(\)"):
            call()


@pytest.mark.parametrize(
    ("unreadable", "sentence"),
    [
        (lambda t: t.to("meta"), "must be on cpu or cuda, got meta, which holds no values$"),
        (lambda t: t.to_sparse(), r"must be a dense tensor, pass (x|y|sample_weight).to_dense\(\)$"),
        (lambda t: t.to_mkldnn() if t.is_floating_point() else t.to_sparse(), "must be a dense tensor"),
    ],
    ids=["meta", "sparse", "mkldnn"],
)
@pytest.mark.parametrize("centred", [False, True])
def test_what_holds_no_values_to_read_is_one_sentence(selector, samples, unreadable, sentence, centred):
    x, y = samples, torch.arange(len(samples)) % 4
    mlp = make_mlp(x.shape[1], 5, 4)
    if not centred:
        selector = glai.PathSelector(mlp)
    model = glai.GLAI(selector, glai.PathEstimator.from_selector(selector))
    quiet = {"progress": False}
    for call in (
        lambda: selector.gates(unreadable(x)),
        lambda: model(unreadable(x)),
        lambda: torch.no_grad()(model)(unreadable(x[:2])),
        lambda: glai.retrain(model, unreadable(x), y, **quiet),
        lambda: glai.retrain(model, x, unreadable(y), **quiet),
        lambda: glai.fit(selector, x, y, sample_weight=unreadable(torch.ones(len(x))), **quiet),
        lambda: glai.train_structure(mlp, unreadable(x), y, **quiet),
        lambda: glai.train_structure(mlp, x, unreadable(y), **quiet),
        lambda: glai.PathKernelModel(selector).fit(x, unreadable(y), **quiet),
        lambda: glai.InputProjection.fit(unreadable(x)),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()
    with pytest.raises(ValueError, match="PathSelector: hidden_weight_0 must be on cpu or cuda, got meta"):
        glai.PathSelector(mlp.to("meta"))
