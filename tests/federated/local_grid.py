"""A federation in one process: Flower's messages without its engine, and what its result is held to."""

import copy
import itertools

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid

import glai_native as glai
from glai_native.federated.client import client_app
from glai_native.federated.settings import FederationSettings

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
