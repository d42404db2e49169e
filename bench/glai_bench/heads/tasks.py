"""Heads on cached features of a frozen backbone: how each kind is made, trained and scored in three tasks."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from sklearn.linear_model import RidgeClassifier
from torch import Tensor, nn

import glai_native as glai
from glai_native.data.labelled import LabelledData

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
STRUCTURE_SHARE = 0.2  # of the steps, in which a GLAI head is still the MLP


@dataclass(frozen=True)
class Result:
    """Percent right, and processor seconds of training."""

    accuracy: float
    seconds: float


Loss = Callable[[Callable[[Tensor], Tensor], int], Tensor]
"""The loss of step i of a model that maps indices of samples to outputs."""


def mlp(in_features: int, hidden: int, out_features: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, out_features))


def descend(
    model: nn.Module, outputs: Callable[[Tensor], Tensor], loss: Loss, steps: Iterable[int], rate: float
) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, fused=True)
    for step in steps:
        value = loss(outputs, step)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()


def train(kind: str, head: nn.Module, x: Tensor, loss: Loss, steps: int, rate: float) -> nn.Module:
    """Trains a head on cached features x; ``GLAI`` in its kind says when it is replaced and by what.

    ``GLAI``: after :data:`STRUCTURE_SHARE` of the steps; ``GLAI, given structure`` and ``GLAI, random gates``: before
    the first, its gates being those of the head as it came. It is of the kind that ``replace_mlp`` chooses, or of
    full paths or directions, where those are named.
    """
    head = copy.deepcopy(head)
    if not kind.startswith("GLAI"):
        descend(head, lambda ids: head(x[ids]), loss, range(steps), rate)
        return head
    at_once = "given structure" in kind or "random gates" in kind
    first = 0 if at_once else int(steps * STRUCTURE_SHARE)
    descend(head, lambda ids: head(x[ids]), loss, range(first), rate if at_once else 1e-3)
    named = {"full paths": False, "directions": True}
    directions = next((value for name, value in named.items() if name in kind), None)
    block = glai.replace_mlp(head, "", directions=directions)
    # Once: the backbone and the structure are both frozen.
    if block.estimator.kind == "units":
        features = glai.unit_features(block.selector, block.selector.project(x))
        descend(block, lambda ids: block.estimator(features[ids]), loss, range(first, steps), rate)
    else:
        gates = block.gates(x)
        descend(block, lambda ids: block(x[ids], gates[ids]), loss, range(first, steps), rate)
    return block


@torch.no_grad()
def percent(scores: Tensor, y: Tensor) -> float:
    return 100 * float((scores.argmax(1) == y).double().mean())


def centroid_scores(x: Tensor, y: Tensor, queries: Tensor) -> Tensor:
    """Cosine to the mean of each class's samples."""
    means = torch.stack([x[y == c].mean(0) for c in range(int(y.max()) + 1)])
    return nn.functional.normalize(queries) @ nn.functional.normalize(means).T


# --- all classes ---

CLASSIFY_KINDS = ("linear", "MLP", "GLAI", "GLAI, full paths", "GLAI, directions", "GLAI, random gates")


def classify(
    kind: str,
    data: LabelledData,
    rate: float,
    seed: int,
    epochs: int = 10,
    hidden: int = 128,
    batch: int = 256,
) -> Result:
    torch.manual_seed(seed)
    features, classes = data.x_train.shape[1], data.n_classes
    head: nn.Module = nn.Linear(features, classes) if kind == "linear" else mlp(features, hidden, classes)
    batches = [ids for _ in range(epochs) for ids in torch.randperm(len(data.x_train)).split(batch)]

    def loss(outputs: Callable[[Tensor], Tensor], step: int) -> Tensor:
        return nn.functional.cross_entropy(outputs(batches[step]), data.y_train[batches[step]])

    start = time.process_time()
    head = train(kind, head, data.x_train, loss, len(batches), rate)
    seconds = time.process_time() - start
    with torch.no_grad():
        return Result(percent(head(data.x_test), data.y_test), seconds)


# --- a projection head ---

PROJECT_KINDS = ("linear", "MLP", "GLAI", "GLAI, full paths", "GLAI, directions", "GLAI, random gates")


def project(
    kind: str,
    data: LabelledData,
    rate: float,
    seed: int,
    steps: int = 300,
    hidden: int = 128,
    width: int = 64,
) -> Result:
    """Supervised InfoNCE: two samples of each class are partners, those of the other classes are not.

    The score is a linear probe's: ridge regression on the normalised outputs.
    """
    torch.manual_seed(seed)
    features = data.x_train.shape[1]
    head: nn.Module = nn.Linear(features, width) if kind == "linear" else mlp(features, hidden, width)
    members = [torch.nonzero(data.y_train == c).squeeze(1) for c in range(data.n_classes)]
    pairs = [torch.stack([ids[torch.randperm(len(ids))[:2]] for ids in members], dim=1) for _ in range(steps)]

    def loss(outputs: Callable[[Tensor], Tensor], step: int) -> Tensor:
        a, b = nn.functional.normalize(outputs(pairs[step].T.flatten())).chunk(2)
        similarity, partner = a @ b.T / 0.1, torch.arange(data.n_classes)
        cross_entropy = nn.functional.cross_entropy
        return (cross_entropy(similarity, partner) + cross_entropy(similarity.T, partner)) / 2

    start = time.process_time()
    head = train(kind, head, data.x_train, loss, steps, rate)
    seconds = time.process_time() - start
    with torch.no_grad():
        return Result(probe(head(data.x_train), data.y_train, head(data.x_test), data.y_test), seconds)


def probe(x: Tensor, y: Tensor, x_test: Tensor, y_test: Tensor) -> float:
    """Percent that a ridge classifier gets right."""
    x, x_test = nn.functional.normalize(x), nn.functional.normalize(x_test)
    fitted = RidgeClassifier().fit(x.numpy(), y.numpy())
    return 100 * float(fitted.score(x_test.numpy(), y_test.numpy()))


# --- few shots of new classes ---

FEW_SHOT_KINDS = (
    "nearest centroid",
    "linear",
    "linear on base hidden units",
    "MLP",
    "MLP from base",
    "GLAI, random gates",
    "GLAI, given structure of base",
    "GLAI, given structure of base, directions",
)
WAYS, QUERIES = 5, 15


def base_mlp(x: Tensor, y: Tensor, hidden: int = 128, epochs: int = 10) -> nn.Sequential:
    """Trained on the base classes, which no episode has."""
    torch.manual_seed(0)
    head = mlp(x.shape[1], hidden, int(y.max()) + 1)
    batches = [ids for _ in range(epochs) for ids in torch.randperm(len(x)).split(128)]

    def loss(outputs: Callable[[Tensor], Tensor], step: int) -> Tensor:
        return nn.functional.cross_entropy(outputs(batches[step]), y[batches[step]])

    descend(head, lambda ids: head(x[ids]), loss, range(len(batches)), 1e-3)
    return head


def episode(
    kind: str, base: nn.Sequential, data: LabelledData, classes: Tensor, shots: int, rate: float, seed: int
) -> Result:
    """Some of ``classes``, ``shots`` samples of each; the same ones for every kind of head that gets the seed."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(x: Tensor, y: Tensor, chosen: Tensor, count: int) -> Tensor:
        return torch.cat(
            [(p := x[y == c])[torch.randperm(len(p), generator=generator)[:count]] for c in chosen]
        )

    chosen = classes[torch.randperm(len(classes), generator=generator)[:WAYS]]
    x = drawn(data.x_train, data.y_train, chosen, shots)
    queries = drawn(data.x_test, data.y_test, chosen, QUERIES)
    y, wanted = (torch.arange(WAYS).repeat_interleave(count) for count in (shots, QUERIES))
    torch.manual_seed(seed)
    start = time.process_time()
    if kind == "nearest centroid":
        return Result(percent(centroid_scores(x, y, queries), wanted), time.process_time() - start)
    if kind == "linear on base hidden units":
        with torch.no_grad():
            x, queries = base[:2](x), base[:2](queries)
    first = base[0]
    assert isinstance(first, nn.Linear)
    head: nn.Module = (
        nn.Linear(x.shape[1], WAYS)
        if kind.startswith("linear")
        else mlp(x.shape[1], first.out_features, WAYS)
    )
    if "base" in kind and isinstance(head, nn.Sequential):
        head[0].load_state_dict(first.state_dict())
    everyone = torch.arange(len(x))

    def loss(outputs: Callable[[Tensor], Tensor], step: int) -> Tensor:
        return nn.functional.cross_entropy(outputs(everyone), y)

    head = train(kind, head, x, loss, 50, rate)
    seconds = time.process_time() - start
    with torch.no_grad():
        return Result(percent(head(queries), wanted), seconds)
