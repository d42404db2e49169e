"""Class means: the field's cheapest round, beside which the others stand."""

import pytest
import torch

import glai_native as glai

pytest.importorskip("flwr", reason="Flower is not installed: pip install '.[federated]'")

from federated.local_grid import LocalGrid, settings_of, union
from glai_native.federated.baseline import means_bytes
from glai_native.federated.server import Plan, federate


@pytest.mark.parametrize("fraction", [1.0, 0.34])
def test_means_are_those_of_all_samples(parties, tmp_path, fraction):
    settings = settings_of(method="means", hidden="", n_classes=5, rounds=9, fraction=fraction)
    progress = federate(LocalGrid(parties), Plan(settings, tmp_path, test=union(parties)))
    assert [done.replied for done in progress.rounds] == ([3] if fraction == 1 else [1, 1, 1])
    assert sum(done.bytes_up for done in progress.rounds) == 3 * means_bytes(settings, 6)
    x, y = union(parties)
    z = progress.selector.project(x)
    means = torch.stack([z[y == c].mean(0) for c in range(4)])
    nearest = torch.cdist(z, means).argmin(1)  # nobody has class 4
    model = glai.GLAI.load(tmp_path)
    assert torch.equal(model(x).argmax(1), nearest)
    torch.testing.assert_close(model.estimator.weight[-1][:, :4], 2 * means.T, rtol=1e-5, atol=1e-6)
    assert model.estimator.on_counts[-1].tolist() == torch.bincount(y, minlength=5).tolist()
    assert progress.rounds[-1].accuracy == float((nearest == y).double().mean())
