"""Server optimizers: the step from one round's model to the next, by an optimizer of torch.optim.

    optimizer = ServerOptimizer("SGD", {"lr": 1.0, "momentum": 0.7})
    while ...:
        result = await run_round(workers, fit)
        model = optimizer.step(model, federated_avg(result.models))

Federated averaging takes the average of the workers' models as the next model. A server optimizer
takes the way there, from the last model to the average, as the negative of a gradient, and follows
it in its own manner. With uneven data the average swings to and fro between what the workers know;
momentum damps that, and the same accuracy is reached in fewer rounds:

    method       optimizer                                         source
    -----------  ------------------------------------------------  --------------------------------
    FedAvg       SGD, {"lr": 1.0}                                  McMahan et al., AISTATS 2017
    FedAvgM      SGD, {"lr": 1.0, "momentum": 0.7}                 Hsu et al. (2019)
    FedAdagrad   Adagrad, {"lr": 0.01, "eps": 1e-3}                Reddi et al., ICLR 2021
    FedAdam      Adam, {"lr": 0.01, "eps": 1e-3}                   the same

The workers know nothing of it: they train as they always do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from syft.exceptions import UnknownOptimizer
from syft.federated.federated_client import optimizer_names
from syft.frameworks.torch.fl.utils import check_same_structure
from syft.graph import clone

_UNFIT = {
    "LBFGS": "it evaluates the loss itself, which only the workers can",
    "SparseAdam": "it takes sparse gradients only",
}


class ServerOptimizer:
    """An optimizer that makes the next round's model of the last one and the workers' average.

    Source: Reddi et al., ICLR 2021, https://arxiv.org/abs/2003.00295, algorithm 1; Hsu et al.
    (2019), https://arxiv.org/abs/1909.06335, for momentum.

    Args:
        name: name of an optimizer of torch.optim.
        arguments: its arguments. Not modified. None: {"lr": 1.0}, which suits SGD alone.

    Raises:
        UnknownOptimizer: torch.optim has no such optimizer (also a ValueError).
        ValueError: it is an optimizer that cannot be used here, or does not take these arguments.
    """

    def __init__(self, name: str = "SGD", arguments: Mapping[str, Any] | None = None) -> None:
        self.name = name
        self.arguments = {"lr": 1.0} if arguments is None else dict(arguments)
        if name not in optimizer_names():
            raise UnknownOptimizer(name, optimizer_names())
        if name in _UNFIT:
            raise ValueError(f"{name} cannot be a server optimizer: {_UNFIT[name]}.")
        self._parameters: dict[str, nn.Parameter] = {}
        try:
            # Here, so that wrong arguments are refused before the first round.
            self._optimizer = self._built([nn.Parameter(torch.zeros(1, 1))])
        except (TypeError, ValueError) as reason:
            raise ValueError(
                f"{name} cannot be a server optimizer with {self.arguments}: {reason}."
            ) from None

    def step(self, model: nn.Module, average: nn.Module) -> nn.Module:
        """Return the next model.

        Args:
            model: the model that the workers were sent. Not modified.
            average: the average of what they returned, of the same structure. Not modified.

        Returns:
            A copy of `average` on the CPU. Its trainable parameters are where the optimizer comes
            to from those of `model`, with `model` minus `average` as their gradient; all else
            (buffers, frozen parameters) is as in `average`.

        Raises:
            ModelMismatchError: `average` has other parameters than `model`, or `model` has others
                than in the last step.
        """
        result: nn.Module = clone(average).cpu()
        last, target = trainable(model), trainable(result)
        check_same_structure("average", target, last)
        if not self._parameters:
            self._take(last)
        check_same_structure("model", last, self._parameters)
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(last[name])
                parameter.grad = parameter - target[name]
            self._optimizer.step()
            for name, parameter in self._parameters.items():
                target[name].copy_(parameter)
        return result

    def state(self) -> dict[str, torch.Tensor]:
        """Return copies of what the optimizer remembers (momentum, say); empty at first.

        The names are those of the parameters, each with a dot and the optimizer's own name for it:
        "conv1.weight.momentum_buffer".
        """
        return {
            f"{name}.{key}": value.detach().clone()
            for name, parameter in self._parameters.items()
            for key, value in self._optimizer.state[parameter].items()
            if isinstance(value, torch.Tensor)
        }

    def load(self, state: Mapping[str, torch.Tensor], model: nn.Module) -> None:
        """Continue where another optimizer, of the same name and arguments, has left off.

        Args:
            state: its state(). Copied.
            model: a model of the structure that it optimized. Not modified.
        """
        self._take(trainable(model))
        for name, value in state.items():
            parameter, _, key = name.rpartition(".")
            # Set one by one: load_state_dict() would change the dtype of some.
            self._optimizer.state[self._parameters[parameter]][key] = value.clone()

    def _take(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Begin anew with copies of these parameters."""
        self._parameters = {
            name: nn.Parameter(parameter.detach().cpu().clone())
            for name, parameter in parameters.items()
        }
        self._optimizer = self._built(list(self._parameters.values()))

    def _built(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = getattr(torch.optim, self.name)(
            parameters, **self.arguments
        )
        return optimizer


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a model that are trained, by name."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}
