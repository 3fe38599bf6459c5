"""Check that a TMR model works: do texts score higher with their own motions than with others?

    python text_motion_sim.py --run_dir models/tmr_humanml3d_guoh3dfeats
    python text_motion_sim.py --run_dir save/reward --npy motion.npy --text "a person waves"

The first form scores captions of a dataset against their own motion and against the motion of a
caption that states something else, and shows both captions. Without --dataset it takes HumanML3D
where that is on disk, else the embedded dataset, and says which. The exit code is 0 when the
ordering is right and 1 when it is not. The second form prints one score, (cos + 1) / 2, for raw
(un-normalised) features ``[T, D]``.
"""

from utils.start import entry_point

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from data_loaders.humanml import (
    MotionBatch,
    MotionDataset,
    SplitDatasetOptions,
    make_loader,
    open_dataset,
)
from model.seam import Samples
from model.text.encoders import TextEncoderOptions
from prepare.procedural.dataset import Options as SyntheticOptions
from prepare.procedural.dataset import build
from rewards.tmr import TMRReward
from tmr.model import TMR
from utils.devices import DeviceOptions, pick_device
from utils.errors import UserError
from utils.files import read_array
from utils.options import option, parse_options, with_default
from utils.seeding import SeedOptions

SHOWN = 5  # rows of the table
SIGNIFICANCE = 0.01  # of the one-sided sign test


@dataclass
class Options(SplitDatasetOptions, TextEncoderOptions, SeedOptions, DeviceOptions):
    run_dir: str = option("models/tmr_humanml3d_guoh3dfeats", "run folder of the TMR model")
    npy: str = option("", "one motion: raw features [T, D]")
    text: str = option("", "its caption")
    dataset: str = with_default("", "humanml, kit, or a folder in dataset/; none = any")
    split: str = with_default("test")
    num_pairs: int = option(64, "captions to score", minimum=8)

    def validate(self) -> None:
        if bool(self.npy) != bool(self.text):
            raise UserError("--npy and --text belong together; give both or none")


def read_motion(path: str) -> Tensor:
    """Features ``[T, D]``; raises UserError for anything else."""
    try:
        motion = read_array(path)
    except (OSError, ValueError) as error:
        raise UserError(f"--npy {path} is not a readable array file ({error})") from None
    if motion.ndim != 2 or not len(motion) or not np.isfinite(motion).all():
        raise UserError(f"--npy {path} must hold finite features [T, D], not {motion.shape}")
    return torch.from_numpy(motion).float()


def open_any_dataset(options: Options) -> MotionDataset:
    """The named dataset, else HumanML3D, else the embedded one (made in a temporary folder)."""
    if options.dataset or options.data_dir:
        name = options.dataset or "humanml"
        return open_dataset(
            name,
            options.split,
            options.data_dir,
            random_items=False,
            rebuild_cache=options.rebuild_cache,
        )
    for name in ("humanml", "synthetic"):
        try:
            rebuild = options.rebuild_cache
            return open_dataset(name, options.split, random_items=False, rebuild_cache=rebuild)
        except UserError:
            print(f"no dataset {name} on disk")
    print("making the embedded dataset in a temporary folder")
    with tempfile.TemporaryDirectory() as folder:
        build(SyntheticOptions(out=f"{folder}/synthetic", num_clips=600, seed=options.seed))
        return open_dataset("synthetic", options.split, f"{folder}/synthetic", random_items=False)


def pick_batch(data: MotionDataset, count: int, seed: int) -> MotionBatch:
    """One batch of `count` motions (fewer where the split is smaller), drawn with the seed."""
    size = min(count, len(data))
    return next(make_loader(data, size, shuffle=True, seed=seed, pad_to=data.skeleton.max_length))


def other_rows(meanings: list[str]) -> list[int]:
    """For every row the next one, cyclically, whose caption states something else."""
    size = len(meanings)
    rows = []
    for i, meaning in enumerate(meanings):
        others = [(i + k) % size for k in range(1, size) if meanings[(i + k) % size] != meaning]
        if not others:
            raise UserError("all captions state the same, so nothing can be compared")
        rows.append(others[0])
    return rows


def check(reward: TMRReward, data: MotionDataset, options: Options) -> bool:
    """Print the table; True when matching pairs win significantly often (sign test)."""
    batch = pick_batch(data, options.num_pairs, options.seed)
    motions = Samples(batch.motion, batch.lengths)
    others = other_rows(data.meanings(batch.captions))
    own = reward.score(motions, batch.captions).cpu()
    other = reward.score(motions[torch.tensor(others)], batch.captions).cpu()
    print(f"{data.folder.name}, {options.split} split")
    print(f"{'own':>6} {'other':>6}  caption | caption of the other motion")
    for row in range(min(SHOWN, len(own))):
        both = f"{batch.captions[row]} | {batch.captions[others[row]]}"
        print(f"{own[row]:6.3f} {other[row]:6.3f}  {both}")
    print(f"{own.mean():6.3f} {other.mean():6.3f}  mean of {len(own)} captions")
    wins = int((own > other).sum())
    right = bool(binomtest(wins, len(own), alternative="greater").pvalue < SIGNIFICANCE)
    print(
        f"{wins} of {len(own)} captions prefer their own motion: the ordering is "
        f"{'right' if right else 'WRONG, this model is no better than chance on this dataset'}"
    )
    return right


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    model = TMR.load(options.run_dir, pick_device(options.device), options.text_encoder_path)
    reward = TMRReward(model)
    if options.npy:
        motion = read_motion(options.npy)
        score = reward.score(Samples(motion[None], torch.tensor([len(motion)])), [options.text])
        print(f"{Path(options.npy).name}: similarity to '{options.text}' is {float(score):.3}")
        return
    data = open_any_dataset(options)
    reward.check(data.skeleton)
    sys.exit(0 if check(reward, data, options) else 1)


if __name__ == "__main__":
    main()
