"""This module holds what is trained: the linear model over paths."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glai_native.data.canonical import count_repeats
from glai_native.data.checks import FLOATS, require_counts, require_sample_weight, require_targets
from glai_native.data.labels import Label
from glai_native.estimator.directions import (
    directions_id,
    extend_directions,
    require_directions,
    scale_of_own_directions,
)
from glai_native.estimator.emulation import into_last_units, with_constants
from glai_native.estimator.file import (
    ESTIMATOR_FORMAT,
    ESTIMATOR_VERSION,
    open_estimator,
    provenance_to_json,
    read_provenance,
)
from glai_native.estimator.outputs import Outputs, require_order
from glai_native.gates.packed import PackedGates, require_structure
from glai_native.machine.files import TensorFile, tensors_to_bytes
from glai_native.machine.inference import outside_inference_mode
from glai_native.machine.interrupts import uninterrupted
from glai_native.machine.memory import require_memory
from glai_native.ops.gated_linear import gated_linear
from glai_native.ops.gated_matmul import gated_matmul
from glai_native.structure.selector import PathSelector, require_same_structure


class PathEstimator(Outputs, nn.Module):
    """``y[n,c] = sum_p g[n,p] · (bias[p,c] + sum_d z[n,d] · weight[p,d,c])``; zeros at first.

    With output directions V, ``y = (g ⊙ (z·uᵀ + beta))·V + z·constant_weight + constant_bias``: the weight of path p
    is u_p times the frozen v_p, so that a path costs D + C instead of D·C, and the last path, which is always on,
    keeps weights of its own (DESIGN, "Output directions").

    Source: the path estimator of arXiv 2312.09971; as a linear model over neural path features: Lakshminarayanan and
    Singh, arXiv 2006.10529. Output directions are this project's (DESIGN section 2).

    Args:
        n_paths: P.
        in_features: D, the width of z.
        out_features: C.
        directions: V ``[P, C]`` with a last row of zeros, as :func:`output_directions` makes it; copied and frozen.
            The estimator is made on its device. None: full paths.
        structure_id: the structure whose gates it reads; None: any.
        dtype: torch.float32 or torch.float64.
        device: where it is made; None: where directions are, or torch's default device.

    Attributes:
        weight: parameter ``[P, D, C]``; of full paths, like ``bias``.
        bias: parameter ``[P, C]``.
        directions: V, buffer ``[P, C]``; None for full paths.
        u: parameter ``[P, D]``; with directions, like the next three. Row P-1 of u and beta is zero, and stays so: its
            gradient is exactly zero.
        beta: parameter ``[P]``.
        constant_weight: parameter ``[D, C]``, of path P-1.
        constant_bias: parameter ``[C]``, of path P-1.
        samples_seen: int64 scalar, how many samples it was trained on (what merging weighs by).
        on_counts: int64 ``[P, C]``, in how many of those samples of class c path p was on.
        provenance: how the weights came about, where a solver or a merge made them: values that JSON can hold.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    directions: Tensor | None
    u: nn.Parameter
    beta: nn.Parameter
    constant_weight: nn.Parameter
    constant_bias: nn.Parameter
    samples_seen: Tensor
    on_counts: Tensor
    provenance: dict[str, Any]

    @outside_inference_mode
    def __init__(
        self,
        n_paths: int,
        in_features: int,
        out_features: int,
        directions: Tensor | None = None,
        *,
        structure_id: str | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        sizes = {"n_paths": n_paths, "in_features": in_features, "out_features": out_features}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"PathEstimator: {name} must be >= 1, got {size}")
        if dtype not in FLOATS:
            raise ValueError(f"PathEstimator: dtype must be torch.float32 or torch.float64, got {dtype}")
        self.structure_id = structure_id
        self.provenance = {}
        self.solved_from: str | None = None  # the state of the statistics, where it was solved from some
        self.register_load_state_dict_pre_hook(require_same_structure)
        paths, features, outputs = {"P": n_paths}, {"D": in_features}, {"C": out_features}
        if directions is None:
            parameters = {"weight": paths | features | outputs, "bias": paths | outputs}
        else:
            require_directions("PathEstimator", directions, n_paths, out_features)
            device = directions.device if device is None else device
            form = torch.contiguous_format
            directions = directions.detach().to(device, dtype, copy=True, memory_format=form)
            parameters = {"u": paths | features, "beta": paths}
            parameters |= {"constant_weight": features | outputs, "constant_bias": outputs}
        for name, dims in parameters.items():
            self._add_parameter(name, dims, dtype, device)
        self.register_buffer("directions", directions)
        self.register_buffer("samples_seen", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer(
            "on_counts", torch.zeros((n_paths, out_features), dtype=torch.int64, device=device)
        )

    def _add_parameter(
        self, name: str, sizes: dict[str, int], dtype: torch.dtype, device: torch.device | str | None
    ) -> None:
        device = torch.get_default_device() if device is None else torch.device(device)
        _require_memory(name, sizes, dtype.itemsize, device)
        zeros = torch.zeros(tuple(sizes.values()), dtype=dtype, device=device)
        self.register_parameter(name, nn.Parameter(zeros))

    @property
    def n_paths(self) -> int:
        """P."""
        return self.on_counts.shape[0]

    @property
    def in_features(self) -> int:
        """D."""
        return (self.weight if self.directions is None else self.u).shape[1]

    @property
    def out_features(self) -> int:
        """C."""
        return self.on_counts.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return (self.weight if self.directions is None else self.u).dtype

    @property
    def directions_id(self) -> str | None:
        """SHA-256 of V as float64; None for full paths. Computed when asked."""
        return None if self.directions is None else directions_id(self.directions)

    @property
    def trained_parameters(self) -> int:
        """How many numbers are trained: (P-1)(D+1) + (D+1)C with directions, P(D+1)C without."""
        paths = self.n_paths * self.out_features if self.directions is None else self.n_paths - 1
        constant = 0 if self.directions is None else self.out_features
        return (paths + constant) * (self.in_features + 1)

    @property
    def frozen_parameters(self) -> int:
        """How many are not: (P-1)C of V, or 0."""
        return 0 if self.directions is None else (self.n_paths - 1) * self.out_features

    def extra_repr(self) -> str:
        """Return the sizes for ``repr``."""
        sizes = f"n_paths={self.n_paths}, in_features={self.in_features}, out_features={self.out_features}"
        return sizes if self.directions is None else f"{sizes}, directions"

    @classmethod
    def from_selector(cls, selector: PathSelector, directions: Tensor | None = None) -> PathEstimator:
        """Make the estimator whose output equals the selector network's own.

        The weight of path (j_1..j_L) is the product of the network's weights along it; what flows out of an
        always-on unit is the next layer's bias, and nothing flows from a unit into an always-on one
        (DESIGN, "Exact emulation"). It is computed in float64, kept in the selector's dtype. A network of any depth can
        be given along its own output directions, since a path's last factor is the output weights of its last unit.

        Args:
            selector: a structure that still has its output layer.
            directions: V ``[P, C]``; None: full paths.

        Raises:
            MemoryError: the weights take more memory than there is.
            ValueError: the selector was loaded from a structure file and has no output layer; directions that are not
                the network's own (``output_directions(selector)``, or a multiple), along which it cannot be given.
        """
        if selector.output is None:
            raise ValueError(
                "PathEstimator.from_selector: this selector has no output layer (it was loaded from a "
                "file, pruned or grown), make one from the network itself"
            )
        output_weight, output_bias = selector.output
        if directions is None:  # all that it takes, before any of it is taken
            sizes = {"P": selector.n_paths, "D": selector.z_features, "C": output_weight.shape[0]}
            itemsize = 8 + output_weight.dtype.itemsize
            _require_memory("weight, computed in float64,", sizes, itemsize, output_weight.device)
        estimator = cls(
            selector.n_paths,
            selector.z_features,
            output_weight.shape[0],
            directions,
            structure_id=selector.structure_id,
            dtype=output_weight.dtype,
            device=output_weight.device,
        )
        weight, constant = into_last_units(selector)
        with torch.no_grad():
            if estimator.directions is None:
                step = with_constants(output_weight.double(), output_bias.double())  # [C, h_L + 1]
                step = step.T.repeat(selector.n_paths // step.shape[1], 1)  # [P, C]
                estimator.weight.copy_(weight.unsqueeze(2) * step.unsqueeze(1))
                estimator.bias.copy_(constant.unsqueeze(1) * step)
                return estimator
            scale = scale_of_own_directions(selector, estimator.directions)
            if scale is None:
                raise ValueError(
                    "PathEstimator.from_selector: directions must be the network's own, output_directions(selector); "
                    "along others it cannot be given, PathEstimator(..., directions) starts from zeros"
                )
            estimator.u.copy_(weight / scale)
            estimator.beta[:-1] = constant[:-1] / scale
            estimator.constant_bias.copy_(output_bias)
        return estimator

    def forward(self, z: Tensor, gates: PackedGates) -> Tensor:
        """Compute ``[N, C]`` from z ``[N, D]`` (projected, not raw x) and path gates ``[N, P]``."""
        if isinstance(gates, PackedGates):
            require_structure("PathEstimator", gates, self.structure_id)
        directions = self.directions  # looked up once: a call for one sample feels it
        directed = directions is not None
        weights: list[Tensor] = [self.u, self.beta] if directed else [self.weight, self.bias]
        if directed:
            weights += [self.constant_weight, self.constant_bias]
        dtype = weights[0].dtype
        if dtype.itemsize == 2:  # computed in what z is, which is wider: the CPU has no products of 16 bits
            weights = [weight.to(z.dtype) for weight in weights]
        if directions is None:
            y = gated_matmul(z, gates, weights[0], weights[1])
        else:
            h = gated_linear(z, gates, weights[0], weights[1])
            y = torch.addmm(torch.addmm(weights[3], z, weights[2]), h, directions.to(z.dtype))
        return y if y.dtype == dtype else y.to(dtype)

    @torch.no_grad()
    def add_outputs(self, k: int, seed: int = 0, labels: Sequence[Label] | None = None) -> None:
        """Append ``k`` outputs, in place; what the others compute does not change.

        Full paths get zero columns. With directions, V gets random columns (:func:`extend_directions`), so that the new
        outputs are random functions of the paths until they are trained, and path P-1 zero columns. Parameters are
        replaced by wider ones: an optimizer must be made anew.

        Args:
            k: how many, >= 1.
            seed: of the columns of V; copies extended with equal seeds can still be merged.
            labels: of the new classes, where the others have labels; None: labels that count 0, 1, ... go on.

        Raises:
            ValueError: the others have labels that do not count from 0, and there are none for these.
        """
        if k < 1:
            raise ValueError(f"add_outputs: k must be >= 1, got {k}")
        known = self._labels_of_added("add_outputs", k, labels)
        names = ["weight", "bias"]
        wider: dict[str, Tensor] = {"on_counts": _with_zero_columns(self.on_counts, k)}
        if self.directions is not None:
            added = None if known is None else known[-k:]
            wider["directions"] = extend_directions(self.directions, k, seed, added)
            names = ["constant_weight", "constant_bias"]
        for name in names:
            before = self.get_parameter(name)
            wider[name] = nn.Parameter(_with_zero_columns(before, k), requires_grad=before.requires_grad)
        with uninterrupted():  # all that can fail is done
            for name, tensor in wider.items():
                setattr(self, name, tensor)
            self._labels = None if known is None else tuple(known)
            self._scaling_of_added(k)

    def _append_outputs(self, labels: Sequence[Label], seed: int) -> None:
        self.add_outputs(len(labels), seed, labels)

    @torch.no_grad()
    def permute_outputs(self, order: Tensor) -> None:
        """Make output i what output ``order[i]`` was, in place: weights, directions, counts, labels, units.

        Args:
            order: int64 ``[C]``, each output once.
        """
        require_order("permute_outputs", order, self.out_features)
        order = order.to(self.on_counts.device)
        tensors: list[Tensor] = [self.on_counts, *self.parameters()]
        if self.directions is not None:
            tensors = [self.on_counts, self.directions, self.constant_weight, self.constant_bias]
        permuted = [tensor[..., order] for tensor in tensors]
        with uninterrupted():  # all that can fail is done
            for tensor, values in zip(tensors, permuted, strict=True):
                tensor.copy_(values)
            self._permute_meaning(order)

    def get_extra_state(self) -> str:
        """Return the structure_id, part of ``state_dict``; as JSON with what the outputs mean, where that is known."""
        meaning = self.outputs_metadata()
        if not meaning:
            return self.structure_id or ""
        stated = {"structure_id": self.structure_id} | {k: json.loads(v) for k, v in meaning.items()}
        return json.dumps(stated)

    def set_extra_state(self, state: str) -> None:
        """Take structure_id and the meaning of outputs over; another structure_id than its own was refused before."""
        stated = json.loads(state) if state.startswith("{") else {"structure_id": state}
        self.structure_id = stated.pop("structure_id") or self.structure_id
        self.temperature = 1.0  # where none is stated
        if stated:
            self._labels = None
            self._set_scaling(None)
            self.set_outputs(stated)

    @torch.no_grad()
    def record(self, gates: PackedGates, targets: Tensor | None = None, weight: Tensor | None = None) -> None:
        """Count samples as trained on: once per sample, however many epochs follow.

        Args:
            gates: their path gates.
            targets: class indices ``[N]`` in ``[0, C)``, for ``on_counts``; None counts samples only.
            weight: of the samples, ``[N]``, >= 0; integers count as so many, others > 0 as one; None: 1 for each.
        """
        require_structure("record", gates, self.structure_id)
        if gates.n_gates != self.n_paths:
            raise ValueError(f"record: gates must have P={self.n_paths} paths, got P={gates.n_gates}")
        repeats = count_repeats(require_sample_weight("record", weight, len(gates)))
        if targets is not None:
            if isinstance(targets, Tensor) and targets.is_floating_point():
                found = targets.dtype
                raise ValueError(f"record: targets must be class indices [N={len(gates)}], got {found}")
            targets = require_targets("record", targets, len(gates), self.out_features)
            on_counts = self.on_counts + gates.counts_by_class(targets, self.out_features, repeats)
        seen = len(gates) if repeats is None else int(repeats.sum())
        with uninterrupted():
            if targets is not None:
                self.on_counts.copy_(on_counts)
            self.samples_seen += seen

    def to_bytes(self, **entries: str) -> bytes:
        """Return an estimator file's content: weights, and what merging needs; ``entries`` join its metadata."""
        metadata = {"format": ESTIMATOR_FORMAT, "version": str(ESTIMATOR_VERSION)}
        metadata |= {"structure_id": self.structure_id or ""} | entries
        if self.provenance:
            metadata["provenance"] = provenance_to_json(self.provenance)
        metadata |= self.outputs_metadata()
        if self.directions is not None:
            metadata["directions_id"] = directions_id(self.directions)
        state = self.state_dict()
        for name, parameter in self.named_parameters():
            if parameter.dtype not in FLOATS:  # 16 bits: files hold them widened, which rounds nothing
                state[name] = parameter.detach().float()
        return tensors_to_bytes(state, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PathEstimator:
        """Read an estimator file."""
        return cls.from_file(open_estimator(Path(path)))

    @classmethod
    def from_file(cls, file: TensorFile) -> PathEstimator:
        """Read an estimator file that is open."""
        path = file.path
        directions = None
        if "directions" in file:
            directions = file.tensor("directions", FLOATS, (None, None))
            stated = file.sha256("directions_id")
            if directions_id(directions) != stated:
                raise ValueError(
                    f"{path}: directions_id must be {stated[:12]}… as the file states, but its directions have "
                    f"{directions_id(directions)[:12]}…; the file is damaged"
                )
            n_paths, out_features = directions.shape
            in_features = file.tensor("u", (directions.dtype,), (n_paths, None)).shape[1]
            dtype = directions.dtype
        else:
            weight = file.tensor("weight", FLOATS, (None, None, None))
            n_paths, in_features, out_features = weight.shape
            dtype = weight.dtype
        sizes, structure_id = (n_paths, in_features, out_features), file.sha256("structure_id") or None
        estimator = cls(*sizes, directions, structure_id=structure_id, dtype=dtype, device="cpu")
        with torch.no_grad():
            for name, parameter in estimator.named_parameters():
                parameter.copy_(file.tensor(name, (dtype,), tuple(parameter.shape)))
            estimator.samples_seen.copy_(file.tensor("samples_seen", (torch.int64,), ()))
            estimator.on_counts.copy_(file.tensor("on_counts", (torch.int64,), (n_paths, out_features)))
        estimator.provenance = read_provenance(file)
        estimator.read_outputs(file)
        require_counts(str(path), int(estimator.samples_seen), estimator.on_counts)
        return estimator


def _require_memory(name: str, sizes: dict[str, int], itemsize: int, device: torch.device) -> None:
    shape = ", ".join(f"{letter}={size}" for letter, size in sizes.items())
    require_memory(
        "PathEstimator",
        f"{name} [{shape}]",
        math.prod(sizes.values()) * itemsize,
        device,
        "P is the product of (units + 1) over the layers, use fewer of them",
    )


def _with_zero_columns(t: Tensor, k: int) -> Tensor:
    return torch.cat([t, t.new_zeros((*t.shape[:-1], k))], dim=-1)
