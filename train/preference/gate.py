"""The gate of Eq. 17: which unpreferred samples are bad enough to be trained against."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GateDecision:
    """use_unpreferred ``[B]`` bool; tau: its threshold, None where it depends on none."""

    use_unpreferred: Tensor
    tau: float | None


class RewardThreshold:
    """The gate's tau: a constant, or a quantile of the latest worst-of-K rewards.

    With a quantile q, tau is the q-quantile of the last `window` rewards seen, so that about a
    share q of the unpreferred samples passes the gate. `observe` must be fed the base model's
    rewards before the first step; an `anchored` threshold keeps to those, so that it does not
    follow a policy whose rewards fall.
    """

    def __init__(
        self,
        tau: float | None,
        quantile: float | None,
        window: int = 1024,
        anchored: bool = False,
    ) -> None:
        if (tau is None) == (quantile is None):
            raise ValueError("give either tau or quantile")
        self.tau, self.quantile = tau, quantile
        self.anchored = anchored
        self.recent: deque[float] = deque(maxlen=window)

    def decide(self, gate: str, rewards: Tensor) -> GateDecision:
        """For worst-of-K rewards ``[B]``; `gate` is that of `train.preference.methods.Pairing`.

        The threshold learns of these rewards after it has judged them.
        """
        if gate != "below_tau":
            return GateDecision(torch.full_like(rewards, gate == "always", dtype=torch.bool), None)
        tau = self.value()
        self.observe(rewards)
        return GateDecision(rewards < tau, tau)

    def observe(self, rewards: Tensor) -> None:
        if self.anchored and self.recent:
            return
        self.recent.extend(rewards.tolist())

    def value(self) -> float:
        if self.quantile is None:
            assert self.tau is not None
            return self.tau
        if not self.recent:
            raise RuntimeError("a quantile threshold needs observed rewards first")
        return float(torch.tensor(list(self.recent)).quantile(self.quantile))

    def state_dict(self) -> dict[str, list[float]]:
        return {"recent": list(self.recent)}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self.recent.clear()  # a resumed run has probed again; its saved rewards hold that probe
        self.recent.extend(state["recent"])
