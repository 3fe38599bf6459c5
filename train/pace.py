"""What a training tells before it starts, and once it knows its pace."""

import time
from typing import Protocol

from utils.times import format_time

DAY = 86_400
SMALL = "configs/demo/*.yaml"  # configurations for minutes of a CPU
TIMED = 3  # steps that tell the pace; the first is left out, as it also fills caches


class Plan(Protocol):
    """The options that say how long a training is and when it saves."""

    save_dir: str
    num_steps: int
    val_interval: int
    save_interval: int


def first_checkpoint(plan: Plan, step: int, has_best: bool) -> int:
    """The step of the first one after `step`; the first validation makes the first best one."""
    intervals = [plan.save_interval] + ([] if has_best else [plan.val_interval])
    return min(plan.num_steps, *((step // interval + 1) * interval for interval in intervals))


def announcement(plan: Plan, step: int, first: int) -> str:
    """What is going to happen after `step`, in one line; `first`: the first checkpoint's step."""
    if step >= plan.num_steps:
        return f"all {plan.num_steps} steps are done; a larger --num_steps goes on"
    after = f" after the {step} done" if step else ""
    return (
        f"{plan.num_steps - step} steps{after}; checkpoints go to {plan.save_dir}, the first at "
        f"step {first}, then every {plan.save_interval} steps, at the end, "
        "and the best on val"
    )


class Pace:
    """Tells the seconds per step and what follows from them, once, after `TIMED` steps."""

    def __init__(self, plan: Plan, step: int, first: int, device: str) -> None:
        self.plan, self.start, self.first, self.device = plan, step, first, device
        self.begun = 0.0

    def tell(self, step: int) -> list[str]:
        """The lines to print after a step; mostly none."""
        done = step - self.start
        if done == 1:
            self.begun = time.monotonic()
        if done != TIMED or step == self.plan.num_steps:
            return []
        seconds = (time.monotonic() - self.begun) / (TIMED - 1)
        return estimate(self.plan, step, self.first, seconds, self.device)


def estimate(plan: Plan, step: int, first: int, seconds: float, device: str) -> list[str]:
    """How long steps of so many seconds will take; on a CPU a warning where that is over a day."""
    left = (plan.num_steps - step) * seconds
    saved = format_time(max(0, first - step) * seconds)
    lines = [
        f"{seconds:.3g} s per step: about {format_time(left)} of steps left, validations not "
        f"counted; the first checkpoint in about {saved}"
    ]
    if device == "cpu" and left > DAY:
        lines.append(
            f"warning: that is over a day on this CPU; {SMALL} are configurations for minutes "
            "(--config FILE), and --num_steps shortens this one"
        )
    return lines
