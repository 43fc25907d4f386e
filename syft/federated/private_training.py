"""Training by DP-SGD: gradients that tell little of any one sample.

Source: Abadi et al., CCS 2016, https://arxiv.org/abs/1607.00133, algorithm 1. In each step

    1. every sample is drawn with the same probability, independently of the others,
    2. the gradient of each drawn sample is computed alone, and clipped to a norm C,
    3. the clipped gradients are summed, Gaussian noise of deviation C x noise_multiplier is added,
       and the sum is divided by the number of samples that is drawn on average,
    4. the optimizer makes its step with that.

The guarantee needs more than these four lines where whoever sends the model is not trusted:

- A model may remember: a buffer, a frozen parameter or a constant that it changes while it looks at
  one sample would reach the gradients of the next. So each sample gets a copy of model and loss
  function of its own, which is thrown away.
- A model may use random numbers. If they followed from a sample's place in the data set, a sample
  that is removed would change the gradients of all after it. So they are drawn afresh for each.
- A model may fail, overflow or fill the memory for some samples only, and an error would tell that
  one is there. Such a sample counts with a gradient of zero. What fails for every sample is told:
  the model is tried on a sample of zeros first.
- The number of drawn samples depends on chance alone, but is told to nobody.
- All randomness comes from the operating system's secure generator: a coordinator that knew the
  seed could subtract the noise. Noise is made of sums of four variates in double precision, against
  attacks on the gaps between floating-point numbers (Holohan and Braghin, 2021,
  https://arxiv.org/abs/2107.10138).

Not protected: how long a fit takes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from syft.access.privacy import DifferentialPrivacy
from syft.exceptions import CallAbandoned, LimitExceeded
from syft.frameworks.torch.fl.dataset import Batches
from syft.graph import clone, loss_of

logger = logging.getLogger(__name__)

RandomBytes = Callable[[int], bytes]


def drawn(
    samples: int, rate: float, random_bytes: RandomBytes = os.urandom
) -> np.ndarray[Any, Any]:
    """Return the indices of the samples that one step draws, ascending.

    Args:
        samples: number of samples.
        rate: probability with which each is drawn, independently of the others.
        random_bytes: returns as many secure random bytes as it is asked for.
    """
    return np.flatnonzero(_uniform(samples, random_bytes) < rate)


def clipped(gradients: Sequence[torch.Tensor], max_norm: float) -> list[torch.Tensor]:
    """Return one sample's gradients, scaled down so that their norm together is at most `max_norm`.

    In double precision. Zeros, if any of them is not finite.
    """
    wide = [gradient.detach().double() for gradient in gradients]
    norm = float(sum(gradient.square().sum() for gradient in wide)) ** 0.5
    if not norm < float("inf"):
        return [torch.zeros_like(gradient) for gradient in wide]
    scale = min(1.0, max_norm / norm) if norm else 1.0
    return [gradient * scale for gradient in wide]


def normal(shape: Sequence[int], random_bytes: RandomBytes = os.urandom) -> torch.Tensor:
    """Return standard normal variates from a secure generator, float64.

    Args:
        shape: their shape.
        random_bytes: returns as many secure random bytes as it is asked for.
    """
    count = int(np.prod(shape))
    total = np.zeros(count)
    for _ in range(4):  # their sum has the deviation 2
        radius = np.sqrt(-2 * np.log(1 - _uniform(count, random_bytes)))
        total += radius * np.cos(2 * np.pi * _uniform(count, random_bytes))
    return torch.from_numpy(total / 2).reshape(tuple(shape))


class PrivateGradients:
    """Makes the gradient of each step of a fit.

    Args:
        model: the model that is trained. Its gradients are set; nothing else is changed.
        loss_fn: the loss function.
        batches: the samples, which come as batches of one.
        rate: probability with which a step draws each sample.
        privacy: clipping and noise.
        device: where the model is.
        check: called before each sample; raises an error to end the fit.

    Attributes:
        rate: as given.

    Raises:
        ValueError: the model has complex parameters, or the first sample cannot be read.
        Exception: the model fails for a sample of zeros, as it would without privacy.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Any,
        batches: Batches,
        rate: float,
        privacy: DifferentialPrivacy,
        device: torch.device | str = "cpu",
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._model, self._loss_fn, self._batches = model, loss_fn, batches
        self.rate, self._privacy = rate, privacy
        self._device, self._check = device, check
        self._parameters = [each for each in model.parameters() if each.requires_grad]
        if any(each.is_complex() for each in self._parameters):
            raise ValueError("a model with complex parameters cannot be trained with privacy.")
        self._gradients(self._zeros())

    def step(self) -> None:
        """Set the gradients of the model's trainable parameters for one step."""
        sums = [torch.zeros(each.shape, dtype=torch.float64) for each in self._parameters]
        for index in drawn(len(self._batches), self.rate).tolist():
            self._check()
            for total, gradient in zip(sums, self._clipped(index), strict=True):
                total += gradient.cpu()
        deviation = self._privacy.noise_multiplier * self._privacy.max_grad_norm
        expected = self.rate * len(self._batches)
        for parameter, total in zip(self._parameters, sums, strict=True):
            noisy = (total + deviation * normal(total.shape)) / expected
            parameter.grad = noisy.to(parameter.device, parameter.dtype)

    def _clipped(self, index: int) -> list[torch.Tensor]:
        """Return the clipped gradients of one sample; zeros if it has none."""
        torch.manual_seed(int.from_bytes(os.urandom(8), "big"))
        try:
            gradients = self._gradients(self._sample(index))
        except CallAbandoned:
            raise
        except Exception as error:
            # Nobody may learn that it was this sample. Time that is over ends the fit all the same.
            if isinstance(error, LimitExceeded) and error.setting == "call_seconds":
                raise
            gradients = [torch.zeros_like(each) for each in self._parameters]
        return clipped(gradients, self._privacy.max_grad_norm)

    def _gradients(self, sample: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the gradients of one sample, from a model that has seen no other."""
        model, loss_fn = clone(self._model), loss_of(_copied(self._loss_fn))
        model.train()
        parameters = [each for each in model.parameters() if each.requires_grad]
        *inputs, target = (each.to(self._device) for each in sample)
        loss = loss_fn(model(*inputs), target)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return [
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(parameters, found, strict=True)
        ]

    def _zeros(self) -> list[torch.Tensor]:
        """Return a sample of zeros."""
        try:
            return [torch.zeros_like(each) for each in self._sample(0)]
        except Exception:
            # The text may hold a part of the sample, so it is for the owner alone.
            logger.exception("a sample of the dataset cannot be read")
            raise ValueError(
                "a sample of the dataset cannot be read; the worker's log has the reason."
            ) from None

    def _sample(self, index: int) -> list[torch.Tensor]:
        """Return the inputs and the target of a batch of one sample."""
        return [torch.as_tensor(each) for each in self._batches.__getitems__([index])]


def _copied(loss_fn: Any) -> Any:
    """Return a copy of what a coordinator has sent; a function of the owner's is itself."""
    return clone(loss_fn) if isinstance(loss_fn, nn.Module) else loss_fn


def _uniform(count: int, random_bytes: RandomBytes) -> np.ndarray[Any, Any]:
    """Return numbers from [0, 1), each a multiple of 2**-53 with the same probability."""
    bits = np.frombuffer(random_bytes(8 * count), dtype="<u8") >> np.uint64(11)
    uniform: np.ndarray[Any, Any] = bits * 2.0**-53
    return uniform
