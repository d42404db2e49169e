"""Secure aggregation by Flower's SecAgg+: totals to within its rounding, and no party's sums on the wire."""

import pytest
import torch

pytest.importorskip("flwr", reason="Flower is not installed: pip install '.[federated]'")

from flwr.app import Context, RecordDict

from federated.local_grid import LocalGrid, settings_of, statistics_of, union
from glai_native.federated import server
from glai_native.federated.messages import SUMS
from glai_native.federated.partition import Party
from glai_native.federated.server import Plan, federate


@pytest.mark.parametrize("method", ["statistics", "samples"])
def test_secure_aggregation(parties, method):
    """Flower's SecAgg+ itself: totals to within its rounding, a dropout's mask removed, no party's sums on the wire."""
    settings = settings_of(
        structure="server", method=method, rounds=1, secure=True, secure_clip=4096.0, learning_rate=1e-2
    )
    plan = Plan(settings, server_samples=union(parties))
    others = [Party("d", parties[0].x + 1, parties[0].y), Party("e", parties[2].x - 1, parties[2].y)]
    grid = LocalGrid([*parties, *others])
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    grid.lost_at_upload, grid.lost_at_unmasking = {"e"}, {"a"}  # what a has sent is in the total
    progress = server.run(grid, context, plan)
    kept = [*parties, others[0]]
    assert [progress.rounds[0].asked, progress.rounds[0].replied] == [5, 4]
    assert progress.rounds[0].samples == len(union(kept)[0])
    clear = federate(
        LocalGrid(kept),
        Plan(settings_of(**(settings.__dict__ | {"secure": False})), server_samples=union(parties)),
    )
    step = 4096 / 2**21
    if method == "statistics":
        mine, exact = progress.statistics.sums(), clear.statistics.sums()
        for name, t in exact.items():
            assert 0 <= (mine[name] - t).abs().max() <= len(kept) * step, name
        assert (mine["gram"] != exact["gram"]).any()
        x, y = union(kept)
        right = (progress.model()(x).argmax(1) == y).double().mean()
        assert right >= (clear.model()(x).argmax(1) == y).double().mean() - 0.02
    else:
        error = (progress.estimator.weight - clear.estimator.weight).abs().max()
        assert 0 < error <= len(kept) * step / len(union(kept)[0]) + 1e-6
    uploads = [reply for reply in grid.uploads if SUMS in reply.content.array_records]
    assert not uploads


def test_secure_aggregation_counts_exactly(parties):
    """However coarse the sums are; with directions the last path's counts must be those of the samples."""
    settings = settings_of(
        structure="server", rounds=1, secure=True, secure_clip=1e8, directions=True, l2="1e5"
    )
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    progress = server.run(LocalGrid(parties), context, Plan(settings, server_samples=union(parties)))
    assert progress.rounds[0].replied == 3
    assert progress.statistics.n_samples == len(union(parties)[0])
    assert torch.equal(progress.statistics.on_counts, statistics_of(progress.selector, parties).on_counts)


def test_secure_aggregation_refuses(parties):
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    settings = settings_of(structure="server", rounds=1, secure=True, secure_clip=1.0)
    plan = Plan(settings, server_samples=union(parties))
    grid = LocalGrid(parties)
    progress = server.run(grid, context, plan)
    assert progress.rounds[0].replied == 0
    assert "sums must be within ±1 for secure aggregation" in str(
        [r.error for r in grid.uploads if r.has_error()]
    )
    progress = server.run(LocalGrid(parties[:1]), context, plan)
    assert "one alone has nobody to hide in" in progress.rounds[0].dropped[0]
