"""SoPo and the methods it is compared with: preference tuning of a text-to-motion model.

    python -m train.train_sopo --save_dir save/sopo_experiment --dataset humanml
    python -m train.train_sopo --save_dir save/sopo --dataset NAME --tau_quantile 0.25 \\
        --model_path save/base/model000600000.pt --reward_path save/reward

    python -m train.train_sopo --lora_rank 16 ...   adapters alone are trained, through peft
    python -m train.train_sopo --method sft ...      the control: plain denoising, same steps
    python -m train.train_sopo --method offline_dpo --pairs_path FOLDER ...     (also combined_dpo,
        modipo_t and modipo_g; the folder comes from python -m prepare.preference_pairs)

    python -m train.train_sopo --model_path save/momask/base --guidance_param 4 ...     MoMask

train/preference/methods.py lists the methods, train/preference/algorithm.py is Algorithm 1 of the
paper, and docs/method.md lists every choice that the paper leaves open.
"""

from utils.start import entry_point

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loaders.humanml import MotionBatch, MotionDataset
from data_loaders.vocabulary import write_words
from model.compiled import CompileOptions
from model.families import load_generator
from model.lora import LoraOptions, add_lora
from model.seam import Generator
from rewards.load import RewardOptions, load_reward
from rewards.seam import Reward
from train.data import open_splits, steps_per_epoch, training_batches
from train.inspection import inspector
from train.loop import Trainer, start_run
from train.preference.algorithm import Outcome, PreferenceAlgorithm
from train.preference.fixed_pairs import PairStore
from train.preference.methods import METHODS
from train.preference.options import PreferenceOptions
from train.run_state import weights_digest
from train.task import StepResult, options_to_args
from train.token_preference import check_token_pairs, with_token_options
from train.tuning import TuningOptions, samples_of, validation_reward
from utils.errors import UserError
from utils.options import option, parse_options


@dataclass
class Options(PreferenceOptions, RewardOptions, LoraOptions, CompileOptions, TuningOptions):
    probe_batches: int = option(4, "batches that measure tau on the base model", minimum=1)
    resume_checkpoint: str = option("", "upstream's name of --model_path", free="resume")

    def validate(self) -> None:
        PreferenceOptions.validate(self)
        RewardOptions.validate(self)
        self.model_path = self.resume_checkpoint or self.model_path


class PreferenceTask:
    """Algorithm 1 on the clips of a dataset, as one `Task` of the training loop.

    `store` holds the fixed pairs, for the methods that read them.
    """

    shown = ("gate/share_below_tau", "rewards/unpreferred_score")

    def __init__(
        self,
        options: Options,
        policy: Generator,
        reward: Reward,
        data: MotionDataset,
        val_data: MotionDataset,
        store: PairStore | None = None,
    ) -> None:
        self.options, self.policy, self.reward = options, policy, reward
        self.data, self.val_data = data, val_data
        self.module: nn.Module = policy.model.eval()  # dropout stays off, in the loss and outside
        self.algorithm = PreferenceAlgorithm(options, policy, reward, store)
        self.base = weights_digest(self.module)

    @property
    def gated(self) -> bool:
        """Does tau decide which unpreferred motions count?"""
        return any(pairing.gate == "below_tau" for pairing in METHODS[self.options.method])

    def batches(self, epoch: int) -> Iterator[MotionBatch]:
        yield from training_batches(self.data, self.options, epoch, self.policy.padded_frames)

    def batches_per_epoch(self) -> int:
        return steps_per_epoch(self.data, self.options)

    def step(self, batch: MotionBatch, step: int, rng: torch.Generator) -> StepResult:
        outcome = self.algorithm.step(*samples_of(batch.to(self.policy.device)), rng)
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
            raw, _ = samples_of(batch.to(self.policy.device))
            condition = self.policy.encode_text(batch.captions)
            clips = self.policy.encode(raw, rng)
            drawn = self.algorithm.candidates(clips, batch.captions, condition, rng)
            rewards.append(drawn.rewards.amin(dim=1))
        measured = torch.cat(rewards)
        self.algorithm.threshold.observe(measured)
        return measured

    def validate(self) -> dict[str, float]:
        """Mean reward of motions generated for the first val captions, from one fixed noise."""
        options = self.options
        return validation_reward(
            self.policy,
            self.reward,
            self.val_data,
            batch_size=options.batch_size,
            count=options.val_motions,
            seed=options.seed,
        )

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        write_words(save_dir, self.data.captions())
        return self.policy.save(save_dir, step, average, options_to_args(self.options))

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


def report_probe(rewards: Tensor, tau: float) -> None:
    """Print the distribution of the worst-of-K reward on the base model and what tau does to it."""
    marks = torch.tensor([0.02, 0.05, 0.25, 0.5, 0.75, 0.95, 0.98], device=rewards.device)
    quantiles = rewards.float().quantile(marks)
    cells = "  ".join(f"{m:.0%} {q:.3f}" for m, q in zip(marks, quantiles, strict=True))
    share = float((rewards < tau).float().mean())
    print(f"worst-of-K reward on the base model ({len(rewards)} captions): {cells}")
    print(f"share below tau = {tau:.3f}: {share:.1%}")
    if not 0.02 <= share <= 0.98:
        print(
            f"warning: {share:.1%} of the unpreferred motions pass the gate, so it "
            f"{'hardly ever opens' if share < 0.02 else 'hardly ever closes'}; "
            "choose tau from the quantiles above or use --tau_quantile"
        )


def open_pairs(options: Options) -> PairStore:
    """The fixed pairs. Raises UserError when another reward ranked them than the method names."""
    store = PairStore(options.pairs_path)
    rewards = list(store.index.options.get("reward", []))
    for pairing in METHODS[options.method]:
        if pairing.ranked_by and rewards != [pairing.ranked_by]:
            raise UserError(
                f"--method {options.method} needs pairs ranked by --reward {pairing.ranked_by}; "
                f"those of {options.pairs_path} were ranked by {' '.join(rewards) or 'none'}"
            )
    return store


def with_pairs(data: MotionDataset, store: PairStore, options: Options) -> MotionDataset:
    """The clips that have pairs. Raises UserError when they do not fill one batch per process."""
    chosen = store.restrict(data)
    if steps_per_epoch(chosen, options) == 0:
        raise UserError(
            f"{options.pairs_path} has pairs for {len(chosen)} clips, which do not fill a batch of "
            f"--batch_size {options.batch_size} per process; generate more or lower it"
        )
    return chosen


def adapt(policy: Generator, options: Options) -> None:
    """Adapters for the policy. Raises UserError for a family that has none, and without peft."""
    if policy.predicts == "tokens":
        raise UserError("--lora_rank is for MDM and latent models; MoMask trains all its weights")
    add_lora(policy.model, options, options.seed)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    inspect = inspector(options)
    accelerator = start_run(options)
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    store = open_pairs(options) if options.pairs_path else None
    data, val_data = open_splits(options)
    policy = load_generator(
        options.model_path,
        accelerator.device,
        data_dir=options.data_dir,
        text_encoder_path=options.text_encoder_path,
        autocast=dtype,
        compiled=options.compile,
        sampler=options.sampler,
        guidance=options.guidance_param,
        skeleton=data.skeleton,
    )
    policy = with_token_options(policy, options)
    if options.lora_rank:
        adapt(policy, options)
    reward = load_reward(options, accelerator.device, data, val_data)
    if store is not None:
        store.check(data, policy.skeleton)
        check_token_pairs(policy, store)
        data = with_pairs(data, store, options)
    task = PreferenceTask(options, policy, reward, data, val_data, store)
    if task.gated:
        rewards = task.probe()
        if accelerator.is_main_process:
            report_probe(rewards, task.algorithm.threshold.value())
    Trainer(task, options, accelerator, inspect).run()


if __name__ == "__main__":
    main()
