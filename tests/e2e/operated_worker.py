"""A worker in a process of its own that carries out operations, with tight limits;
test_remote_attacks.py talks to it.

It offers the tensor "#offered", and keeps the private one "#secret" to itself. Prints its port, and
serves until standard input ends.
"""

import sys

import torch

import syft as sy
from syft.limits import Limits
from syft.worker import leave_if_stuck

LIMITS = Limits(
    call_seconds=3,
    call_bytes=100_000_000,
    objects=200,
    all_objects=2000,
    object_bytes=50_000_000,
    graph_bytes=20_000_000,
    graph_operations=5000,
    sessions=8,
    connections=8,
)
OFFERED = (1.0, 2.0, 3.0)
SECRET = 7777.5


if __name__ == "__main__":
    torch.set_num_threads(1)
    sy.TorchHook(torch)
    secret = torch.full((3,), SECRET).tag("#secret")
    secret.private = True
    server = sy.WebsocketServerWorker(
        None,
        "127.0.0.1",
        0,
        id="bob",
        data=[torch.tensor(OFFERED).tag("#offered"), secret],
        token="",
        limits=LIMITS,
        max_message_bytes=4_000_000,
    )
    server.start(block=False)
    print(server.port, secret.id, flush=True)
    sys.stdin.read()
    server.stop()
    leave_if_stuck(server)
