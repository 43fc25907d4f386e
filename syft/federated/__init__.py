"""Federated training: what is sent to a worker, and what the worker does with it.

Also here: rounds, checkpoints and the history of a run.
"""

from syft.federated.checkpoint import Checkpoint
from syft.federated.evaluation import checked_evaluation
from syft.federated.federated_client import FederatedClient
from syft.federated.history import History, read_history
from syft.federated.rounds import RoundResult, run_round
from syft.federated.scaffold import Scaffold
from syft.federated.server_optimizer import ServerOptimizer
from syft.federated.train_config import TrainConfig

__all__ = [
    "Checkpoint",
    "FederatedClient",
    "History",
    "RoundResult",
    "Scaffold",
    "ServerOptimizer",
    "TrainConfig",
    "checked_evaluation",
    "read_history",
    "run_round",
]
