"""A proxy that is given an address instead of host and port.

Some PySyft 0.2 programs import this name.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from syft.objects import ObjectId
from syft.workers.websocket_client import WebsocketClientWorker


class NodeClient(WebsocketClientWorker):
    """A proxy of a `WebsocketServerWorker` at an address such as "ws://192.0.2.11:8777".

    PyGrid's nodes are not meant.

    Args:
        hook: the TorchHook.
        address: the worker's address; wss:// means TLS.
        id: the id that the worker has for this program.
        **kwargs: as for WebsocketClientWorker.

    Raises:
        ValueError: the address has no host, or no port.
    """

    def __init__(self, hook: Any, address: str, id: ObjectId = 0, **kwargs: Any) -> None:
        url = urlsplit(address)
        if url.scheme not in ("ws", "wss") or not url.hostname or url.port is None:
            raise ValueError(
                f"not a worker's address: {address!r}; expected ws://HOST:PORT or wss://HOST:PORT."
            )
        super().__init__(hook, url.hostname, url.port, secure=url.scheme == "wss", id=id, **kwargs)
