"""Animate captions of a split on which one model gains and loses most against another.

    python -m eval.examples --dataset synthetic --split test --judge_path save/judge \\
        --model_path save/mdm/model000002000.pt save/sopo/model000000100.pt --names base sopo \\
        --output_dir docs/figures

All models generate one motion for the first caption of each clip, from the same noise, and a TMR
that no training saw scores all of them. What is shown follows from the scores alone: the captions
are ranked by the last model's score minus the first's, ties by the name of the clip, and the
first, the middle and the last of that order are taken. Writes an animation per caption (the real
motion, then those of the models, each above its score, its reward with --reward_path, and the facts
of the caption that hold: gain1.gif, ..., median1.gif, ..., loss1.gif, ...), the first of each kind
in one (examples.gif), a table of them as examples.md, and the same as examples.json. A page for the
browser (index.html) plays real motion and models in step, for captions spread evenly over the whole
order, the first and the last among them.
"""

from utils.start import entry_point

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data_loaders.facts import Fact, holds, measure
from data_loaders.features import features_to_joints
from data_loaders.humanml import open_dataset
from data_loaders.skeleton import Skeleton
from eval.judging import JudgedOptions, load_judge, scores
from eval.motion_sets import MotionSet, generated_motions, load_model, real_motions
from model.checkpoint_files import read_model_args
from rewards.tmr import TMRPathOptions
from sample.small_gif import write_small_gif
from sample.video import Panel, video_suffix, write_video
from sample.viewer.page import Motion, Run, write_pages
from utils.errors import UserError
from utils.files import write_json, write_text
from utils.options import option, parse_options, with_default
from utils.outputs import OutputDirOptions
from utils.provenance import provenance
from utils.tables import markdown_table

REAL = "real"


@dataclass
class Options(JudgedOptions, TMRPathOptions, OutputDirOptions):
    reward_path: str = with_default(
        "", "run folder of the training reward, to show it; none = skip"
    )
    output_dir: str = with_default("", "folder for animations and table", required=True)
    count: int = option(2, "captions of each kind: gain, median, loss", minimum=1)
    page_captions: int = option(60, "captions on the page for the browser", minimum=1)
    video: str = option("gif", "gif is shown inside Markdown", choices=("auto", "mp4", "gif"))

    def validate(self) -> None:
        super().validate()
        if len(self.model_path) < 2:
            raise UserError("--model_path names one checkpoint; give two or more to compare")
        if len({REAL, *self.model_names()}) <= len(self.model_path):
            raise UserError("give the models different --names, and none of them 'real'")


@dataclass(frozen=True)
class Choice:
    """name: gain1, ...; rank: 1 = the largest gain of all captions; row: position in the split."""

    name: str
    rank: int
    row: int


@dataclass(frozen=True)
class Example:
    """A chosen caption. By model: scores and rewards (empty without a reward) in [0, 1], and how
    many of the caption's facts hold; `gain` is the last score minus that of the first model."""

    file: str
    rank: int
    clip: str
    caption: str
    scores: dict[str, float]
    rewards: dict[str, float]
    facts: dict[str, int]
    stated: int
    gain: float

    def note(self, name: str) -> str:
        """What stands below a panel."""
        lines = [f"judge {self.scores[name]:.3f}"]
        if self.rewards:
            lines.insert(0, f"reward {self.rewards[name]:.3f}")
        if self.stated:
            lines.append(f"facts {self.facts[name]} of {self.stated}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Comparison:
    """Motions and judge scores ``[N]`` of real data and the models, for the same captions.

    rewards: empty without a reward. facts: what each caption states, empty where nothing is known.
    """

    motions: dict[str, MotionSet]
    scores: dict[str, Tensor]
    rewards: dict[str, Tensor] = field(default_factory=dict)
    facts: dict[str, tuple[Fact, ...]] = field(default_factory=dict)

    @property
    def gains(self) -> Tensor:
        """``[N]``: score of the last model minus that of the first."""
        _, first, *others = self.scores.values()
        last = others[-1]
        return last - first


def ranking(gains: Tensor, clips: list[str]) -> list[int]:
    """The rows from the largest of `gains` ``[N]`` to the smallest, ties by clip name."""
    return sorted(range(len(clips)), key=lambda row: (-float(gains[row]), clips[row]))


def choose(gains: Tensor, clips: list[str], count: int) -> list[Choice]:
    """`count` of the largest, of the middle and of the smallest `gains` ``[N]``.

    Raises UserError when that would show a caption twice.
    """
    total = len(clips)
    if total < 3 * count:
        raise UserError(f"--count {count} needs {3 * count} captions, the split has {total}")
    order = ranking(gains, clips)
    middle = (total - count) // 2
    places = {
        "gain": range(count),
        "median": range(middle, middle + count),
        "loss": range(total - 1, total - 1 - count, -1),
    }
    return [
        Choice(f"{kind}{number}", place + 1, order[place])
        for kind, found in places.items()
        for number, place in enumerate(found, start=1)
    ]


def judge_models(options: Options) -> tuple[Comparison, Skeleton]:
    """Generate with all models and score; captions with a broken motion are left out, and said."""
    data = open_dataset(
        options.dataset,
        options.split,
        options.data_dir,
        random_items=False,
        rebuild_cache=options.rebuild_cache,
    )
    judge = load_judge(options.judge_path, options, data.skeleton)
    reward = (
        load_judge(options.reward_path, options, data.skeleton) if options.reward_path else None
    )
    motions = {REAL: real_motions(data, options.batch_size)}
    for name, path in zip(options.model_names(), options.model_path, strict=True):
        model = load_model(path, options, data.skeleton)
        motions[name] = generated_motions(model, motions[REAL], options, name)
    finite = torch.stack([part.finite() for part in motions.values()]).all(dim=0)
    if not finite.all():
        print(f"warning: {int((~finite).sum())} captions left out: a motion holds NaN or infinity")
    kept = {name: part.rows(finite.nonzero().squeeze(1)) for name, part in motions.items()}
    found = {name: scores(judge, part) for name, part in kept.items()}
    rewards = {name: scores(reward, part) for name, part in kept.items()} if reward else {}
    notes = data.annotations.captions if data.annotations else {}
    facts = {caption: note.facts for caption, note in notes.items()}
    return Comparison(kept, found, rewards, facts), data.skeleton


def joints_of(part: MotionSet, row: int, skeleton: Skeleton) -> np.ndarray:
    """``[T, J, 3]`` in the units of the skeleton."""
    motion = part.motions[row, : int(part.lengths[row])]
    return features_to_joints(motion, skeleton).numpy()


def describe(choice: Choice, suffix: str, compared: Comparison, skeleton: Skeleton) -> Example:
    real, row = compared.motions[REAL], choice.row
    facts = compared.facts.get(real.captions[row], ())
    measured = {
        name: measure(joints_of(part, row, skeleton), skeleton.fps)
        for name, part in compared.motions.items()
        if facts
    }
    return Example(
        file=choice.name + suffix,
        rank=choice.rank,
        clip=real.names[row],
        caption=real.captions[row],
        scores={name: float(values[row]) for name, values in compared.scores.items()},
        rewards={name: float(values[row]) for name, values in compared.rewards.items()},
        facts={name: sum(holds(f, found) for f in facts) for name, found in measured.items()},
        stated=len(facts),
        gain=float(compared.gains[row]),
    )


def animate(
    path: Path,
    shown: list[tuple[Choice, Example]],
    compared: Comparison,
    skeleton: Skeleton,
) -> None:
    """A row per example: real data and the models side by side below the caption."""
    rows = [
        [
            Panel(joints_of(part, choice.row, skeleton), name, example.note(name))
            for name, part in compared.motions.items()
        ]
        for choice, example in shown
    ]
    captions = [example.caption for _, example in shown]
    write = write_small_gif if path.suffix == ".gif" else write_video
    write(path, rows, skeleton, title=captions)


def page_runs(compared: Comparison, skeleton: Skeleton, count: int, seed: int) -> list[Run]:
    """`count` captions at even distances in the ranking, for the page: a run per model.

    The last model's motions carry the gain as well, to order the page by.
    """
    real = compared.motions[REAL]
    order = ranking(compared.gains, real.names)
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    found = {"judge": compared.scores, "reward": compared.rewards}
    last = list(compared.motions)[-1]

    def motion(name: str, part: MotionSet, row: int) -> Motion:
        figures = {kind: float(by[name][row]) for kind, by in found.items() if by}
        if name == last:
            figures["gain"] = float(compared.gains[row])
        caption = part.captions[row]
        facts = compared.facts.get(caption, ())
        joints = joints_of(part, row, skeleton)
        return Motion(caption, joints, None if name == REAL else seed, figures, facts)

    return [
        Run(name, [motion(name, part, order[place]) for place in places])
        for name, part in compared.motions.items()
    ]


def format_examples(examples: list[Example], summary: str) -> str:
    """A Markdown page: what all captions say, and a row per example."""
    names = list(examples[0].scores)
    header = ["animation", "rank", "caption", *names, "gain"]
    rows = []
    for example in examples:
        link = f"[{Path(example.file).stem}]({example.file})"
        judged = [f"{example.scores[name]:.3f}" for name in names]
        rows.append([link, str(example.rank), example.caption, *judged, f"{example.gain:+.3f}"])
    return f"{summary}\n\n{markdown_table(header, rows)}\n"


def summarize(compared: Comparison, options: Options) -> str:
    """The gain over all captions, so that the chosen ones are not mistaken for the usual."""
    first, *_, second = options.model_names()
    gains = compared.gains.numpy()
    low, median, high = np.percentile(gains, [10, 50, 90])
    return (
        f"{options.dataset}, {options.split} split, {len(gains)} captions. Judge score of {second} "
        f"minus that of {first}: mean {gains.mean():+.4f}, median {median:+.4f}, 10 % and 90 % "
        f"quantiles {low:+.3f} and {high:+.3f}; {second} scores higher for "
        f"{(gains > 0).mean():.0%}. By this gain, the first {options.count}, the middle "
        f"{options.count} and the last {options.count}, ties by clip name:"
    )


def run(options: Options) -> str:
    """Write animations and tables; returns the Markdown. Mistakes are told before models run."""
    for path in options.model_path:
        read_model_args(path)
    suffix = video_suffix(options.video)
    folder = options.new_folder()
    compared, skeleton = judge_models(options)
    choices = choose(compared.gains, compared.motions[REAL].names, options.count)
    examples = [describe(choice, suffix, compared, skeleton) for choice in choices]
    shown = list(zip(choices, examples, strict=True))
    films = {example.file: [(choice, example)] for choice, example in shown}
    films[f"examples{suffix}"] = shown[:: options.count]  # the first gain, median and loss
    for file, rows in tqdm(films.items(), desc="animations"):
        animate(folder / file, rows, compared, skeleton)
    runs = page_runs(compared, skeleton, options.page_captions, options.seed)
    write_pages(folder, runs, skeleton, title=f"{options.dataset}, {options.split} split")
    page = format_examples(examples, summarize(compared, options))
    write_text(folder / "examples.md", page)
    content = {
        "options": asdict(options),
        "captions": len(compared.gains),
        "mean_gain": float(compared.gains.mean()),
        "share_of_gains": float((compared.gains > 0).float().mean()),
        "examples": [asdict(example) for example in examples],
        "provenance": provenance(),
    }
    write_json(folder / "examples.json", content)
    return page


@entry_point
def main() -> None:
    print(run(parse_options(Options, description=__doc__)))


if __name__ == "__main__":
    main()
