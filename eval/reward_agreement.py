"""Is what the reward calls the worst of K motions also worse for judges that training never saw?

    python -m eval.reward_agreement --dataset NAME --split val --reward_path save/reward \\
        --judge_path save/judge --model_path save/base/model000004000.pt --num_candidates 4

Every model generates K motions for the first caption of each clip. The table compares the clips
with the motions that the training reward ranks best and worst, and the worst that pass a gate at a
quantile, as SoPo's unpreferred motions do, with the clips of their captions: by a second TMR, by
the facts that the captions state and by foot skating. Where the rows do not differ, preferences by
this reward teach nothing; where the clips do not differ from the best, the model leaves no room.
"""

from utils.start import entry_point

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from data_loaders.humanml import MotionDataset
from eval.judging import JudgedOptions, load_judge, measure_joints, scores
from eval.motion_sets import (
    FiguresFile,
    MotionSet,
    generated_motions,
    load_model,
    open_split,
    real_motions,
)
from model.seam import MotionGenerator
from rewards.tmr import TMRPathOptions, TMRReward
from train.preference.options import PairedOptions
from utils.errors import UserError
from utils.options import option, parse_options, with_default
from utils.tables import markdown_table


@dataclass
class Options(FiguresFile, JudgedOptions, TMRPathOptions, PairedOptions):
    reward_path: str = with_default("", required=True)
    tau_quantile: float = option(0.25, "share of the worst that pass the gate", minimum=0)

    def validate(self) -> None:
        super().validate()
        if not 0 < self.tau_quantile <= 1:
            raise UserError(f"--tau_quantile {self.tau_quantile} is a share in (0, 1]")


@dataclass(frozen=True)
class Quality:
    """Mean scores in [0, 1] of one set of motions; facts and sides: shares of stated facts that
    hold, None without annotations."""

    motions: int
    reward: float
    judge: float
    facts: float | None
    sides: float | None
    skating: float


@dataclass(frozen=True)
class Agreement:
    """same_worst: share of captions whose worst motion is the same for reward and judge (chance
    1 / K); rank_correlation: Spearman's, within captions, averaged over them."""

    same_worst: float
    rank_correlation: float


def measure(
    motions: MotionSet, data: MotionDataset, reward: TMRReward, judge: TMRReward
) -> Quality:
    accuracy, skating = measure_joints(data, motions)
    return Quality(
        motions=len(motions.captions),
        reward=float(scores(reward, motions).mean()),
        judge=float(scores(judge, motions).mean()),
        facts=accuracy.overall if accuracy else None,
        sides=accuracy.side if accuracy else None,
        skating=skating,
    )


def candidates(
    generator: MotionGenerator, real: MotionSet, options: Options, name: str
) -> list[MotionSet]:
    """K sets with one motion per caption each. Raises UserError for NaN or infinity."""
    drawn = [
        generated_motions(generator, real, replace(options, seed=options.seed + k), f"{name} {k}")
        for k in range(options.num_candidates)
    ]
    if not all(motions.motions.isfinite().all() for motions in drawn):
        raise UserError(f"{name} generates NaN or infinity: the model has diverged")
    return drawn


def choose(drawn: Sequence[MotionSet], which: Tensor) -> MotionSet:
    """Of every caption the motion `which` ``[N]`` of its K."""
    motions = torch.stack([d.motions for d in drawn])
    return replace(drawn[0], motions=motions[which, torch.arange(len(which))])


def agreement(rewards: Tensor, judged: Tensor) -> Agreement:
    """Of scores ``[K, N]``."""
    same = (rewards.argmin(dim=0) == judged.argmin(dim=0)).float().mean()
    columns = zip(rewards.T.numpy(), judged.T.numpy(), strict=True)
    correlations = [spearmanr(a, b).statistic for a, b in columns]
    return Agreement(float(same), float(np.nanmean(correlations)))


def compare(
    real: MotionSet,
    drawn: Sequence[MotionSet],
    data: MotionDataset,
    reward: TMRReward,
    judge: TMRReward,
    quantile: float,
) -> tuple[dict[str, Quality], Agreement]:
    """The rows of one model, and how far reward and judge agree."""
    rewards = torch.stack([scores(reward, motions) for motions in drawn])
    judged = torch.stack([scores(judge, motions) for motions in drawn])
    worst, lowest = rewards.argmin(dim=0), rewards.amin(dim=0)
    k = len(drawn)
    losers = choose(drawn, worst)
    passing = (lowest <= lowest.quantile(quantile)).nonzero().squeeze(1)
    sets = {
        f"best of {k}": choose(drawn, rewards.argmax(dim=0)),
        "first": drawn[0],
        f"worst of {k}": losers,
        f"worst of {k}, lowest {quantile:.0%}": losers.rows(passing),
        "clips of those": real.rows(passing),  # what passes may only have harder captions
    }
    rows = {name: measure(motions, data, reward, judge) for name, motions in sets.items()}
    return rows, agreement(rewards, judged)


def format_table(rows: dict[str, Quality]) -> str:
    """A Markdown table with a row per set of motions."""
    table = []
    for name, row in rows.items():
        values = (row.reward, row.judge, row.facts, row.sides, row.skating)
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        table.append([name, str(row.motions), *cells])
    header = ["motions", "number", "reward", "judge", "facts", "sides", "skating"]
    return markdown_table(header, table)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    data = open_split(options)
    reward = load_judge(options.reward_path, options, data.skeleton)
    judge = load_judge(options.judge_path, options, data.skeleton)
    real = real_motions(data, options.batch_size)
    rows = {"clips": measure(real, data, reward, judge)}
    agreements: dict[str, Agreement] = {}
    for name, path in zip(options.model_names(), options.model_path, strict=True):
        drawn = candidates(load_model(path, options, data.skeleton), real, options, name)
        found, agreements[name] = compare(real, drawn, data, reward, judge, options.tau_quantile)
        rows |= {f"{name}: {kind}": row for kind, row in found.items()}
    print(f"{options.dataset}, {options.split} split, {len(real.captions)} captions")
    print(format_table(rows))
    for name, found_agreement in agreements.items():
        print(
            f"{name}: reward and judge name the same worst of {options.num_candidates} for "
            f"{found_agreement.same_worst:.0%} of the captions (chance "
            f"{1 / options.num_candidates:.0%}), rank correlation "
            f"{found_agreement.rank_correlation:.2f}"
        )
    options.write(
        {
            "rows": {name: asdict(row) for name, row in rows.items()},
            "agreement": {name: asdict(found) for name, found in agreements.items()},
            "options": asdict(options),
        }
    )


if __name__ == "__main__":
    main()
