"""A worker in a process of its own, with a small dataset and tight limits; test_abuse.py talks to it.

Prints its port, and serves until standard input ends.
"""

import sys

import torch

import syft as sy
from syft.limits import Limits
from tests.models import blobs

LIMITS = Limits(call_seconds=2, objects=40, object_bytes=50_000_000, sessions=8, connections=8, queued_calls=4)

if __name__ == "__main__":
    torch.set_num_threads(1)
    server = sy.WebsocketServerWorker(None, "127.0.0.1", 0, id="alice", limits=LIMITS, max_message_bytes=2_000_000)
    server.add_dataset(blobs(), "blobs")
    server.start(block=False)
    print(server.port, flush=True)
    sys.stdin.read()
    server.stop()
