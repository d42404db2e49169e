"""The MLP that a GLAI replaces has the selector's own layers with all weights trained, on the same z."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from glai_native.machine.adam import Adam
from glai_native.machine.progress import epoch_progress
from glai_native.structure.network import drawn_network
from glai_native.structure.selector import PathSelector

MLP_PATIENCE = 5  # epochs without a better one


def train_layers_mlp(
    selector: PathSelector,
    z: Tensor,
    y: Tensor,
    validation: tuple[Tensor, Tensor],
    n_outputs: int,
    *,
    epochs: int = 50,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> nn.Sequential:
    """Train the MLP anew, by fused Adam on cross-entropy, and keep the epoch that was best on validation.

    An epoch is judged, and kept, by the mean of its iterates, as in GLAI's native loop.

    Args:
        selector: whose layer widths it has.
        z: ``[N, D]``, as the selector's layers read it.
        y: class indices ``[N]``.
        validation: z and class indices that it is not trained on.
        n_outputs: C.
        epochs: at most; it stops when five in a row bring nothing.
        batch_size: samples in a step.
        learning_rate: of Adam.
        seed: of its start and the order of samples.
        progress: show a bar.
    """
    mlp = drawn_network([selector.z_features, *selector.widths, n_outputs], seed).to(z)
    optimizer = Adam(mlp.parameters(), learning_rate)
    mean, best, best_accuracy, since = copy.deepcopy(mlp), copy.deepcopy(mlp), -1.0, 0
    generator = torch.Generator().manual_seed(seed)
    with epoch_progress(progress) as bar:
        for _ in bar.track(range(epochs), description="MLP"):
            order = torch.randperm(len(z), generator=generator, device="cpu").to(z.device)
            for step, ids in enumerate(order.split(batch_size), start=1):
                loss = nn.functional.cross_entropy(mlp(z[ids]), y[ids])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                with torch.no_grad():
                    for average, iterate in zip(mean.parameters(), mlp.parameters(), strict=True):
                        average.lerp_(iterate, 1 / step)
            found = mlp_accuracy(mean, *validation)
            since += 1
            if found > best_accuracy:
                best_accuracy, since = found, 0
                best.load_state_dict(mean.state_dict())
            if since == MLP_PATIENCE:
                break
    return best


@torch.no_grad()
def mlp_accuracy(mlp: nn.Module, z: Tensor, y: Tensor) -> float:
    """Return the share of classes that are right."""
    return float((mlp(z).argmax(1) == y).double().mean())
