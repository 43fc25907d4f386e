"""Workers: a proxy of a remote one, the remote one itself, and one in this process."""

from syft.generic.absent import names_of
from syft.workers import base, virtual, websocket_client, websocket_server
from syft.workers.base import BaseWorker
from syft.workers.virtual import VirtualWorker
from syft.workers.websocket_client import WebsocketClientWorker
from syft.workers.websocket_server import WebsocketServerWorker

__all__ = [
    "BaseWorker",
    "VirtualWorker",
    "WebsocketClientWorker",
    "WebsocketServerWorker",
    "base",
    "virtual",
    "websocket_client",
    "websocket_server",
]
__getattr__ = names_of(__name__)
