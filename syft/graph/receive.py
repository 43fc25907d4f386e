"""What becomes of models that arrive: the receiver's decision, in one place."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from syft.exceptions import MalformedMessage, OperatorNotAllowed
from syft.graph.check import read_structure
from syft.graph.convert import digest_of
from syft.graph.interpret import GraphModule


class Receiver:
    """Makes models of what arrives, as far as the receiver's owner allows.

    Args:
        permit: called with the digest of each model before anything else is read of it; raises an
            error to refuse it.
        allow_operators: operators that models may use beside those of operators.py.
        allow_torchscript: take TorchScript archives too. Loading one runs what is in it, so this
            trusts the sender.
    """

    def __init__(
        self,
        permit: Callable[[str], None] = lambda digest: None,
        allow_operators: Iterable[str] = (),
        allow_torchscript: bool = False,
    ) -> None:
        self._permit = permit
        self.allow_operators = frozenset(allow_operators)
        self.allow_torchscript = allow_torchscript

    def graph(
        self, structure: bytes, state: Sequence[torch.Tensor], constants: Sequence[torch.Tensor]
    ) -> GraphModule:
        """Return the model of a structure and its tensors, which it takes over.

        Raises:
            NotPermitted: the owner does not allow this model.
            OperatorNotAllowed: it uses an operator that is not allowed.
            MalformedMessage: it is no structure, or the tensors are not those that it describes.
        """
        digest = digest_of(structure, constants)
        self._permit(digest)
        return GraphModule(
            read_structure(structure, self.allow_operators), state, constants, digest
        )

    def archive(self, content: bytes) -> Any:
        """Return the model of a TorchScript archive.

        Raises:
            OperatorNotAllowed: the owner does not allow TorchScript.
            MalformedMessage: it is no archive.
        """
        if not self.allow_torchscript:
            raise OperatorNotAllowed("TorchScript (allow_torchscript)", "it")
        digest = hashlib.sha256(content).hexdigest()
        self._permit(digest)
        try:
            module = torch.jit.load(io.BytesIO(content), map_location="cpu")
        except Exception as reason:  # torch raises RuntimeError, ValueError, IndexError, ...
            raise MalformedMessage(
                f"a TorchScript archive cannot be read: {str(reason)[:200]}"
            ) from reason
        # past TorchScript, which would make it an attribute of the model
        module.__dict__["graph_digest"] = digest
        return module
