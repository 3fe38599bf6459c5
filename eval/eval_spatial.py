"""Does a reward, and does a generator, tell left from right? (SoPo, Fig. 4a)

    python -m eval.eval_spatial --dataset synthetic --reward_path save/reward
    python -m eval.eval_spatial --dataset synthetic --reward_path save/reward \\
        --model_path save/mdm/model000002000.pt save/sopo/model000000100.pt --names base sopo

Over the captions of the split that hold a word for a side: the share of motions that score higher
with their caption than with left and right swapped in it, r(x, c) > r(x, swapped c). For real
motions this measures the reward (0.5 = blind, and ties count half); for generated ones generator
and reward together. Where the dataset has annotations, the share of stated sides that hold on the
joints measures the generator without any reward.
"""

from utils.start import entry_point

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from data_loaders.captions import swap_left_right
from data_loaders.humanml import MotionDataset
from eval.judging import measure_joints, scores
from eval.motion_sets import (
    FiguresFile,
    MotionSet,
    SampledOptions,
    generated_motions,
    load_model,
    open_split,
    real_motions,
)
from rewards.seam import Reward
from rewards.tmr import TMRPathOptions, TMRReward, TMRTextOptions
from utils.devices import pick_device
from utils.errors import UserError
from utils.options import parse_options, with_default
from utils.tables import markdown_table


@dataclass
class Options(FiguresFile, SampledOptions, TMRTextOptions, TMRPathOptions):
    model_path: list[str] = with_default(
        [], "checkpoints of generators; none = real motions only", required=False
    )
    names: list[str] = with_default([], "their names in the table; none = the files' paths")
    reward_path: str = with_default("", "run folder of a TMR", required=True)

    def validate(self) -> None:
        super().validate()
        if len(set(self.names)) < len(self.names):
            raise UserError(f"--names holds one name twice: {', '.join(self.names)}")


@dataclass(frozen=True)
class SpatialFigures:
    """discrimination, and half the width of its 95 % interval over captions; sides: share of
    stated sides that hold, None without annotations; broken: motions left out, NaN or infinity."""

    captions: int
    discrimination: float
    half_width: float
    sides: float | None
    broken: int = 0


def sided(motions: MotionSet) -> MotionSet:
    """The motions whose captions change when left and right are swapped.

    Raises UserError when there is none.
    """
    rows = [i for i, caption in enumerate(motions.captions) if swap_left_right(caption) != caption]
    if not rows:
        raise UserError("no caption of the split holds left or right: there is nothing to measure")
    return motions.rows(torch.tensor(rows))


def discrimination(reward: Reward, motions: MotionSet) -> Tensor:
    """``[N]``: 1 where the caption scores above its swapped form, 0 below, 0.5 for a tie."""
    swapped = [swap_left_right(caption) for caption in motions.captions]
    other = MotionSet(motions.motions, motions.lengths, swapped, motions.names)
    margin = scores(reward, motions) - scores(reward, other)
    return (margin.sign() + 1) / 2


def measure(reward: Reward, motions: MotionSet, data: MotionDataset) -> SpatialFigures:
    """Raises UserError when every motion is broken."""
    finite = motions.finite()
    kept = motions.rows(finite.nonzero().squeeze(1))
    hits = discrimination(reward, kept)
    accuracy, _ = measure_joints(data, kept) if data.annotations else (None, 0.0)
    return SpatialFigures(
        captions=len(hits),
        discrimination=float(hits.mean()),
        half_width=1.96 * float(hits.std(correction=0)) / len(hits) ** 0.5,
        sides=accuracy.side if accuracy else None,
        broken=int((~finite).sum()),
    )


def format_rows(rows: dict[str, SpatialFigures]) -> str:
    """A Markdown table with a row per set of motions."""
    header = ["motions", "captions", "r(x,c) > r(x,swapped c)", "sides that hold", "broken"]
    cells = []
    for name, row in rows.items():
        sides = "-" if row.sides is None else f"{row.sides:.3f}"
        share = f"{row.discrimination:.3f} ± {row.half_width:.3f}"
        cells.append([name, str(row.captions), share, sides, str(row.broken)])
    return markdown_table(header, cells)


def evaluate(options: Options) -> dict[str, SpatialFigures]:
    """The figures of real motions and of every generator."""
    data = open_split(options)
    device = pick_device(options.device)
    text_encoder = options.reward_text_encoder_path
    reward = TMRReward.load(options.reward_path, device, text_encoder, data.skeleton)
    real = sided(real_motions(data, options.batch_size))
    rows = {"real": measure(reward, real, data)}
    for name, path in zip(options.names or options.model_path, options.model_path, strict=True):
        generator = load_model(path, options, data.skeleton)
        motions = generated_motions(generator, real, options, name)
        rows[name] = measure(reward, motions, data)
    return rows


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    rows = evaluate(options)
    print(f"{options.dataset}, {options.split} split, captions with left or right")
    print(format_rows(rows))
    options.write(
        {"options": asdict(options), "rows": {name: asdict(row) for name, row in rows.items()}}
    )


if __name__ == "__main__":
    main()
