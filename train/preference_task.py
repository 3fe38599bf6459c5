"""Algorithm 1 as a task of the training loop, for samples of any kind: motions or pictures."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from model.seam import Generator, Samples
from rewards.seam import Reward
from train.preference.algorithm import Outcome, PreferenceAlgorithm
from train.preference.fixed_pairs import Store
from train.preference.methods import METHODS
from train.preference.options import PreferenceOptions
from train.preference.pairs import Key, captions_of
from train.run_state import weights_digest
from train.task import StepResult
from utils.errors import UserError
from utils.options import option

Batch = TypeVar("Batch")


@dataclass
class AlgorithmOptions(PreferenceOptions):
    """Options of the algorithm; a script adds those of the loop."""

    probe_batches: int = option(4, "batches that measure tau on the base model", minimum=1)


class AlgorithmTask(ABC, Generic[Batch]):
    """Step, probe and state of a `train.loop.Task`; a subclass brings data, validation and files.

    `store` holds the fixed pairs, for the methods that read them. `module` is what is trained.
    """

    shown = ("gate/share_below_tau", "rewards/unpreferred_score")

    def __init__(
        self,
        options: AlgorithmOptions,
        policy: Generator,
        reward: Reward,
        store: Store | None = None,
    ) -> None:
        self.options: Any = options
        self.policy, self.reward = policy, reward
        self.module: nn.Module = policy.model.eval()  # dropout stays off, in the loss and outside
        self.algorithm = PreferenceAlgorithm(options, policy, reward, store)
        self.base = weights_digest(self.module)

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[Batch]:
        """One shuffled pass over the data; the same for the same epoch."""

    @abstractmethod
    def samples_of(self, batch: Batch) -> tuple[Samples, list[Key]]:
        """The raw samples of a batch on the policy's device, and what each of them is."""

    @property
    def gated(self) -> bool:
        """Does tau decide which unpreferred samples count?"""
        return any(pairing.gate == "below_tau" for pairing in METHODS[self.options.method])

    def step(self, batch: Batch, step: int, rng: torch.Generator) -> StepResult:
        outcome = self.algorithm.step(*self.samples_of(batch), rng)
        metrics = outcome.metrics
        if metrics and (step + 1) % self.options.log_interval == 0:
            metrics = metrics | self.quarters(outcome)
        return StepResult(outcome.loss.mean(), metrics)

    def quarters(self, outcome: Outcome) -> dict[str, Tensor | float]:
        """Implicit reward margin and gradient norm per quarter of the noise levels."""
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        quarter = outcome.t * 4 // self.policy.levels
        figures: dict[str, Tensor | float] = {}
        for q in quarter.unique().tolist():
            chosen = quarter == q
            gradients = torch.autograd.grad(
                outcome.loss[chosen].sum() / len(outcome.loss),
                parameters,
                retain_graph=True,
                allow_unused=True,
            )
            norms = torch.stack([g.norm() for g in gradients if g is not None])
            figures[f"quarters/grad_norm_q{q}"] = norms.norm()
            figures[f"quarters/margin_q{q}"] = outcome.margin[chosen].mean()
        return figures

    @torch.no_grad()
    def probe(self) -> Tensor:
        """Rewards of the worst-of-K on the base model, over a few batches; feeds the threshold."""
        rng = torch.Generator(self.policy.device).manual_seed(self.options.seed)
        rewards: list[Tensor] = []
        loader = self.batches(epoch=0)
        for _, batch in zip(range(self.options.probe_batches), loader, strict=False):
            raw, keys = self.samples_of(batch)
            captions = captions_of(keys)
            condition = self.policy.encode_text(captions)
            samples = self.policy.encode(raw, rng)
            drawn = self.algorithm.candidates(samples, captions, condition, rng)
            rewards.append(drawn.rewards.amin(dim=1))
        measured = torch.cat(rewards)
        self.algorithm.threshold.observe(measured)
        return measured

    def state_dict(self) -> dict[str, Any]:
        return {"base": self.base, **self.algorithm.threshold.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises UserError where the reference would be another model than before."""
        if state.get("base", self.base) != self.base:
            raise UserError(
                f"--resume: --model_path {self.options.model_path} holds other weights than those "
                "that this run was begun with, which its loss compares the policy with; name them"
            )
        self.algorithm.threshold.load_state_dict(state)


def report_probe(rewards: Tensor, tau: float, samples: str = "motions") -> None:
    """Print the distribution of the worst-of-K reward on the base model and what tau does to it."""
    marks = torch.tensor([0.02, 0.05, 0.25, 0.5, 0.75, 0.95, 0.98], device=rewards.device)
    quantiles = rewards.float().quantile(marks)
    cells = "  ".join(f"{m:.0%} {q:.3f}" for m, q in zip(marks, quantiles, strict=True))
    share = float((rewards < tau).float().mean())
    print(f"worst-of-K reward on the base model ({len(rewards)} captions): {cells}")
    print(f"share below tau = {tau:.3f}: {share:.1%}")
    if not 0.02 <= share <= 0.98:
        print(
            f"warning: {share:.1%} of the unpreferred {samples} pass the gate, so it "
            f"{'hardly ever opens' if share < 0.02 else 'hardly ever closes'}; "
            "choose tau from the quantiles above or use --tau_quantile"
        )
