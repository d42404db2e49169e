"""What a federation and its parties are told: settings, apps, a party's own file, equal parameters."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import glai_native as glai

pytest.importorskip("flwr", reason="Flower is not installed: pip install '.[federated]'")

from flwr.app import Context, RecordDict
from flwr.supercore.object_ref import load_app

from federated.local_grid import settings_of
from glai_native.federated import client, networks, server
from glai_native.federated.baseline import mlp_bytes, mlp_widths, total_parameters
from glai_native.federated.partition import Split, load_party
from glai_native.federated.server import plan_of
from glai_native.federated.settings import FederationSettings


def test_settings_are_checked():
    for change, sentence in (
        (
            {"method": "magic"},
            "method must be one of statistics, samples, activations_classes, exact, means, got 'magic'",
        ),
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
    with pytest.raises(ValueError, match="must hold x_train, .*, or x, y; got a"):
        load_party(tmp_path / "c.npz", "c")
    np.savez(tmp_path / "d.npz", x=np.full((5, 2), 1e300), y=np.arange(5))
    with pytest.raises(ValueError, match="x must be finite numbers in float32"):
        load_party(tmp_path / "d.npz", "d")
    (tmp_path / "e.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    with pytest.raises(ValueError, match="is no .npz archive .* or truncated"):
        load_party(tmp_path / "e.npz", "e")
    del context.node_config["party"]
    with pytest.raises(ValueError, match="must name its party"):
        client.party_of(context)
    context.node_config.clear()
    with pytest.raises(ValueError, match="must name its data"):
        client.party_of(context)


def test_the_package_does_not_need_flower():
    code = "import sys, glai_native.cli; sys.exit('flwr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
