"""Judge generated motions of one or several models with TMR models and with the oracle.

    python -m eval.eval_tmr --dataset synthetic --split val --reward_path save/reward \\
        --judge_path save/judge --names base sopo --output save/table.json \\
        --model_path save/mdm/model000002000.pt save/sopo/model000000100.pt

For every model, one motion is generated for the first caption of each clip, from the same noise.
The table shows the training reward beside figures that training never saw: retrieval by a second
TMR (pools of 32 distinct meanings, the whole split, and hard pools that share the content), FID in
that judge's space, and the share of stated facts that hold on the joints. The row `real` is the
dataset itself: a model above it has exploited the judge, not surpassed people.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from data_loaders.facts import FactAccuracy, score_facts
from data_loaders.features import features_to_joints
from data_loaders.humanml import MotionDataset, make_loader, open_dataset
from eval.metrics import fid, foot_skating
from model.checkpoints import load_generator
from model.generator import MotionGenerator, SamplerOptions
from tmr.model import TMR
from tmr.retrieval import retrieval_in_pools
from tmr.reward import TMRReward
from train.loop import pick_device
from utils.errors import UserError, entry_point
from utils.files import write_json
from utils.options import option, parse_options
from utils.provenance import provenance


@dataclass
class Options:
    model_path: list[str] = option([], "checkpoints to compare", required=True)
    names: list[str] = option([], "their names in the table; none = the folders' names")
    reward_path: str = option("", "run folder of the training reward", required=True)
    judge_path: str = option("", "run folder of the independent TMR", required=True)
    dataset: str = option("humanml", "humanml, kit, or the name of a folder in dataset/")
    data_dir: str = option("", "dataset folder, where it is not dataset/NAME")
    text_encoder_path: str = option("", "local folder of CLIP or DistilBERT")
    split: str = option("val", "val while developing, test for the final table")
    sampler: str = option("ancestral", "of the motions", choices=("ancestral", "ddim"))
    sample_steps: int = option(0, "denoising steps; 0 = all", minimum=0)
    guidance_param: float = option(2.5, "guidance scale", minimum=0)
    batch_size: int = option(64, "motions generated at once", minimum=1)
    seed: int = option(10, "seed of noise and pools")
    device: str = option("auto", "auto, cpu, cuda, or a CUDA index")
    precision: str = option("fp32", "of the generator", choices=("fp32", "bf16"))
    output: str = option("", "JSON file for the figures; none = print only")

    def validate(self) -> None:
        if self.names and len(self.names) != len(self.model_path):
            raise UserError(
                f"--names holds {len(self.names)} names for {len(self.model_path)} checkpoints"
            )


@dataclass(frozen=True)
class MotionSet:
    """Raw motions ``[N, T, D]`` (zero beyond the length), lengths ``[N]`` and captions."""

    motions: Tensor
    lengths: Tensor
    captions: list[str]


@dataclass(frozen=True)
class Figures:
    """One row. Rates lie in [0, 1]; `fid` is in the judge's latent space."""

    reward: float
    r_at_1: float
    r_at_2: float
    r_at_3: float
    r_at_1_split: float
    r_at_1_hard: float
    hard_chance: float
    fid: float
    facts: float
    side_facts: float
    foot_skating: float
    invalid_motions: int


def real_motions(data: MotionDataset, batch_size: int) -> MotionSet:
    """Every clip once, with its first caption and uncropped, in order."""
    loader = make_loader(data, batch_size, shuffle=False, seed=0, epoch=0, drop_last=False)
    motions, lengths, captions = [], [], []
    for batch in loader:
        motions.append(data.stats.denormalize(batch.motion) * batch.mask.unsqueeze(-1))
        lengths.append(batch.lengths)
        captions += batch.captions
    return MotionSet(_stack(motions), torch.cat(lengths), captions)


@torch.no_grad()
def generated_motions(
    generator: MotionGenerator, real: MotionSet, options: Options, name: str
) -> MotionSet:
    """One motion per caption and length of `real`; the noise depends on the seed alone."""
    rng = torch.Generator(generator.device).manual_seed(options.seed)
    sampler = SamplerOptions(options.sampler, options.sample_steps or None)
    motions = []
    for rows in tqdm(torch.arange(len(real.captions)).split(options.batch_size), desc=name):
        lengths = real.lengths[rows].to(generator.device)
        condition = generator.encode_text([real.captions[i] for i in rows.tolist()])
        sample = generator.sample(
            condition, lengths, sampler, options.guidance_param, generator=rng
        )
        valid = torch.arange(sample.shape[1], device=sample.device) < lengths[:, None]
        motions.append((generator.stats.denormalize(sample) * valid.unsqueeze(-1)).cpu())
    return MotionSet(_stack(motions), real.lengths, real.captions)


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
    finite = motions.motions.isfinite().all(dim=(1, 2))
    if not finite.any():
        raise UserError("every generated motion holds NaN or infinity: the model has diverged")
    keep = finite.nonzero().squeeze(1)
    raw, lengths = motions.motions[keep], motions.lengths[keep]
    captions = [motions.captions[i] for i in keep.tolist()]
    embeddings = embed(judge, raw, lengths)
    texts = judge.embed_texts(captions).cpu()
    meanings = data.meanings(captions)
    pools = retrieval_in_pools(texts, embeddings, meanings, seed=seed)
    split = retrieval_in_pools(texts, embeddings, meanings, pool_size=None)
    families = [data.families(captions)[i] for i in range(len(captions))]
    hard = retrieval_in_pools(texts, embeddings, meanings, families=families, seed=seed)
    accuracy, skating = measure_joints(data, raw, lengths, captions)
    return Figures(
        reward=float(
            torch.cat(
                [
                    reward.score(
                        raw[rows], lengths[rows], [captions[i] for i in rows.tolist()]
                    ).cpu()
                    for rows in torch.arange(len(captions)).split(256)
                ]
            ).mean()
        ),
        r_at_1=pools.r_at_1,
        r_at_2=pools.r_at_2,
        r_at_3=pools.r_at_3,
        r_at_1_split=split.r_at_1,
        r_at_1_hard=hard.r_at_1,
        hard_chance=hard.chance,
        fid=fid(real_embeddings.numpy(), embeddings.numpy()),
        facts=accuracy.overall,
        side_facts=accuracy.side,
        foot_skating=skating,
        invalid_motions=int((~finite).sum()),
    )


def embed(judge: TMRReward, motions: Tensor, lengths: Tensor) -> Tensor:
    """Judge embeddings ``[N, d]`` on the CPU, in batches."""
    rows = torch.arange(len(motions)).split(256)
    return torch.cat([judge.embed_motions(motions[r], lengths[r]).cpu() for r in rows])


def measure_joints(
    data: MotionDataset, raw: Tensor, lengths: Tensor, captions: list[str]
) -> tuple[FactAccuracy, float]:
    """Share of stated facts that hold, and the foot skating ratio, on decoded joints."""
    joints = [
        features_to_joints(motion[:length], data.skeleton).numpy()
        for motion, length in zip(raw, lengths.tolist(), strict=True)
    ]
    notes = data.annotations.captions if data.annotations else {}
    facts = [notes[c].facts if c in notes else () for c in captions]
    skating = [foot_skating(j, data.skeleton) for j in joints]
    return score_facts(facts, joints, data.skeleton.fps), float(sum(skating) / len(skating))


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


def format_table(rows: dict[str, Figures]) -> str:
    """A Markdown table, one row per model."""
    lines = ["| model | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, figures in rows.items():
        cells = [form.format(getattr(figures, field)) for field, form in COLUMNS.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    device = pick_device(options.device)
    data = open_dataset(options.dataset, options.split, options.data_dir, random_items=False)
    reward = TMRReward(TMR.load(options.reward_path, device))
    judge = TMRReward(TMR.load(options.judge_path, device))
    for model in (reward, judge):
        model.check_skeleton(data.skeleton)
    names = options.names or [Path(p).parent.name for p in options.model_path]
    real = real_motions(data, options.batch_size)
    embeddings = embed(judge, real.motions, real.lengths)
    rows = {"real": judge_motions(real, embeddings, data, reward, judge, options.seed)}
    for name, path in zip(names, options.model_path, strict=True):
        generator = load_generator(
            path,
            device,
            data_dir=options.data_dir,
            text_encoder_path=options.text_encoder_path,
            autocast=torch.bfloat16 if options.precision == "bf16" else None,
        )
        motions = generated_motions(generator, real, options, name)
        rows[name] = judge_motions(motions, embeddings, data, reward, judge, options.seed)
    print(f"{options.dataset}, {options.split} split, {len(real.captions)} captions")
    print(format_table(rows))
    invalid = {name: r.invalid_motions for name, r in rows.items() if r.invalid_motions}
    if invalid:
        print(f"warning: motions with NaN or infinity, left out of their rows: {invalid}")
    if options.output:
        report = {
            "options": asdict(options),
            "captions": len(real.captions),
            "rows": {name: asdict(figures) for name, figures in rows.items()},
            "provenance": provenance(),
        }
        write_json(options.output, report)


if __name__ == "__main__":
    main()
