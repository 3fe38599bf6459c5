"""Figures of generated pictures: rewards, wins against a first model, distance, facts."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from eval.metrics import fid
from model.seam import Samples
from prepare.shape_world.oracle import facts_of, mean_by_kind
from rewards.seam import Reward
from utils.intervals import mean_and_interval
from utils.tables import markdown_table

BATCH = 64  # pictures scored at once
NO_LORA = "none"  # in place of a path: the model as it is
WORDS = """\
- **all** and the kinds after it: the share of what the captions state that an oracle reads from the
  pixels by rules, so that no model can flatter it.
- **reward**: what SoPo was tuned to raise. **judge**, **win_rate**: a reward that was trained
  apart, and how often it prefers the picture to that of the first row. **distance**: how far the
  pictures as a whole lie from real ones in the judge's space; 0 is the real set itself."""


@dataclass
class PictureFigures:
    """One model's. facts: by kind, and ``all``; fact_shares: of each picture; reward, judge: means;
    win_rate: share of pictures that the judge puts above those of the first model; distance:
    Frechet, of the judge's embeddings, to real pictures."""

    facts: dict[str, float] = field(default_factory=dict)
    fact_shares: list[float] = field(default_factory=list)
    reward: float | None = None
    judge: float | None = None
    judge_scores: list[float] = field(default_factory=list)
    win_rate: float | None = None
    distance: float | None = None


@torch.no_grad()
def scores_of(reward: Reward, pictures: Tensor, captions: list[str]) -> Tensor:
    """Rewards ``[N]`` of pictures ``[N, 3, H, W]``."""
    parts = [
        reward.score(Samples(pictures[i : i + BATCH]), captions[i : i + BATCH])
        for i in range(0, len(captions), BATCH)
    ]
    return torch.cat(parts).float().cpu()


@torch.no_grad()
def embeddings_of(judge: Reward, pictures: Tensor) -> np.ndarray:
    """Embeddings ``[N, d]`` of pictures ``[N, 3, H, W]``."""
    parts = [judge.embed(Samples(part)) for part in pictures.split(BATCH)]
    return torch.cat(parts).float().cpu().numpy()


def judge_pictures(
    pictures: Tensor,
    captions: list[str],
    reward: Reward | None,
    judge: Reward | None,
    real: np.ndarray | None,
    first: list[float] | None,
) -> PictureFigures:
    """real: the judge's embeddings of real pictures; first: its scores of the first model's."""
    figures = PictureFigures()
    if (facts := facts_of(captions, pictures)) is not None:
        figures.facts = mean_by_kind(facts)
        figures.fact_shares = [float(np.mean([f.holds for f in picture])) for picture in facts]
    if reward is not None:
        figures.reward = float(scores_of(reward, pictures, captions).mean())
    if judge is not None:
        scores = scores_of(judge, pictures, captions)
        figures.judge, figures.judge_scores = float(scores.mean()), scores.tolist()
        if first is not None:
            wins = np.sign(np.asarray(figures.judge_scores) - np.asarray(first))
            figures.win_rate = float((wins + 1).mean() / 2)  # a tie is half a win
        if real is not None:
            embedded = embeddings_of(judge, pictures)
            figures.distance = fid(real, embedded, allow_singular=True)
    return figures


def format_table(rows: dict[str, list[PictureFigures]]) -> str:
    """A row per name: means and 95 % intervals over the models of that name (seeds)."""
    kinds = list(dict.fromkeys(k for models in rows.values() for m in models for k in m.facts))
    plain = ("reward", "judge", "win_rate", "distance")
    shown = [n for n in plain if any(getattr(m, n) is not None for ms in rows.values() for m in ms)]
    table = []
    for name, models in rows.items():
        cells = [name]
        cells += [_cell([m.facts[kind] for m in models if kind in m.facts]) for kind in kinds]
        values = [[getattr(m, n) for m in models if getattr(m, n) is not None] for n in shown]
        table.append(cells + [_cell(v) for v in values])
    return markdown_table(["", *kinds, *shown], table)


def format_page(rows: dict[str, list[PictureFigures]], grid: str) -> str:
    """The table, what its columns mean, and the last row against the one before; `grid` is the
    file of the pictures beside it."""
    parts = [format_table(rows), WORDS]
    (control, before), (name, after) = [("", []), *rows.items()][-2:]
    if len(before) == len(after) == 1 and after[0].fact_shares:
        pairs = zip(after[0].fact_shares, before[0].fact_shares, strict=True)
        mean, half = mean_and_interval([a - b for a, b in pairs])
        parts.append(
            f"Facts of {name} minus {control}: {mean:+.3f} ± {half:.3f}, 95 % over captions, each "
            "drawn from one noise by both; seeds of the tuning add to that."
        )
    return "\n\n".join([*parts, f"![a column per model, a row per caption]({grid})"]) + "\n"


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    mean, half = mean_and_interval(values)
    return f"{mean:.3f} ± {half:.3f}" if half else f"{mean:.3f}"
