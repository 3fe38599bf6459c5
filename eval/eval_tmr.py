"""Judge generated motions of one or several models with TMR models and with the oracle.

    python -m eval.eval_tmr --dataset synthetic --split val --reward_path save/reward \\
        --judge_path save/judge --names base sopo sopo --output save/table.json \\
        --model_path save/mdm/model000002000.pt save/sopo{1,2}/model000000100.pt

For every model, one motion is generated for the first caption of each clip, from the same noise.
Checkpoints of one name are seeds of one method: their row is the mean and the 95 % interval.
The table shows the training reward beside figures that training never saw: retrieval by a second
TMR (pools of 32 distinct meanings, the whole split, and hard pools that share the content), FID in
that judge's space, and the share of stated facts that hold on the joints. The row `real` is the
dataset itself: a model above it has exploited the judge, not surpassed people.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import sem
from scipy.stats import t as student_t
from torch import Tensor
from tqdm import tqdm

from data_loaders.facts import FactAccuracy, score_facts
from data_loaders.features import features_to_joints
from data_loaders.humanml import MotionDataset, make_loader, open_dataset
from data_loaders.skeleton import Skeleton
from diffusion.sampling import SAMPLERS, SamplerOptions
from eval.metrics import fid, foot_skating
from model.compiled import COMPILE_HELP
from model.families import load_generator
from model.mdm.checkpoints import read_model_args
from model.mdm.generator import MDMGenerator
from model.seam import MotionGenerator, Samples
from rewards.tmr import TMRReward
from tmr.retrieval import retrieval_in_pools
from train.loop import pick_device
from utils.errors import UserError, entry_point
from utils.files import write_json
from utils.options import option, parse_options
from utils.provenance import provenance


@dataclass
class SampledOptions:
    """Options of every script that compares several models on the captions of a split."""

    model_path: list[str] = option([], "checkpoints to compare", required=True)
    names: list[str] = option([], "their names in the table; none = the folders' names")
    dataset: str = option("humanml", "humanml, kit, or the name of a folder in dataset/")
    data_dir: str = option("", "dataset folder, where it is not dataset/NAME")
    text_encoder_path: str = option("", "local folder of CLIP or DistilBERT, for the generators")
    split: str = option("val", "val while developing, test for the final table")
    sampler: str = option("ancestral", "of the motions", choices=SAMPLERS)
    sample_steps: int = option(0, "denoising steps; 0 = all", minimum=0)
    guidance_param: float = option(2.5, "guidance scale", minimum=0)
    batch_size: int = option(64, "motions generated at once", minimum=1)
    seed: int = option(10, "seed of noise and pools")
    device: str = option("auto", "auto, cpu, cuda, or a CUDA index")
    precision: str = option("fp32", "of the generator", choices=("fp32", "bf16"))
    compile: bool = option(False, COMPILE_HELP)

    def validate(self) -> None:
        if self.names and len(self.names) != len(self.model_path):
            raise UserError(
                f"--names holds {len(self.names)} names for {len(self.model_path)} checkpoints"
            )

    def model_names(self) -> list[str]:
        return self.names or [Path(path).parent.name for path in self.model_path]


@dataclass
class JudgedOptions(SampledOptions):
    judge_path: str = option("", "run folder of the independent TMR", required=True)
    reward_text_encoder_path: str = option("", "local folder of DistilBERT, for the TMR models")


@dataclass
class Options(JudgedOptions):
    reward_path: str = option("", "run folder of the training reward", required=True)
    output: str = option("", "JSON file for the figures; none = print only")


@dataclass(frozen=True)
class MotionSet:
    """Raw motions ``[N, T, D]`` (zero beyond the length), lengths ``[N]``, captions, clip ids."""

    motions: Tensor
    lengths: Tensor
    captions: list[str]
    names: list[str]

    @property
    def samples(self) -> Samples:
        return Samples(self.motions, self.lengths)

    def rows(self, keep: Tensor) -> "MotionSet":
        index = keep.tolist()
        captions, names = [self.captions[i] for i in index], [self.names[i] for i in index]
        return MotionSet(self.motions[keep], self.lengths[keep], captions, names)

    def finite(self) -> Tensor:
        """Which motions ``[N]`` hold neither NaN nor infinity. Raises UserError when none does."""
        finite = self.motions.isfinite().flatten(1).all(dim=1)
        if not finite.any():
            raise UserError("every generated motion holds NaN or infinity: the model has diverged")
        return finite


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


def open_split(options: SampledOptions) -> MotionDataset:
    """The split, item by item, once every checkpoint has been found. Raises UserError."""
    for path in options.model_path:
        read_model_args(path)
    return open_dataset(options.dataset, options.split, options.data_dir, random_items=False)


def real_motions(data: MotionDataset, batch_size: int) -> MotionSet:
    """Every clip once, with its first caption and uncropped, in order."""
    motions, lengths, captions, names = [], [], [], []
    for batch in make_loader(data, batch_size, shuffle=False):
        motions.append(batch.motion)
        lengths.append(batch.lengths)
        captions += batch.captions
        names += batch.names
    return MotionSet(_stack(motions), torch.cat(lengths), captions, names)


def load_judge(path: str, options: JudgedOptions, skeleton: Skeleton) -> TMRReward:
    """The TMR in the run folder `path`. Raises UserError when it reads another skeleton."""
    device = pick_device(options.device)
    return TMRReward.load(path, device, options.reward_text_encoder_path, skeleton)


def load_model(path: str, options: SampledOptions, skeleton: Skeleton) -> MDMGenerator:
    """The checkpoint as a generator. Raises UserError when it makes motions of another skeleton."""
    return load_generator(
        path,
        pick_device(options.device),
        data_dir=options.data_dir,
        text_encoder_path=options.text_encoder_path,
        autocast=torch.bfloat16 if options.precision == "bf16" else None,
        compiled=options.compile,
        sampler=SamplerOptions(options.sampler, options.sample_steps or None),
        guidance=options.guidance_param,
        skeleton=skeleton,
    )


@torch.no_grad()
def generated_motions(
    generator: MotionGenerator, real: MotionSet, options: SampledOptions, name: str
) -> MotionSet:
    """One motion per caption and length of `real`; the noise depends on the seed alone."""
    rng = torch.Generator(generator.device).manual_seed(options.seed)
    motions = []
    for rows in tqdm(torch.arange(len(real.captions)).split(options.batch_size), desc=name):
        like = generator.blank(real.lengths[rows].to(generator.device))
        condition = generator.encode_text([real.captions[i] for i in rows.tolist()])
        motions.append(generator.decode(generator.sample(condition, like, rng)).x.cpu())
    return replace(real, motions=_stack(motions))


def _stack(motions: Sequence[Tensor]) -> Tensor:
    frames = max(m.shape[1] for m in motions)
    pad = torch.nn.functional.pad
    return torch.cat([pad(m, (0, 0, 0, frames - m.shape[1])) for m in motions])


@torch.no_grad()
def judge_motions(
    motions: MotionSet,
    real_embeddings: Tensor,
    data: MotionDataset,
    reward: TMRReward,
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


def scores(reward: TMRReward, motions: MotionSet) -> Tensor:
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


def mean_and_interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % interval by Student's t; 0 for a single value."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, 0.0
    return mean, float(student_t.ppf(0.975, len(values) - 1) * sem(values))


def format_cell(form: str, values: list[float | None]) -> str:
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    mean, half = mean_and_interval(known)
    return form.format(mean) + (f" ± {form.format(half)}" if len(known) > 1 else "")


def format_table(rows: dict[str, list[Figures]]) -> str:
    """A Markdown table with a row per name."""
    lines = ["| model | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, seeds in rows.items():
        cells = [
            format_cell(f, [getattr(s, field) for s in seeds]) for field, f in COLUMNS.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    data = open_split(options)
    reward = load_judge(options.reward_path, options, data.skeleton)
    judge = load_judge(options.judge_path, options, data.skeleton)
    real = real_motions(data, options.batch_size)
    embeddings = embed(judge, real)
    rows = {"real": [judge_motions(real, embeddings, data, reward, judge, options.seed)]}
    for name, path in zip(options.model_names(), options.model_path, strict=True):
        generator = load_model(path, options, data.skeleton)
        motions = generated_motions(generator, real, options, name)
        figures = judge_motions(motions, embeddings, data, reward, judge, options.seed)
        rows.setdefault(name, []).append(figures)
    print(f"{options.dataset}, {options.split} split, {len(real.captions)} captions")
    print(format_table(rows))
    invalid = {name: n for name, s in rows.items() if (n := sum(f.invalid_motions for f in s))}
    if invalid:
        print(f"warning: motions with NaN or infinity, left out of their rows: {invalid}")
    if options.output:
        report = {
            "options": asdict(options),
            "captions": len(real.captions),
            "rows": {name: [asdict(figures) for figures in seeds] for name, seeds in rows.items()},
            "provenance": provenance(),
        }
        write_json(options.output, report)


if __name__ == "__main__":
    main()
