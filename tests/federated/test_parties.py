"""Who cannot take part is named: while parties say who they are, and while the structure is made."""

import dataclasses
import time

import numpy as np
import pytest
import torch

pytest.importorskip("flwr", reason="Flower is not installed: pip install '.[federated]'")

from flwr.app import Context, RecordDict

import glai_native as glai
from federated.local_grid import NODES, LocalGrid, assert_exact, settings_of, union
from glai_native.federated.messages import SUMS, from_arrays, to_arrays
from glai_native.federated.parties import Parties
from glai_native.federated.partition import Party, load_party
from glai_native.federated.server import Plan, federate


def of_nan(reply):
    sums = from_arrays(reply.content.array_records[SUMS])
    sums["x" if "x" in sums else next(iter(sums))].fill_(torch.nan)
    reply.content[SUMS] = to_arrays(sums)
    return reply


def without_sums(reply):
    del reply.content[SUMS]
    return reply


def with_node(grid, party):
    """Another node of a party."""
    node = next(NODES)
    grid.parties[node] = party
    grid.contexts[node] = Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
    return node


@pytest.mark.parametrize(
    ("change", "reason"),
    [(of_nan, "x must be finite"), (without_sums, "a reply must hold sums and how many samples")],
)
def test_a_bad_reply_is_left_out_of_the_structure_by_name(parties, change, reason):
    grid = LocalGrid(parties)
    grid.change["b"] = change
    progress = federate(grid, Plan(settings_of(structure="random")))
    assert len(progress.stated["left_out"]) == 1
    assert progress.stated["left_out"][0].startswith(f"b: federate: {reason}")
    assert "over 2 clients" in progress.stated["origin"]
    assert progress.rounds[0].dropped[0].startswith("b: federate: ")


def test_failing_and_lost_parties_are_named(parties):
    grid = LocalGrid(parties)
    grid.failing, grid.lost = {"a"}, {"c"}
    progress = federate(grid, Plan(settings_of(structure="random", timeout=7.0)))
    assert progress.stated["left_out"] == ["a: federate: out of memory", "c: no reply within 7 s"]
    grid = LocalGrid(parties)
    progress = federate(grid, Plan(settings_of(structure="random")))
    assert "left_out" not in progress.stated
    assert_exact(progress, parties)


def test_parties_of_other_features_end_the_run_by_name(parties):
    parties[1] = dataclasses.replace(parties[1], x=parties[1].x[:, :5])
    for structure in ("clients", "random"):
        with pytest.raises(ValueError, match=r"same features, \[6\] of a, c, got \[5\] of b"):
            federate(LocalGrid(parties), Plan(settings_of(structure=structure)))


def test_all_parties_without_samples_say_so_at_once(parties):
    empty = [dataclasses.replace(party, x=party.x[:0], y=party.y[:0]) for party in parties]
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"part of the structure \(no samples at a, b, c\)"):
        federate(LocalGrid(empty), Plan(settings_of()))
    assert time.monotonic() - started < 30
    one = [parties[0], *empty[1:]]
    progress = federate(LocalGrid(one), Plan(settings_of(structure="random")))
    assert_exact(progress, parties[:1])


@pytest.mark.parametrize("structure", ["clients", "random"])
def test_two_nodes_of_one_name_are_refused(parties, structure):
    grid = LocalGrid(parties)
    with_node(grid, dataclasses.replace(parties[1], name="a"))
    nodes = [node for node, party in grid.parties.items() if party.name == "a"]
    with pytest.raises(ValueError, match=f"name of its own, got 'a' from nodes {nodes[0]} and {nodes[1]}"):
        federate(grid, Plan(settings_of(structure=structure)))


def test_a_node_that_a_party_left_behind_is_none(parties):
    """A party that reconnects has a node of another id; the old one is listed for a while, and does not answer."""
    grid = LocalGrid(parties)
    known = Parties(grid, 1, 60.0)
    old = next(node for node, name in known.online().items() if name == "a")
    new = with_node(grid, parties[0])
    answer = grid.answer
    grid.answer = lambda message: [] if message.metadata.dst_node_id == old else answer(message)
    online = known.online()
    assert online[new] == "a"
    assert old not in online
    assert sorted(online.values()) == ["a", "b", "c"]


def test_who_cannot_say_who_it_is_is_named(parties):
    from flwr.app import Error, Message

    grid = LocalGrid(parties)
    answer, broken = grid.answer, {next(iter(grid.parties))}

    def failing(message):
        if message.metadata.dst_node_id in broken:
            return [
                Message(
                    Error(code=0, reason="ValueError: party.npz: y must be class indices"), reply_to=message
                )
            ]
        return answer(message)

    grid.answer = failing
    progress = federate(grid, Plan(settings_of(structure="random")))
    (reason,) = progress.rounds[0].dropped
    assert reason == f"node {min(broken)}: ValueError: party.npz: y must be class indices"
    assert_exact(progress, parties[1:])
    broken |= set(grid.parties)
    with pytest.raises(RuntimeError, match=r"none of 3 clients said who it is \(node .*party.npz: y must be"):
        federate(grid, Plan(settings_of()))


@pytest.mark.parametrize("components", [0, 2])
def test_features_that_are_fine_beside_their_mean(components):
    """Seconds since 1970: sums of squares hold nothing of them, sums around the mean do."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for name, n in (("a", 60), ("b", 90)):
        second = torch.randint(60, (n,), generator=generator)
        x = torch.stack([1.7e9 + second.double(), torch.randn(n, generator=generator).double()], 1)
        made.append(Party(name, x, (second > 30).long()))
    x, y = union(made)
    grid = LocalGrid(made)
    settings = settings_of(n_classes=2, components=components, structure="random")
    progress = federate(grid, Plan(settings, test=(x, y)))
    assert grid.asked("moments") == ["a", "b", "a", "b"]
    fitted = glai.InputProjection.fit(x, components or None)
    torch.testing.assert_close(progress.selector.project(x), fitted(x).float(), rtol=1e-4, atol=1e-4)
    near = torch.tensor([1.7e9, 0.0], dtype=torch.float64)
    plain = [dataclasses.replace(party, x=party.x - near) for party in made]
    same = federate(LocalGrid(plain), Plan(settings, test=(x - near, y)))
    assert progress.rounds[0].accuracy == pytest.approx(same.rounds[0].accuracy, abs=0.01)
    assert progress.rounds[0].accuracy > 0.9


def test_a_party_keeps_the_dtype_that_its_features_need(tmp_path):
    second = np.arange(60)
    np.savez(tmp_path / "a.npz", x=1.7e9 + second[:, None], y=second % 2)
    assert load_party(tmp_path / "a.npz", "a").x.dtype == torch.float64
    np.savez(tmp_path / "b.npz", x=second[:, None] * [1.0, np.nan], y=second % 2)
    with pytest.raises(ValueError, match=r"b.npz: x must be finite .* got NaN in row 0, column 1"):
        load_party(tmp_path / "b.npz", "b")
