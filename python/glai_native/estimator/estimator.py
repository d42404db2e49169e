"""This module holds what is trained: the linear model over paths."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from glai_native.data.canonical import count_repeats
from glai_native.data.checks import (
    FLOATS,
    require_counts,
    require_sample_weight,
    require_samples,
    require_targets,
)
from glai_native.estimator.directions import directions_id
from glai_native.estimator.emulation import own_parameters
from glai_native.estimator.file import (
    ESTIMATOR_FORMAT,
    ESTIMATOR_VERSION,
    UNITS,
    open_estimator,
    provenance_to_json,
    read_provenance,
    read_sizes,
)
from glai_native.estimator.numbers import PathNumbers, require_memory_of_numbers
from glai_native.gates.packed import PackedGates, require_structure
from glai_native.machine.files import TensorFile, tensors_to_bytes
from glai_native.machine.interrupts import uninterrupted
from glai_native.ops.gated_linear import gated_linear
from glai_native.ops.gated_matmul import gated_matmul
from glai_native.structure.selector import PathSelector


class PathEstimator(PathNumbers):
    """``y[n,c] = sum_p g[n,p] · (bias[p,c] + sum_d z[n,d] · weight[p,d,c])``; zeros at first.

    With output directions V, ``y = (g ⊙ (z·uᵀ + beta))·V + z·constant_weight + constant_bias``: the weight of path p
    is u_p times the frozen v_p, so that a path costs D + C instead of D·C, and the last path, which is always on,
    keeps weights of its own (DESIGN, "Output directions").

    Of units, ``y = h·weight[0, :h_L] + z·weight[0, h_L:] + bias[0]``: it reads ``unit_features(selector, z)``, h of the
    selector's last hidden layer of h_L units, and z, along the one path that is always on. A unit's own weights are
    frozen, and how much of it flows to which output is trained (DESIGN, "Units").

    Source: the path estimator of arXiv 2312.09971; as a linear model over neural path features: Lakshminarayanan and
    Singh, arXiv 2006.10529. Output directions are this project's (DESIGN section 2).

    Args:
        n_paths: P.
        in_features: D, the width of z.
        out_features: C.
        directions: V ``[P, C]`` with a last row of zeros, as :func:`output_directions` makes it; copied and frozen.
            The estimator is made on its device. None: full paths.
        n_units: h_L of an estimator of units, whose P is 1 and whose D is that of unit features; 0: of any other.
        structure_id: the structure whose gates it reads; None: any.
        dtype: torch.float32 or torch.float64.
        device: where it is made; None: where directions are, or torch's default device.

    Attributes:
        weight: parameter ``[P, D, C]``; of full paths and units, like ``bias``.
        bias: parameter ``[P, C]``.
        directions: V, buffer ``[P, C]``; None for full paths and units.
        u: parameter ``[P, D]``; with directions, like the next three. Row P-1 of u and beta is zero, and stays so: its
            gradient is exactly zero.
        beta: parameter ``[P]``.
        constant_weight: parameter ``[D, C]``, of path P-1.
        constant_bias: parameter ``[C]``, of path P-1.
        samples_seen: int64 scalar, how many samples it was trained on (what merging weighs by).
        on_counts: int64 ``[P, C]``, in how many of those samples of class c path p was on.
        provenance: how the weights came about, where a solver or a merge made them: values that JSON can hold.
    """

    @classmethod
    def of_units(cls, selector: PathSelector, out_features: int | None = None) -> PathEstimator:
        """Make an estimator of the selector's units, zeros at first.

        Args:
            selector: a structure of any depth.
            out_features: C; None: as many as the selector's output layer has.

        Raises:
            ValueError: no ``out_features``, and the selector has no output layer.
        """
        if out_features is None:
            if selector.output is None:
                raise ValueError(
                    "PathEstimator.of_units: out_features must be given, this selector has no output layer (it was "
                    "loaded from a file, pruned or grown)"
                )
            out_features = len(selector.output[0])
        weight = selector.hidden[0][0]
        return cls(
            1,
            selector.widths[-1] + selector.z_features,
            out_features,
            n_units=selector.widths[-1],
            structure_id=selector.structure_id,
            dtype=weight.dtype,
            device=weight.device,
        )

    @classmethod
    def from_selector(cls, selector: PathSelector, directions: Tensor | str | None = None) -> PathEstimator:
        """Make the estimator whose output equals the selector network's own.

        The weight of path (j_1..j_L) is the product of the network's weights along it; what flows out of an
        always-on unit is the next layer's bias, and nothing flows from a unit into an always-on one
        (DESIGN, "Exact emulation"). It is computed in float64, kept in the selector's dtype. A network of any depth can
        be given along its own output directions, since a path's last factor is the output weights of its last unit.

        Args:
            selector: a structure that still has its output layer.
            directions: V ``[P, C]``; None: full paths; ``"units"``: units, which give any network at its own size.

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
        weight = selector.output[0]
        if isinstance(directions, str):
            if directions != "units":
                raise ValueError(
                    "PathEstimator.from_selector: directions must be a tensor [P, C], 'units' or None, "
                    f"got {directions!r}"
                )
            estimator = cls.of_units(selector)
        else:
            n_paths, in_features, out_features = selector.n_paths, selector.z_features, len(weight)
            if directions is None:  # all that it takes, before any of it is taken
                sizes = {"P": n_paths, "D": in_features, "C": out_features}
                require_memory_of_numbers(
                    "weight, computed in float64,", sizes, 8 + weight.dtype.itemsize, weight.device
                )
            estimator = cls(
                n_paths,
                in_features,
                out_features,
                directions,
                structure_id=selector.structure_id,
                dtype=weight.dtype,
                device=weight.device,
            )
        with torch.no_grad():
            numbers = own_parameters(selector, estimator.directions, units=estimator.n_units > 0)
            for name, values in numbers.items():
                estimator.get_parameter(name).copy_(values)
        return estimator

    def forward(self, z: Tensor, gates: PackedGates | None = None) -> Tensor:
        """Compute ``[N, C]`` from z ``[N, D]`` (projected, not raw x) and path gates ``[N, P]``.

        An estimator of units takes unit features in the place of z, and no gates, or its one path's.
        """
        if self.n_units:
            return self._of_units(z, gates)
        if isinstance(gates, PackedGates):
            require_structure("PathEstimator", gates, self.structure_id)
        elif gates is None:
            raise ValueError(f"PathEstimator: gates must be path gates [N, P={self.n_paths}], got None")
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

    def _of_units(self, features: Tensor, gates: PackedGates | None) -> Tensor:
        require_samples("PathEstimator", features, self.in_features, "unit features")
        if isinstance(gates, PackedGates) and gates.n_gates != 1:
            raise ValueError(
                f"PathEstimator: gates must be None, or of the path that is always on, got P={gates.n_gates}; an "
                "estimator of units reads unit_features(selector, z)"
            )
        weight, bias = self.weight[0], self.bias[0]
        if weight.dtype.itemsize == 2:
            return torch.addmm(bias.to(features.dtype), features, weight.to(features.dtype)).to(weight.dtype)
        return torch.addmm(bias, features, weight)

    @torch.no_grad()
    def record(self, gates: PackedGates, targets: Tensor | None = None, weight: Tensor | None = None) -> None:
        """Count samples as trained on: once per sample, however many epochs follow.

        Args:
            gates: their path gates; of units those of the path that is always on.
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
        if self.n_units:
            metadata[UNITS] = str(self.n_units)
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
        sizes, structure_id = read_sizes(file), file.sha256("structure_id") or None
        estimator = cls(**sizes._asdict(), structure_id=structure_id, device="cpu")
        with torch.no_grad():
            for name, parameter in estimator.named_parameters():
                parameter.copy_(file.tensor(name, (sizes.dtype,), tuple(parameter.shape)))
            estimator.samples_seen.copy_(file.tensor("samples_seen", (torch.int64,), ()))
            counts = file.tensor("on_counts", (torch.int64,), tuple(estimator.on_counts.shape))
            estimator.on_counts.copy_(counts)
        estimator.provenance = read_provenance(file)
        estimator.read_outputs(file)
        require_counts(str(file.path), int(estimator.samples_seen), estimator.on_counts)
        return estimator
