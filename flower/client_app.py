"""The ClientApp: a client of the federation, on a SuperNode or simulated.

    message   reply
    --------  ---------------------------------------------------------------------------
    query     who this is: its name, the number of its part of the images, of how many
    train     the trained parameters, the loss on the last batch, the number of images held

On a SuperNode each message starts a process. torch is imported by those that train alone.
"""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from settings import Settings

app = ClientApp()


@app.query()
def introduce(message: Message, context: Context) -> Message:
    """Say who this is."""
    name, number, parts = _identity(context, Settings.of(context.run_config))
    record = ConfigRecord({"name": name, "number": number, "parts": parts})
    return Message(RecordDict({"client": record}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model that a message brings on this client's images."""
    import torch

    import task

    torch.set_num_threads(1)
    settings = Settings.of(context.run_config)
    name, number, parts = _identity(context, settings)
    dataset = task.part_of(settings, number, parts)
    state, loss = task.train(
        name,
        dataset,
        message.content["arrays"].to_torch_state_dict(),
        settings,
        dict(message.content["config"]),
    )
    metrics = MetricRecord({"num-examples": len(dataset), "loss": loss})
    content = RecordDict({"arrays": ArrayRecord(state), "metrics": metrics})
    return Message(content, reply_to=message)


def _identity(context: Context, settings: Settings) -> tuple[str, int, int]:
    """Return the client's name, its number from 0 on, and the number of clients.

    A SuperNode is told them by --node-config; the simulation numbers its clients.
    """
    number, parts = (int(context.node_config[key]) for key in ("partition-id", "num-partitions"))
    return str(context.node_config.get("name", settings.name_of(number))), number, parts
