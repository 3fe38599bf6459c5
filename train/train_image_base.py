"""Train a small text-to-image model from nothing: a VAE, then a UNet and its text encoder.

    python -m train.train_image_base --data_dir dataset/shapes --save_dir save/shapes_base

For pictures of 32 pixels and captions of few words, as python -m prepare.shapes makes them. The
result, FOLDER/pipeline, is a Stable Diffusion pipeline of diffusers that predicts v. Both stages
run on the training loop and go on where they stopped with --resume.
"""

from utils.start import entry_point

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from data_loaders.images.dataset import PictureDataset, open_pictures
from data_loaders.images.layouts import Row
from model.image.condition import ImageCondition
from model.image.generator import ImageGenerator
from model.image.load import SamplingOptions, assemble
from model.image.small import SmallModelOptions, new_pipeline, new_vae, save_pipeline, whiten
from model.seam import Samples
from prepare.shape_world.oracle import facts_of, mean_by_kind
from train.image_data import (
    PictureEpochs,
    PosteriorCache,
    SmallPicturesOptions,
    ValPicturesOptions,
    check_pictures,
)
from train.loop import Trainer, start_run
from train.run_state import STATE_FILE
from train.task import PlainTask, StepResult, options_to_args
from utils.files import load_tensors, save_tensors, write_json
from utils.options import option, parse_options, with_default
from utils.seeding import seed_everything

VAE, DENOISER, PIPELINE = "vae", "denoiser", "pipeline"
VAE_FILE = "vae.pt"
KL_WEIGHT = 1e-6  # that of latent diffusion (Rombach et al. 2022)
MEASURED = 1024  # pictures on which the latents are brought to variance 1


@dataclass
class Options(SmallModelOptions, SamplingOptions, ValPicturesOptions, SmallPicturesOptions):
    vae_steps: int = option(1500, "steps of the VAE", minimum=1, free="upwards")
    vae_lr: float = option(2e-3, "its peak learning rate", minimum=0)
    vae_batch_size: int = option(32, "its pictures per step and process", minimum=1)
    drop_text: float = option(0.1, "share of captions that are left empty", minimum=0, maximum=1)
    sampling_steps: int = with_default(10, "denoising steps in validation", minimum=1)
    guidance: float = with_default(3.0, "guidance scale in validation")
    num_steps: int = with_default(2500, "steps of the denoiser")
    batch_size: int = with_default(64, "its pictures per step and process")
    use_ema: bool = with_default(True)
    avg_model_beta: float = with_default(0.995)


class PictureTask(PictureEpochs, PlainTask):
    """What both stages share."""

    def __init__(self, options: Options, data: PictureDataset, val_data: PictureDataset) -> None:
        self.options, self.data, self.val_data = options, data, val_data


class VaeTask(PictureTask):
    """Absolute error of the reconstruction, and a little KL."""

    def __init__(
        self,
        options: Options,
        vae: Any,
        data: PictureDataset,
        val_data: PictureDataset,
        device: torch.device,
    ) -> None:
        super().__init__(options, data, val_data)
        self.module: nn.Module = vae
        self.vae, self.device = vae, device
        self.pixels = {
            row.key: image for row, image in zip(data.rows, data.pixels(data.rows), strict=True)
        }

    def step(self, batch: list[Row], step: int, rng: torch.Generator) -> StepResult:
        images = torch.stack([self.pixels[row.key] for row in batch]).to(self.device)
        distribution = self.vae.encode(images * 2 - 1).latent_dist
        noise = torch.randn(distribution.mean.shape, generator=rng, device=self.device)
        decoded = self.vae.decode(distribution.mean + distribution.std * noise).sample
        error, kl = F.l1_loss(decoded, images * 2 - 1), distribution.kl().mean()
        return StepResult(error + KL_WEIGHT * kl, {"l1": error.detach(), "kl": kl.detach()})

    def validate(self) -> dict[str, float]:
        """Error of reconstructions, and the facts that they keep."""
        rows = self.val_data.rows[: self.options.val_pictures]
        images = self.val_data.pixels(rows).to(self.device)
        decoded = self.vae.decode(self.vae.encode(images * 2 - 1).latent_dist.mean).sample
        decoded = (decoded / 2 + 0.5).clamp(0, 1)
        facts = facts_of([row.caption for row in rows], decoded)
        error = float((decoded - images).abs().mean())
        return {"score": error} | ({"facts": mean_by_kind(facts)["all"]} if facts else {})

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        path = save_dir / VAE_FILE
        write_json(save_dir / "args.json", options_to_args(self.options))
        save_tensors(path, (average or self.vae).state_dict())
        return path


class DenoiserTask(PictureTask):
    """v-prediction with captions left out at times; the text encoder learns along."""

    def __init__(
        self,
        options: Options,
        generator: ImageGenerator,
        data: PictureDataset,
        val_data: PictureDataset,
    ) -> None:
        super().__init__(options, data, val_data)
        self.generator, self.pipe = generator, generator.wrapper.pipe
        self.networks = nn.ModuleDict(
            {"unet": self.pipe.unet, "text_encoder": self.pipe.text_encoder}
        ).requires_grad_(True)
        self.module: nn.Module = self.networks
        self.posteriors = PosteriorCache(generator.space, data, generator.device)

    def step(self, batch: list[Row], step: int, rng: torch.Generator) -> StepResult:
        self.module.train()
        generator, device = self.generator, self.generator.device
        t = torch.randint(generator.levels, (len(batch),), generator=rng, device=device)
        latents = generator.encode(self.posteriors(batch), rng)
        noise = generator.noise(latents, rng)
        hidden = torch.rand(len(batch), generator=rng, device=device) < self.options.drop_text
        shown = zip(batch, hidden.tolist(), strict=True)
        condition = self.condition(["" if hide else row.caption for row, hide in shown])
        return StepResult(generator.error(latents, t, noise, condition).mean(), {})

    def condition(self, captions: list[str]) -> ImageCondition:
        """Captions as the pipeline encodes them, with gradient."""
        ids = self.pipe.tokenizer(captions, padding="max_length", return_tensors="pt").input_ids
        tokens: Tensor = self.pipe.text_encoder(ids.to(self.generator.device))[0]
        return ImageCondition.of(tokens)

    def validate(self) -> dict[str, float]:
        """Error on val pictures, and the facts of pictures generated for their captions."""
        self.module.eval()
        generator, size = self.generator, self.data.resolution
        generator.prompts.forget()  # the text encoder has changed
        rng = torch.Generator(generator.device).manual_seed(self.options.seed)
        rows = self.val_data.rows[: self.options.val_pictures]
        captions = [row.caption for row in rows]
        condition = generator.encode_text(captions)
        raw = Samples(self.val_data.pixels(rows).to(generator.device))
        latents = generator.encode(raw, rng)
        t = torch.randint(generator.levels, (len(rows),), generator=rng, device=rng.device)
        error = generator.error(latents, t, generator.noise(latents, rng), condition)
        made = generator.sample(condition, generator.blank(len(rows), size, size), rng)
        facts = facts_of(captions, generator.decode(made).x)
        figures = mean_by_kind(facts) if facts else {}
        named = {"facts" if name == "all" else name: value for name, value in figures.items()}
        return {"score": float(error.mean())} | named

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        write_json(save_dir / "args.json", options_to_args(self.options))
        networks = average if isinstance(average, nn.ModuleDict) else self.networks
        return save_pipeline(self.pipe, networks, save_dir.parent / PIPELINE)


def run_stage(task: Any, folder: str, options: Options, accelerator: Accelerator) -> None:
    """One stage on the training loop, in a folder of its own; a finished one ends at once."""
    save_dir = Path(options.save_dir) / folder
    resume = options.resume and (save_dir / STATE_FILE).is_file()
    Trainer(task, replace(options, save_dir=str(save_dir), resume=resume), accelerator).run()
    accelerator.wait_for_everyone()  # the main process has written what the others read next


def record(options: Options, accelerator: Accelerator, step: int) -> None:
    """What this run is of, and how far its second stage has come: 0, or all of it."""
    if accelerator.is_main_process:
        content = options_to_args(options) | {"step": step}
        write_json(Path(options.save_dir) / "args.json", content)


@torch.no_grad()
def finished_vae(options: Options, vae: Any, data: PictureDataset, device: torch.device) -> Any:
    """The VAE of the first stage with latents of variance 1."""
    vae.load_state_dict(load_tensors(Path(options.save_dir) / VAE / VAE_FILE))
    vae.eval()
    parts = data.pixels(data.rows[:MEASURED]).split(128)
    whiten(vae, torch.cat([vae.encode(p.to(device) * 2 - 1).latent_dist.mean for p in parts]))
    return vae


def train(options: Options) -> Path:
    """Both stages; returns the folder of the pipeline."""
    accelerator = start_run(options, folders=(VAE, DENOISER))
    device, resolution = accelerator.device, options.resolution
    data = open_pictures(options, "train", resolution)
    val_data = open_pictures(options, "validation", resolution)
    check_pictures(data, options)
    record(options, accelerator, step=0)
    first = replace(
        options,
        num_steps=options.vae_steps,
        lr=options.vae_lr,
        batch_size=options.vae_batch_size,
        use_ema=False,
    )
    vae = new_vae(options, resolution).to(device)
    run_stage(VaeTask(first, vae, data, val_data, device), VAE, first, accelerator)
    seed_everything(options.seed)  # so that a resumed second stage starts as in an unbroken run
    vae = finished_vae(options, vae, data, device)
    words = sorted(set(re.findall(r"\w+", " ".join(data.captions()).lower())))
    generator = assemble(new_pipeline(options, vae, words, resolution), device)
    generator.steps, generator.guidance = options.sampling_steps, options.guidance
    run_stage(DenoiserTask(options, generator, data, val_data), DENOISER, options, accelerator)
    record(options, accelerator, step=options.num_steps)
    return Path(options.save_dir) / PIPELINE


@entry_point
def main() -> None:
    print(f"the pipeline is {train(parse_options(Options, description=__doc__))}")


if __name__ == "__main__":
    main()
