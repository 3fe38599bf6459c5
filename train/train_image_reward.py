"""Train a small CLIP from nothing as a reward of small pictures, or as an independent judge.

    python -m train.train_image_reward --data_dir dataset/shapes --save_dir save/shapes_reward
    python -m train.train_image_reward ... --save_dir save/shapes_judge --seed 77

Contrastive (Radford et al. 2021), and against captions of the shape world in which one fact is
changed. FOLDER/clip is a model of transformers: --reward clip --reward_path FOLDER/clip.
"""

from utils.start import entry_point

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from data_loaders.images.dataset import PictureDataset, open_pictures
from data_loaders.images.layouts import Row
from model.image.small import text_sizes, word_tokenizer
from prepare.shape_world.altering import altered_texts
from rewards.image import ClipReward
from rewards.pixels import Preprocessing
from train.image_data import PictureEpochs, SmallPicturesOptions, check_pictures
from train.loop import Trainer, start_run
from train.task import PlainTask, StepResult, options_to_args
from utils.files import write_json
from utils.options import option, parse_options, with_default

FOLDER = "clip"


@dataclass
class Options(SmallPicturesOptions):
    patch: int = option(4, "pixels along a side of a patch", minimum=1)
    width: int = option(96, "width of both towers, a multiple of 32", minimum=32)
    layers: int = option(3, "layers of each tower", minimum=1)
    embedding: int = option(64, "width of the common space", minimum=1)
    num_steps: int = with_default(3000)
    batch_size: int = with_default(64, "pictures per step and process")
    weight_decay: float = with_default(0.01)


def new_reward(options: Options, captions: list[str], device: torch.device) -> ClipReward:
    """An untrained CLIP for the words of these captions."""
    tokenizer = word_tokenizer(sorted(set(re.findall(r"\w+", " ".join(captions).lower()))))
    text = text_sizes(tokenizer, options.width, options.layers)
    shared = {"projection_dim": options.embedding, "hidden_act": "gelu"}
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    vision = {name: text[name] for name in sizes} | {
        "image_size": options.resolution,
        "patch_size": options.patch,
    }
    config = CLIPConfig(
        text_config=text | shared,
        vision_config=vision | shared,
        projection_dim=options.embedding,
    )
    reward = ClipReward(
        CLIPModel(config).to(device), tokenizer, Preprocessing(options.resolution), "clip"
    )
    reward.model.requires_grad_(True)
    return reward


class RewardTask(PictureEpochs, PlainTask):
    """Pictures and captions of one batch find each other, past captions that are nearly right."""

    shown = ("told_apart",)

    def __init__(
        self, options: Options, reward: ClipReward, data: PictureDataset, val_data: PictureDataset
    ) -> None:
        self.options, self.reward = options, reward
        self.data, self.val_data = data, val_data
        self.module: nn.Module = reward.model
        self.pixels = dict(zip([row.key for row in data.rows], self.prepared(data), strict=True))

    def prepared(self, data: PictureDataset) -> Tensor:
        return self.reward.preprocessing(data.pixels(data.rows))

    def step(self, batch: list[Row], step: int, rng: torch.Generator) -> StepResult:
        self.module.train()
        pixels = torch.stack([self.pixels[row.key] for row in batch])
        numpy_rng = np.random.default_rng([self.options.seed, step])
        logits, right = self.compare(pixels, [row.caption for row in batch], numpy_rng)
        labels = torch.arange(len(batch), device=logits.device)
        to_text = F.cross_entropy(logits, labels)
        to_image = F.cross_entropy(logits[:, : len(batch)].T, labels)
        return StepResult((to_text + to_image) / 2, {"told_apart": right.float().mean()})

    def compare(
        self, pixels: Tensor, captions: list[str], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Logits ``[B, 2 B]`` of pictures with their captions and altered ones, other pictures'
        equal captions left out; and whether each picture prefers its own to the altered ``[B]``."""
        reward, device = self.reward, self.reward.model.device
        texts = [*captions, *altered_texts(captions, rng)]
        ids = reward.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
        images = reward.image_vectors(pixels.to(device))
        logits = reward.model.logit_scale.exp() * images @ reward.text_vectors(ids.to(device)).T
        size = len(captions)
        own = torch.eye(size, 2 * size, dtype=torch.bool, device=device)
        same = torch.tensor([[text == caption for text in texts] for caption in captions])
        logits = logits.masked_fill(same.to(device) & ~own, float("-inf"))
        return logits, logits.diagonal() > logits.diagonal(offset=size)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of val pictures that prefer their caption to an altered one."""
        self.module.eval()
        rng, right = np.random.default_rng(self.options.seed), []
        captions, pixels = [row.caption for row in self.val_data.rows], self.prepared(self.val_data)
        for start in range(0, len(captions), self.options.batch_size):
            rows = slice(start, start + self.options.batch_size)
            right.append(self.compare(pixels[rows], captions[rows], rng)[1])
        share = float(torch.cat(right).float().mean())
        return {"score": 1 - share, "told_apart": share}

    def save(self, save_dir: Path, step: int, average: nn.Module | None, best: bool) -> Path:
        write_json(save_dir / "args.json", options_to_args(self.options) | {"step": step})
        model: Any = average or self.reward.model
        model.save_pretrained(save_dir / FOLDER)
        self.reward.tokenizer.save_pretrained(save_dir / FOLDER)
        return save_dir / FOLDER / "model.safetensors"


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    accelerator = start_run(options)
    data = open_pictures(options, "train", options.resolution)
    val_data = open_pictures(options, "validation", options.resolution)
    check_pictures(data, options)
    reward = new_reward(options, data.captions(), accelerator.device)
    Trainer(RewardTask(options, reward, data, val_data), options, accelerator).run()


if __name__ == "__main__":
    main()
