"""Federating: what is added up, who is asked, what is refused, and what a restarted server goes on from."""

import copy
import itertools
import json
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import glai_native as glai
from glai_native.cli.main import main

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'glai-native[federated]'")

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.object_ref import load_app
from flwr.supercore.task_identity import TaskIdentity

from glai_native.federated import client, networks, server
from glai_native.federated.baseline import mlp_bytes, mlp_widths, total_parameters
from glai_native.federated.client import client_app
from glai_native.federated.messages import STATED, STRUCTURE, SUMS, from_arrays, to_arrays
from glai_native.federated.parties import Parties
from glai_native.federated.partition import Party, Split, load_party
from glai_native.federated.progress import Progress
from glai_native.federated.server import Plan, federate, plan_of
from glai_native.federated.settings import FederationSettings
from glai_native.federated.structuring import Structuring

NODES = itertools.count(1)


class LocalGrid(Grid):
    """Runs the client app in place; nodes can be lost, fail, or have their replies changed."""

    def __init__(self, parties):
        self.parties = {next(NODES): party for party in parties}
        self.app = client_app(lambda context: self.parties[context.node_id])
        self.contexts = {
            node: Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
            for node in self.parties
        }
        self.lost, self.failing, self.change, self.sent = set(), set(), {}, []
        self.lost_at_upload, self.lost_at_unmasking, self.uploads = set(), set(), []

    run = None

    def set_run(self, run): ...

    def create_message(self, *arguments, **named): ...

    def push_messages(self, messages): ...

    def pull_messages(self, message_ids): ...

    def get_node_ids(self):
        return list(self.parties)

    def send_and_receive(self, messages, *, timeout=None):
        return [reply for message in messages for reply in self.answer(message)]

    def answer(self, message):
        node = message.metadata.dst_node_id
        name, action = self.parties[node].name, message.metadata.message_type
        self.sent.append((name, action, message))
        message = copy.deepcopy(message)  # as the wire does
        if action == "query.hello":
            return [self.app(message, self.contexts[node])]
        if name in self.lost:
            return []
        stage = message.content.config_records.get("secaggplus_configs", {}).get("stage")
        if stage == "unmask" and name in self.lost_at_unmasking:
            return [Message(Error(code=0, reason="gone"), reply_to=message)]
        if name in self.failing:
            return [
                Message(
                    Error(code=0, reason="trace\nValueError: federate: out of memory'>"), reply_to=message
                )
            ]
        try:
            reply = self.app(message, self.contexts[node])
            if name in self.lost_at_upload and "config" in message.content:
                return []
            self.uploads.append(reply)
        except ValueError as error:
            self.uploads.append(Message(Error(code=0, reason=str(error)), reply_to=message))
            return self.uploads[-1:]
        return [self.change.get(name, lambda r: r)(reply)]

    def asked(self, action):
        return [name for name, sent, _ in self.sent if sent == f"train.{action}"]


@pytest.fixture(autouse=True)
def _identity():
    TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1


@pytest.fixture
def parties():
    """Three owners of 6 features and 4 classes, of 30, 50 and 41 samples, as skewed as can be."""
    generator = torch.Generator().manual_seed(5)
    made = []
    for name, classes, n in (("a", [0, 1], 30), ("b", [2], 50), ("c", [0, 3], 41)):
        y = torch.tensor(classes)[torch.randint(len(classes), (n,), generator=generator)]
        x = torch.randn(n, 6, generator=generator) + 2 * torch.eye(6)[y] + 3
        made.append(Party(name, x, y))
    return made


def settings_of(**named):
    return FederationSettings(**({"n_classes": 4, "hidden": "5", "min_clients": 1, "l2": "0.5"} | named))


def union(parties):
    return torch.cat([party.x for party in parties]), torch.cat([party.y for party in parties])


def statistics_of(selector, parties):
    x, y = union(parties)
    whole = glai.PathStatistics(selector.n_paths, 6, 4, structure_id=selector.structure_id)
    whole.update(selector.project(x), selector.gates(x), y)
    return whole


def assert_exact(progress, parties, l2=0.5):
    mine, whole = progress.statistics.solve(l2), statistics_of(progress.selector, parties).solve(l2)
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(mine.get_parameter(name), parameter, rtol=1e-8, atol=1e-8)
    assert progress.statistics.n_samples == len(union(parties)[0])
    assert torch.equal(mine.on_counts, whole.on_counts)
    torch.testing.assert_close(progress.estimator.weight, whole.weight.float())


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
        Progress.load(tmp_path, settings_of(hidden="6"))
    model = glai.GLAI.load(tmp_path)
    assert_exact(third, parties)
    assert model.statistics.n_samples == 121
    model.estimator.provenance = {}
    model.save(tmp_path / "other")
    with pytest.raises(ValueError, match="'federation' is missing|of no federation"):
        Progress.load(tmp_path / "other", settings)


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
        start = glai.merge([trained(progress.selector, p, start, 2, 7919 * number) for p in parties])
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
    merged = glai.merge(models, "activations_classes")
    torch.testing.assert_close(progress.estimator.weight, merged.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(progress.estimator.bias, merged.bias, rtol=1e-4, atol=1e-5)
    assert torch.equal(progress.estimator.on_counts, merged.on_counts)
    assert (merged.on_counts == 0).any()  # there it is by samples
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
        RuntimeError, match=r"no client made its part of the structure \(federate: out of memory\)"
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


def test_a_structure_states_who_made_it(parties):
    grid = LocalGrid(parties)
    grid.lost = {"b"}
    assert "over 2 clients" in federate(grid, Plan(settings_of(structure="random"))).stated["origin"]


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


def test_equal_parameters():
    settings = settings_of(n_classes=10, hidden="16")
    selector = glai.PathSelector(networks.make_network([64, 16, 10], 0))
    for directions in (False, True):
        settings = settings_of(n_classes=10, hidden="16", directions=directions)
        v = glai.output_directions(selector) if directions else None
        estimator = glai.PathEstimator(17, 64, 10, v)
        hidden = sum(weight.numel() + bias.numel() for weight, bias in selector.hidden)
        total = hidden + estimator.trained_parameters + estimator.frozen_parameters
        assert total_parameters(settings, 64) == total
        network = networks.make_network(mlp_widths(settings, 64), 0)
        size = sum(parameter.numel() for parameter in network.parameters())
        assert abs(size - total) <= 75 / 2
        assert mlp_bytes(settings, 64) == 4 * size


def test_apps_load_as_flwr_run_loads_them(tmp_path):
    def load(reference):
        return load_app(reference, Exception, project_dir=str(tmp_path))

    assert load("glai_native.federated.client:app") is client.app
    assert load("glai_native.federated.server:app") is server.app
    np.savez(tmp_path / "test.npz", x=np.eye(4, dtype=np.float32), y=np.arange(4))
    config = {
        "n-classes": 4,
        "min-clients": 2,
        "l2": 0.5,
        "out": str(tmp_path),
        "test-data": str(tmp_path / "test.npz"),
    }
    plan = plan_of(Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config))
    assert (plan.settings.l2, plan.settings.min_clients, len(plan.test[0])) == ("0.5", 2, 4)
    with pytest.raises(ValueError, match="must state n-classes"):
        FederationSettings.from_config({})


def test_a_partys_own_file(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones((5, 2, 3)), y=np.arange(5))
    node = {"data": str(tmp_path / "a.npz"), "party": "clinic"}
    context = Context(run_id=1, node_id=7, node_config=node, state=RecordDict(), run_config={})
    party = client.party_of(context)
    assert (party.name, list(party.x.shape), party.y.dtype) == ("clinic", [5, 6], torch.int64)
    np.savez(tmp_path / "b.npz", x=np.ones((5, 2)), y=np.ones(5))
    with pytest.raises(ValueError, match="y must be class indices, got y of float64"):
        load_party(tmp_path / "b.npz", "b")
    np.savez(tmp_path / "c.npz", a=np.ones(2))
    with pytest.raises(ValueError, match="must be an .npz with x"):
        load_party(tmp_path / "c.npz", "c")
    np.savez(tmp_path / "d.npz", x=np.full((5, 2), 1e300), y=np.arange(5))
    with pytest.raises(ValueError, match="x must be finite numbers in float32"):
        load_party(tmp_path / "d.npz", "d")
    (tmp_path / "e.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    with pytest.raises(ValueError, match="must be an .npz with x"):
        load_party(tmp_path / "e.npz", "e")
    del context.node_config["party"]
    with pytest.raises(ValueError, match="must name its party"):
        client.party_of(context)
    context.node_config.clear()
    with pytest.raises(ValueError, match="must name its data"):
        client.party_of(context)


def test_settings_are_checked():
    for change, sentence in (
        ({"method": "magic"}, "method must be one of statistics, samples, activations_classes, got 'magic'"),
        ({"structure": "x"}, "structure must be one of"),
        ({"rounds": 0}, "rounds must be >= 1, got 0"),
        ({"fraction": 0.0}, r"fraction must be in \(0, 1\], got 0.0"),
        ({"hidden": "a"}, "hidden must list units"),
        ({"l2": "loo"}, "l2 must be a finite number >= 0 or 'gcv', got 'loo'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            settings_of(**change)
    for change, sentence in (
        ({"partition": "x"}, "partition must be one of iid, dirichlet"),
        ({"n_parties": 1}, "clients must be >= 2"),
        ({"alpha": 0.0}, "alpha must be"),
        ({"server_share": 1.0}, "server-share must be in"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Split(**({"data": None, "n_parties": 3} | change))


def test_the_package_does_not_need_flower():
    code = "import sys, glai_native.cli; sys.exit('flwr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_simulation_of_three_clients(tmp_path, capsys):
    """End to end, in Flower's engine: the command line, the digits, a model that loads."""
    pytest.importorskip("ray", reason="Flower's simulation engine is not installed")
    pytest.importorskip("flwr_datasets", reason="Flower's partitioners are not installed")
    out = tmp_path / "model"
    options = ["--clients", "3", "--hidden", "8", "--workers", "2", "--rounds", "2", "--l2", "1", "--json"]
    assert main(["federate", "--out", str(out), *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [done["replied"] for done in report["rounds"]] == [3]
    assert report["rounds"][0]["samples"] == report["data"]["train"] == 1347
    assert report["test"] > 0.9
    assert report["rounds"][0]["bytes_up"] == 3 * (8 * (585 * 586 // 2 + 5850 + 10) + 8 * 90 + 8)
    model = glai.GLAI.load(out)
    assert model.structure_id == report["structure"]["structure_id"]
    assert model.estimator.class_labels == list(range(10))
    split = Split(None, 3)
    whole = glai.PathStatistics(9, 64, 10, structure_id=model.structure_id)
    for party in (split.party(i) for i in range(3)):
        whole.update(model.selector.project(party.x), model.selector.gates(party.x), party.y)
    torch.testing.assert_close(
        model.statistics.solve(1.0).weight, whole.solve(1.0).weight, rtol=1e-8, atol=1e-8
    )
    assert main(["federate", "--out", str(out), *options]) == 2
    assert "must be a new or an empty folder" in capsys.readouterr().err


def test_resume_refuses_where_nothing_is(tmp_path, capsys):
    out = tmp_path / "nofed"
    assert main(["federate", "--resume", "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"glai federate: nothing to resume in {out}\n"
    assert not out.exists()


@pytest.mark.parametrize("kept", [False, True])
def test_an_interrupt_leaves_a_folder_to_resume_or_none(tmp_path, kept):
    """In Flower's engine: one sentence, status 130, at once; rounds that are done are kept."""
    pytest.importorskip("ray", reason="Flower's simulation engine is not installed")
    out = tmp_path / "model"
    code = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from glai_native.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    options = ["--clients", "3", "--hidden", "8", "--workers", "2", "--rounds", "500", "--method", "samples"]
    if not kept:
        options += ["--epochs", "100000"]  # the first round does not end
    command = [sys.executable, "-c", code, "federate", "--out", str(out), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as glai_federate:
        until = time.monotonic() + 120
        while time.monotonic() < until and not _rounds_in(out) >= kept:
            time.sleep(0.1)
        glai_federate.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        _, errors = glai_federate.communicate(timeout=60)
    assert time.monotonic() - interrupted < 30  # threads were not waited for
    assert glai_federate.returncode == 130
    if kept:
        assert errors == f"glai federate: interrupted, --resume goes on in {out}\n"
        assert glai.GLAI.load(out).estimator.provenance["federation"]["rounds"]
    else:
        assert errors == "glai federate: interrupted before the first round was done\n"
        assert not out.exists()


def _rounds_in(folder):
    """Rounds that a federation's folder states; -1 where there is none."""
    try:
        return len(glai.GLAI.load(folder).estimator.provenance["federation"]["rounds"])
    except FileNotFoundError:
        return -1
