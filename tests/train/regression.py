"""The smallest task of the training loop: a linear regression, y = 2x."""

from utils.start import entry_point

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from train.loop import Trainer, start_run
from train.task import LoopOptions, StepResult, options_to_args
from utils.files import save_tensors, write_json
from utils.options import parse_options


class Regression:
    """y = 2x with noise drawn from the step's generator.

    `before` is called with the number of every step, from 1 on.
    """

    shown = ("slope",)

    def __init__(
        self,
        options: LoopOptions,
        before: Callable[[int], None] = lambda step: None,
        width: int = 1,
    ) -> None:
        torch.manual_seed(0)
        self.options, self.before = options, before
        self.module = nn.Sequential(nn.Linear(width, 1), nn.Dropout(0.1))

    def batches(self, epoch: int) -> Iterator[torch.Tensor]:
        rng = torch.Generator().manual_seed(epoch)
        yield from torch.rand(4, 8, 1, generator=rng)

    def batches_per_epoch(self) -> int:
        return 4

    def step(self, batch, step, rng) -> StepResult:
        self.before(step + 1)
        target = 2 * batch + 0.01 * torch.randn(batch.shape, generator=rng)
        loss = (self.module(batch) - target).square().mean()
        return StepResult(loss, {"slope": self.module[0].weight.detach().mean()})

    def validate(self) -> dict[str, float]:
        self.module.eval()
        score = (self.module(torch.ones(1, 1)) - 2).abs().item()
        self.module.train()
        return {"score": score}

    def save(self, save_dir: Path, step, average, best) -> Path:
        write_json(save_dir / "args.json", options_to_args(self.options))
        path = save_dir / f"model{step:09d}.pt"
        save_tensors(path, self.module.state_dict())
        return path

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def options_for(folder: Path, **changes) -> LoopOptions:
    return LoopOptions(
        save_dir=str(folder),
        **{
            **{"device": "cpu", "lr": 0.05, "train_platform_type": "NoPlatform", "log_interval": 5},
            **{"num_steps": 30, "val_interval": 10, "save_interval": 15, **changes},
        },
    )


def train(folder: Path, task: type[Regression] = Regression, before=lambda step: None, **changes):
    """Run a training to its end; returns its task."""
    options = options_for(folder, **changes)
    accelerator = start_run(options)
    regression = task(options, before)
    Trainer(regression, options, accelerator).run()
    return regression


@entry_point
def main() -> None:
    options = parse_options(LoopOptions, description=__doc__)
    Trainer(Regression(options), options, start_run(options)).run()


if __name__ == "__main__":
    main()
