"""What the owner of a worker lets coordinators ask for."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from syft.access.limits import SamplePool
from syft.access.privacy import DifferentialPrivacy, PrivacyAccount
from syft.exceptions import LimitExceeded, NotPermitted

PRIVATE_CALLS = frozenset(
    {"fit", "clear_objects", "list_objects", "objects_count", "privacy_spent"}
)
"""Methods of every worker that may be called where the policy has privacy and names no calls."""


@dataclass(frozen=True)
class Policy:
    """What coordinators may ask for.

    Asking for more is an error that says so, and a line in the audit log.

    None means: no restriction beyond what the worker offers.

    Attributes:
        datasets: keys of the datasets that calls may name, as their argument `dataset_key`.
        calls: names of the methods that may be called.
        models: digests of the models and loss functions that may be sent. The digest covers the
            structure and its constants, not the parameters; the audit log records it, and
            `syft.graph.convert(model).digest` computes it. No operations on remote tensors are run
            then: they would compute anything else.
        max_steps_per_fit: training steps (batches) of one fit.
        max_fits: fits in all, from the worker's start on.
        max_samples_per_call: samples that one fit or evaluation reads, each counted as often as it
            is read.
        max_samples: samples that all fits and evaluations read, from the worker's start on.
        max_batch_size: samples of one batch. A batch has at most as many as the dataset.
        privacy: how much fits may tell of any one sample, as a DifferentialPrivacy or its keyword
            arguments. With it, fit() trains by DP-SGD and withholds its loss, evaluate() is
            refused, no operations on remote tensors are run, and of the owner's own methods only
            those that `calls` names may be called: what they tell, they tell without noise.

    Samples that methods of the owner's own read are not counted, unless they take them from fit()
    or evaluate().
    """

    datasets: Iterable[str] | None = None
    calls: Iterable[str] | None = None
    models: Iterable[str] | None = None
    max_steps_per_fit: int | None = None
    max_fits: int | None = None
    max_samples_per_call: int | None = None
    max_samples: int | None = None
    max_batch_size: int | None = None
    privacy: DifferentialPrivacy | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("datasets", "calls", "models"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise ValueError(f"Policy: {name} is {value!r}; expected several names, or None.")
            object.__setattr__(self, name, None if value is None else frozenset(value))
        if isinstance(self.privacy, Mapping):
            object.__setattr__(self, "privacy", DifferentialPrivacy(**self.privacy))
        # Never taken for none: the worker would train without.
        if not (self.privacy is None or isinstance(self.privacy, DifferentialPrivacy)):
            raise ValueError(
                f"Policy: privacy is {self.privacy!r:.60}; expected a DifferentialPrivacy, its "
                "keyword arguments, or None."
            )

    @property
    def against_operations(self) -> list[str]:
        """Names of the rules that operations on remote tensors would get around."""
        return [name for name in ("models", "privacy") if getattr(self, name) is not None]


class Enforcer:
    """Checks requests against a policy, and counts fits.

    Args:
        worker: the worker's id, for errors.
        policy: the policy.
    """

    def __init__(self, worker: str, policy: Policy) -> None:
        self._worker = worker
        self.policy = policy
        self._fits = 0
        self.pool = (
            SamplePool(worker, policy.max_samples) if policy.max_samples is not None else None
        )
        self.privacy = (
            PrivacyAccount(worker, policy.privacy)
            if isinstance(policy.privacy, DifferentialPrivacy)
            else None
        )
        self._lock = threading.Lock()

    def check_model(self, digest: str) -> None:
        """Raise NotPermitted if a model or function of this structure may not be sent."""
        self._check("models", digest)

    def check_call(
        self, name: str, method: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]
    ) -> None:
        """Check a call of a method, and count it if it is a fit.

        Raises:
            NotPermitted: the method, or the dataset it names, is not allowed.
            LimitExceeded: there were too many fits.
        """
        self._check("calls", name)
        if self.privacy is not None:
            named = self.policy.calls or PRIVATE_CALLS
            if name == "evaluate" or name not in named:
                allowed = sorted(set(named) - {"evaluate"})
                raise NotPermitted(self._worker, "calls", name[:256], allowed)
        if self.policy.datasets is not None:
            try:
                arguments = inspect.signature(method).bind(*args, **kwargs).arguments
            except TypeError:  # unless a dataset that is allowed is named, nothing is let through
                arguments = {"dataset_key": None, **kwargs}
            if "dataset_key" in arguments:
                self._check("datasets", arguments["dataset_key"])
        if name == "fit" and self.policy.max_fits is not None:
            with self._lock:
                if self._fits >= self.policy.max_fits:
                    raise LimitExceeded(
                        self._worker,
                        "the fits in all",
                        self._fits + 1,
                        self.policy.max_fits,
                        "max_fits",
                    )
                # Counted when it is allowed: a fit that fails later has perhaps read data as well.
                self._fits += 1

    def _check(self, setting: str, asked: Any) -> None:
        allowed = getattr(self.policy, setting)
        if allowed is not None and not (isinstance(asked, (str, int)) and asked in allowed):
            raise NotPermitted(self._worker, setting, str(asked)[:256], sorted(allowed))
