"""Write the picture models that come with the project, and a card that says how they were made.

    python -m train.ship_pictures --base save/shapes_base --reward save/shapes_reward \\
        --judge save/shapes_judge --data_dir dataset/shapes

The folder holds a diffusers pipeline and two CLIP models of transformers, in half precision as
``.safetensors``. ``card.json`` holds of every model the command, commit and first losses of its
training, its size and its SHA-256, and of the data what makes it and its digest.
"""

from utils.start import entry_point

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoTokenizer, CLIPModel

from data_loaders.images.layouts import METADATA
from model.image.load import load_pipeline
from model.shipped import JUDGE_FOLDER, PICTURES, PIPELINE_FOLDER, REWARD_FOLDER
from train.model_card import (
    DTYPE,
    ShipOptions,
    ShippedModel,
    data_digest,
    describe,
    half,
    write_card,
)
from utils.errors import UserError
from utils.options import parse_options, with_default

PIPELINE, DENOISER, CLIP = "pipeline", "denoiser", "clip"  # within the folders of their trainings


@dataclass
class Options(ShipOptions):
    out: str = with_default(str(PICTURES))


def halved(network: nn.Module) -> nn.Module:
    """The network in half precision. Raises UserError for a weight that exceeds its range."""
    half(network.state_dict())
    return network.to(DTYPE)


def parameters_of(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


def ship_pipeline(run: Path, folder: Path) -> ShippedModel:
    """Its card is that of the denoiser, which is trained last."""
    pipe = load_pipeline(str(run / PIPELINE))
    networks = [halved(getattr(pipe, name)) for name in ("vae", "unet", "text_encoder")]
    pipe.save_pretrained(folder / PIPELINE_FOLDER)
    parameters = parameters_of(*networks)
    script = "train.train_image_base"
    return describe(folder / PIPELINE_FOLDER, folder, parameters, script, run, run / DENOISER)


def ship_clip(run: Path, folder: Path, name: str) -> ShippedModel:
    """Raises UserError where the run has no model."""
    if not (run / CLIP / "config.json").is_file():
        raise UserError(f"{run} holds no {CLIP}; name a run of train.train_image_reward")
    model: Any = halved(CLIPModel.from_pretrained(run / CLIP))
    model.save_pretrained(folder / name)
    AutoTokenizer.from_pretrained(run / CLIP).save_pretrained(folder / name)
    script = "train.train_image_reward"
    return describe(folder / name, folder, parameters_of(model), script, run, run)


def ship(options: Options) -> Path:
    """Write everything; returns the path of the card."""
    folder = options.new_folder()
    data = Path(options.data_dir)
    models = {
        "base": ship_pipeline(Path(options.base), folder),
        "reward": ship_clip(Path(options.reward), folder, REWARD_FOLDER),
        "judge": ship_clip(Path(options.judge), folder, JUDGE_FOLDER),
    }
    return write_card(folder, data, data_digest(data, "*/*.png", f"*/{METADATA}"), models)


@entry_point
def main() -> None:
    print(ship(parse_options(Options, description=__doc__)))


if __name__ == "__main__":
    main()
