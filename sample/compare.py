"""Show the motions of several models for the same prompts and noise side by side.

    python -m sample.compare --names base SoPo --text_prompt "a person waves with the left hand" \\
        --model_path save/base/model000750000.pt save/sopo/model000000500.pt

Writes index.html, where the models play in step, in 3-D and in any browser, and one video per
prompt (compare00.mp4, ...), with a panel for every model. GIFs are drawn so that they stay below
400 kB: smaller, in fewer frames and colours.
"""

from utils.start import entry_point

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from model.families import ModelListOptions
from sample.generation import (
    SamplingOptions,
    load_for_sampling,
    motion_frames,
    read_prompts,
    safe_name,
    sample_joints,
    stated_skeleton,
)
from sample.small_gif import write_small_gif
from sample.video import Panel, video_suffix, write_video
from sample.viewer.page import Motion, Run, write_pages
from utils.errors import UserError
from utils.options import parse_options


@dataclass
class Options(ModelListOptions, SamplingOptions):
    def validate(self) -> None:
        super().validate()
        if self.video == "none" and not self.page:
            raise UserError("--video none and --page false leave nothing to write")


def compare(options: Options) -> list[Path]:
    """Run the script; returns what it wrote. User mistakes are told before a model loads.

    Models that differ in frame masking sample sequences of different length, so that their noise
    cannot be the same.
    """
    prompts = read_prompts(options)
    if not prompts:
        raise UserError("give the prompts to compare on: --text_prompt or --input_text")
    for path in options.model_path:
        motion_frames(options.motion_length, stated_skeleton(path))
    suffix = video_suffix(options.video)
    names = options.model_names()
    default = (
        Path(options.model_path[0]).resolve().parent
        / f"compare_{safe_name('_'.join(names))}_seed{options.seed}"
    )
    folder = options.new_folder(default)
    motions, skeletons = [], set()
    for path in options.model_path:
        generator = load_for_sampling(path, options)
        skeletons.add(generator.skeleton)
        if len(skeletons) > 1:
            raise UserError(f"--model_path {path} has another skeleton than the first model")
        frames = motion_frames(options.motion_length, generator.skeleton)
        motions.append(sample_joints(generator, prompts, frames, options).numpy())
    (skeleton,) = skeletons
    written = []
    if options.page:
        runs = [
            Run(name, [Motion(*pair, options.seed) for pair in zip(prompts, part, strict=True)])
            for name, part in zip(names, motions, strict=True)
        ]
        written += write_pages(folder, runs, skeleton, title=f"{' and '.join(names)}, side by side")
    for number, prompt in enumerate(tqdm(prompts if suffix else (), desc="videos")):
        row = [Panel(m[number], name) for m, name in zip(motions, names, strict=True)]
        path = folder / f"compare{number:02d}{suffix}"
        write = write_small_gif if suffix == ".gif" else write_video
        written.append(write(path, [row], skeleton, title=prompt))
    return written


@entry_point
def main() -> None:
    for path in compare(parse_options(Options, description=__doc__)):
        print(path)


if __name__ == "__main__":
    main()
