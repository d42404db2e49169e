"""This file draws activation patterns as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from glai_native.gates.packed import PackedGates
from glai_native.gates.patterns import pattern_sizes

# Samples shown as rows of bits: as many as a screen has lines for.
SHOWN_SAMPLES = 256


def save_pattern_plot(path: Path, structures: Sequence[tuple[str, Sequence[PackedGates] | None]]) -> None:
    """Draw, for each structure, how often units are on, how patterns repeat, and the bits of the first samples.

    Args:
        path: .png, .pdf or .svg.
        structures: a title and unit bits per hidden layer for each; those without samples are left out.

    Raises:
        ValueError: none has samples.
    """
    from matplotlib.figure import Figure

    drawn = [(title, layers) for title, layers in structures if layers and len(layers[0])]
    if not drawn:
        raise ValueError("--plot needs gates to draw: a gate store with samples, or a model and --data")
    figure = Figure(figsize=(15, 4.2 * len(drawn)), layout="constrained")
    rows = figure.subplots(len(drawn), 3, squeeze=False)
    for (title, layers), (often, repeats, bits) in zip(drawn, rows, strict=True):
        n = len(layers[0])
        shares = [(layer.counts().double() / n).cpu().numpy() for layer in layers]
        often.hist(
            shares, bins=20, range=(0, 1), stacked=True, label=[f"layer {i + 1}" for i in range(len(layers))]
        )
        often.set(xlabel="share of samples", ylabel="units", title=f"{title}: how often units are on")
        often.legend(fontsize=8)
        sizes = pattern_sizes(layers)
        repeats.loglog(range(1, len(sizes) + 1), sizes.numpy(), ".-")
        repeats.set(
            xlabel="pattern, most frequent first",
            ylabel="samples",
            title=f"{len(sizes):,} patterns of {n:,} samples",
            ylim=(0.8, None),
        )
        shown = torch.cat([layer[:SHOWN_SAMPLES].unpack() for layer in layers], dim=1).cpu()
        bits.imshow(shown.numpy(), aspect="auto", cmap="Greys", interpolation="nearest")
        edge = 0
        for layer in layers[:-1]:
            edge += layer.n_gates
            bits.axvline(edge - 0.5, color="C3", linewidth=1)
        bits.set(xlabel="unit", ylabel="sample", title=f"on (black), first {len(shown)} samples")
    figure.savefig(path, dpi=120)
