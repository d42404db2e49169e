"""Networks trained by gradients, the other side of the comparison: fine-tuned task by task, and joint."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import glai_native as glai
from glai_bench.exact.streams import Stream
from glai_bench.solvers.mlp import MlpSettings, Stopwatch, accuracy_of, make_mlp, trained_mlps

RATES = ((1e-3, 128), (3e-4, 64), (3e-3, 256))
HIDDEN = (0, 1_024)  # linear softmax, and the MLP
MOST_EPOCHS = 20


@dataclass(frozen=True)
class Trained:
    """A network on centred samples of one global scale, and how many epochs it took."""

    projection: glai.InputProjection
    network: nn.Module
    epochs: int

    def scores(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            scores: Tensor = self.network(self.projection(x))
        return scores


def tuned(stream: Stream, hidden: int, seed: int) -> dict[str, float]:
    """Choose the rate, the batch size and the epochs that are most accurate on a fifth of all training samples."""
    x, y = stream.joint()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    val, train = order[: len(x) // 5], order[len(x) // 5 :]
    projection = glai.InputProjection.fit(x[train])
    z, z_val = projection(x[train]), projection(x[val])
    found = []
    for rate, batch in RATES:
        network = make_mlp(z.shape[1], hidden, stream.n_classes, seed)
        settings = MlpSettings(hidden, rate, batch, epochs=MOST_EPOCHS)
        best = (0.0, 0)
        for epoch, model in enumerate(trained_mlps(network, z, y[train], settings, seed, Stopwatch()), 1):
            best = max(best, (accuracy_of(model, z_val, y[val]), epoch))
            if epoch >= best[1] + 4:
                break
        found.append((*best, rate, batch))
    accuracy, epochs, rate, batch = max(found)
    return {"rate": rate, "batch": batch, "epochs": epochs, "validation": accuracy}


def joint(stream: Stream, hidden: int, how: dict[str, float], seed: int) -> Trained:
    """Train on all samples at once."""
    x, y = stream.joint()
    projection = glai.InputProjection.fit(x)
    network = make_mlp(x.shape[1], hidden, stream.n_classes, seed)
    return Trained(projection, _train(network, projection(x), y, hidden, how, seed), int(how["epochs"]))


class FineTuned:
    """The MLP that goes on training on each task's samples alone; all outputs are there from the start."""

    def __init__(self, stream: Stream, hidden: int, how: dict[str, float], seed: int) -> None:
        self.hidden, self.how, self.seed = hidden, how, seed
        self.projection: glai.InputProjection | None = None
        self.network: nn.Sequential = make_mlp(stream.in_features, hidden, stream.n_classes, seed)

    def learn(self, x: Tensor, y: Tensor) -> None:
        if self.projection is None:
            self.projection = glai.InputProjection.fit(x)
        self.network = _train(self.network, self.projection(x), y, self.hidden, self.how, self.seed)

    def solve(self) -> None:
        """Nothing is left to do: the weights are trained."""

    def scores(self, x: Tensor) -> Tensor:
        assert self.projection is not None
        return Trained(self.projection, self.network, 0).scores(x)


def _train(
    network: nn.Sequential, z: Tensor, y: Tensor, hidden: int, how: dict[str, float], seed: int
) -> nn.Sequential:
    settings = MlpSettings(hidden, how["rate"], int(how["batch"]), epochs=int(how["epochs"]))
    *_, last = trained_mlps(network, z, y, settings, seed, Stopwatch())
    return last
