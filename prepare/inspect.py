"""Show what a dataset holds: splits, lengths, captions, what trainings will miss, and six clips.

    python -m prepare.inspect dataset/mine
    python -m prepare.inspect humanml --output clips.png
    python -m prepare.inspect mine --output clips.gif --seed 3

DATASET is a folder, or the name of one as `--dataset` takes it. The counts are of clips as the
loader takes them; meanings are those of annotations.json, else every wording is one of its own, and
"not in train" counts those that the training split never states. --output draws six clips of the
training split, chosen at random: four moments of each (.png), or moving (.gif, .mp4).
"""

from utils.start import entry_point

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_loaders.features import features_to_joints
from data_loaders.humanml import CacheOptions, DatasetFolder, resolve_dataset
from prepare.survey import Survey, survey_dataset
from sample.video import Panel, draw_frames, video_suffix, write_video
from utils.errors import UserError
from utils.files import atomic_write
from utils.options import option, parse_options, with_default
from utils.seeding import SeedOptions

SHOWN, COLUMNS, PANEL_SIZE = 6, 3, 240
MOMENTS = (0.25, 0.5, 0.75, 1.0)  # parts of a clip at whose ends a picture shows it
FAMILIES = 12  # named
PICTURES = (".png", ".gif", ".mp4")


@dataclass
class Options(SeedOptions, CacheOptions):
    dataset: str = option(
        "", "dataset folder, humanml, kit, or a folder in dataset/", required=True
    )
    output: str = option("", "picture of six clips: a .png, .gif or .mp4 file")
    seed: int = with_default(0, "seed of the choice of these clips")

    def validate(self) -> None:
        suffix = Path(self.output).suffix
        if self.output and suffix not in PICTURES:
            raise UserError(f"--output {self.output} must end in one of {', '.join(PICTURES)}")
        if self.output:
            video_suffix("mp4" if suffix == ".mp4" else "gif")  # what drawing needs is there


def find_dataset(name: str) -> DatasetFolder:
    """A folder that holds clips, else the dataset of that name."""
    if (Path(name) / "new_joint_vecs").is_dir():
        return resolve_dataset(name, name)
    return resolve_dataset(name)


def describe(survey: Survey) -> str:
    """What the terminal shows, warnings last."""
    folder, skeleton = survey.folder, survey.folder.skeleton
    train = survey.splits["train"]
    words = {word for caption in train.captions for word in caption.split()}
    lines = [
        f"{folder.path}: {skeleton.name} skeleton, {skeleton.num_joints} joints, "
        f"{skeleton.feature_dim} features, {skeleton.fps:g} frames per second",
        survey.table(),
        f"words in train captions: {len(words)}",
    ]
    if train.families:
        named = [f"{name or 'none'} {n}" for name, n in train.families.most_common(FAMILIES)]
        rest = len(train.families) - len(named)
        lines.append(f"families in train: {', '.join(named)}{f' and {rest} more' if rest else ''}")
    lines += [f"warning: {warning}" for warning in survey.warnings]
    return "\n".join(lines if survey.warnings else [*lines, "nothing to warn of"])


def choose_panels(survey: Survey, seed: int) -> list[Panel]:
    """Some clips of the training split with their first captions.

    Raises UserError when there is none.
    """
    entries = survey.splits["train"].entries
    if not entries:
        raise UserError("the train split has no usable clip to draw")
    panels = []
    for index in np.random.default_rng(seed).permutation(len(entries))[:SHOWN]:
        entry = entries[index]
        features = survey.packed.rows[entry.start : entry.start + entry.length]
        joints = features_to_joints(features, survey.folder.skeleton).numpy()
        panels.append(Panel(joints, f"{entry.name}: {entry.captions[0].text}"))
    return panels


def moments(panel: Panel) -> list[Panel]:
    """The clip up to each of its `MOMENTS`; the caption stands over the first."""
    ends = [max(1, round(part * len(panel.joints))) for part in MOMENTS]
    captions = [panel.caption, *[""] * (len(MOMENTS) - 1)]
    return [Panel(panel.joints[:end], text) for end, text in zip(ends, captions, strict=True)]


def draw(survey: Survey, path: Path, seed: int) -> None:
    panels, skeleton = choose_panels(survey, seed), survey.folder.skeleton
    if path.suffix != ".png":
        rows = [panels[first : first + COLUMNS] for first in range(0, len(panels), COLUMNS)]
        write_video(path, rows, skeleton, panel_size=PANEL_SIZE)
        return
    last = max(len(panel.joints) for panel in panels) - 1
    rows = [moments(panel) for panel in panels]
    (image,) = draw_frames(rows, skeleton, panel_size=PANEL_SIZE, chosen=[last])
    with atomic_write(path) as temporary:
        image.save(temporary)


@entry_point
def main() -> None:
    words = sys.argv[1:]
    named = ["--dataset"] if words and not words[0].startswith("-") else []
    options = parse_options(Options, [*named, *words], description=__doc__)
    survey = survey_dataset(find_dataset(options.dataset), options.rebuild_cache)
    print(describe(survey))
    if options.output:
        draw(survey, Path(options.output), options.seed)
        print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
