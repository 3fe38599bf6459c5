"""A training step of Algorithm 1 and its parts, as the benchmark times them for every family."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from model.seam import Samples
from train.preference.algorithm import PreferenceAlgorithm
from train.preference.gate import GateDecision
from train.preference.pairs import Key, PreferenceBatch, captions_of
from utils.seeding import torch_generator


@dataclass
class TrainingSteps:
    """One algorithm on one batch of raw motions; `dtype` is the number type of its networks."""

    algorithm: PreferenceAlgorithm
    raw: Samples
    keys: list[Key]
    dtype: torch.dtype

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """At a rate that changes nothing."""
        return torch.optim.AdamW(self.algorithm.policy.model.parameters(), lr=1e-9)

    @property
    def device(self) -> torch.device:
        return self.algorithm.policy.device

    def autocast(self) -> AbstractContextManager[object]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def rollout(self) -> None:
        """K candidates for every caption, with their rewards."""
        captions, policy = captions_of(self.keys), self.algorithm.policy
        with self.autocast():
            rng = torch_generator(0, self.device)
            clips, condition = policy.encode(self.raw), policy.encode_text(captions)
            self.algorithm.candidates(clips, captions, condition, rng)

    @cached_property
    def pairs(self) -> tuple[PreferenceBatch, Tensor, Tensor]:
        """Pairs of one step, their t and noise; the loser is random, which costs the same."""
        policy = self.algorithm.policy
        winners, ones = policy.encode(self.raw), torch.ones(len(self.raw), device=self.device)
        pairs = PreferenceBatch(
            preferred=winners,
            unpreferred=Samples(torch.randn_like(winners.x), winners.lengths),
            condition=policy.encode_text(captions_of(self.keys)),
            gate=GateDecision(ones.bool(), None),
            reward_preferred=ones,
            reward_unpreferred=ones,
            reward_candidates=ones.unsqueeze(1),
            similarity=ones,
        )
        t = torch.arange(len(ones), device=self.device) % policy.levels
        return pairs, t, torch.randn_like(winners.x)

    def loss_step(self) -> None:
        """Errors, loss, gradient and update for given pairs."""
        with self.autocast():
            loss = self.algorithm.pair_loss(*self.pairs)[0].loss.mean()
        self._update(loss)

    def sopo_step(self, reduce: Callable[[nn.Module], None] = lambda module: None) -> None:
        """A whole step of training; `reduce` averages the gradients over processes."""
        with self.autocast():
            outcome = self.algorithm.step(self.raw, self.keys, torch_generator(0, self.device))
        self._update(outcome.loss.mean(), reduce)

    def _update(
        self, loss: Tensor, reduce: Callable[[nn.Module], None] = lambda module: None
    ) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        reduce(self.algorithm.policy.model)
        self.optimizer.step()
