"""What the live page asks for, and the models that make it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from data_loaders.skeleton import Skeleton
from diffusion.sampling import SAMPLERS, SamplerOptions
from export.formats import ExportOptions, NamedMotion, export_motions
from model.checkpoint_files import read_model_args
from model.families import GeneratorOptions, MotionFamily
from rewards.best_of import BestOf
from rewards.seam import Reward
from rewards.tmr import TMRReward
from sample.generation import (
    motion_frames,
    safe_name,
    sample_motions,
)
from sample.viewer.page import Motion, Run
from utils.devices import pick_device
from utils.errors import UserError
from utils.options import option, parse_options

LONGEST_PROMPT = 300  # characters
DOWNLOADS = ("bvh", "glb", "npz")


@dataclass
class Wish:
    """One click on `generate`."""

    prompt: str = option("", "what the person does")
    seconds: float = option(6.0, "length of the motion", minimum=0.1, maximum=60)
    guidance: float = option(2.5, "guidance scale", minimum=0, maximum=100)
    sampler: str = option("ancestral", "sampling algorithm", choices=SAMPLERS)
    steps: int = option(0, "denoising steps; 0 = all of the model's", minimum=0, maximum=1000)
    seed: int = option(10, "seed of the noise", minimum=0, maximum=2**31)
    variants: int = option(1, "motions per model", minimum=1, maximum=8)
    best_of: int = option(1, "motions of which the reward keeps one", minimum=1, maximum=16)

    @staticmethod
    def read(content: Any) -> "Wish":
        """From the JSON of the page. Raises UserError for what the declarations do not allow."""
        known = {field.name for field in fields(Wish)}
        if not isinstance(content, Mapping) or not set(content) <= known:
            raise UserError(f"a wish holds {', '.join(sorted(known))} and nothing else")
        wish = parse_options(Wish, [f"--{name}={value}" for name, value in content.items()])
        wish.prompt = " ".join(wish.prompt.split())
        if not wish.prompt:
            raise UserError("the prompt holds no words")
        if len(wish.prompt) > LONGEST_PROMPT:
            raise UserError(f"the prompt is longer than {LONGEST_PROMPT} characters")
        return wish


@dataclass
class Progress:
    """Steps that are done, of all; stands in for tqdm in `sample_motions`, once per model.

    n: steps of the present model.
    """

    models: int = 1
    done: int = 0
    total: int = 0
    n: int = 0

    def __call__(self, total: int, **_: Any) -> "Progress":
        self.total, self.n = total * self.models, 0
        return self

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, steps: int = 1) -> None:
        self.n += steps
        self.done += steps


@dataclass(frozen=True)
class Download:
    """A file as the browser saves it."""

    name: str
    content: bytes


@dataclass
class Studio:
    """Loaded models by name, all of one skeleton; the motions that they made last.

    reward: what chooses the best of several motions; without it there is no choice.
    """

    generators: dict[str, MotionFamily]
    options: GeneratorOptions
    reward: Reward | None = None
    progress: Progress = field(default_factory=Progress)
    made: list[Run] = field(default_factory=list)

    @staticmethod
    def load(paths: Sequence[str], options: GeneratorOptions, reward_path: str = "") -> "Studio":
        """reward_path: of a TMR; none = no choice. Raises UserError for what is no checkpoint, and
        for models of different skeletons."""
        for path in paths:
            read_model_args(path)
        device = pick_device(options.device)
        generators: dict[str, MotionFamily] = {}
        for path in paths:
            name = Path(path).resolve().parent.name if Path(path).is_file() else Path(path).name
            name = f"{name} {len(generators) + 1}" if name in generators else name
            generators[name] = options.load_generator(path, device)
            if len({generator.skeleton for generator in generators.values()}) > 1:
                raise UserError(f"{path} has another skeleton than {paths[0]}")
        studio = Studio(generators, options)
        if reward_path:
            text_encoder = options.text_encoder_path
            studio.reward = TMRReward.load(reward_path, device, text_encoder, studio.skeleton)
        return studio

    @property
    def skeleton(self) -> Skeleton:
        return next(iter(self.generators.values())).skeleton

    @property
    def first_wish(self) -> Wish:
        """What the page starts with: the options, else what is usual for the first model."""
        first = next(iter(self.generators.values()))
        usual = first.sampler
        return Wish(
            guidance=first.guidance,
            sampler=usual.name,
            steps=usual.steps or 0,
            seed=self.options.seed,
        )

    def fulfil(self, wish: Wish) -> list[Run]:
        """A run per model and variant. Raises UserError for a length that the models lack, and for
        a choice without a reward."""
        if wish.best_of > 1 and self.reward is None:
            raise UserError(
                f"best_of {wish.best_of} needs a reward; start the page with --reward_path"
            )
        frames = motion_frames(wish.seconds, self.skeleton)
        self.progress = Progress(models=len(self.generators))
        runs = []
        for name, generator in self.generators.items():
            sampler = SamplerOptions(wish.sampler, wish.steps or None)
            guided = replace(generator, guidance=wish.guidance, sampler=sampler)
            settings = replace(self.options, seed=wish.seed)
            if wish.best_of > 1 and self.reward is not None:
                guided = BestOf(guided, self.reward, wish.best_of, self.options.batch_size)
            prompts = [wish.prompt] * wish.variants
            lengths = torch.full((wish.variants,), frames)
            with torch.inference_mode():
                made = sample_motions(guided, prompts, lengths, settings, self.progress)
            for variant, (joints, length) in enumerate(zip(made.x, made.lengths, strict=True), 1):
                title = name if wish.variants == 1 else f"{name}, {variant}"
                motion = Motion(wish.prompt, joints[: int(length)].numpy(), wish.seed)
                runs.append(Run(title, [motion]))
        self.made = runs
        return runs

    def export(self, run: int, kind: str) -> Download:
        """The motion of a run that was made last, as a file of another tool.

        Raises UserError for a run or a format that there is not.
        """
        if kind not in DOWNLOADS or not 0 <= run < len(self.made):
            raise UserError(f"there is no motion {run} as {kind}; generate one first")
        (motion,) = self.made[run].motions
        name = f"{safe_name(motion.caption)}_{safe_name(self.made[run].name)}"
        named = NamedMotion(name, motion.joints, motion.caption, self.skeleton)
        with TemporaryDirectory() as folder:
            export_motions([named], [kind], Path(folder), ExportOptions())
            (path,) = Path(folder).iterdir()
            return Download(path.name, path.read_bytes())
