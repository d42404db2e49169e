"""Who takes part: the nodes that are connected, asked for their name once."""

from __future__ import annotations

import time

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from glai_native.federated.messages import STATED
from glai_native.federated.rounds import reason_of

POLL_SECONDS = 0.1
AGAIN_SECONDS = 30.0  # for nodes of one name to say that they are there


class Parties:
    """Names and structures of the connected nodes.

    A node's id changes when it reconnects, a party's name does not: what a party has contributed is kept by name.

    Args:
        grid: Flower's connection to the nodes.
        at_least: so many nodes to wait for.
        timeout: seconds to wait for them, and for their replies.
    """

    def __init__(self, grid: Grid, at_least: int, timeout: float) -> None:
        self._grid, self._at_least, self._timeout = grid, at_least, timeout
        self._stated: dict[int, tuple[str, str]] = {}
        self.refused: dict[int, str] = {}  # why a node's party is not known

    def online(self) -> dict[int, str]:
        """Node and name of every party that is connected; one node each.

        Raises:
            RuntimeError: fewer than ``at_least`` connect in time, or none of them says who it is.
            ValueError: two nodes have one party's name.
        """
        end = time.monotonic() + self._timeout
        while len(nodes := sorted(self._grid.get_node_ids())) < self._at_least:
            if time.monotonic() > end:
                raise RuntimeError(
                    f"federate: {self._at_least} clients must be connected, got {len(nodes)} in {self._timeout:g} s"
                )
            time.sleep(POLL_SECONDS)
        self._greet([node for node in nodes if node not in self._stated], self._timeout)
        by_name: dict[str, list[int]] = {}
        for node in nodes:
            if node in self._stated:
                by_name.setdefault(self.name(node), []).append(node)
        self._require_one_node_each(by_name)
        if not any(by_name.values()):
            reasons = "; ".join(
                f"node {node}: {self.refused[node]}" for node in nodes if node in self.refused
            )
            raise RuntimeError(
                f"federate: none of {len(nodes)} clients said who it is ({reasons or 'no reply'})"
            )
        return {node: name for name, holders in by_name.items() for node in holders}

    def _greet(self, nodes: list[int], timeout: float) -> None:
        """Ask nodes who they are; who does not say so is not of those any more that have stated it."""
        for node in nodes:
            self._stated.pop(node, None)
            self.refused.pop(node, None)
        hellos = [Message(RecordDict(), node, "query.hello") for node in nodes]
        for reply in self._grid.send_and_receive(hellos, timeout=timeout) if hellos else ():
            node = reply.metadata.src_node_id
            if reply.has_error():
                self.refused[node] = reason_of(reply)
            elif STATED not in reply.content.config_records:
                self.refused[node] = "federate: the reply to hello must state a party"
            else:
                stated = reply.content.config_records[STATED]
                self._stated[node] = str(stated.get("party", "")), str(stated.get("structure_id", ""))

    def _require_one_node_each(self, by_name: dict[str, list[int]]) -> None:
        """Raise where two nodes answer to one name; a party that reconnects leaves a node behind that does not."""
        for name, holders in by_name.items():
            if len(holders) > 1:
                self._greet(holders, min(self._timeout, AGAIN_SECONDS))
                holders[:] = [node for node in holders if node in self._stated]
            if len(holders) > 1:
                both = " and ".join(map(str, holders))
                raise ValueError(
                    f"federate: each party must have a name of its own, got {name!r} from nodes {both}: samples would "
                    "be left out or counted twice; change party= in the config of one"
                )

    def name(self, node: int) -> str:
        """Of the party at a node."""
        return self._stated[node][0]

    def holds(self, node: int, structure_id: str) -> bool:
        """Whether the party at a node has the structure."""
        return self._stated[node][1] == structure_id

    def given(self, node: int, structure_id: str) -> None:
        """The party at a node has stated, with a reply, that it has the structure."""
        self._stated[node] = self.name(node), structure_id

    def forget(self, node: int) -> None:
        """The node did not do what it was asked: it is asked anew who it is and what it holds."""
        self._stated.pop(node, None)
