"""How far clips cut from the CMU files are from the same clips of HumanML3D, which come from AMASS.

AMASS fits a body to the markers anew, the CMU files hold the studio's own skeletons, so the same
performance comes with other joints.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from data_loaders.captions import read_caption_file
from data_loaders.features import feature_slices, features_to_joints
from data_loaders.humanml import LONGEST
from data_loaders.normalizer import plain_statistics
from data_loaders.skeleton import HUMANML
from prepare.cmu.build import CUTS_FILE
from tmr.model import TMR
from tmr.retrieval import retrieval_metrics, similarity_matrix
from utils.errors import UserError
from utils.files import read_array, read_json

SHOWN_CLIPS = 5
BATCH = 64


@dataclass(frozen=True)
class Pair:
    """One clip of both datasets: features [T, D] cut to the shorter one, and its first caption."""

    clip: str
    ours: Tensor
    theirs: Tensor
    caption: str
    in_test: bool


@dataclass(frozen=True)
class Comparison:
    """joints: name -> mean distance in metres after `aligned`. clips: clip -> mean over its joints.

    features: group -> (mean distance of the means in deviations of HumanML3D, ratio of deviations).
    retrieval: row -> R@k and median rank, percent; empty without a TMR.
    """

    joints: dict[str, float]
    clips: dict[str, float]
    features: dict[str, tuple[float, float]]
    retrieval: dict[str, dict[str, float]]

    def table(self) -> str:
        """All figures as text."""
        distances = sorted(self.clips.values())
        quantiles = np.quantile(distances, (0.5, 0.95))
        lines = [f"{'joint':16} distance in cm, mean of {len(distances)} clips"]
        lines += [f"{name:16} {100 * value:.1f}" for name, value in self.joints.items()]
        lines += [f"{'median clip':16} {100 * quantiles[0]:.1f}"]
        lines += [f"{'95 % of clips':16} below {100 * quantiles[1]:.1f}"]
        furthest = sorted(self.clips, key=self.clips.__getitem__, reverse=True)[:SHOWN_CLIPS]
        lines += [f"furthest         {c} {100 * self.clips[c]:.1f}" for c in furthest]
        lines += ["", f"{'features':16} {'means apart':>12} {'deviation ratio':>16}"]
        lines += [
            f"{n:16} {apart:12.3f} {ratio:16.3f}" for n, (apart, ratio) in self.features.items()
        ]
        if self.retrieval:
            names = list(next(iter(self.retrieval.values())))
            lines += ["", f"{'retrieval':28} " + " ".join(f"{name:>9}" for name in names)]
            lines += [
                f"{row:28} " + " ".join(f"{figures[name]:9.2f}" for name in names)
                for row, figures in self.retrieval.items()
            ]
        return "\n".join(lines)


def read_pairs(ours: Path, theirs: Path) -> list[Pair]:
    """The clips that both folders have. Raises UserError when there is none."""
    pairs = []
    cuts = read_json(ours / CUTS_FILE)
    test = set((ours / "test.txt").read_text(encoding="utf-8").split())
    for clip in cuts:
        paths = [folder / "new_joint_vecs" / f"{clip}.npy" for folder in (ours, theirs)]
        captions, _ = read_caption_file(ours / "texts" / f"{clip}.txt")
        whole = [caption.text for caption in captions if caption.whole_clip]
        if not all(path.is_file() for path in paths) or not whole:
            continue
        a, b = (torch.from_numpy(read_array(path)).float() for path in paths)
        if b.shape[1] != HUMANML.feature_dim or not b.isfinite().all():
            continue
        frames = min(len(a), len(b))
        pairs.append(Pair(clip, a[:frames], b[:frames], whole[0], clip in test))
    if not pairs:
        raise UserError(f"--compare {theirs} has no clip of {ours} in new_joint_vecs")
    return pairs


def aligned(joints: Tensor, target: Tensor) -> Tensor:
    """joints [T, J, 3] turned about Y and moved along the floor to lie closest to `target`."""
    ground = joints.new_tensor([1.0, 0.0, 1.0])
    centres = [(x * ground).mean(dim=(0, 1)) for x in (joints, target)]
    a, b = (torch.complex(x[..., 2], x[..., 0]) for x in (joints - centres[0], target - centres[1]))
    turn = (a.conj() * b).sum()
    turned = a * turn / turn.abs().clamp(min=1e-12)
    moved = torch.stack([turned.imag, joints[..., 1], turned.real], dim=-1)
    return moved + centres[1]


def compare(pairs: list[Pair], model: TMR | None) -> Comparison:
    """model: a TMR that was trained on HumanML3D, for the retrieval."""
    distances = {}
    for pair in pairs:
        ours, theirs = (features_to_joints(x.double()) for x in (pair.ours, pair.theirs))
        distances[pair.clip] = (aligned(ours, theirs) - theirs).norm(dim=-1).mean(dim=0)
    joints = torch.stack(list(distances.values())).mean(dim=0)
    return Comparison(
        joints=dict(zip(HUMANML.joint_names, joints.tolist(), strict=True)),
        clips={clip: float(distance.mean()) for clip, distance in distances.items()},
        features=compare_features(pairs),
        retrieval=compare_retrieval(pairs, model) if model else {},
    )


def compare_features(pairs: list[Pair]) -> dict[str, tuple[float, float]]:
    """Per group of columns, over all rows of all pairs; columns that never vary are left out."""
    ours = plain_statistics(pair.ours.numpy() for pair in pairs)
    theirs = plain_statistics(pair.theirs.numpy() for pair in pairs)
    found = {}
    for name, columns in vars(feature_slices(HUMANML)).items():
        std = theirs.std[columns]
        apart = (ours.mean[columns] - theirs.mean[columns]).abs()[std > 0] / std[std > 0]
        ratio = (ours.std[columns][std > 0] / std[std > 0]).mean()
        found[name] = (float(apart.mean()), float(ratio))
    return found


def compare_retrieval(pairs: list[Pair], model: TMR) -> dict[str, dict[str, float]]:
    """On the clips of the test split, which the TMR was not trained on.

    Text to motion in either dataset, and from a motion of ours to its original. Clips with the same
    caption are right answers for each other. Raises UserError when the split has none of the pairs.
    """
    asked = [p for p in pairs if p.in_test and HUMANML.min_length <= len(p.ours) < LONGEST]
    if not asked:
        raise UserError("--tmr_path: no clip of the test split is in both datasets")
    texts = model.encode_texts([pair.caption for pair in asked])
    ours, theirs = (embed(model, [getattr(p, name) for p in asked]) for name in ("ours", "theirs"))
    captions = np.array([pair.caption for pair in asked])
    same = captions[:, None] == captions[None]
    rows = {
        "text to HumanML3D": (texts, theirs, same),
        "text to this dataset": (texts, ours, same),
        "this to HumanML3D": (ours, theirs, None),
    }
    return {
        f"{row}, {len(asked)}": {
            name.removeprefix("t2m/"): value
            for name, value in retrieval_metrics(similarity_matrix(a, b), correct).items()
            if name.startswith("t2m/")
        }
        for row, (a, b, correct) in rows.items()
    }


@torch.no_grad()
def embed(model: TMR, motions: list[Tensor]) -> Tensor:
    """Latents [N, d] of features [T, D] each."""
    batches = [motions[start : start + BATCH] for start in range(0, len(motions), BATCH)]
    return torch.cat(
        [
            model.encode_motions(
                pad_sequence(batch, batch_first=True), torch.tensor([len(m) for m in batch])
            )
            for batch in batches
        ]
    )
