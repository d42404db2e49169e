"""GreenLightningAI for PyTorch: frozen activation patterns, linear path weights, native kernels.

A ReLU network learns which units fire for a sample (structure, settles early) and the numbers. GLAI freezes
the first, kept as packed bits, and trains only a linear model over the paths those bits switch on.
"""

from glai_native import _native, distributed
from glai_native.accumulating import accumulate
from glai_native.backend import build_info
from glai_native.directions import extend_directions, output_directions
from glai_native.energy import EnergyMeter, PhaseEnergy, energy_table
from glai_native.estimator import PathEstimator
from glai_native.fitting import FitResult, fit
from glai_native.gated_linear import gated_linear
from glai_native.gates import PackedGates
from glai_native.growing import grow
from glai_native.heads import GLAIHead, replace_mlp
from glai_native.learners import GLAIClassifier, GLAIRegressor
from glai_native.merge import merge
from glai_native.model import GLAI
from glai_native.ops import (
    gated_matmul,
    gated_matmul_input_grad,
    gated_matmul_weight_grad,
    pack_gates,
    path_gates,
)
from glai_native.path_kernel_model import PathKernelModel
from glai_native.path_matrices import path_gram, path_kernel
from glai_native.projection import InputProjection
from glai_native.pruning import prune
from glai_native.retraining import retrain
from glai_native.sgd import SgdEpoch, train_estimator
from glai_native.statistics import PathStatistics
from glai_native.store import GateDataset, GateStore
from glai_native.structure import PathSelector
from glai_native.training import StructureEpoch, StructureMonitor, train_structure

__version__: str = _native.version()

__all__ = [
    "GLAI",
    "EnergyMeter",
    "FitResult",
    "GLAIClassifier",
    "GLAIHead",
    "GLAIRegressor",
    "GateDataset",
    "GateStore",
    "InputProjection",
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
    "merge",
    "output_directions",
    "pack_gates",
    "path_gates",
    "path_gram",
    "path_kernel",
    "prune",
    "replace_mlp",
    "retrain",
    "train_estimator",
    "train_structure",
]
