"""Federating: what is added up, who is asked, what is refused, and what a restarted server goes on from."""

import re

import pytest
import torch

import glai_native as glai

pytest.importorskip("flwr", reason="Flower is not installed: pip install '.[federated]'")

from flwr.app import ConfigRecord, RecordDict

from federated.local_grid import LocalGrid, assert_exact, settings_of, union
from glai_native.federated.messages import STATED, STRUCTURE, SUMS, from_arrays, to_arrays
from glai_native.federated.parties import Parties
from glai_native.federated.partition import Party
from glai_native.federated.path_progress import PathProgress
from glai_native.federated.server import Plan, federate
from glai_native.federated.structuring import Structuring


@pytest.mark.parametrize("structure", ["clients", "random", "server"])
def test_statistics_are_exact(parties, structure):
    grid = LocalGrid(parties)
    plan = Plan(settings_of(structure=structure), server_samples=union(parties[:2]), test=union(parties))
    progress = federate(grid, plan)
    assert_exact(progress, parties)
    assert [done.replied for done in progress.rounds] == [3]  # and then nobody is left to ask
    assert progress.rounds[0].accuracy > 0.8
    assert progress.stated["structure"] == structure
    facts = {"clients": "over 3 rounds of them", "random": "over 3 clients", "server": "80 samples"}
    assert facts[structure] in progress.stated["origin"]
    assert (progress.stated["bytes_up"] == 0) == (structure == "server")


def test_each_party_once_over_partial_rounds_and_dropouts(parties):
    grid = LocalGrid(parties)
    grid.lost, grid.failing = {"a"}, {"b"}
    seen = []

    def on_round(done):
        seen.append(done)
        grid.lost.clear()
        grid.failing.clear()

    server_samples = union(parties)
    plan = Plan(settings_of(structure="server", rounds=9), server_samples=server_samples, on_round=on_round)
    progress = federate(grid, plan)
    assert seen[0].dropped == ["a: no reply within 3600 s", "b: federate: out of memory"]
    assert (seen[0].asked, seen[0].replied, seen[0].samples) == (3, 1, 41)
    assert [done.replied for done in seen] == [1, 2]
    assert_exact(progress, parties)
    assert sorted(progress.contributed) == ["a", "b", "c"]

    grid = LocalGrid(parties)
    plan = Plan(settings_of(structure="server", rounds=9, fraction=0.34), server_samples=server_samples)
    assert_exact(federate(grid, plan), parties)
    assert sorted(grid.asked("statistics")) == ["a", "b", "c"]


def test_a_restarted_server_goes_on(parties, tmp_path):
    settings = settings_of(rounds=1, fraction=0.67)
    first = federate(LocalGrid(parties), Plan(settings, tmp_path))
    assert len(first.contributed) == 2
    glai.GLAI.load(tmp_path)  # whole after every round
    before = (tmp_path / "estimator.safetensors").read_bytes()

    grid = LocalGrid(parties)  # other node ids, and no party holds the structure
    second = federate(grid, Plan(settings_of(rounds=3, fraction=0.67), tmp_path))
    assert set(grid.asked("statistics")) == {"a", "b", "c"} - set(first.contributed)
    assert not grid.asked("moments")
    assert second.selector.structure_id == first.selector.structure_id
    assert_exact(second, parties)
    assert [done.round for done in second.rounds] == [1, 2]

    # A kill between the two files: the statistics are of round 2, the estimator of round 1.
    (tmp_path / "estimator.safetensors").write_bytes(before)
    third = federate(LocalGrid(parties), Plan(settings_of(rounds=2, fraction=0.67), tmp_path))
    assert_exact(third, parties)

    with pytest.raises(ValueError, match="holds a federation with hidden '5', got '6'"):
        PathProgress.load(tmp_path, settings_of(hidden="6"))
    model = glai.GLAI.load(tmp_path)
    assert_exact(third, parties)
    assert model.statistics.n_samples == 121
    model.estimator.provenance = {}
    model.save(tmp_path / "other")
    with pytest.raises(ValueError, match="'federation' is missing|of no federation"):
        PathProgress.load(tmp_path / "other", settings)


def test_files_of_two_federations_are_not_mixed(parties, tmp_path):
    settings, folders = settings_of(rounds=1), [tmp_path / "one", tmp_path / "other"]
    server = parties[0].x, parties[0].y
    for folder, held in zip(folders, (parties, parties[:2]), strict=True):
        settings = settings_of(rounds=1, structure="server")
        federate(LocalGrid(held), Plan(settings, folder, server))
    one, other = folders
    wanted = PathProgress.load(one, settings).estimator.weight
    sums = "statistics.safetensors"
    (other / sums).write_bytes((one / sums).read_bytes())  # as many rounds, of the same structure
    resumed = federate(LocalGrid(parties), Plan(settings, other))
    assert torch.equal(resumed.estimator.weight, wanted)
    assert torch.equal(glai.GLAI.load(other).estimator.weight, wanted)
    assert PathProgress.load(other, settings).is_solved

    (other / sums).unlink()
    with pytest.raises(ValueError, match="must hold the sums of the parties that have contributed, a, b, c"):
        PathProgress.load(other, settings)
    (one / "estimator.safetensors").unlink()  # a new federation would write over the others
    with pytest.raises(
        ValueError, match="must hold estimator.safetensors beside structure.safetensors and stat"
    ):
        federate(LocalGrid(parties), Plan(settings, one, server))
    assert (one / sums).exists()


def trained(selector, party, start, epochs, seed):
    estimator = glai.PathEstimator(
        selector.n_paths, 6, 4, start.directions, structure_id=selector.structure_id
    )
    estimator.load_state_dict(start.state_dict())
    estimator.samples_seen.zero_()
    estimator.on_counts.zero_()
    gates = selector.gates(party.x)
    options = {"epochs": epochs, "batch_size": 32, "learning_rate": 1e-2, "seed": seed, "progress": False}
    glai.train_estimator(estimator, selector.project(party.x), gates, party.y, **options)
    estimator.record(gates, party.y)
    return estimator


def averaged_by_samples(models):
    """Federated averaging: unlike ``merge``, all of what parties send counts, who have started from one model."""
    total = sum(int(model.samples_seen) for model in models)
    return {
        name: sum(
            model.get_parameter(name).detach().double() * int(model.samples_seen) / total for model in models
        )
        for name, _ in models[0].named_parameters()
    }


@pytest.mark.parametrize("directions", [False, True])
def test_samples_average_what_parties_train(parties, directions):
    settings = settings_of(
        method="samples", learning_rate=1e-2, local_epochs=2, rounds=2, directions=directions
    )
    grid, states = LocalGrid(parties), []
    progress = federate(grid, Plan(settings, on_round=lambda _: states.append(None)))
    start = glai.PathEstimator(
        progress.selector.n_paths,
        6,
        4,
        progress.estimator.directions,
        structure_id=progress.selector.structure_id,
    )
    for number in (1, 2):
        models = [trained(progress.selector, party, start, 2, 7919 * number) for party in parties]
        with torch.no_grad():
            for name, average in averaged_by_samples(models).items():
                start.get_parameter(name).copy_(average)
    for name, parameter in start.named_parameters():
        torch.testing.assert_close(progress.estimator.get_parameter(name), parameter, rtol=1e-4, atol=1e-5)
    assert int(progress.estimator.samples_seen) == 121
    # The structure, and V with it, goes to each party once.
    carried = [m for name, action, m in grid.sent if action == "train.estimator" and STRUCTURE in m.content]
    assert [len(carried), len(grid.asked("estimator"))] == [3, 6]
    assert all(bool(m.content[f"{STRUCTURE}.directions"]) == directions for m in carried)
    assert progress.rounds[0].bytes_down > progress.rounds[1].bytes_down


def test_activations_classes(parties):
    settings = settings_of(method="activations_classes", learning_rate=1e-2, rounds=1)
    progress = federate(LocalGrid(parties), Plan(settings))
    start = glai.PathEstimator(progress.selector.n_paths, 6, 4, structure_id=progress.selector.structure_id)
    models = [trained(progress.selector, party, start, 1, 7919) for party in parties]
    on_counts = sum(model.on_counts for model in models)
    for name, average in averaged_by_samples(models).items():
        at = (slice(None), None) if name == "weight" else (slice(None),)  # [P, 1, C] of [P, D, C]
        weighted = sum(model.get_parameter(name).detach().double() * model.on_counts[at] for model in models)
        expected = torch.where(on_counts[at] > 0, weighted / on_counts[at].clamp(min=1), average).float()
        found = progress.estimator.get_parameter(name)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(progress.estimator.on_counts, on_counts)
    assert (on_counts == 0).any()  # there it is by samples
    with pytest.raises(ValueError, match="weighs the full paths"):
        settings_of(method="activations_classes", directions=True)


def with_sums(change):
    def changed(reply):
        content = reply.content
        sums = from_arrays(content.array_records[SUMS])
        change(sums)
        content[SUMS] = to_arrays(sums)
        return reply

    return changed


def foreign(reply):
    reply.content[STATED] = ConfigRecord({"structure_id": "f" * 64})
    return reply


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (foreign, "sums must be of structure_id .*, got ffffffffffff"),
        (with_sums(lambda s: s.update(rhs=s["rhs"] * float("nan"))), "rhs must be finite"),
        (with_sums(lambda s: s.update(gram=s["gram"][1:])), r"gram must be \[903\], got \[902\]"),
        (with_sums(lambda s: s.pop("squares")), "squares must be .*, got nothing"),
        (with_sums(lambda s: s.update(on_counts=-s["on_counts"])), "counts of samples must be >= 0"),
        (with_sums(lambda s: s.update(on_counts=s["on_counts"] / 2)), "on_counts must not be torch.float32"),
    ],
)
def test_refused_replies(parties, change, sentence):
    grid = LocalGrid(parties)
    grid.change = {"b": change}
    plan = Plan(settings_of(structure="server", rounds=1), server_samples=union(parties))
    progress = federate(grid, plan)
    (dropped,) = progress.rounds[0].dropped
    assert dropped.startswith("b: ")
    assert re.search(sentence, dropped)
    assert_exact(progress, [parties[0], parties[2]])


def test_nobody_replies(parties):
    grid = LocalGrid(parties)
    grid.failing = {"a", "b", "c"}
    with pytest.raises(
        RuntimeError,
        match=r"no client made its part of the structure \(a: federate: out of memory; b",
    ):
        federate(grid, Plan(settings_of()))
    with pytest.raises(RuntimeError, match=r"4 clients must be connected, got 3 in 0.1 s"):
        federate(grid, Plan(settings_of(min_clients=4, timeout=0.1)))
    with pytest.raises(ValueError, match="needs samples that the server holds"):
        federate(grid, Plan(settings_of(structure="server")))
    progress = federate(grid, Plan(settings_of(structure="server", rounds=2), server_samples=union(parties)))
    assert [done.replied for done in progress.rounds] == [0, 0]
    assert not progress.contributed


def test_a_party_that_lost_its_state_gets_the_structure_again(parties):
    grid = LocalGrid(parties[:1])
    settings = settings_of(method="samples", rounds=3)

    def on_round(done):
        if done.round == 1:
            (context,) = grid.contexts.values()
            context.state = RecordDict()

    progress = federate(grid, Plan(settings, on_round=on_round))
    assert [done.replied for done in progress.rounds] == [1, 0, 1]
    assert re.search("holds no structure, .* must be sent to it", progress.rounds[1].dropped[0])


@pytest.mark.parametrize("components", [0, 4])
def test_projection_from_sums_is_that_of_the_union(parties, components):
    settings = settings_of(components=components)
    whole = LocalGrid(parties)
    made = Structuring(settings, whole, Parties(whole, 1, 1.0)).projection()
    fitted = glai.InputProjection.fit(union(parties)[0], components or None)
    x = union(parties)[0]
    torch.testing.assert_close(made(x), fitted(x), rtol=1e-4, atol=1e-4)
    wider = Party("d", torch.ones(3, 7), torch.zeros(3, dtype=torch.int64))
    grid = LocalGrid([*parties, wider])
    with pytest.raises(ValueError, match=r"federate: squares must be .*, got \[7"):
        Structuring(settings, grid, Parties(grid, 1, 1.0)).projection()
    with pytest.raises(ValueError, match="components must be <= 6 features, got 9"):
        Structuring(settings_of(components=9), whole, Parties(whole, 1, 1.0)).projection()


def test_a_structure_states_who_made_it(parties):
    grid = LocalGrid(parties)
    grid.lost = {"b"}
    assert "over 2 clients" in federate(grid, Plan(settings_of(structure="random"))).stated["origin"]
