"""What is trained: the linear model over paths."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from glai_native.files import TensorFile, tensors_to_bytes
from glai_native.gates import PackedGates, require_structure
from glai_native.ops import gated_matmul
from glai_native.structure import FLOATS, PathSelector, require_same_structure
from glai_native.targets import require_targets

ESTIMATOR_FILE = "estimator.safetensors"
ESTIMATOR_FORMAT = "glai-estimator"


class PathEstimator(nn.Module):
    """``y[n,c] = sum_p g[n,p] · (bias[p,c] + sum_d z[n,d] · weight[p,d,c])``; zeros at first.

    Args:
        n_paths: P.
        in_features: D, the width of z.
        out_features: C.
        structure_id: the structure whose gates it reads; None: any.
        dtype: torch.float32 or torch.float64.

    Attributes:
        weight: parameter ``[P, D, C]``.
        bias: parameter ``[P, C]``.
        samples_seen: int64 scalar, how many samples it was trained on (what merging weighs by).
        on_counts: int64 ``[P, C]``, in how many of those samples of class c path p was on.
    """

    samples_seen: Tensor
    on_counts: Tensor

    def __init__(
        self,
        n_paths: int,
        in_features: int,
        out_features: int,
        *,
        structure_id: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        for name, size in (
            ("n_paths", n_paths),
            ("in_features", in_features),
            ("out_features", out_features),
        ):
            if size < 1:
                raise ValueError(f"PathEstimator: {name} must be >= 1, got {size}")
        if dtype not in FLOATS:
            raise ValueError(f"PathEstimator: dtype must be torch.float32 or torch.float64, got {dtype}")
        self.structure_id = structure_id
        self.register_load_state_dict_pre_hook(require_same_structure)
        try:
            weight = torch.zeros((n_paths, in_features, out_features), dtype=dtype)
        except RuntimeError:
            gigabytes = n_paths * in_features * out_features * dtype.itemsize / 1e9
            raise MemoryError(
                f"PathEstimator: weight [P={n_paths}, D={in_features}, C={out_features}] takes {gigabytes:,.0f} GB, "
                "more than this machine gives; P is the product of (units + 1) over the layers, use fewer of them"
            ) from None
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros((n_paths, out_features), dtype=dtype))
        self.register_buffer("samples_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("on_counts", torch.zeros((n_paths, out_features), dtype=torch.int64))

    @property
    def n_paths(self) -> int:
        """P."""
        return self.weight.shape[0]

    @property
    def in_features(self) -> int:
        """D."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """C."""
        return self.weight.shape[2]

    def extra_repr(self) -> str:
        """Sizes for ``repr``."""
        return f"n_paths={self.n_paths}, in_features={self.in_features}, out_features={self.out_features}"

    @classmethod
    def from_selector(cls, selector: PathSelector) -> PathEstimator:
        """The estimator whose output equals the selector network's own.

        The weight of path (j_1..j_L) is the product of the network's weights along it; what flows out of an
        always-on unit is the next layer's bias, and nothing flows from a unit into an always-on one
        (DESIGN, "Exact emulation"). Computed in float64, kept in the selector's dtype.

        Raises:
            ValueError: the selector was loaded from a structure file and has no output layer.
        """
        if selector.output is None:
            raise ValueError(
                "PathEstimator.from_selector: this selector has no output layer (it was loaded from a "
                "structure file), make one from the network itself"
            )
        output_weight, output_bias = selector.output
        estimator = cls(
            selector.n_paths,
            selector.z_features,
            output_weight.shape[0],
            structure_id=selector.structure_id,
            dtype=output_weight.dtype,
        ).to(output_weight.device)
        first_weight, first_bias = (tensor.double() for tensor in selector.hidden[0])
        # Per path so far, [..., h_l + 1]: its weights over z, and its constant; the always-on unit is last.
        weight = torch.cat([first_weight, torch.zeros_like(first_weight[:1])])
        constant = torch.cat([first_bias, torch.ones_like(first_bias[:1])])
        for layer_weight, layer_bias in selector.hidden[1:]:
            step = _with_constants(layer_weight.double(), layer_bias.double())
            step = torch.cat([step, torch.zeros_like(step[:1])])
            step[-1, -1] = 1.0  # always-on to always-on
            weight = weight.unsqueeze(-2) * step.T.unsqueeze(-1)
            constant = constant.unsqueeze(-1) * step.T
        step = _with_constants(output_weight.double(), output_bias.double())  # [C, h_L + 1]
        weight = weight.unsqueeze(-1) * step.T.unsqueeze(-2)
        constant = constant.unsqueeze(-1) * step.T

        with torch.no_grad():
            estimator.weight.copy_(weight.reshape(estimator.weight.shape))
            estimator.bias.copy_(constant.reshape(estimator.bias.shape))
        return estimator

    def forward(self, z: Tensor, gates: PackedGates) -> Tensor:
        """z ``[N, D]`` (projected, not raw x) and path gates ``[N, P]`` to ``[N, C]``."""
        if isinstance(gates, PackedGates):
            require_structure("PathEstimator", gates, self.structure_id)
        return gated_matmul(z, gates, self.weight, self.bias)

    def get_extra_state(self) -> str:
        """The structure_id, part of ``state_dict``."""
        return self.structure_id or ""

    def set_extra_state(self, state: str) -> None:
        """Takes the structure_id over; another one than its own was refused before."""
        self.structure_id = state or self.structure_id

    @torch.no_grad()
    def record(self, gates: PackedGates, targets: Tensor | None = None) -> None:
        """Counts samples as trained on: once per sample, however many epochs follow.

        Args:
            gates: their path gates.
            targets: class indices ``[N]`` in ``[0, C)``, for ``on_counts``; None counts samples only.
        """
        require_structure("record", gates, self.structure_id)
        if gates.n_gates != self.n_paths:
            raise ValueError(f"record: gates must have P={self.n_paths} paths, got P={gates.n_gates}")
        if targets is not None:
            if isinstance(targets, Tensor) and targets.is_floating_point():
                raise ValueError(
                    f"record: targets must be class indices [N={len(gates)}], got {targets.dtype}"
                )
            targets = require_targets("record", targets, len(gates), self.out_features)
            for c in targets.unique().tolist():
                self.on_counts[:, c] += gates[targets == c].counts()
        self.samples_seen += len(gates)

    def to_bytes(self) -> bytes:
        """An estimator file's content: weights, and what merging needs."""
        metadata = {"format": ESTIMATOR_FORMAT, "version": "1", "structure_id": self.structure_id or ""}
        return tensors_to_bytes(self.state_dict(), metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PathEstimator:
        """Reads an estimator file."""
        file = TensorFile(Path(path), ESTIMATOR_FORMAT)
        weight = file.tensor("weight", FLOATS, (None, None, None))
        n_paths, in_features, out_features = weight.shape
        estimator = cls(
            n_paths,
            in_features,
            out_features,
            structure_id=file.entry("structure_id") or None,
            dtype=weight.dtype,
        )
        with torch.no_grad():
            estimator.weight.copy_(weight)
            estimator.bias.copy_(file.tensor("bias", (weight.dtype,), (n_paths, out_features)))
            estimator.samples_seen.copy_(file.tensor("samples_seen", (torch.int64,), ()))
            estimator.on_counts.copy_(file.tensor("on_counts", (torch.int64,), (n_paths, out_features)))
        if int(estimator.samples_seen) < 0 or bool((estimator.on_counts < 0).any()):
            raise ValueError(f"{path}: counts of samples must be >= 0")
        return estimator


def _with_constants(weight: Tensor, bias: Tensor) -> Tensor:
    """``[out, in + 1]``: what flows into each unit from the units before and from the always-on one."""
    return torch.cat([weight, bias.unsqueeze(1)], dim=1)
