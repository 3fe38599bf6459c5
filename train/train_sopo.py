"""SoPo and the methods it is compared with: preference tuning of a text-to-motion diffusion model.

    python -m train.train_sopo --save_dir save/sopo_experiment --dataset humanml
    python -m train.train_sopo --save_dir save/sopo --dataset NAME --tau_quantile 0.25 \\
        --model_path save/base/model000600000.pt --reward_path save/reward

    python -m train.train_sopo --method sft ...      the control: plain denoising, same steps
    python -m train.train_sopo --method offline_dpo --pairs_path FOLDER ...     (also combined_dpo,
        modipo_t and modipo_g; the folder comes from python -m prepare.preference_pairs)

train/preference/methods.py lists the methods. One step of SoPo is Algorithm 1 of the paper: draw
preferred motions, let the policy generate K candidates for each caption, score them, take the
worst, use it only below tau, weight the preferred motion by its distance to the candidates, and
minimise Eq. 17. docs/method.md lists every choice that the paper leaves open.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loaders.humanml import MotionBatch, MotionDataset
from model.compiled import COMPILE_HELP
from model.mdm.checkpoints import load_generator, save_checkpoint
from model.mdm.generator import SAMPLERS, MotionGenerator, SamplerOptions
from rewards.load import RewardOptions, load_reward
from rewards.tmr import Reward
from train.data import (
    fixed_batches,
    open_splits,
    steps_per_epoch,
    training_batches,
)
from train.inspection import InspectionOptions, inspector
from train.loop import LoopOptions, StepResult, Trainer, options_to_args, start_run
from train.preference.fixed_pairs import FixedPairs, PairStore
from train.preference.losses import DenoisingErrors, PreferenceLoss, preferred_weight, sopo_loss
from train.preference.methods import METHODS, Pairing, needs_fixed_pairs
from train.preference.pairs import (
    CandidateSampler,
    OnlinePairs,
    PairSource,
    PreferenceBatch,
    RewardThreshold,
)
from train.preference.safeguards import SafeguardOptions, noisy_enough, omega_t
from utils.errors import UserError, entry_point
from utils.options import option, parse_options, with_default


@dataclass
class Options(RewardOptions, InspectionOptions, SafeguardOptions):
    model_path: str = option(
        "save/humanml_enc_512_50steps/model000750000.pt",
        "base checkpoint modelNNNNNNNNN.pt",
        free="resume",
    )
    method: str = option("sopo", "which pairs, gate and weight", choices=tuple(METHODS))
    pairs_path: str = option(
        "", "folder of fixed pairs, for the methods that read them", free="resume"
    )
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
    candidate_sampler: str = option("ancestral", "of the candidates", choices=SAMPLERS)
    candidate_steps: int = option(0, "denoising steps per candidate; 0 = all of them", minimum=0)
    guidance_param: float = option(2.5, "guidance scale of the candidates; 1 = none", minimum=0)
    compile: bool = option(False, COMPILE_HELP, free="always")
    probe_batches: int = option(4, "batches that measure tau on the base model", minimum=1)
    val_motions: int = option(128, "val captions generated per validation", minimum=8)
    lr: float = with_default(LoopOptions, "lr", 1e-5)
    lr_schedule: str = with_default(LoopOptions, "lr_schedule", "cosine")
    num_steps: int = with_default(LoopOptions, "num_steps", 1000)
    save_interval: int = with_default(LoopOptions, "save_interval", 500)
    val_interval: int = with_default(LoopOptions, "val_interval", 100)
    resume_checkpoint: str = option("", "upstream's name of --model_path", free="resume")

    def validate(self) -> None:
        super().validate()
        self.model_path = self.resume_checkpoint or self.model_path
        if needs_fixed_pairs(self.method) and not self.pairs_path:
            raise UserError(
                f"--method {self.method} needs --pairs_path FOLDER, made with "
                "python -m prepare.preference_pairs"
            )
        if self.tau_anchored and self.tau_quantile is None:
            raise UserError("--tau_anchored needs --tau_quantile, whose rewards it fixes")
        if self.pairs_path and not needs_fixed_pairs(self.method):
            raise UserError(f"--method {self.method} reads no fixed pairs; leave out --pairs_path")
        between = any(pairing.preferred == "best" for pairing in METHODS[self.method])
        if between and self.num_candidates < 2:
            raise UserError(
                f"--method {self.method} compares the best and the worst of K motions; "
                "--num_candidates must be at least 2"
            )


class PreferenceTask:
    """Policy, frozen reference, frozen reward and the sources of pairs, as one `Task`.

    `store` holds the fixed pairs, for the methods that read them.
    """

    shown = ("gate/share_below_tau", "rewards/unpreferred_score")

    def __init__(
        self,
        options: Options,
        policy: MotionGenerator,
        reward: Reward,
        data: MotionDataset,
        val_data: MotionDataset,
        store: PairStore | None = None,
    ) -> None:
        self.options, self.policy, self.reward = options, policy, reward
        self.data, self.val_data = data, val_data
        self.module: nn.Module = policy.model.eval()  # dropout stays off, in the loss and outside
        self.reference = policy.with_model(copy.deepcopy(policy.model).eval().requires_grad_(False))
        self.diffusion_steps = policy.diffusion.schedule.num_timesteps
        self.scale = float(options.margin_scale or self.diffusion_steps)
        fixed = None if options.tau_quantile is not None else options.tau
        self.threshold = RewardThreshold(fixed, options.tau_quantile, anchored=options.tau_anchored)
        self.candidates = CandidateSampler(
            policy,
            reward,
            options.num_candidates,
            SamplerOptions(options.candidate_sampler, options.candidate_steps or None),
            options.guidance_param,
            options.candidate_start,
        )
        self.sources = [self.source(pairing, store) for pairing in METHODS[options.method]]

    def source(self, pairing: Pairing, store: PairStore | None) -> PairSource:
        if pairing.online:
            space = self.options.similarity_space
            return OnlinePairs(self.candidates, self.threshold, pairing, space)
        if store is None:
            raise ValueError(f"method {self.options.method} needs a store of fixed pairs")
        return FixedPairs(self.policy, self.reward, store, pairing)

    @property
    def gated(self) -> bool:
        """Does tau decide which unpreferred motions count?"""
        return any(source.pairing.gate == "below_tau" for source in self.sources)

    def batches(self, epoch: int) -> Iterator[MotionBatch]:
        yield from training_batches(self.data, self.options, epoch, self.policy.padded_frames)

    def batches_per_epoch(self) -> int:
        return steps_per_epoch(self.data, self.options)

    def step(self, batch: MotionBatch, step: int, rng: torch.Generator) -> StepResult:
        batch = batch.to(self.policy.device)
        condition = self.policy.encode_text(batch.captions)
        size = len(batch.captions)
        t = torch.randint(self.diffusion_steps, (size,), generator=rng, device=rng.device)
        drawn = [source(batch, condition, rng) for source in self.sources]
        noise = torch.randn(batch.motion.shape, generator=rng, device=rng.device)
        if not drawn:
            error = self.policy.denoising_error(batch.motion, batch.lengths, t, noise, condition)
            return StepResult(error.mean(), {})
        loss = margin = torch.zeros(size, device=t.device)
        metrics: dict[str, Tensor | float] = {}
        for source, pairs in zip(self.sources, drawn, strict=True):
            result, figures = self.pair_loss(pairs, t, noise)
            loss, margin = loss + result.loss, margin + result.margin
            prefix = f"{source.pairing.name}/" if len(drawn) > 1 else ""
            metrics |= {prefix + name: value for name, value in figures.items()}
        if (step + 1) % self.options.log_interval == 0:
            metrics |= self.quarters(loss, margin, t)
        return StepResult(loss.mean(), metrics)

    def pair_loss(
        self, pairs: PreferenceBatch, t: Tensor, noise: Tensor
    ) -> tuple[PreferenceLoss, dict[str, Tensor | float]]:
        """Loss of one kind of pair, and the figures for the log."""
        beta, c = self.options.beta, self.options.preferred_weight_c
        if pairs.similarity is None:
            weight = torch.full_like(pairs.reward_unpreferred, beta)
        else:
            weight = preferred_weight(pairs.similarity, beta, c)
        winner, loser = self.errors(pairs, t, noise)
        options, schedule = self.options, self.policy.diffusion.schedule
        scale = self.scale * omega_t(options.omega, t, schedule, winner.reference)
        noisy = noisy_enough(t, self.diffusion_steps, options.loser_min_t)
        gate, loser_beta = pairs.use_unpreferred & noisy, beta * options.loser_weight
        result = sopo_loss(winner, loser, weight, loser_beta, gate, scale)
        return result, pair_metrics(pairs, winner, loser, result, weight)

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
            rewards.append(self.candidates(batch, condition, rng).rewards.amin(dim=1))
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
                self.candidates.sampler,
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
    result: PreferenceLoss,
    weight: Tensor,
) -> dict[str, Tensor | float]:
    """The figures of one step, under the names that preference training commonly uses."""
    on = pairs.use_unpreferred
    accuracy = (result.chosen > result.rejected).float()
    tau = {} if pairs.tau is None else {"gate/tau": pairs.tau}
    return tau | {
        "rewards/chosen": result.chosen.mean(),
        "rewards/rejected": result.rejected.mean(),
        "rewards/margins": result.margin.mean(),
        "rewards/accuracies": accuracy.mean(),
        "rewards/preferred_score": pairs.reward_preferred.mean(),
        "rewards/unpreferred_score": pairs.reward_unpreferred.mean(),
        "rewards/candidate_score": pairs.reward_candidates.mean(),
        "gate/share_below_tau": on.float().mean(),
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
    )
    reward = load_reward(options, accelerator.device, data, val_data)
    if store is not None:
        store.check(data, policy)
        data = with_pairs(data, store, options)
    task = PreferenceTask(options, policy, reward, data, val_data, store)
    if task.gated:
        rewards = task.probe()
        if accelerator.is_main_process:
            report_probe(rewards, task.threshold.value())
    Trainer(task, options, accelerator, inspect).run()


if __name__ == "__main__":
    main()
