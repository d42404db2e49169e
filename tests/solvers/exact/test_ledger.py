"""Ledger: a sorted multiset, one whatever the order in which samples came and went."""

import random
from collections import Counter

import numpy as np
import pytest
import torch

from glai_native.solvers.exact.ledger import Ledger, hash_samples, read_ids

# The last byte of some is zero, which NumPy does not show.
HASHES = np.frombuffer(b"".join(bytes([i % 7, *[0] * 14, i % 3]) for i in range(21)), dtype="S16")


def entries(ledger):
    ids = [None] * len(ledger) if ledger.ids is None else ledger.ids.tolist()
    content = ledger.hashes.tobytes()
    return [(content[16 * i : 16 * i + 16], ids[i]) for i in range(len(ledger))]


@pytest.mark.parametrize("kind", [None, int, str])
def test_any_order_leaves_one_ledger(kind):
    rng, held, ledger = random.Random(0), Counter(), Ledger.empty()
    for step in range(300):
        if rng.random() < 0.6:
            rows = [rng.randrange(21) for _ in range(rng.randint(0, 5))]
        else:
            rows = [row for row, _ in rng.sample(list(held.elements()), min(len(held), rng.randint(0, 5)))]
        ids = None if kind is None else read_ids("test", [kind(rng.randrange(3)) for _ in rows], len(rows))
        pairs = Counter((row, None if ids is None else ids[i]) for i, row in enumerate(rows))
        if rng.random() < 0.6:
            ledger = ledger.with_samples(HASHES[rows], ids)
            held += pairs
        elif pairs <= held:
            ledger = ledger.without("test", HASHES[rows], ids, None)
            held -= pairs
        else:
            with pytest.raises(ValueError, match="not so often"):
                ledger.without("test", HASHES[rows], ids, torch.arange(len(rows)))
        found = sorted((HASHES[row : row + 1].tobytes(), one) for row, one in held.elements())
        if kind is None or step % 10 == 0:
            assert entries(ledger) == found or (not held and len(ledger) == 0)
    assert Counter(entries(ledger)) == Counter((HASHES[r : r + 1].tobytes(), i) for r, i in held.elements())


def test_hashes_tell_samples_and_targets_apart():
    inputs = torch.tensor([[1, 2, 3], [1, 2, 4], [1, 2, 3]], dtype=torch.uint8)
    one, other, third = hash_samples(inputs, [b"0", b"0", b"1"])
    assert len({one, other, third}) == 3
    assert hash_samples(inputs[:1], [b"0"]) == one


def test_some_samples_have_no_ids():
    ledger = Ledger.empty().with_samples(HASHES[:3], None)
    ledger = ledger.with_samples(HASHES[3:5], read_ids("test", [7, 8], 2))
    assert "id 7" in ledger.shown()
    assert "hash 00" in ledger.shown()
    with pytest.raises(ValueError, match=r"in row 0 \(id 9\)"):
        ledger.without("test", HASHES[3:4], read_ids("test", [9], 1), None)
    assert len(ledger.without("test", HASHES[3:4], read_ids("test", [7], 1), None)) == 4
    for bad, sentence in (
        (["a", 1], "ids must be all integers or all texts, got int in row 1"),
        ([1.5], "got float in row 0"),
        ([1, True], "got bool in row 1"),
        ([1, 2**70], "ids must fit in int64, got 1 to 1180591620717411303424"),
        (["a", ""], "ids must not be '', which stands for no id, got it in row 1"),
        (np.array([2**63], dtype=np.uint64), "ids must fit in int64"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read_ids("test", bad, len(bad))


def test_ids_of_any_holder_are_the_same():
    for ids in (
        [3, 4],
        (3, 4),
        range(3, 5),
        np.array([3, 4], dtype=np.uint8),
        torch.tensor([3, 4]),
        [np.int16(3), 4],
    ):
        assert read_ids("test", ids, 2).dtype == np.int64
        assert read_ids("test", ids, 2).tolist() == [3, 4]
    for texts in (["a", "b"], np.array(["a", "b"]), np.array(["a", "b"], dtype=object)):
        assert read_ids("test", texts, 2).tolist() == ["a", "b"]


def test_ids_are_compared_as_they_are_written():
    integers, texts = read_ids("test", [3, 4], 2), read_ids("test", ["003", "+4"], 2)
    ledger = Ledger.empty().with_samples(HASHES[[0, 1]], integers)
    assert ledger.ids.dtype == np.int64
    assert len(ledger.without("test", HASHES[[0]], read_ids("test", ["3"], 1), None)) == 1
    with pytest.raises(ValueError, match="in row 0 .id '003'."):
        ledger.without("test", HASHES[[0]], texts[:1], None)
    mixed = ledger.with_samples(HASHES[[0, 2]], None).with_samples(HASHES[[0, 1]], texts)
    assert [one for _, one in entries(mixed)] == ["", "003", "3", "+4", "4", ""]
    assert mixed.repeated() == (3, 0)
    left = mixed.without("test", HASHES[[0, 1]], integers, None)
    assert sorted(left.ids) == ["", "", "+4", "003"]
    assert sorted(ledger.united(left).ids) == ["", "", "+4", "003", "3", "4"]


def test_integers_of_before_are_any_text_that_was_read_as_one():
    ledger = Ledger(HASHES[:1], np.array([3]), as_integers=True)
    ledger = ledger.with_samples(HASHES[[0]], read_ids("test", ["003"], 1))
    assert ledger.repeated() == (1, 1)
    written, read = (read_ids("test", [one], 1) for one in ("003", " +3"))
    left = ledger.without("test", HASHES[[0]], written, None)
    assert left.ids.tolist() == ["3"]  # the other is that as it is written
    assert len(left.without("test", HASHES[[0]], read, None)) == 0
    for strange in ("3a", "1e3", "9" * 5000):
        with pytest.raises(ValueError, match="must be among those that were learnt"):
            left.without("test", HASHES[[0]], read_ids("test", [strange], 1), None)


def test_what_is_there_twice_is_counted():
    ids = read_ids("test", ["a", "b", "a"], 3)
    assert Ledger.empty().repeated() == (0, 0)
    ledger = Ledger.empty().with_samples(HASHES[[0, 1, 2]], ids)
    assert ledger.repeated() == (0, 1)
    assert ledger.with_samples(HASHES[[2, 3, 3]], None).repeated() == (2, 1)


def test_equal_samples_stay_in_order_where_their_ids_become_texts():
    equal, other = HASHES[[3, 3]], HASHES[[5]]
    later = Ledger.empty().with_samples(equal, np.array([3, 10])).with_samples(other, np.array(["q"], object))
    at_once = Ledger.empty().with_samples(equal, np.array(["3", "10"], object))
    at_once = at_once.with_samples(other, np.array(["q"], object))
    assert entries(later) == entries(at_once)
