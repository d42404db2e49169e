"""What is kept of a round, and who is asked in it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from flwr.app import Message

from glai_native.federated.messages import payload_bytes

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class FederatedRound:
    """What one round did.

    Attributes:
        round: 1 for the first.
        asked: how many parties were.
        replied: how many replies were added up.
        samples: of those parties.
        bytes_down: arrays and files sent to parties.
        bytes_up: arrays and files that came back.
        accuracy: on the server's test samples; None where it has none.
        dropped: why replies are missing, one sentence each.
        shared: which parties hold the same samples, where their ledgers tell, one sentence each.
    """

    round: int
    asked: int
    replied: int
    samples: int
    bytes_down: int
    bytes_up: int
    accuracy: float | None = None
    dropped: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)


def choose(names: Iterable[str], share: float, of: int, seed: int, number: int) -> set[str]:
    """``share`` of ``of`` parties, at least one, drawn from those named; equal seeds draw alike."""
    candidates = sorted(names)
    count = min(len(candidates), max(1, round(share * of)))
    if not count:
        return set()
    drawn = np.random.default_rng([seed, number]).choice(len(candidates), count, replace=False)
    return {candidates[i] for i in drawn}


def reason_of(reply: Message) -> str:
    """Why a reply is an error, in a sentence: the last line of what the engine says, which names the exception."""
    text = ANSI.sub("", reply.error.reason or "")
    lines = [line.strip(" '\"<>") for line in text.splitlines()]
    last = next((line for line in reversed(lines) if line), "no reason given")
    return last[max(0, last.find("federate: ")) :]


def sent_bytes(messages: Iterable[Message]) -> int:
    """Of messages: what :func:`payload_bytes` counts; an error has none."""
    return sum(payload_bytes(message.content) for message in messages if not message.has_error())
