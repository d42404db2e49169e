"""Three parties. Flower is imported where it is used: without it these tests are skipped, each file by itself."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _identity():
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1


@pytest.fixture
def parties():
    """Three owners of 6 features and 4 classes, of 30, 50 and 41 samples, as skewed as can be."""
    from glai_native.federated.partition import Party

    generator = torch.Generator().manual_seed(5)
    made = []
    for name, classes, n in (("a", [0, 1], 30), ("b", [2], 50), ("c", [0, 3], 41)):
        y = torch.tensor(classes)[torch.randint(len(classes), (n,), generator=generator)]
        x = torch.randn(n, 6, generator=generator) + 2 * torch.eye(6)[y] + 3
        made.append(Party(name, x, y))
    return made
