"""SoPo: semi-online preference fine-tuning of a text-to-motion diffusion model.

    python -m train.train_sopo --save_dir save/sopo_experiment --dataset humanml \\
        --model_path save/humanml_enc_512_50steps/model000750000.pt \\
        --reward_path models/tmr_humanml3d_guoh3dfeats

    python -m train.train_sopo --method sft ...      the control: plain denoising, same steps

One step is Algorithm 1 of the paper: draw preferred motions, let the policy generate K candidates
for each caption, score them, take the worst, use it only below tau, weight the preferred motion by
its distance to the candidates, and minimise Eq. 17. docs/method.md lists every choice that the
paper leaves open.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loaders.humanml import MotionBatch, MotionDataset
from model.checkpoints import load_generator, save_checkpoint
from model.generator import MotionGenerator, SamplerOptions
from tmr.model import TMR
from tmr.reward import TMRReward
from train.data import (
    DataOptions,
    fixed_batches,
    open_splits,
    steps_per_epoch,
    training_batches,
)
from train.loop import StepResult, Trainer, options_to_args, start_run
from train.preference.losses import DenoisingErrors, preferred_weight, sopo_loss
from train.preference.pairs import PreferenceBatch, RewardThreshold, SemiOnlineSampler
from utils.errors import entry_point
from utils.options import option, parse_options

METHODS = ("sopo", "sft")


@dataclass
class Options(DataOptions):
    model_path: str = option("", "base checkpoint modelNNNNNNNNN.pt", required=True)
    reward_path: str = option(
        "models/tmr_humanml3d_guoh3dfeats", "run folder of the TMR reward model"
    )
    method: str = option("sopo", "sopo, or the control sft", choices=METHODS)
    num_candidates: int = option(4, "K motions generated per caption", minimum=1)
    tau: float = option(
        0.45,
        "a candidate is used below this reward; rewards are (cos + 1) / 2, so they lie in [0, 1]",
        minimum=0,
        maximum=1,
    )
    tau_quantile: float | None = option(
        None, "set tau to this quantile of the recent worst-of-K rewards", minimum=0, maximum=1
    )
    beta: float = option(1.0, "weight of the implicit reward", minimum=0)
    preferred_weight_c: float = option(2.0, "C of beta_w = beta (C - S(x_w))", minimum=1)
    similarity_space: str = option("reward", "space of S(x_w)", choices=("reward", "features"))
    margin_scale: float | None = option(
        None, "replaces T in z = -T omega_t (...); none = number of diffusion steps", minimum=0
    )
    candidate_sampler: str = option("ancestral", "of the candidates", choices=("ancestral", "ddim"))
    candidate_steps: int = option(0, "denoising steps per candidate; 0 = all of them", minimum=0)
    guidance_param: float = option(2.5, "guidance scale of the candidates; 1 = none", minimum=0)
    probe_batches: int = option(4, "batches that measure tau on the base model", minimum=1)
    val_motions: int = option(128, "val captions generated per validation", minimum=8)
    lr: float = option(1e-5, "peak learning rate", minimum=0)
    lr_schedule: str = option("cosine", "after warm-up", choices=("constant", "linear", "cosine"))
    num_steps: int = option(1000, "optimiser steps", minimum=1)
    save_interval: int = option(500, "steps between checkpoints", minimum=1)
    val_interval: int = option(100, "steps between validations", minimum=1)
    resume_checkpoint: str = option("", "upstream's name of --model_path")


class PreferenceTask:
    """Policy, frozen reference, frozen reward and the pair source, as one `Task`."""

    def __init__(
        self,
        options: Options,
        policy: MotionGenerator,
        reward: TMRReward,
        data: MotionDataset,
        val_data: MotionDataset,
    ) -> None:
        self.options, self.policy, self.reward = options, policy, reward
        self.data, self.val_data = data, val_data
        self.module: nn.Module = policy.model.eval()  # dropout stays off, in the loss and outside
        self.reference = policy.with_model(copy.deepcopy(policy.model).eval().requires_grad_(False))
        self.diffusion_steps = policy.diffusion.schedule.num_timesteps
        self.scale = float(options.margin_scale or self.diffusion_steps)
        fixed = None if options.tau_quantile is not None else options.tau
        self.threshold = RewardThreshold(fixed, options.tau_quantile)
        self.pairs = SemiOnlineSampler(
            policy,
            reward,
            self.threshold,
            options.num_candidates,
            SamplerOptions(options.candidate_sampler, options.candidate_steps or None),
            options.guidance_param,
            options.similarity_space,
        )

    def batches(self, epoch: int) -> Iterator[MotionBatch]:
        yield from training_batches(self.data, self.options, epoch, self.policy.padded_frames)

    def batches_per_epoch(self) -> int:
        return steps_per_epoch(self.data, self.options)

    def step(self, batch: MotionBatch, step: int, rng: torch.Generator) -> StepResult:
        batch = batch.to(self.policy.device)
        condition = self.policy.encode_text(batch.captions)
        size = len(batch.captions)
        t = torch.randint(self.diffusion_steps, (size,), generator=rng, device=rng.device)
        if self.options.method == "sft":
            noise = torch.randn(batch.motion.shape, generator=rng, device=rng.device)
            error = self.policy.denoising_error(batch.motion, batch.lengths, t, noise, condition)
            return StepResult(error.mean(), {})
        pairs = self.pairs(batch, condition, rng)
        noise = torch.randn(pairs.preferred.shape, generator=rng, device=rng.device)
        winner, loser = self.errors(pairs, t, noise)
        weight = preferred_weight(
            pairs.similarity, self.options.beta, self.options.preferred_weight_c
        )
        result = sopo_loss(
            winner, loser, weight, self.options.beta, pairs.use_unpreferred, self.scale
        )
        metrics = pair_metrics(pairs, winner, loser, result, weight)
        if (step + 1) % self.options.log_interval == 0:
            metrics |= self.quarters(result.loss, result.margin, t)
        return StepResult(result.loss.mean(), metrics)

    def errors(
        self, pairs: PreferenceBatch, t: Tensor, noise: Tensor
    ) -> tuple[DenoisingErrors, DenoisingErrors]:
        """Errors of winner and loser: one t and one noise, one doubled batch per network."""
        motions = torch.cat([pairs.preferred, pairs.unpreferred])
        condition = pairs.condition.repeat(2)
        inputs = (motions, pairs.lengths.repeat(2), t.repeat(2), noise.repeat(2, 1, 1), condition)
        policy = self.policy.denoising_error(*inputs)
        with torch.no_grad():
            reference = self.reference.denoising_error(*inputs)
        halves = zip(policy.chunk(2), reference.chunk(2), strict=True)
        winner, loser = (DenoisingErrors(p, r) for p, r in halves)
        return winner, loser

    def quarters(self, loss: Tensor, margin: Tensor, t: Tensor) -> dict[str, Tensor | float]:
        """Implicit reward margin and gradient norm per quarter of the timesteps."""
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        quarter = t * 4 // self.diffusion_steps
        figures: dict[str, Tensor | float] = {}
        for q in quarter.unique().tolist():
            chosen = quarter == q
            gradients = torch.autograd.grad(
                loss[chosen].sum() / len(loss), parameters, retain_graph=True, allow_unused=True
            )
            norms = torch.stack([g.norm() for g in gradients if g is not None])
            figures[f"quarters/grad_norm_q{q}"] = norms.norm()
            figures[f"quarters/margin_q{q}"] = margin[chosen].mean()
        return figures

    @torch.no_grad()
    def probe(self) -> Tensor:
        """Rewards of the worst-of-K on the base model, over a few batches; feeds the threshold."""
        rng = torch.Generator(self.policy.device).manual_seed(self.options.seed)
        rewards: list[Tensor] = []
        loader = self.batches(epoch=0)
        for _, batch in zip(range(self.options.probe_batches), loader, strict=False):
            batch = batch.to(self.policy.device)
            condition = self.policy.encode_text(batch.captions)
            rewards.append(self.pairs.worst_rewards(batch, condition, rng))
        measured = torch.cat(rewards)
        self.threshold.observe(measured)
        return measured

    def validate(self) -> dict[str, float]:
        """Mean reward of motions generated for the first val captions, from one fixed noise."""
        rng = torch.Generator(self.policy.device).manual_seed(self.options.seed)
        loader = fixed_batches(self.val_data, self.options.batch_size)
        scores: list[Tensor] = []
        for batch in loader:
            batch = batch.to(self.policy.device)
            motions = self.policy.sample(
                self.policy.encode_text(batch.captions),
                batch.lengths,
                self.pairs.sampler,
                self.options.guidance_param,
                generator=rng,
            )
            raw = self.policy.stats.denormalize(motions)
            scores.append(self.reward.score(raw, batch.lengths, batch.captions))
            if sum(map(len, scores)) >= self.options.val_motions:
                break
        reward = float(torch.cat(scores).mean())
        return {"score": 1 - reward, "reward": reward}

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        args = options_to_args(self.options)
        return save_checkpoint(save_dir, step, self.policy, average=average, args=args)

    def state_dict(self) -> dict[str, Any]:
        return self.threshold.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.threshold.load_state_dict(state)


def pair_metrics(
    pairs: PreferenceBatch,
    winner: DenoisingErrors,
    loser: DenoisingErrors,
    result: Any,
    weight: Tensor,
) -> dict[str, Tensor | float]:
    """The figures of one step, under the names that preference training commonly uses."""
    on = pairs.use_unpreferred
    accuracy = (result.chosen > result.rejected).float()
    return {
        "rewards/chosen": result.chosen.mean(),
        "rewards/rejected": result.rejected.mean(),
        "rewards/margins": result.margin.mean(),
        "rewards/accuracies": accuracy.mean(),
        "rewards/preferred_score": pairs.reward_preferred.mean(),
        "rewards/unpreferred_score": pairs.reward_unpreferred.mean(),
        "rewards/candidate_score": pairs.reward_candidates.mean(),
        "gate/share_below_tau": on.float().mean(),
        "gate/tau": pairs.tau,
        "weights/beta_w": weight.mean(),
        "errors/winner_policy": winner.policy.detach().mean(),
        "errors/winner_difference": winner.difference.detach().mean(),
        "errors/loser_difference": loser.difference.detach().mean(),
    }


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


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    accelerator = start_run(options)
    dtype = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    data, val_data = open_splits(options)
    policy = load_generator(
        options.model_path,
        accelerator.device,
        data_dir=options.data_dir,
        text_encoder_path=options.text_encoder_path,
        autocast=dtype,
    )
    reward = TMRReward(TMR.load(options.reward_path, accelerator.device))
    reward.check_skeleton(data.skeleton)
    task = PreferenceTask(options, policy, reward, data, val_data)
    if options.method == "sopo":
        rewards = task.probe()
        if accelerator.is_main_process:
            report_probe(rewards, task.threshold.value())
    Trainer(task, options, accelerator).run()


if __name__ == "__main__":
    main()
