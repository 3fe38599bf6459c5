"""What happens to the weights beside the optimiser: the rate, their average, and bad steps."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from train.task import LoopOptions, StepResult
from utils.errors import UserError

DIVERGED = 1000.0  # times the first loss, or 1 where that is less: such a loss has diverged
NAMED = 8  # clips that a diagnosis names


def learning_rate(options: LoopOptions, step: int) -> float:
    """Rate at 0-based `step`: linear warm-up, then the schedule down to 0 at the last step."""
    if step < options.warmup_steps:
        return options.lr * (step + 1) / options.warmup_steps
    if options.lr_anneal_steps:
        return options.lr * max(0.0, 1 - step / options.lr_anneal_steps)
    done = (step - options.warmup_steps) / max(1, options.num_steps - options.warmup_steps)
    if options.lr_schedule == "linear":
        return options.lr * (1 - done)
    if options.lr_schedule == "cosine":
        return options.lr * 0.5 * (1 + math.cos(math.pi * done))
    if options.lr_schedule == "milestones":
        return options.lr * options.lr_factor ** sum(step >= m for m in options.lr_milestones)
    return options.lr


def mean_result(results: Sequence[StepResult]) -> StepResult:
    """The mean over a step's batches; of a figure over those that have it."""
    figures: dict[str, list[Tensor | float]] = {}
    for result in results:
        for name, value in result.metrics.items():
            figures.setdefault(name, []).append(value)
    loss = torch.stack([result.loss for result in results]).mean()
    return StepResult(loss, {name: sum(v) / len(v) for name, v in figures.items()})


class WeightAverage:
    """Exponential moving average of a module's parameters, with a warm-up of the decay.

    The decay is min(beta, (1 + n) / (10 + n)) at update n, so that short runs are not dominated
    by the initial weights; for long runs it is beta.
    """

    def __init__(self, module: nn.Module, beta: float) -> None:
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.beta, self.updates = beta, 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.beta, (1 + self.updates) / (10 + self.updates))
        for mean, value in zip(self.module.parameters(), module.parameters(), strict=True):
            mean.lerp_(value, 1 - decay)


class StepGuard:
    """Tells the steps that must not change the weights.

    A step is bad when its loss or the norm of its gradient is no finite number, or its loss is
    more than `DIVERGED` times the first one. It is left out; `patience` of them in a row, or one
    at the very end, stop the run.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.first: float | None = None  # loss of the first good step
        self.row = self.total = 0

    def is_bad(self, loss: float, norm: float) -> bool:
        """Count a step of this loss and gradient norm."""
        limit = math.inf if self.first is None else DIVERGED * max(1.0, abs(self.first))
        if math.isfinite(loss) and math.isfinite(norm) and abs(loss) <= limit:
            self.first = loss if self.first is None else self.first
            self.row = 0
            return False
        self.row, self.total = self.row + 1, self.total + 1
        return True

    def tell(self, step: int, loss: float, norm: float, rate: float, batch: Any, last: bool) -> str:
        """A warning about bad step number `step`. Raises UserError where the run must stop."""
        found = f"the loss of step {step} is {loss:.4g}, its gradient norm {norm:.4g}"
        if self.row < self.patience and not last:
            return f"warning: {found}; the step is left out"
        before = f" and so were {self.row - 1} before it" if self.row > 1 else ""
        raise UserError(
            f"{found} at learning rate {rate:.3g}{clips_of(batch)}: it was left out{before}. The "
            "training has diverged; start again with a lower --lr, more --warmup_steps, "
            "--grad_clip or --precision fp32"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first, "row": self.row, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first, self.row, self.total = state["first"], state["row"], state["total"]


def clips_of(batch: Any) -> str:
    """The clips of a batch in parentheses, where it names them."""
    names: Sequence[str] = getattr(batch, "names", ())
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f" (clips {', '.join(names[:NAMED])}{more})" if names else ""
