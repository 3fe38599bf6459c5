"""What TMR models and the oracle say of a set of motions: the figures of one row of a table."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_loaders.facts import FactAccuracy, score_facts
from data_loaders.features import features_to_joints
from data_loaders.humanml import MotionDataset
from data_loaders.motion_quality import foot_skating
from data_loaders.skeleton import Skeleton
from eval.metrics import fid
from eval.motion_sets import MotionSet, SampledOptions
from rewards.seam import Reward
from rewards.tmr import TMRReward, TMRTextOptions
from tmr.retrieval import retrieval_in_pools
from utils.devices import pick_device
from utils.errors import UserError
from utils.intervals import mean_and_interval
from utils.options import option
from utils.tables import markdown_table


@dataclass
class JudgedOptions(SampledOptions, TMRTextOptions):
    judge_path: str = option("", "run folder of the independent TMR", required=True)


@dataclass(frozen=True)
class Figures:
    """One model. Rates lie in [0, 1]; `fid` is in the judge's latent space.

    None: not defined on this dataset (no annotations, or too few motions for the figure).
    """

    reward: float
    r_at_1: float
    r_at_2: float
    r_at_3: float
    r_at_1_split: float
    r_at_1_hard: float | None
    hard_chance: float | None
    fid: float | None
    facts: float | None
    side_facts: float | None
    foot_skating: float
    invalid_motions: int


def load_judge(path: str, options: JudgedOptions, skeleton: Skeleton) -> TMRReward:
    """The TMR in the run folder `path`. Raises UserError when it reads another skeleton."""
    device = pick_device(options.device)
    return TMRReward.load(path, device, options.reward_text_encoder_path, skeleton)


@torch.no_grad()
def judge_motions(
    motions: MotionSet,
    real_embeddings: Tensor,
    data: MotionDataset,
    reward: Reward,
    judge: TMRReward,
    seed: int,
) -> Figures:
    """All figures of one row. Motions with non-finite values are counted and left out."""
    finite = motions.finite()
    kept = motions.rows(finite.nonzero().squeeze(1))
    embeddings = embed(judge, kept)
    latents = judge.embed_texts(kept.captions).cpu(), embeddings, data.meanings(kept.captions)
    families = data.families(kept.names)
    hard = None
    try:
        pools = retrieval_in_pools(*latents, seed=seed)
        split = retrieval_in_pools(*latents, pool_size=None)
    except ValueError as error:
        raise UserError(f"the split is too small to judge: {error}; use a larger one") from None
    if any(families):
        with suppress(ValueError):  # no family has enough meanings
            hard = retrieval_in_pools(*latents, families=families, seed=seed)
    accuracy, skating = measure_joints(data, kept)
    enough = len(embeddings) > embeddings.shape[1]
    return Figures(
        reward=float(scores(reward, kept).mean()),
        r_at_1=pools.r_at_1,
        r_at_2=pools.r_at_2,
        r_at_3=pools.r_at_3,
        r_at_1_split=split.r_at_1,
        r_at_1_hard=hard.r_at_1 if hard else None,
        hard_chance=hard.chance if hard else None,
        fid=fid(real_embeddings.numpy(), embeddings.numpy()) if enough else None,
        facts=accuracy.overall if accuracy else None,
        side_facts=accuracy.side if accuracy else None,
        foot_skating=skating,
        invalid_motions=int((~finite).sum()),
    )


def scores(reward: Reward, motions: MotionSet) -> Tensor:
    """Rewards ``[N]`` on the CPU, in batches."""
    parts = [motions.rows(r) for r in torch.arange(len(motions.captions)).split(256)]
    return torch.cat([reward.score(p.samples, p.captions).cpu() for p in parts])


def embed(judge: TMRReward, motions: MotionSet) -> Tensor:
    """Judge embeddings ``[N, d]`` on the CPU, in batches."""
    parts = [motions.rows(r) for r in torch.arange(len(motions.captions)).split(256)]
    return torch.cat([judge.embed(p.samples).cpu() for p in parts])


def measure_joints(data: MotionDataset, motions: MotionSet) -> tuple[FactAccuracy | None, float]:
    """Share of stated facts that hold (None without annotations), and the foot skating ratio."""
    joints = [
        features_to_joints(motion[:length], data.skeleton).numpy()
        for motion, length in zip(motions.motions, motions.lengths.tolist(), strict=True)
    ]
    skating = float(np.mean([foot_skating(j, data.skeleton) for j in joints]))
    if data.annotations is None:
        return None, skating
    notes = data.annotations.captions
    facts = [notes[c].facts if c in notes else () for c in motions.captions]
    return score_facts(facts, joints, data.skeleton.fps), skating


COLUMNS = {
    "reward": ("reward", "{:.3f}"),
    "R@1": ("r_at_1", "{:.3f}"),
    "R@2": ("r_at_2", "{:.3f}"),
    "R@3": ("r_at_3", "{:.3f}"),
    "R@1 split": ("r_at_1_split", "{:.3f}"),
    "R@1 hard": ("r_at_1_hard", "{:.3f}"),
    "FID": ("fid", "{:.4f}"),
    "facts": ("facts", "{:.3f}"),
    "sides": ("side_facts", "{:.3f}"),
    "skating": ("foot_skating", "{:.3f}"),
}


def sampling_words(options: Mapping[str, Any]) -> str:
    """How the options of an evaluation say that models are sampled."""
    sampler, steps = options["sampler"] or "the model's own sampler", options["sample_steps"]
    return sampler if steps is None else f"{sampler} with {steps or 'all'} steps"


def format_cell(form: str, values: list[float | None]) -> str:
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    mean, half = mean_and_interval(known)
    return form.format(mean) + (f" ± {form.format(half)}" if len(known) > 1 else "")


def format_table(rows: dict[str, list[Figures]]) -> str:
    """A row per name, over its seeds."""
    cells = [
        [name, *(format_cell(form, [getattr(s, f) for s in seeds]) for f, form in COLUMNS.values())]
        for name, seeds in rows.items()
    ]
    return markdown_table(["model", *COLUMNS], cells)
