"""As head or block, an MLP inside any PyTorch model becomes a GLAI model of the same function (arXiv 2510.00883)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from glai_native.data.checks import FLOATS
from glai_native.estimator.directions import output_directions
from glai_native.estimator.estimator import PathEstimator
from glai_native.gates.packed import PackedGates
from glai_native.gates.packing import pack_gates
from glai_native.model.glai import GLAI
from glai_native.model.mlp_tails import find_mlp
from glai_native.solvers.choice import new_kind
from glai_native.structure.projection import InputProjection
from glai_native.structure.selector import PathSelector


class GLAIHead(GLAI):
    """A :class:`GLAI` model for use inside another module: inputs of any leading shape, under autocast too.

    Gates are constants of the structure: the gradient that reaches x goes through the linear model alone, which for a
    head that :func:`replace_mlp` has just made is the MLP's own gradient.

    It computes, and returns, in the dtype of the MLP's weights, float32 or float64 (CUDA kernels: see
    :func:`gated_matmul`): inputs of another dtype, such as a backbone's bfloat16 under autocast, are converted, and
    autocast does not reach inside. Cast to 16 bits (``half()``, ``to(torch.bfloat16)``), the numbers are rounded and
    the output is of that type; the structure stays as it is, and on it all is computed.

    Source: the block form of GreenLightningAI, arXiv 2510.00883.
    """

    def forward(self, x: Tensor, gates: PackedGates | None = None) -> Tensor:
        """Compute ``[..., C]`` of x ``[..., D]``.

        Args:
            x: what the MLP took.
            gates: path gates of the same samples, computed earlier by :meth:`gates` (cached features); None computes.
        """
        y = super().forward(self._rows(x), gates)
        return y.reshape(*x.shape[:-1], self.estimator.out_features)

    def gates(self, x: Tensor) -> PackedGates:
        """Return the path gates that the estimator reads of x ``[..., D]``, its leading shape flattened to N samples.

        They are ``[N, P]``; of units ``[N, 1]``, of the one path, which is always on.
        """
        rows = self._rows(x)
        if self.estimator.n_units:
            return pack_gates(torch.ones((len(rows), 1), dtype=torch.bool, device=rows.device))
        return self.selector.gates(rows)

    def _rows(self, x: Tensor) -> Tensor:
        features = self.selector.in_features
        if not x.ndim or x.shape[-1] != features:
            raise ValueError(f"GLAIHead: x must be [..., D={features}], got {list(x.shape)}")
        return x.reshape(-1, features)


def replace_mlp(
    module: nn.Module,
    name: str | None = None,
    *,
    projection: InputProjection | None = None,
    directions: bool | str | None = None,
) -> GLAIHead:
    """Replace an MLP inside ``module`` by a GLAI head of the same function, in place.

    The MLP is the longest tail ``(Linear, ReLU, ..., Linear)`` of a ``nn.Sequential``; what comes before it there (a
    Flatten, convolutions) stays. Its hidden layers become the frozen selector, all its weights the estimator
    (:meth:`PathEstimator.from_selector`), so that the module's output in eval mode does not change. What differs from
    then on: the gates are constants, ``head.parameters()`` is the linear model, and there is no Dropout and no batch
    statistics (BatchNorm1d after a Linear is folded in with its running statistics).

    The head takes the first of the tail's names in the Sequential: an MLP ``model.head`` becomes ``model.head[0]``.
    An optimizer must be made after the replacement. A ``state_dict`` of the new module loads into any whose MLP had
    the same sizes when it was replaced, built anew with other weights too: the structure comes along. The MLP's own
    state must be loaded before.

    Source: the block form of GreenLightningAI, arXiv 2510.00883.

    Args:
        module: any module; changed in place. On any device.
        name: dotted name of the Sequential, ``""`` where module is it; None: the only one that ends in an MLP.
        projection: coordinates z in which the head is to read its input, such as
            ``InputProjection.fit(features)``, whose centring conditions the linear problem better. It must keep all
            D features: the MLP is rewritten for z, and the output does not change. None: z is x.
        directions: what is trained. False: full paths, P·(D+1)·C numbers; ``"units"``: units, where a head of any depth
            has the MLP's own size, computes what it computed, and trains (h_L+D+1)·C numbers; True: paths along the
            network's output directions, where a path costs D + C instead of D·C. None: full paths while they are at
            most 2^20 numbers, units beyond, as :func:`fit` does for a new model; ``head.estimator.kind`` tells.

    Returns:
        The head, which is now part of the module.

    Raises:
        ValueError: no MLP is there, or more than one; it is not float32 or float64; a projection that drops features
            or does not fit; directions that are none of these.
        MemoryError: the paths that were asked for take more memory than there is.
    """
    if not (directions is None or isinstance(directions, bool) or directions == "units"):
        raise ValueError(
            f"replace_mlp: directions must be True, False, 'units' or None, got {directions!r}; "
            "PathEstimator.from_selector takes V itself"
        )
    tail = find_mlp("replace_mlp", module, name)
    mlp = tail.plain_mlp()
    first = cast(nn.Linear, mlp[0])
    dtypes = {parameter.dtype for parameter in mlp.parameters()}
    if len(dtypes) != 1 or not dtypes <= set(FLOATS):
        found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise ValueError(f"replace_mlp: {tail.name!r} must be all float32 or all float64, got {found}")
    if projection is not None:
        _rewrite_for(projection, first)
    selector = PathSelector(mlp, projection)
    head = GLAIHead(selector, _estimator(selector, directions))
    head.to(first.weight.device).train(module.training)
    for key in tail.keys:
        delattr(tail.sequential, key)
    tail.sequential.add_module(tail.keys[0], head)
    return head


def _estimator(selector: PathSelector, directions: bool | str | None) -> PathEstimator:
    assert selector.output is not None
    if directions is None:
        # Units are exact at the network's own size, and their steps cost least. As classifiers of 77 classes they are
        # as accurate as full paths, in a twelfth of the time; under a contrastive loss 3.4 points less
        # (python -m glai_bench.heads).
        kind = new_kind(selector, len(selector.output[0]), "sgd")
        directions = "units" if kind == "units" else False
    if directions == "units":
        return PathEstimator.from_selector(selector, "units")
    return PathEstimator.from_selector(selector, output_directions(selector) if directions else None)


@torch.no_grad()
def _rewrite_for(projection: InputProjection, first: nn.Linear) -> None:
    """Make the MLP's first layer, which reads x, read z instead: W x + b = (W R / scale) z + (b + W mean)."""
    widths = (projection.in_features, projection.out_features)
    if widths != (first.in_features, first.in_features):
        raise ValueError(
            f"replace_mlp: projection must keep all D={first.in_features} features, or the output would change, "
            f"got {widths[0]} to {widths[1]}"
        )
    if projection.mean is None or projection.scale is None:
        return
    weight = first.weight.double()
    first.bias.copy_(first.bias.double() + weight @ projection.mean.to(weight))
    if projection.rotation is not None:
        weight = weight @ projection.rotation.to(weight)
    first.weight.copy_(weight / projection.scale.to(weight))
