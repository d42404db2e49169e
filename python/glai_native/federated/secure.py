"""Secure aggregation: Flower's SecAgg+ over the sums that parties send, so that the server sees their total alone.

Flower 1.41 has the protocol for its older strategies only. :class:`SecureGrid` runs it, unchanged, for every message
that asks parties for sums: what comes back is who took part, and one total.

SecAgg+ adds integers: each value, clipped to ±clip, is rounded at random to one of 2^22 levels. Each party so adds an
error of up to ``clip / 2^21`` to each sum: the result is no longer exact. Counts are sent as multiples of that step and
add up exactly. **Integer sums add up exactly too** (:data:`EXACT_ACTIONS`): each goes as two halves of 20 bits, with a
step of 1; a total of 1,023 parties is below 2^30. Who took part, under which name, and the names and shapes of what was
sent stay visible, and a single party's sums cannot be checked before they are added.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import (
    Code,
    FitIns,
    FitRes,
    Parameters,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS
from flwr.common.secure_aggregation.secaggplus_constants import Key as SecureKey
from flwr.compat.common.recorddict_compat import fitres_to_recorddict
from flwr.server.compat import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key
from flwr.serverapp import Grid
from torch import Tensor

from glai_native.federated.messages import CONFIG, MASKED_BYTES, STATED, SUMS, from_arrays, to_arrays

ACTION, CLIP = "secure_action", "secure_clip"
# Of a party's key shares, how many reveal its mask when it drops out.
THRESHOLD = 0.5
# 2^22 levels each, half of them above zero, added modulo 2^32.
MOST_PARTIES, LEVELS = 1023, 1 << 21
# What is asked for in integers below 2^40, sent as two halves.
EXACT_ACTIONS = ("exact_moments", "units", "exact")
HALF_BITS = 20
HALVES = "halves"

Answer = Callable[[Message, Context], Message]


def masked(message: Message, context: Context, answer: Answer) -> Message:
    """A client's mod: Flower's SecAgg+ where the server runs it, nothing otherwise."""
    if RECORD_KEY_CONFIGS in message.content.config_records:
        return secaggplus_mod(message, context, answer)
    return answer(message, context)


def as_fit_result(reply: Message, action: str, clip: float) -> Message:
    """A reply of sums in the form that SecAgg+ masks; what it states stays in the clear.

    Raises:
        ValueError: a value would be clipped.
    """
    tensors = from_arrays(reply.content.array_records[SUMS])
    exact = action in EXACT_ACTIONS
    sums = _halves(tensors) if exact else _steps(tensors, clip)
    layout = json.dumps(
        [[name, HALVES if exact else str(t.dtype), list(t.shape)] for name, t in tensors.items()]
    )
    stated = reply.content.config_records.get(STATED, {})
    metrics = {"layout": layout, "structure_id": str(stated.get("structure_id", ""))}
    arrays = ndarrays_to_parameters([t.reshape(-1).numpy() for t in sums.values()])
    content = fitres_to_recorddict(FitRes(Status(Code.OK, ""), arrays, 1, metrics), keep_input=False)
    return Message(content, reply_to=reply)


def _halves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Integers as two numbers below 2^20 each, which SecAgg+ adds up as they are."""
    for name, t in tensors.items():
        if t.numel() and not 0 <= int(t.min()) <= int(t.max()) < 1 << 2 * HALF_BITS:
            raise ValueError(
                f"federate: {name} must be in [0, 2^{2 * HALF_BITS}) for exact secure aggregation, got up to "
                f"{int(t.max()):,}; split the party's samples among several"
            )
    mask = (1 << HALF_BITS) - 1
    return {
        name: torch.stack([t.long() & mask, t.long() >> HALF_BITS]).double() for name, t in tensors.items()
    }


def _steps(tensors: Mapping[str, Tensor], clip: float) -> dict[str, Tensor]:
    """Floats as they are, and counts as so many steps."""
    sums = {
        name: t.double() if t.is_floating_point() else t.double() * (clip / LEVELS)
        for name, t in tensors.items()
    }
    if any(not t.is_floating_point() and bool((t > LEVELS).any()) for t in tensors.values()):
        raise ValueError(f"federate: secure aggregation counts up to {LEVELS:,} samples of a party, got more")
    largest = max((float(t.abs().max()) for t in sums.values() if t.numel()), default=0.0)
    if not largest <= clip:
        raise ValueError(
            f"federate: sums must be within ±{clip:g} for secure aggregation, got {largest:.3g}; raise secure-clip"
        )
    return sums


class SecureGrid:
    """A grid whose replies to ``train.*`` messages hold no party's sums: the first carries the total, the others zeros.

    Args:
        grid: Flower's.
        context: of the server's run.
        clip: of each value that a party sends.
    """

    def __init__(self, grid: Grid, context: Context, clip: float) -> None:
        self._grid, self._context, self._clip = grid, context, clip

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """As :meth:`Grid.send_and_receive`."""
        messages = list(messages)
        if not messages or not messages[0].metadata.message_type.startswith("train."):
            return self._grid.send_and_receive(messages, timeout=timeout)
        if len(messages) < 2:
            reason = "federate: secure aggregation needs 2 clients in a round at least, one alone has nobody to hide in"
            return [Message(Error(code=0, reason=reason), reply_to=message) for message in messages]
        if len(messages) > MOST_PARTIES:
            raise ValueError(
                f"federate: secure aggregation adds up {MOST_PARTIES} clients in a round at most, got {len(messages)}; "
                "lower fraction"
            )
        exact = _action(messages[0]) in EXACT_ACTIONS
        clip = float(LEVELS) if exact else self._clip  # a step of 1
        contents = {message.metadata.dst_node_id: _secured(message, clip) for message in messages}
        sums = _SecureSum(contents, clip / LEVELS)
        context = LegacyContext(self._context, strategy=sums)
        context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: 1})
        context.state.array_records[MAIN_PARAMS_RECORD] = ArrayRecord()
        heard = _Listener(self._grid)
        _Workflow(sums, clip, timeout)(heard, context)
        return [
            reply
            for message in messages
            for reply in sums.replies(message, heard.bytes) or heard.errors(message)
        ]


def _action(message: Message) -> str:
    return message.metadata.message_type.removeprefix("train.")


def _secured(message: Message, clip: float) -> RecordDict:
    content = RecordDict(dict(message.content))
    config = dict(message.content.config_records[CONFIG])
    content[CONFIG] = ConfigRecord(config | {ACTION: _action(message), CLIP: clip})
    return content


class _Listener:
    """A grid that remembers which errors came back, whose reasons the workflow does not keep, and how many bytes."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._errors: dict[int, Error] = {}
        self.bytes: dict[int, int] = {}  # of masked sums, by node

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        replies = list(self._grid.send_and_receive(messages, timeout=timeout))
        self._errors |= {reply.metadata.src_node_id: reply.error for reply in replies if reply.has_error()}
        for reply in replies:
            if not reply.has_error() and RECORD_KEY_CONFIGS in reply.content.config_records:
                vectors = reply.content.config_records[RECORD_KEY_CONFIGS].get(SecureKey.MASKED_PARAMETERS)
                if isinstance(vectors, list):
                    n_bytes = sum(len(vector) for vector in vectors if isinstance(vector, bytes))
                    self.bytes[reply.metadata.src_node_id] = n_bytes
        return replies

    def errors(self, message: Message) -> list[Message]:
        """The error of a message's node, or none."""
        error = self._errors.get(message.metadata.dst_node_id)
        return [] if error is None else [Message(error, reply_to=message)]


class _SecureSum:
    """What the workflow takes for a strategy: whom to ask, and where the average goes."""

    def __init__(self, contents: dict[int, RecordDict], step: float) -> None:
        self.contents, self._step = contents, step
        self._stated: dict[int, Mapping[str, Any]] = {}
        self._total: list[np.ndarray[Any, Any]] = []

    def configure_fit(self, *_: Any) -> list[tuple[Any, FitIns]]:
        nodes = [SimpleNamespace(node_id=node) for node in self.contents]
        return [(node, FitIns(Parameters([], ""), {})) for node in nodes]

    def aggregate_fit(
        self, _: int, results: list[tuple[Any, FitRes]], failures: list[Any]
    ) -> tuple[None, Any]:
        self._stated = {node.node_id: result.metrics for node, result in results}
        average = parameters_to_ndarrays(results[0][1].parameters)  # each party weighs 1
        self._total = [array * len(results) for array in average]
        return None, {}

    def replies(self, message: Message, n_bytes: Mapping[int, int]) -> list[Message]:
        """What the node of a message has to say: the total, zeros, or nothing where it dropped out."""
        node = message.metadata.dst_node_id
        if node not in self._stated:
            return []
        stated = self._stated[node]
        first = node == next(iter(self._stated))
        tensors: dict[str, Tensor] = {}
        for (name, kind, shape), array in zip(json.loads(str(stated["layout"])), self._total, strict=True):
            values = torch.from_numpy(array if first else np.zeros_like(array))
            tensors[name] = _total(values, kind, shape, self._step)
        told = {"structure_id": stated["structure_id"], MASKED_BYTES: n_bytes.get(node, 0)}
        records = {SUMS: to_arrays(tensors), STATED: ConfigRecord(told)}
        return [Message(RecordDict(records), reply_to=message)]


def _total(values: Tensor, kind: str, shape: list[int], step: float) -> Tensor:
    """What a total stands for."""
    if kind == HALVES:
        low, high = values.round().long().reshape(2, *shape)
        return low + (high << HALF_BITS)
    if kind == "torch.int64":
        return (values / step).round().clamp(min=0).long().reshape(shape)
    return values.reshape(shape)


class _Workflow(SecAggPlusWorkflow):
    """Flower's SecAgg+, asking for our sums."""

    def __init__(self, sums: _SecureSum, clip: float, timeout: float | None) -> None:
        super().__init__(1.0, THRESHOLD, max_weight=1.0, clipping_range=clip, timeout=timeout)
        self._sums = sums

    def setup_stage(self, grid: Grid, context: LegacyContext, state: Any) -> bool:
        going = super().setup_stage(grid, context, state)
        state.nid_to_fitins = self._sums.contents
        return going
