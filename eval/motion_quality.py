"""What the benchmark does not see: a judge that no training saw, the feet, the jerk, stated facts.

One motion per clip of the split is generated for its first caption and measured beside the real
one. A training reward that rises while these figures fall is exploited, not satisfied.
"""

from dataclasses import dataclass

import numpy as np
import torch

from data_loaders.features import features_to_joints
from data_loaders.humanml import MotionDataset
from data_loaders.motion_quality import jerk
from data_loaders.skeleton import Skeleton
from eval.judging import embed, measure_joints, scores
from eval.motion_sets import MotionSet, SampledOptions, generated_motions, real_motions
from model.seam import MotionGenerator
from rewards.seam import Reward
from rewards.tmr import TMRReward
from tmr.retrieval import retrieval_metrics, similarity_matrix
from utils.tables import markdown_table


@dataclass(frozen=True)
class Quality:
    """One set of motions; None where nothing was given to measure it with.

    reward: mean score of the training reward; recall: percent of captions that find their motion
    in the whole split among the first k by the judge (keys R01 ... R10), and the median rank
    (MedR); facts, sides: shares of stated facts, and of those that say left or right, that hold;
    foot_skating: share of frames; jerk: m/s^3, mean over joints; broken: motions left out because
    they hold NaN or infinity.
    """

    reward: float | None
    recall: dict[str, float] | None
    facts: float | None
    sides: float | None
    foot_skating: float
    jerk: float
    broken: int = 0


@dataclass(frozen=True)
class Judges:
    """judge: an independent TMR; reward: the one that was trained on. None = not asked."""

    judge: TMRReward | None
    reward: Reward | None

    @staticmethod
    def load(
        judge_path: str,
        reward: Reward | None,
        text_encoder_path: str,
        skeleton: Skeleton,
        device: torch.device,
    ) -> "Judges":
        """Raises UserError when the judge is missing or reads another skeleton."""
        judge = None
        if judge_path:
            judge = TMRReward.load(judge_path, device, text_encoder_path, skeleton)
        return Judges(judge, reward)

    def measure(self, motions: MotionSet, data: MotionDataset) -> Quality:
        """Raises UserError when every motion is broken."""
        finite = motions.finite()
        kept = motions.rows(finite.nonzero().squeeze(1))
        accuracy, skating = measure_joints(data, kept)
        return Quality(
            reward=float(scores(self.reward, kept).mean()) if self.reward else None,
            recall=recall(self.judge, kept, data) if self.judge else None,
            facts=accuracy.overall if accuracy else None,
            sides=accuracy.side if accuracy else None,
            foot_skating=skating,
            jerk=mean_jerk(kept, data.skeleton),
            broken=int((~finite).sum()),
        )


def measure_generator(
    generator: MotionGenerator, data: MotionDataset, judges: Judges, options: SampledOptions
) -> dict[str, Quality]:
    """``real`` and ``generated``; of the options, seed, sampler, guidance and batch size count."""
    fixed = MotionDataset(
        data.folder, data.packed, data.entries, data.stats, data.annotations, random_items=False
    )
    real = real_motions(fixed, options.batch_size)
    generated = generated_motions(generator, real, options, "one motion per clip")
    return {
        "real": judges.measure(real, fixed),
        "generated": judges.measure(generated, fixed),
    }


def recall(judge: TMRReward, motions: MotionSet, data: MotionDataset) -> dict[str, float]:
    """Text-to-motion R@1 ... R@10 and MedR; motions of the same meaning are right answers too."""
    texts = judge.embed_texts(motions.captions).cpu()
    meanings = np.array(data.meanings(motions.captions))
    figures = retrieval_metrics(
        similarity_matrix(texts, embed(judge, motions)),
        meanings[:, None] == meanings[None],
    )
    return {key.removeprefix("t2m/"): v for key, v in figures.items() if key.startswith("t2m/")}


def mean_jerk(motions: MotionSet, skeleton: Skeleton) -> float:
    """Mean size of the third derivative of the joints' positions, in m/s^3."""
    pairs = zip(motions.motions, motions.lengths.tolist(), strict=True)
    joints = [features_to_joints(m[:n].double(), skeleton).numpy() for m, n in pairs]
    return float(np.mean([jerk(motion, skeleton.fps) for motion in joints]))


def format_quality(rows: dict[str, Quality]) -> str:
    """A Markdown table with a row per set."""
    recalls = list(next(iter(rows.values())).recall or ())
    header = ["", "reward", *(f"judge {key}" for key in recalls), "facts", "sides", "skating"]
    header += ["jerk [m/s^3]", "broken"]
    table = []
    for name, row in rows.items():
        values = [row.reward, *(row.recall or {}).values(), row.facts, row.sides]
        cells = ["-" if v is None else f"{v:.3f}" for v in (*values, row.foot_skating, row.jerk)]
        table.append([name, *cells, str(row.broken)])
    return markdown_table(header, table)
