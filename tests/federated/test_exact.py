"""Exact federating: the digest of all samples in one place, whoever holds what, drops out, or is masked."""

import dataclasses

import pytest
import torch

import glai_native as glai

pytest.importorskip("flwr", reason="Flower is not installed: pip install '.[federated]'")

from flwr.app import Context, RecordDict

from federated.local_grid import LocalGrid, settings_of, union
from glai_native.federated import server
from glai_native.federated.exact_progress import ExactProgress
from glai_native.federated.integers import from_limbs, to_limbs
from glai_native.federated.messages import SUMS, from_arrays, to_arrays
from glai_native.federated.partition import Party
from glai_native.federated.server import Plan, federate


def exact_settings(**named):
    return settings_of(**({"method": "exact", "hidden": "20"} | named))


def in_one_place(parties, n_units=20, ledger=False):
    """What one owner of all samples has: its own map, not that of the federation."""
    x, y = union(parties)
    statistics = glai.IntegerStatistics(glai.IntegerFeatures.fit(x, n_units), 4, ledger=ledger)
    statistics.class_labels = [0, 1, 2, 3]
    statistics.update(x, y)
    return statistics


def secured(grid, plan):
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    return server.run(grid, context, plan)


def test_limbs_of_many_parties_add_up():
    numbers = [[0, 5, -(2**300), 2**270 + 1], [1, -7, 2**299, -1]]
    total = sum(to_limbs(each, 8) for each in numbers)
    assert from_limbs(total) == [1, -2, -(2**299), 2**270]
    assert int(total.max()) < 2**41


def test_the_digest_is_that_of_one_place(parties, tmp_path):
    grid = LocalGrid(parties)
    progress = federate(grid, Plan(exact_settings(), tmp_path, test=union(parties)))
    whole = in_one_place(parties)
    assert progress.statistics.digest() == whole.digest()
    assert [done.replied for done in progress.rounds] == [3]  # one round of sums, and nobody is left to ask
    assert progress.rounds[0].accuracy > 0.9
    assert [grid.asked(action) for action in ("exact_moments", "units", "exact")] == [["a", "b", "c"]] * 3
    m = 20 + 6 + 1
    assert progress.rounds[0].bytes_up == 3 * (4 * (m * (m + 1) // 2 + 4 * m) + 8 * 4 + 8)
    assert progress.stated["bytes_up"] == 3 * (8 * (8 * 6 + 16 * 6 + 1024 + 1) + 8 * (3 * 20 + 1))
    assert progress.stated["origin"].startswith("random units of seed 0; ")
    assert progress.stated["origin"].endswith("over 3 clients")
    resumed = ExactProgress.load(tmp_path, exact_settings())
    assert resumed.statistics.digest() == whole.digest()
    assert resumed.contributed == ["a", "b", "c"]
    with pytest.raises(ValueError, match="holds a federation with hidden '20', got '21'"):
        ExactProgress.load(tmp_path, exact_settings(hidden="21"))
    with pytest.raises(ValueError, match="must hold estimator.safetensors beside exact.safetensors"):
        federate(grid, Plan(settings_of(structure="random"), tmp_path))
    model = glai.ExactClassifier.load(tmp_path)
    x, y = union(parties)
    assert (model.digest(), model.score(x, y)) == (whole.digest(), progress.rounds[0].accuracy)


def test_dropouts_are_asked_again_for_what_is_missing(parties, tmp_path):
    parties.append(Party("d", parties[0].x[:0], parties[0].y[:0]))
    grid = LocalGrid(parties)
    plan = Plan(exact_settings(rounds=1), tmp_path)
    answer = grid.answer

    def losing(message):
        lost = (
            message.metadata.message_type == "train.exact"
            and grid.parties[message.metadata.dst_node_id].name == "b"
        )
        return [] if lost else answer(message)

    grid.answer = losing
    first = federate(grid, plan)
    assert (first.contributed, first.rounds[0].dropped) == (["a", "c", "d"], ["b: no reply within 3600 s"])
    again = LocalGrid(parties)  # a restarted server, and other nodes
    second = federate(again, dataclasses.replace(plan, settings=exact_settings(rounds=3)))
    assert again.asked("exact") == ["b"]
    assert not again.asked("exact_moments")
    assert second.statistics.digest() == in_one_place(parties).digest()


def test_secure_aggregation_is_exact(parties):
    """Flower's SecAgg+ as it is: whole limbs, also where one drops out after the others have masked for it."""
    other = Party("d", parties[0].x * 1e20, parties[0].y)
    clear = federate(LocalGrid([*parties, other]), Plan(exact_settings()))
    settings = exact_settings(secure=True, secure_clip=3.0, rounds=2)
    grid = LocalGrid([*parties, other])
    masked = secured(grid, Plan(settings))
    assert masked.statistics.digest() == clear.statistics.digest()
    assert masked.statistics.digest() == in_one_place([*parties, other]).digest()
    assert not [reply for reply in grid.uploads if SUMS in reply.content.array_records]
    n_sums = 27 * 28 // 2 + 27 * 4 + 4 + 1
    assert (
        0 <= masked.rounds[0].bytes_up - 4 * 16 * n_sums < 4 * 1000
    )  # two halves, and what names their shapes
    federated = Plan(exact_settings(secure=True, structure="server", rounds=1), server_samples=union(parties))
    alone = federate(
        LocalGrid(parties), Plan(exact_settings(structure="server"), server_samples=union(parties))
    )
    grid = LocalGrid([*parties, other])
    grid.lost_at_upload = {"d"}
    left = secured(grid, federated)
    assert left.rounds[0].replied == 3
    assert left.statistics.digest() == alone.statistics.digest()


@pytest.mark.parametrize("structure", ["server", "clients"])
def test_trained_structures(parties, structure):
    settings = exact_settings(structure=structure, hidden="9,7")
    progress = federate(LocalGrid(parties), Plan(settings, server_samples=union(parties[:2])))
    assert [len(layer.weight) for layer in progress.features.layers] == [9, 7]
    x, y = union(parties)
    whole = glai.IntegerStatistics(progress.features, 4, ledger=False)
    whole.class_labels = [0, 1, 2, 3]
    whole.update(x, y)
    assert progress.statistics.digest() == whole.digest()


def test_labels_and_float64(parties):
    labels = ["ant", "bee", "cat", "dog"]
    named = [dataclasses.replace(p, x=p.x.double() + 1e-12, labels=labels) for p in parties]
    settings = exact_settings(class_labels='["ant", "bee", "cat", "dog", "eel"]', n_classes=5)
    progress = federate(LocalGrid(named), Plan(settings))
    x, y = union(parties)
    whole = glai.IntegerStatistics(glai.IntegerFeatures.fit(x, 20), 4)
    whole.class_labels = labels
    whole.update(x, y)
    assert progress.statistics.digest() == whole.digest()  # a class that nobody has is no part of it


def test_ledgers_name_samples_that_two_hold(parties):
    x = torch.cat([parties[2].x, parties[0].x[:3]])
    y = torch.cat([parties[2].y, parties[0].y[:3]])
    parties[2] = dataclasses.replace(parties[2], x=x, y=y)
    progress = federate(LocalGrid(parties), Plan(exact_settings(ledger=True)))
    (sentence,) = progress.rounds[0].shared
    assert sentence.startswith("a and c both hold 3 samples, hash ")
    whole = in_one_place(parties, ledger=True)
    assert (progress.statistics.ledger.hashes == whole.ledger.hashes).all()
    progress.statistics.downdate(parties[1].x, parties[1].y)
    with pytest.raises(ValueError, match="must be among those that were learnt"):
        progress.statistics.downdate(parties[1].x, parties[1].y)
    assert federate(LocalGrid(parties), Plan(exact_settings())).rounds[0].shared == []


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("gram", lambda t: t.double(), "gram must not be torch.float64"),
        ("cross", lambda t: -t, "cross must be >= 0"),
        ("counts", lambda t: t + 1, "must be those of N=50 samples, got others"),
        ("gram", lambda t: t[1:], r"gram must be \[378\], got \[377\]"),
    ],
)
def test_refused_sums(parties, name, change, sentence):
    def changed(reply):
        sums = from_arrays(reply.content.array_records[SUMS])
        if name in sums:
            sums[name] = change(sums[name])
        reply.content[SUMS] = to_arrays(sums)
        return reply

    grid = LocalGrid(parties)
    grid.change = {"b": changed}
    plan = Plan(exact_settings(structure="server", rounds=1), server_samples=union(parties))
    progress = federate(grid, plan)
    (dropped,) = progress.rounds[0].dropped
    assert sentence.replace("\\", "") in dropped
    assert progress.contributed == ["a", "c"]


def test_settings_that_do_not_fit():
    for change, sentence in (
        ({"components": 2}, "reads all features, unrotated"),
        ({"directions": True}, "'exact' has no paths, got directions"),
        ({"ledger": True, "secure": True}, "shows what secure hides, got secure"),
        ({"ledger": True, "method": "samples"}, "is of method 'exact', .* got method 'samples'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            exact_settings(**change)
