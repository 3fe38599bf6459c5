"""Reward back-propagation as one `Task` of the training loop: loss = -mean reward."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from data_loaders.humanml import MotionBatch, MotionDataset
from diffusion.gaussian import GaussianDiffusion
from diffusion.samplers import Denoiser
from model.seam import Generator, Samples
from model.text.condition import Condition
from rewards.seam import DifferentiableReward
from train.preference.pairs import captions_of
from train.reward_backprop.options import BackpropOptions
from train.reward_backprop.rollout import Rollout
from train.task import StepResult
from train.tuning import MotionTuning, samples_of


class DiffusionGenerator(Generator, Protocol):
    """A generator whose sampling is a chain of differentiable steps."""

    def denoising(self, condition: Condition, like: Samples) -> tuple[Denoiser, GaussianDiffusion]:
        """What a sampler runs on: x0 of x shaped like `like`, and the executed steps."""


class RewardBackpropTask(MotionTuning):
    """The reward of the policy's own samples for the captions of a dataset, ascended directly.

    Only the denoiser is trained; reward, text encoder and VAE are frozen, and dropout is off. The
    motions of the dataset give lengths, and the anchor where `denoising_weight` asks for one.

    EasyTune makes K optimiser steps of one batch. Each is a step of the loop, so that schedule,
    log and checkpoints count as for all others; x between two of them belongs to the state.
    """

    shown = ("reward",)

    def __init__(
        self,
        options: BackpropOptions,
        policy: DiffusionGenerator,
        reward: DifferentiableReward,
        data: MotionDataset,
        val_data: MotionDataset,
    ) -> None:
        self.options, self.policy, self.reward = options, policy, reward
        self.data, self.val_data = data, val_data
        self.module: nn.Module = policy.model.eval()  # dropout stays off
        self.x: Tensor | None = None  # EasyTune: of the batch that is half sampled

    @property
    def repeats(self) -> int:
        """Optimiser steps of one batch."""
        return self.options.last_steps if self.options.method == "easytune" else 1

    def batches(self, epoch: int) -> Iterator[MotionBatch]:
        for batch in super().batches(epoch):
            for _ in range(self.repeats):
                yield batch

    def batches_per_epoch(self) -> int:
        return self.repeats * super().batches_per_epoch()

    def step(self, batch: MotionBatch, step: int, rng: torch.Generator) -> StepResult:
        raw, keys = samples_of(batch.to(self.policy.device))
        captions = captions_of(keys)
        condition, motions = self.policy.encode_text(captions), self.policy.encode(raw, rng)
        generated = Samples(self.generate(condition, motions, step, rng), motions.lengths)
        reward = self.reward.score_with_gradient(self.policy.decode(generated), captions).mean()
        loss = -reward
        metrics: dict[str, Tensor | float] = {"reward": reward.detach()}
        if self.options.denoising_weight:
            error = self.denoising_error(condition, motions, rng)
            loss = loss + self.options.denoising_weight * error
            metrics["denoising_error"] = error.detach()
        return StepResult(loss, metrics)

    def generate(
        self, condition: Condition, like: Samples, step: int, rng: torch.Generator
    ) -> Tensor:
        """What the reward reads, in the policy's space: x_0, or D_i."""
        denoise, diffusion = self.policy.denoising(condition, like)
        rollout = Rollout(denoise, diffusion)
        if self.options.method == "easytune":
            return self._easytune(rollout, like, step % self.repeats, rng)
        noise = self.policy.noise(like, rng)
        if self.options.method == "draft":
            return rollout.draft(noise, self.options.last_steps)
        # i = S - M + 1 .. S - 1, counted from the noise
        index = torch.randint(self.options.refl_range - 1, (), generator=rng, device=rng.device)
        return rollout.refl(noise, int(index))

    def _easytune(
        self, rollout: Rollout, like: Samples, position: int, rng: torch.Generator
    ) -> Tensor:
        """D at this `position` of the last K steps; x moves on to the next."""
        index = self.repeats - 1 - position
        x = self.x
        if position == 0 or x is None:
            x = rollout.down_to(self.policy.noise(like, rng), index)
        predicted, following = rollout.easytune(x.to(self.policy.device), index)
        self.x = following if index else None
        return predicted

    def denoising_error(
        self, condition: Condition, motions: Samples, rng: torch.Generator
    ) -> Tensor:
        """Mean error of the dataset's motions at levels that are all alike likely."""
        t = torch.randint(self.policy.levels, (len(motions),), generator=rng, device=rng.device)
        return self.policy.error(motions, t, self.policy.noise(motions, rng), condition).mean()

    def state_dict(self) -> dict[str, Any]:
        return {"x": self.x}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.x = state["x"]
