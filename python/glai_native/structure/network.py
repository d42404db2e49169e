"""Networks that a selector can be made of start here alike, whatever torch's default dtype and device are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn


def drawn_network(widths: Sequence[int], seed: int) -> nn.Sequential:
    """Make :func:`relu_network` of a seed, which leaves torch's global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return relu_network(widths)


def relu_network(widths: Sequence[int]) -> nn.Sequential:
    """Make ``Linear, ReLU, ..., Linear`` between so many units, of float32 on the CPU, with PyTorch's random start.

    Its numbers are drawn from torch's global generator, so a seed gives the same network anywhere.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out, device="cpu", dtype=torch.float32), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
