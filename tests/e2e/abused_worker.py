"""A worker in a process of its own, with a small dataset and tight limits; test_abuse.py talks to
it.

Prints its port, and serves until standard input ends.
"""

import sys

import torch

import syft as sy
from syft.limits import Limits
from syft.worker import leave_if_stuck
from tests.models import blobs, make_config

LIMITS = Limits(
    call_seconds=2,
    call_bytes=100_000_000,
    objects=40,
    object_bytes=50_000_000,
    sessions=8,
    connections=8,
    queued_calls=4,
)


def warm_up():
    """Have torch import what the first training of a process needs; that is no coordinator's
    time."""
    worker = sy.VirtualWorker(id="warm")
    worker.add_dataset(blobs(), "blobs")
    make_config().send(worker)
    worker.fit("blobs")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warm_up()
    settings = {"limits": LIMITS, "max_message_bytes": 2_000_000, "token": ""}
    server = sy.WebsocketServerWorker(None, "127.0.0.1", 0, id="alice", **settings)
    server.add_dataset(blobs(), "blobs")
    server.start(block=False)
    print(server.port, flush=True)
    sys.stdin.read()
    server.stop()
    leave_if_stuck(server)
