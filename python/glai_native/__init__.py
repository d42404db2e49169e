"""GreenLightningAI for PyTorch: frozen activation patterns, linear path weights, native kernels.

A ReLU network learns which units fire for a sample (structure, settles early) and the numbers. GLAI freezes the first,
kept as packed bits, and trains only a linear model over the paths those bits switch on (Duato, Mestre, Dolz,
Quintana-Ortí, arXiv 2312.09971; the block form: arXiv 2510.00883).

Public names are handed out here alone, and loaded when they are first asked for, so that ``glai --help`` does not wait
for torch.
"""

import importlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glai_native.estimator.directions import extend_directions as extend_directions
    from glai_native.estimator.directions import output_directions as output_directions
    from glai_native.estimator.estimator import PathEstimator as PathEstimator
    from glai_native.gates.dataset import GateDataset as GateDataset
    from glai_native.gates.packed import PackedGates as PackedGates
    from glai_native.gates.packing import pack_gates as pack_gates
    from glai_native.gates.packing import path_gates as path_gates
    from glai_native.gates.store import GateStore as GateStore
    from glai_native.machine.backend import build_info as build_info
    from glai_native.machine.energy import EnergyMeter as EnergyMeter
    from glai_native.machine.energy import PhaseEnergy as PhaseEnergy
    from glai_native.machine.energy import energy_table as energy_table
    from glai_native.model.glai import GLAI as GLAI
    from glai_native.model.growing import grow as grow
    from glai_native.model.heads import GLAIHead as GLAIHead
    from glai_native.model.heads import replace_mlp as replace_mlp
    from glai_native.model.merging import merge as merge
    from glai_native.model.plain import to_torch as to_torch
    from glai_native.model.pruning import prune as prune
    from glai_native.ops.gated_linear import gated_linear as gated_linear
    from glai_native.ops.gated_matmul import gated_matmul as gated_matmul
    from glai_native.ops.gated_matmul import gated_matmul_input_grad as gated_matmul_input_grad
    from glai_native.ops.gated_matmul import gated_matmul_weight_grad as gated_matmul_weight_grad
    from glai_native.ops.integer_sums import integer_gram as integer_gram
    from glai_native.ops.path_matrices import path_gram as path_gram
    from glai_native.ops.path_matrices import path_kernel as path_kernel
    from glai_native.solvers.dual.model import PathKernelModel as PathKernelModel
    from glai_native.solvers.exact.sums import IntegerStatistics as IntegerStatistics
    from glai_native.solvers.sgd.training import train_estimator as train_estimator
    from glai_native.solvers.solution import SgdEpoch as SgdEpoch
    from glai_native.solvers.statistics.accumulating import accumulate as accumulate
    from glai_native.solvers.statistics.sums import PathStatistics as PathStatistics
    from glai_native.structure.integer_features import IntegerFeatures as IntegerFeatures
    from glai_native.structure.projection import InputProjection as InputProjection
    from glai_native.structure.selector import PathSelector as PathSelector
    from glai_native.structure.settling import StructureEpoch as StructureEpoch
    from glai_native.structure.settling import StructureMonitor as StructureMonitor
    from glai_native.structure.settling import train_structure as train_structure
    from glai_native.structure.unit_features import unit_features as unit_features
    from glai_native.training import distributed as distributed
    from glai_native.training.exact.classifier import ExactClassifier as ExactClassifier
    from glai_native.training.exact.regressor import ExactRegressor as ExactRegressor
    from glai_native.training.fitting import FitResult as FitResult
    from glai_native.training.fitting import fit as fit
    from glai_native.training.learners.classifier import GLAIClassifier as GLAIClassifier
    from glai_native.training.learners.regressor import GLAIRegressor as GLAIRegressor
    from glai_native.training.prepared import prepared as prepared
    from glai_native.training.retraining import retrain as retrain

    __version__: str

_NAMES_OF = {
    "estimator.directions": ("extend_directions", "output_directions"),
    "estimator.estimator": ("PathEstimator",),
    "gates.dataset": ("GateDataset",),
    "gates.packed": ("PackedGates",),
    "gates.packing": ("pack_gates", "path_gates"),
    "gates.store": ("GateStore",),
    "machine.backend": ("build_info",),
    "machine.energy": ("EnergyMeter", "PhaseEnergy", "energy_table"),
    "model.glai": ("GLAI",),
    "model.growing": ("grow",),
    "model.heads": ("GLAIHead", "replace_mlp"),
    "model.merging": ("merge",),
    "model.plain": ("to_torch",),
    "model.pruning": ("prune",),
    "ops.gated_linear": ("gated_linear",),
    "ops.gated_matmul": ("gated_matmul", "gated_matmul_input_grad", "gated_matmul_weight_grad"),
    "ops.integer_sums": ("integer_gram",),
    "ops.path_matrices": ("path_gram", "path_kernel"),
    "solvers.dual.model": ("PathKernelModel",),
    "solvers.exact.sums": ("IntegerStatistics",),
    "solvers.sgd.training": ("train_estimator",),
    "solvers.solution": ("SgdEpoch",),
    "solvers.statistics.accumulating": ("accumulate",),
    "solvers.statistics.sums": ("PathStatistics",),
    "structure.integer_features": ("IntegerFeatures",),
    "structure.projection": ("InputProjection",),
    "structure.selector": ("PathSelector",),
    "structure.settling": ("StructureEpoch", "StructureMonitor", "train_structure"),
    "structure.unit_features": ("unit_features",),
    "training.exact.classifier": ("ExactClassifier",),
    "training.exact.regressor": ("ExactRegressor",),
    "training.fitting": ("FitResult", "fit"),
    "training.prepared": ("prepared",),
    "training.retraining": ("retrain",),
    "training.learners.classifier": ("GLAIClassifier",),
    "training.learners.regressor": ("GLAIRegressor",),
}
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names}

__all__ = [
    "GLAI",
    "EnergyMeter",
    "ExactClassifier",
    "ExactRegressor",
    "FitResult",
    "GLAIClassifier",
    "GLAIHead",
    "GLAIRegressor",
    "GateDataset",
    "GateStore",
    "InputProjection",
    "IntegerFeatures",
    "IntegerStatistics",
    "PackedGates",
    "PathEstimator",
    "PathKernelModel",
    "PathSelector",
    "PathStatistics",
    "PhaseEnergy",
    "SgdEpoch",
    "StructureEpoch",
    "StructureMonitor",
    "accumulate",
    "build_info",
    "distributed",
    "energy_table",
    "extend_directions",
    "fit",
    "gated_linear",
    "gated_matmul",
    "gated_matmul_input_grad",
    "gated_matmul_weight_grad",
    "grow",
    "integer_gram",
    "merge",
    "output_directions",
    "pack_gates",
    "path_gates",
    "path_gram",
    "path_kernel",
    "prepared",
    "prune",
    "replace_mlp",
    "retrain",
    "to_torch",
    "train_estimator",
    "train_structure",
    "unit_features",
]

if not TYPE_CHECKING:  # or a misspelt name would pass as anything
    _LOADING = threading.RLock()  # torch is not imported by several threads at once without harm

    def __getattr__(name):
        """Load a public name, and keep it."""
        with _LOADING:
            if name in _HOME:
                value = getattr(importlib.import_module(f"glai_native.{_HOME[name]}"), name)
            elif name == "distributed":
                value = importlib.import_module("glai_native.training.distributed")
            elif name == "__version__":
                value = importlib.import_module("glai_native.machine.backend").build_info()["version"]
            else:
                raise AttributeError(f"module 'glai_native' has no attribute '{name}'")
            globals()[name] = value
        return value

    def __dir__():
        """List public names, loaded or not, beside what a module has."""
        return sorted({*globals(), *__all__, "__version__"})
