"""Checks of arguments of the operators that torch takes others apart into (see guards.py)."""

from __future__ import annotations

from syft.graph.guards import GUARDS, Guard

INNER_GUARDS: dict[str, Guard] = {
    "_ctc_loss": GUARDS["ctc_loss"],
    **dict.fromkeys(("_embedding_bag", "_embedding_bag_forward_only"), GUARDS["embedding_bag"]),
    "_weight_norm_interface": GUARDS["_weight_norm"],
}
"""The guards, as in guards.GUARDS."""
