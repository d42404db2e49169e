"""The field's federated learners on frozen features, simulated in one process, with the bytes that would travel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from glai_bench.solvers.mlp import make_mlp

Clients = Sequence[tuple[Tensor, Tensor]]


def dirichlet_clients(x: Tensor, y: Tensor, n_clients: int, alpha: float, seed: int) -> Clients:
    """Deal the samples of each class to the clients by shares drawn from Dirichlet(alpha)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        owner = torch.empty_like(y)
        for label in y.unique():
            of_class = (y == label).nonzero()[:, 0]
            shares = torch.distributions.Dirichlet(torch.full((n_clients,), alpha)).sample()
            owner[of_class] = torch.multinomial(shares, len(of_class), replacement=True)
    return [(x[owner == client], y[owner == client]) for client in range(n_clients)]


class AFL:
    """Least squares on the features in one round: local solutions, joined by the absolute aggregation law.

    Source: He et al., "AFL: A Single-Round Analytic Approach for Federated Learning with Pre-trained Models", CVPR
    2025, theorems 1 and 2. Each client solves with a penalty, which is taken out again at the end (the paper's
    regularisation intermediary): the result is that of all data in one place. ``l2`` is left in that result; the
    paper's is 0.
    """

    LOCAL_PENALTY = 1.0

    def __init__(self, clients: Clients, n_classes: int, l2: float = 0.0) -> None:
        self.bytes_up = 0
        weight, system = torch.zeros(0), torch.zeros(0)
        for i, (x, y) in enumerate(clients):
            rows, targets = x.double(), one_hot(y, n_classes).double()
            local = rows.T @ rows
            local.diagonal().add_(self.LOCAL_PENALTY)
            solution = torch.linalg.solve(local, rows.T @ targets)
            self.bytes_up += (local.numel() + solution.numel()) * 8
            if not i:
                weight, system = solution, local
                continue
            both = system + local
            weight = torch.linalg.solve(both, system @ weight + local @ solution)
            system = both
        without = system.clone()
        without.diagonal().add_(l2 - self.LOCAL_PENALTY * len(clients))
        # Features that are never there, as pixels of a picture's margin, leave it singular.
        self.weight = torch.linalg.pinv(without, hermitian=True) @ (system @ weight)

    def scores(self, x: Tensor) -> Tensor:
        scores: Tensor = x.double() @ self.weight
        return scores


class FedAvg:
    """The MLP, averaged by numbers of samples after each round of local epochs.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017.
    """

    HIDDEN, RATE, BATCH, LOCAL_EPOCHS = 1_024, 0.1, 64, 2

    def __init__(self, clients: Clients, n_classes: int, rounds: int, seed: int) -> None:
        x, _ = clients[0]
        self.mean = torch.cat([x for x, _ in clients]).mean(0)  # a round of its own, whose bytes are small
        self.scale = 1 / torch.cat([x for x, _ in clients]).sub(self.mean).square().mean().sqrt()
        self.network = make_mlp(x.shape[1], self.HIDDEN, n_classes, seed)
        size = sum(parameter.numel() for parameter in self.network.parameters())
        self.bytes_up = rounds * len(clients) * size * 4
        total = sum(len(y) for _, y in clients)
        for _ in range(rounds):
            start = {name: value.clone() for name, value in self.network.state_dict().items()}
            mean = {name: torch.zeros_like(value) for name, value in start.items()}
            for x, y in clients:
                self.network.load_state_dict(start)
                self._train((x - self.mean) * self.scale, y)
                for name, value in self.network.state_dict().items():
                    mean[name] += value * (len(y) / total)
            self.network.load_state_dict(mean)

    def _train(self, z: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.SGD(self.network.parameters(), lr=self.RATE)
        for _ in range(self.LOCAL_EPOCHS):
            for ids in torch.randperm(len(y)).split(self.BATCH):
                optimizer.zero_grad()
                cross_entropy(self.network(z[ids]), y[ids]).backward()
                nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
                optimizer.step()

    def scores(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            scores: Tensor = self.network((x - self.mean) * self.scale)
        return scores
