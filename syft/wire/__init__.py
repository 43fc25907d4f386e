"""Messages to bytes and back; see messages.py for the layout."""

from syft.wire.messages import (
    MAX_MESSAGE_BYTES,
    VERSION,
    Failure,
    Message,
    Reference,
    Reply,
    Request,
    TensorsTooLarge,
    decode,
    encode,
    has_blobs,
    peek_id,
    peek_version,
    reference,
)

__all__ = [
    "MAX_MESSAGE_BYTES",
    "VERSION",
    "Failure",
    "Message",
    "Reference",
    "Reply",
    "Request",
    "TensorsTooLarge",
    "decode",
    "encode",
    "has_blobs",
    "peek_id",
    "peek_version",
    "reference",
]
