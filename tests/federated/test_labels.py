"""Parties agree on classes by label, whatever each of them holds and in whatever order."""

import json

import numpy as np
import pytest

pytest.importorskip("flwr")

from glai_native.federated.partition import load_party, numbered
from glai_native.federated.settings import FederationSettings, labels_of


def party(tmp_path, y):
    np.savez(tmp_path / "p.npz", x=np.ones((len(y), 2)), y=y)
    load_party.cache_clear()
    return load_party(tmp_path / "p.npz", "clinic")


def test_parties_are_numbered_by_label(tmp_path):
    cat_first = numbered(party(tmp_path, np.array(["cat", "eel", "cat"])), ["ant", "cat", "eel"])
    assert cat_first.y.tolist() == [1, 2, 1]
    assert numbered(party(tmp_path, np.array([10, 3, 3])), list(range(1, 11))).y.tolist() == [9, 2, 2]
    assert numbered(party(tmp_path, np.array([2, 0])), None).y.tolist() == [2, 0]
    assert numbered(party(tmp_path, np.array([True, True])), [False, True]).y.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("y", "labels", "message"),
    [
        (np.array(["cat", "cow"]), ["ant", "cat"], "among 'ant', 'cat', got 'cow' besides"),
        (np.array([1, 2]), ["ant", "cat"], "type str like the federation's .* got int"),
        (np.array(["1", "2"]), [1, 2], "type int like the federation's .* got str"),
        (np.array([True, False]), [0, 1], "type int like the federation's .* got bool"),
        (
            np.array(["cat", "cow"]),
            None,
            "be class indices, got labels of type str; class-labels of the run",
        ),
    ],
)
def test_a_party_with_other_labels_is_named(tmp_path, y, labels, message):
    with pytest.raises(ValueError, match=f"party clinic: y must .*{message}"):
        numbered(party(tmp_path, y), labels)


def test_settings_state_labels():
    settings = FederationSettings.from_config({"n-classes": 2, "class-labels": '["cat", "dog"]'})
    assert settings.labels == ["cat", "dog"]
    assert FederationSettings(n_classes=2).labels is None
    assert labels_of(json.dumps([1, 2])) == [1, 2]
    for text, message in (
        ('["cat"]', "must be of the 2 classes, got 1"),
        ('"cat"', "must be a JSON list"),
        ("cat, dog", "must be a JSON list"),
        ('["cat", 2]', "must be class labels of one type, got str and int"),
    ):
        with pytest.raises(ValueError, match=f"class-labels {message}"):
            FederationSettings(n_classes=2, class_labels=text)
