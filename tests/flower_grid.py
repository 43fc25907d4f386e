"""A grid of Flower in this process: its nodes run a ClientApp when a message is sent to them."""

import uuid
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

Change = Callable[[str, Message], Message | None]


class LocalGrid(Grid):
    """Nodes of random numbers that answer one after the other, the last one first.

    Args:
        app: what each node runs.
        names: the names of the clients; None: the app names them.
        run_config: the settings of the run, as the engine hands them to each node.
        change: what becomes of a client's reply to "train", given its name; None: no reply.
    """

    def __init__(
        self,
        app: ClientApp,
        count: int,
        names: list[str] | None = None,
        run_config: dict[str, Any] | None = None,
        change: Change = lambda _, reply: reply,
    ) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self._app, self._change, self._run_config = app, change, run_config or {}
        self.nodes: dict[int, dict[str, Any]] = {}
        for number in range(count):
            name = {"name": names[number]} if names else {}
            self.nodes[uuid.uuid4().int >> 66] = {
                "partition-id": number,
                "num-partitions": count,
                **name,
            }
        self.asked: list[list[int]] = []

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        messages = list(messages)
        if messages and messages[0].metadata.message_type == "train":
            nodes = [self.nodes[message.metadata.dst_node_id] for message in messages]
            self.asked.append([node["partition-id"] for node in nodes])
        replies = [self._reply(message) for message in reversed(messages)]
        return [reply for reply in replies if reply is not None]

    def _reply(self, message: Message) -> Message | None:
        message.metadata.__dict__["_message_id"] = uuid.uuid4().hex
        config = self.nodes[message.metadata.dst_node_id]
        context = Context(1, message.metadata.dst_node_id, config, RecordDict(), self._run_config)
        try:
            reply = self._app(message, context)
        except Exception as error:
            reply = Message(Error(2, f"{type(error)}:<'{error}'>"), reply_to=message)
        if message.metadata.message_type != "train":
            return reply
        name = config.get("name", f"client-{config['partition-id']}")
        return self._change(name, reply)

    def _unused(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    set_run = create_message = push_messages = pull_messages = _unused
    run = property(_unused)
