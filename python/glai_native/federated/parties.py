"""Who takes part: the nodes that are connected, asked for their name once."""

from __future__ import annotations

import time

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from glai_native.federated.messages import STATED

POLL_SECONDS = 0.1


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

    def online(self) -> dict[int, str]:
        """Node and name of every party that is connected; one node each.

        Raises:
            RuntimeError: fewer than ``at_least`` connect in time.
        """
        end = time.monotonic() + self._timeout
        while len(nodes := sorted(self._grid.get_node_ids())) < self._at_least:
            if time.monotonic() > end:
                raise RuntimeError(
                    f"federate: {self._at_least} clients must be connected, got {len(nodes)} in {self._timeout:g} s"
                )
            time.sleep(POLL_SECONDS)
        new = [node for node in nodes if node not in self._stated]
        hellos = [Message(RecordDict(), node, "query.hello") for node in new]
        for reply in self._grid.send_and_receive(hellos, timeout=self._timeout) if hellos else ():
            if not reply.has_error() and STATED in reply.content.config_records:
                stated = reply.content.config_records[STATED]
                names = str(stated.get("party", "")), str(stated.get("structure_id", ""))
                self._stated[reply.metadata.src_node_id] = names
        return {node: name for name, node in {self.name(n): n for n in nodes if n in self._stated}.items()}

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
