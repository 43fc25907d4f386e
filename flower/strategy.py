"""Flower's strategies, with the checks and the exact average of this project around them.

    Strategy.start (flwr)                  here
    -------------------------------------  -------------------------------------------------------
    configure_train: whom to ask           wait for clients, with a limit; learn who they are; draw
                                           this round's by the seed; let Flower's strategy prepare
                                           their messages; give each its own seed
    send_and_receive                       (Flower's)
    aggregate_train: the next model        check each reply as a websocket worker's; average them;
                                           give Flower's strategy the average as one reply
    evaluate_fn                            evaluate it, and report the round

Three things of Flower's own would spoil what this project promises. Its mean sums float32 numbers
in the order of arrival; here the sum is that of `federated_avg`, in the order of the clients. It
takes values that are not finite, and broadcasts other shapes; here both count as that client's
failure. And it waits for clients without a limit.

A node of the engine has a random number. Clients have names, and numbers from 0 on: each node is
asked for them once, by a query. So the same seed draws the same clients in every run.
"""

from __future__ import annotations

import inspect
import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import flwr.serverapp.strategy as strategies
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import nn

from settings import MEANS, Settings, SettingsError
from syft.exceptions import InvalidReply, QuorumNotReached
from syft.federated.rounds import RoundResult, one_line
from syft.frameworks.torch.fl.utils import federated_avg
from syft.graph.returned import state_of, with_state

logger = logging.getLogger("flwr")

POLL_SECONDS = 0.5
"""How often the engine is asked which nodes are connected."""
_OURS = {"fraction_train", "fraction_evaluate", "min_train_nodes", "min_available_nodes"}


@dataclass(frozen=True, order=True)
class Known:
    """A client: its number from 0 on, its name, and the engine's number of its node."""

    number: int
    name: str
    node_id: int


class CheckedStrategy(Strategy):
    """One of Flower's strategies, checked.

    Args:
        settings: the settings of the run; they name the strategy.
        model: the model to begin with. Not modified.
        generator: what the seeds of the clients are drawn from.
        report: called with each round's number, its RoundResult and its model.

    Raises:
        SettingsError: the strategy does not take the arguments that the settings name.
    """

    def __init__(
        self,
        settings: Settings,
        model: nn.Module,
        generator: torch.Generator,
        report: Callable[[int, RoundResult, nn.Module], None],
    ) -> None:
        self._settings, self._generator, self._report = settings, generator, report
        self.model = model
        self._strategy = _strategy_of(settings)
        self._clients: dict[int, Known] = {}
        self._left_out: set[int] = set()
        self._messages: list[tuple[Known, Message]] = []
        self._absent: list[str] = []
        self._lr, self._started = settings.lr, 0.0

    def summary(self) -> None:
        """Log what the strategy is set to."""
        self._strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the messages to this round's clients, in the order of their numbers."""
        self._started = time.monotonic()
        clients = self._draw(server_round, self._connected(server_round, grid))
        chosen = _Chosen([client.node_id for client in clients])
        config["lr"] = self._lr
        prepared = {
            message.metadata.dst_node_id: message
            for message in self._strategy.configure_train(server_round, arrays, config, chosen)
        }
        self._messages = [
            (client, self._addressed(client, prepared[client.node_id], server_round))
            for client in clients
        ]
        self._lr = max(0.98 * self._lr, 0.01 * self._settings.lr)
        return [message for _, message in self._messages]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the next model's arrays, and the mean loss.

        Raises:
            QuorumNotReached: fewer clients than `min_models` returned a model.
        """
        result, counts, usable = self._checked(replies)
        if len(result.models) < self._settings.min_models:
            failures = {str(name): reason for name, reason in result.failures.items()}
            raise QuorumNotReached(len(result.models), self._settings.min_models, failures)
        if self._settings.strategy in MEANS:
            weights = counts if self._settings.weights == "samples" else None
            average = federated_avg(result.models, weights)
            usable = [_with_content(usable[0], state_of(average), sum(counts.values()))]
        arrays, metrics = self._strategy.aggregate_train(server_round, usable)
        assert arrays is not None  # there is a model
        state = _like(arrays.to_torch_state_dict(), state_of(self.model))
        self.model = with_state(self.model, state, f"strategy {self._settings.strategy}")
        self._report(server_round, result, self.model)
        return ArrayRecord(state), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return no messages: the server evaluates."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return nothing."""
        return None

    def _connected(self, server_round: int, grid: Grid) -> list[Known]:
        """Return the clients that are connected, once there are enough of them.

        The first round waits for all clients of the run, later ones for as many as a round needs.
        """
        settings = self._settings
        needed = settings.clients if server_round == 1 else settings.min_models
        deadline, told = time.monotonic() + settings.wait_seconds, False
        while True:
            nodes = set(grid.get_node_ids())
            self._introduce(nodes, grid)
            clients = sorted(self._clients[node] for node in nodes & self._clients.keys())
            if len(clients) >= needed:
                break
            if time.monotonic() >= deadline:
                logger.warning("Going on with %s of %s clients", len(clients), needed)
                break
            if not told:
                logger.info(
                    "Waiting up to %g s for clients: %s of %s are connected",
                    settings.wait_seconds,
                    len(clients),
                    needed,
                )
                told = True
            time.sleep(POLL_SECONDS)
        if len(clients) < settings.min_models:
            missing = {"others": f"not connected within {settings.wait_seconds:g} s"}
            raise QuorumNotReached(len(clients), settings.min_models, missing)
        return clients

    def _introduce(self, nodes: set[int], grid: Grid) -> None:
        """Ask those of the connected nodes that are not known who they are."""
        unknown = sorted(nodes - self._clients.keys())
        if not unknown:
            return
        seconds = min(self._settings.wait_seconds, self._settings.round_seconds)
        messages = [
            Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY, ttl=seconds)
            for node in unknown
        ]
        replies = grid.send_and_receive(messages, timeout=seconds)
        asked = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
        answers = {reply.metadata.reply_to_message_id: reply for reply in replies}
        for node, reply in [(asked[key], answers[key]) for key in asked if key in answers]:
            try:
                client = self._introduced(node, reply, nodes)
            except _Failed as reason:
                if node not in self._left_out:
                    logger.warning("A node is left out: %s", one_line(str(reason)))
                self._left_out.add(node)
                continue
            # A SuperNode that was started again may be another node, and then replaces the first.
            for known in list(self._clients.values()):
                if client.number == known.number or client.name == known.name:
                    del self._clients[known.node_id]
            self._clients[node] = client

    def _introduced(self, node: int, reply: Message, connected: set[int]) -> Known:
        """Return who a node says it is.

        Raises:
            _Failed: it cannot be a client of this run.
        """
        if reply.has_error():
            raise _Failed(reply.error.reason)
        try:
            told = reply.content["client"]
            number, parts = int(told["number"]), int(told["parts"])
            client = Known(number, one_line(str(told["name"])), node)
        except (KeyError, TypeError, ValueError):
            raise _Failed("it does not say who it is") from None
        if not 0 <= number < parts == self._settings.clients:
            raise _Failed(
                f"{client.name} is number {number} of {parts}; the run has "
                f"{self._settings.clients} clients. Start its SuperNode with partition-id and "
                "num-partitions of this run, or set clients for the run"
            )
        for known in self._clients.values():
            if known.node_id in connected and (
                client.number == known.number or client.name == known.name
            ):
                raise _Failed(
                    f"{client.name}, number {number}, is connected as {known.name}, number "
                    f"{known.number}, already; give each SuperNode a partition-id and a name of "
                    "its own"
                )
        return client

    def _draw(self, server_round: int, connected: list[Known]) -> list[Known]:
        """Return this round's clients, in the order of their numbers."""
        settings = self._settings
        online = {client.number for client in connected}
        if settings.sampled >= settings.clients:  # all of them: who is away has failed
            absent = [each for each in self._clients.values() if each.number not in online]
            self._absent = [each.name for each in sorted(absent)]
            return connected
        drawn = random.Random(f"{settings.seed} {server_round}").sample(
            range(settings.clients), settings.clients
        )
        numbers = [number for number in drawn if number in online][: settings.sampled]
        return [client for client in connected if client.number in numbers]

    def _addressed(self, client: Known, prepared: Message, server_round: int) -> Message:
        """Return a prepared message as one to this client, with a seed of its own."""
        seed = int(torch.randint(2**62, (), generator=self._generator))
        content = RecordDict(
            {
                "arrays": prepared.content["arrays"],
                "config": ConfigRecord({**prepared.content["config"], "seed": seed}),
            }
        )
        return Message(
            content,
            dst_node_id=client.node_id,
            message_type=MessageType.TRAIN,
            ttl=self._settings.round_seconds,
            group_id=str(server_round),
        )

    def _checked(
        self, replies: Iterable[Message]
    ) -> tuple[RoundResult, dict[str, float], list[Message]]:
        """Return the round's outcome, the samples of each client, and the replies that hold models.

        Each is in the order of the clients.
        """
        answers = {reply.metadata.reply_to_message_id: reply for reply in replies}
        result = RoundResult({}, {}, dict.fromkeys(self._absent, "not connected"), 0.0)
        counts: dict[str, float] = {}
        usable = []
        for client, message in self._messages:
            reply = answers.get(message.metadata.message_id)
            try:
                model, count, loss = self._content(client.name, reply)
            except _Failed as reason:
                result.failures[client.name] = one_line(str(reason))
                continue
            result.models[client.name], result.losses[client.name] = model, loss
            counts[client.name] = count
            assert reply is not None
            usable.append(_with_content(reply, state_of(model), count))
        result.seconds = time.monotonic() - self._started
        return result, counts, usable

    def _content(self, name: str, reply: Message | None) -> tuple[nn.Module, float, float]:
        """Return a client's model, its number of samples and its loss.

        Raises:
            _Failed: there is no reply, or it is not one that can be used; with the reason.
        """
        if reply is None:
            raise _Failed(f"timeout after {self._settings.round_seconds:g} s")
        if reply.has_error():
            raise _Failed(f"failed: {reply.error.reason}")
        try:
            state = dict(reply.content["arrays"].to_torch_state_dict())
            metrics = reply.content["metrics"]
            count, loss = float(metrics["num-examples"]), float(metrics["loss"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _Failed(f"failed: InvalidReply: {type(error).__name__}: {error}") from None
        try:
            model = with_state(self.model, state, name)
            if not 1 <= count <= 2**53:
                raise InvalidReply(name, "num-examples", str(count), "a count of at least 1")
        except InvalidReply as error:
            raise _Failed(f"failed: InvalidReply: {error}") from None
        return model, count, loss


class _Failed(Exception):
    """A client's part in a round is lost; the text says why."""


class _Chosen(Grid):
    """A grid of the clients that were drawn: all that Flower's strategy sees of the engine's."""

    def __init__(self, node_ids: list[int]) -> None:
        self._node_ids = node_ids

    def get_node_ids(self) -> Iterable[int]:
        """Return the engine's numbers of the nodes."""
        return self._node_ids

    def _not_ours(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("a strategy prepares messages; the engine sends them")

    set_run = create_message = push_messages = pull_messages = send_and_receive = _not_ours
    run = property(_not_ours)


def _strategy_of(settings: Settings) -> Strategy:
    """Return Flower's strategy, which takes part with all nodes that it sees."""
    cls = getattr(strategies, settings.strategy)
    known = set(inspect.signature(cls).parameters) - _OURS
    numbers = sorted(name for name in known if _is_number(cls, name))
    arguments = settings.arguments()
    if unknown := sorted(arguments.keys() - set(numbers)):
        expected = ", ".join(numbers) or "none"
        raise SettingsError(
            f"{settings.strategy} has no argument {unknown[0]!r}; expected: {expected} "
            "(strategy-arguments)."
        )
    return cls(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=1,
        min_available_nodes=1,
        **arguments,
    )


def _is_number(cls: type, name: str) -> bool:
    default = inspect.signature(cls).parameters[name].default
    return isinstance(default, (int, float)) and not name.startswith("min_")


def _with_content(reply: Message, state: dict[str, torch.Tensor], count: float) -> Message:
    """Return a reply that holds these parameters, from the same client."""
    reply.content = RecordDict(
        {"arrays": ArrayRecord(state), "metrics": MetricRecord({"num-examples": count})}
    )
    return reply


def _like(
    state: dict[str, torch.Tensor], model: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return tensors in the dtypes that the model has; some strategies compute in float64."""
    return {name: tensor.to(model[name].dtype) for name, tensor in state.items()}
