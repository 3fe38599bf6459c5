"""Motions for prompts: options, prompts, sampling, files and videos."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data_loaders.features import features_to_joints
from data_loaders.humanml import MotionDataset, SplitDatasetOptions, open_dataset
from data_loaders.skeleton import HUMANML, SKELETONS, Skeleton
from data_loaders.vocabulary import unknown_words
from diffusion.samplers import Denoiser
from diffusion.sampling import SamplerOptions
from export.formats import FORMATS as EXPORTED
from export.formats import ExportOptions, export_motions
from model.checkpoint_files import (
    ModelPathOptions,
    find_checkpoint,
    label_of,
    read_model_args,
    run_folder,
)
from model.families import GeneratorOptions, MotionFamily
from model.momask.generator import MoMaskGenerator
from model.momask.options_file import FAMILY as MOMASK
from model.seam import Samples
from model.shipped import MODEL_FILE, REWARD_FILE, SHIPPED
from rewards.best_of import BestOf, BestOfOptions
from rewards.load import load_reward, load_reward_without_data
from sample.exported import named_results
from sample.results import Results, save_results
from sample.video import FORMATS, Panel, video_suffix, write_video
from sample.viewer.page import check_size, write_pages
from sample.viewer.results import runs_of, stated_facts
from utils.devices import CudaOptions, pick_device
from utils.errors import UserError
from utils.files import check_output_dir
from utils.masks import match_frames
from utils.options import option, with_default
from utils.outputs import OutputDirOptions
from utils.seeding import torch_generator

ROWS_PER_GRID = 3
GRID_PANEL_SIZE = 320  # pixels


@dataclass
class SamplingOptions(GeneratorOptions, CudaOptions, OutputDirOptions):
    """Options that every script which samples from checkpoints shares."""

    text_prompt: str | None = option(None, "one caption")
    input_text: str | None = option(None, "text file with one caption per line")
    motion_length: float = option(
        6.0,
        "seconds; 0 = as drawn by MoMask's length estimator (sample.generate)",
        minimum=0,
        maximum=3600,
    )
    video: str = option("auto", "video files; auto = mp4, or gif without ffmpeg", choices=FORMATS)
    page: bool = option(True, "write index.html, which shows the motions in a browser")


@dataclass
class Options(ModelPathOptions, SamplingOptions, SplitDatasetOptions, BestOfOptions, ExportOptions):
    model_path: str = with_default(
        str(SHIPPED / MODEL_FILE),
        "checkpoint, e.g. save/NAME/model000750000.pt; by default the small one of the project",
    )
    num_samples: int = option(10, "captions drawn when no prompt is given", minimum=1)
    num_repetitions: int = option(3, "motions per caption", minimum=1)
    dataset: str = with_default("", "dataset to draw captions from; none = the checkpoint's")
    split: str = with_default("test")
    reward_path: list[str] = with_default(
        [str(SHIPPED / REWARD_FILE)],
        "run folders of the TMR models of --best_of; by default the project's small one",
    )
    export: list[str] = option(
        [],
        "formats for other tools, written to the folder `export` (docs/export.md)",
        choices=EXPORTED,
    )


def read_prompts(options: SamplingOptions) -> list[str]:
    """The captions of ``--text_prompt`` or ``--input_text``; empty when neither is given.

    Raises UserError for both at once, a missing or empty file, and captions without words.
    """
    if options.text_prompt is not None and options.input_text is not None:
        raise UserError("--text_prompt and --input_text exclude each other; give one")
    if options.text_prompt is not None:
        prompt = " ".join(options.text_prompt.split())
        if not prompt:
            raise UserError("--text_prompt holds no words")
        return [prompt]
    return [] if options.input_text is None else _read_prompt_file(options.input_text)


def _read_prompt_file(path: str) -> list[str]:
    try:
        content = Path(path).read_text(encoding="utf-8-sig")
    except OSError:
        raise UserError(f"--input_text {path} does not exist or is not a readable file") from None
    except UnicodeDecodeError:
        raise UserError(f"--input_text {path} is not UTF-8 text") from None
    prompts = [" ".join(line.split()) for line in content.splitlines() if line.strip()]
    if not prompts:
        raise UserError(f"--input_text {path} is empty; write one caption per line")
    return prompts


def open_captions(dataset: str, options: Options) -> MotionDataset:
    """The split whose captions are generated for."""
    return open_dataset(
        dataset, options.split, options.data_dir, rebuild_cache=options.rebuild_cache
    )


def draw_captions(dataset: str, options: Options) -> list[str]:
    """`num_samples` captions of different clips of the split, drawn with the seed."""
    data = open_captions(dataset, options)
    if options.num_samples > len(data):
        raise UserError(
            f"--num_samples {options.num_samples} exceeds the {len(data)} clips of the "
            f"{options.split} split of {dataset}"
        )
    rng = np.random.default_rng(options.seed)
    entries = [data.entries[i] for i in rng.permutation(len(data))[: options.num_samples]]
    return [entry.captions[rng.integers(len(entry.captions))].text for entry in entries]


def motion_frames(seconds: float, skeleton: Skeleton) -> int:
    """Frames of a motion of this duration. Raises UserError beyond the model's range."""
    frames = int(seconds * skeleton.fps)
    if not 1 <= frames <= skeleton.max_length:
        longest = skeleton.max_length / skeleton.fps
        raise UserError(
            f"--motion_length {seconds:g} is {frames} frames; choose {1 / skeleton.fps:g} to "
            f"{longest:g} seconds (1 to {skeleton.max_length} frames at {skeleton.fps:g} fps)"
        )
    return frames


def check_length(seconds: float, model_path: str) -> None:
    """Before a model is loaded: is this duration in its range, or is 0 one that it can draw?

    Raises UserError otherwise.
    """
    if seconds or read_model_args(model_path).get("family") != MOMASK:
        motion_frames(seconds, stated_skeleton(model_path))


def motion_lengths(
    generator: MotionFamily, captions: list[str], options: SamplingOptions, repetitions: int
) -> Tensor:
    """Frames ``[repetitions * N]`` for N captions: those of the options, or drawn where that is 0.

    Raises UserError beyond the model's range, and where it has no length estimator.
    """
    if options.motion_length == 0 and isinstance(generator, MoMaskGenerator):
        rng = torch_generator(options.seed, generator.device)
        return generator.draw_lengths(generator.encode_text(captions * repetitions), rng).cpu()
    frames = motion_frames(options.motion_length, generator.skeleton)
    return torch.full((len(captions) * repetitions,), frames)


def warn_of_the_unknown(model_path: Path, captions: list[str], frames: int, to: Skeleton) -> None:
    """Say what the model has never seen: words, and motions that are shorter than its clips."""
    if words := unknown_words(run_folder(model_path), captions):
        print(f"warning: the captions of the training never held: {', '.join(words)}")
    if frames < to.min_length:
        print(
            f"warning: {frames} frames are fewer than those of any training clip "
            f"({to.min_length / to.fps:g} s or more)"
        )


def stated_skeleton(model_path: str) -> Skeleton:
    """The skeleton that ``args.json`` suggests, for checks that need no loaded model."""
    return SKELETONS.get(str(read_model_args(model_path).get("dataset")), HUMANML)


def default_output_dir(options: Options) -> Path:
    """Upstream's name, beside the checkpoint: samples_{folder}_{step}_seed{seed}[_{prompt}].

    What the project's own model makes goes to ``save`` in the working folder.
    """
    model_path = find_checkpoint(options.model_path).resolve()
    run = run_folder(model_path)
    name = f"samples_{run.name}_{label_of(model_path)}_seed{options.seed}"
    if options.text_prompt is not None:
        name += f"_{safe_name(options.text_prompt)}"
    elif options.input_text is not None:
        name += f"_{safe_name(Path(options.input_text).stem)}"
    return (Path("save") if run == SHIPPED else run) / name


def safe_name(text: str) -> str:
    """`text` as part of a file name: spaces become ``_``, dots vanish, at most 60 characters."""
    name = text.strip().replace(" ", "_").replace(".", "")
    return "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name)[:60]


def load_for_sampling(model_path: str, options: SamplingOptions) -> MotionFamily:
    return options.load_generator(model_path, pick_device(options.device, options.cuda))


@dataclass(frozen=True, kw_only=True)
class ShownSampler(SamplerOptions):
    """A sampler with a bar of its steps, however many network calls each of them takes."""

    bar: tqdm

    def run(self, denoise: Denoiser, *arguments: Any) -> Tensor:
        def step(x: Tensor, t: Tensor) -> Tensor:
            x0 = denoise(x, t)
            self.bar.update()
            return x0

        return super().run(step, *arguments)


def sample_joints(
    generator: MotionFamily, captions: list[str], frames: int, options: SamplingOptions
) -> Tensor:
    """Joints ``[N, frames, J, 3]`` of one motion per caption; see `sample_motions`."""
    return sample_motions(generator, captions, torch.full((len(captions),), frames), options).x


def prompts_at_once(generator: MotionFamily | BestOf, options: GeneratorOptions) -> int:
    """How many prompts make a batch of ``--batch_size`` motions."""
    count = generator.count if isinstance(generator, BestOf) else 1
    return max(1, options.batch_size // count)


def sample_motions(
    generator: MotionFamily | BestOf,
    captions: list[str],
    lengths: Tensor,
    options: GeneratorOptions,
    progress: Callable[..., tqdm] = tqdm,
) -> Samples:
    """Joints ``[R * N, T, J, 3]`` of N captions, R times each, repetition-major, on the CPU.

    lengths: ``[R * N]`` frames; tokens cut them to whole ones, which the result states. All noise
    follows from the seed, so models of one shape get the same noise. Raises UserError when the
    model gives NaN or infinity.
    """
    rng = torch_generator(options.seed, generator.device)
    condition = generator.encode_text(captions)
    parts = torch.arange(len(captions)).split(prompts_at_once(generator, options))
    batches = [(rows, part) for rows in lengths.split(len(captions)) for part in parts]
    usual = generator.sampler
    steps = usual.steps or generator.levels
    drawn = []
    with progress(total=len(batches) * steps, desc="denoising", unit="step") as bar:
        sampler = ShownSampler(usual.name, usual.steps, usual.eta, bar=bar)
        if isinstance(generator, BestOf):
            generator = generator.with_sampler(sampler)
        else:
            generator = replace(generator, sampler=sampler)
        for frames, part in batches:
            like = generator.blank(frames[part].to(generator.device))
            drawn.append(generator.decode(generator.sample(condition[part], like, rng)).to("cpu"))
            bar.update(len(drawn) * steps - bar.n)  # not every family tells its steps
    longest = max(raw.x.shape[1] for raw in drawn)
    raw = Samples.cat([Samples(match_frames(r.x.float(), longest), r.lengths) for r in drawn])
    joints = features_to_joints(raw.x, generator.skeleton)
    if not joints.isfinite().all():
        raise UserError("generated motions hold NaN or infinity: the model has diverged")
    return Samples(joints, raw.lengths)


def write_videos(folder: Path, results: Results, skeleton: Skeleton, suffix: str) -> None:
    """One video per motion, and grids of three captions with their repetitions side by side."""
    repetitions = range(results.num_repetitions)

    def panel(sample: int, repetition: int) -> Panel:
        row = results.row(sample, repetition)
        return Panel(results.joints(row), results.text[row])

    firsts = range(0, results.num_samples, ROWS_PER_GRID)
    with tqdm(total=len(results.text) + len(firsts), desc="videos") as bar:
        for sample in range(results.num_samples):
            for repetition in repetitions:
                path = folder / f"sample{sample:02d}_rep{repetition:02d}{suffix}"
                write_video(path, [[panel(sample, repetition)]], skeleton)
                bar.update()
        for first in firsts:
            last = min(first + ROWS_PER_GRID, results.num_samples) - 1
            grid = [[panel(s, r) for r in repetitions] for s in range(first, last + 1)]
            path = folder / f"samples_{first:02d}_to_{last:02d}{suffix}"
            write_video(path, grid, skeleton, panel_size=GRID_PANEL_SIZE)
            bar.update()


def with_choice(
    generator: MotionFamily, options: Options, drawn_from: str
) -> MotionFamily | BestOf:
    """The generator, or the best of its motions with --best_of.

    drawn_from: the dataset of the captions, or nothing. Raises UserError where a reward is missing
    or does not fit.
    """
    if options.best_of == 1:
        return generator
    if drawn_from:
        data = open_captions(drawn_from, options)
        reward = load_reward(options, generator.device, data)
    else:
        reward = load_reward_without_data(options, generator.device, generator.skeleton)
    return BestOf(generator, reward, options.best_of, options.batch_size)


def generate(options: Options) -> Path:
    """Run the script; returns the output folder. User mistakes are told before a model loads."""
    args = read_model_args(options.model_path)
    check_length(options.motion_length, options.model_path)
    options.check_formats(options.export, stated_skeleton(options.model_path))
    suffix = video_suffix(options.video)
    captions, drawn_from = read_prompts(options), options.dataset
    dataset = options.dataset or str(args.get("dataset", "humanml"))
    if not captions:
        captions, drawn_from = draw_captions(dataset, options), dataset
    if options.page:
        check_size(len(captions), options.num_repetitions)
    place = options.output_dir or default_output_dir(options)
    check_output_dir(place, options.overwrite, option="--output_dir")
    generator = load_for_sampling(options.model_path, options)
    chosen = with_choice(generator, options, drawn_from)
    folder = options.new_folder(place)
    lengths = motion_lengths(generator, captions, options, options.num_repetitions)
    path = find_checkpoint(options.model_path)
    warn_of_the_unknown(path, captions, int(lengths.min()), generator.skeleton)
    motions = sample_motions(chosen, captions, lengths, options)
    if isinstance(chosen, BestOf):
        print(chosen.summary())
    results = Results(
        motion=motions.x.permute(0, 2, 3, 1).contiguous().numpy(),
        text=captions * options.num_repetitions,
        lengths=motions.frames.numpy(),
        num_samples=len(captions),
        num_repetitions=options.num_repetitions,
    )
    save_results(folder, results)
    if options.page:
        runs = runs_of(results, options.seed, stated_facts(dataset, options.data_dir))
        write_pages(folder, runs, generator.skeleton, title=folder.name)
    if options.export:
        errors = export_motions(named_results(results), options.export, folder / "export", options)
        print(errors.table())
    if suffix:
        write_videos(folder, results, generator.skeleton, suffix)
    return folder
