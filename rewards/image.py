"""Rewards of pictures: CLIP score, PickScore, HPSv2, sums of them, and plug-ins of one's own.

Every reward keeps its own scale, in which --tau is given:

    clip        100 max(cos, 0)             20 to 35 for CLIP ViT models (Hessel et al. 2021)
    pickscore   exp(logit_scale) cos        16 to 25 (Kirstain et al. 2023)
    hpsv2       cos, of HPSv2 and v2.1      .2 to .35 (Wu et al. 2023)

A plug-in is ``module:function``; the function takes the device and returns an object with ``score``
and, for S(x_w), ``embed``, as `rewards.seam.Reward` has them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel

from data_loaders.skeleton import Skeleton
from model.seam import Samples
from rewards.open_clip import read_state, to_clip
from rewards.pixels import Preprocessing
from rewards.seam import Reward
from rewards.weighted import RewardListOptions, WeightedReward
from utils.errors import UserError
from utils.files import load_tensors
from utils.options import option, with_default

KINDS = ("clip", "pickscore", "hpsv2")
PATHS = {
    "clip": "openai/clip-vit-large-patch14",
    "pickscore": "yuvalkirstain/PickScore_v1",
    "hpsv2": "HPS_v2.1_compressed.pt",
}
VIT_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"  # the tokenizer of PickScore and HPSv2


@dataclass
class ImageRewardOptions(RewardListOptions):
    reward: list[str] = with_default(
        ["clip"], f"kinds of reward ({', '.join(KINDS)}) or module:function; several are summed"
    )
    reward_path: list[str] = with_default(
        [], "their folders, files or names on the hub, in that order; none = the published ones"
    )
    reward_tokenizer: str = option(
        "", "folder of the tokenizer of PickScore and HPSv2; none = the hub's", free="resume"
    )

    def validate(self) -> None:
        self.check_kinds(KINDS)
        models = sum(kind in KINDS for kind in self.reward)
        if self.reward_path and len(self.reward_path) != models:
            raise UserError(f"--reward_path holds {len(self.reward_path)} for {models} rewards")
        self.check_weights(len(self.reward))


def clip_score(cosine: Tensor, factor: float) -> Tensor:
    """As torchmetrics scales it."""
    return 100 * cosine.clamp(min=0)


def pick_score(cosine: Tensor, factor: float) -> Tensor:
    return factor * cosine


def plain_cosine(cosine: Tensor, factor: float) -> Tensor:
    return cosine


SCALES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "clip": clip_score,
    "pickscore": pick_score,
    "hpsv2": plain_cosine,
}


class ClipReward:
    """A CLIP-like model as judge of pictures in [0, 1], in float32."""

    def __init__(self, model: Any, tokenizer: Any, preprocessing: Preprocessing, kind: str) -> None:
        self.model, self.tokenizer = model.float().eval().requires_grad_(False), tokenizer
        self.preprocessing, self.kind = preprocessing, kind

    @torch.no_grad()
    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        """Rewards ``[B]`` on the scale of the kind."""
        tokens = self.tokenizer(
            captions,
            padding="max_length",
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        return self.score_tokens(self.preprocessing(raw.x), tokens.input_ids.to(self.model.device))

    def score_tokens(self, pixels: Tensor, input_ids: Tensor) -> Tensor:
        """Of preprocessed pictures ``[B, 3, S, S]`` and captions ``[B, L]``."""
        with torch.autocast(pixels.device.type, enabled=False):
            cosine = (self.image_vectors(pixels) * self.text_vectors(input_ids)).sum(dim=-1)
        return SCALES[self.kind](cosine, float(self.model.logit_scale.exp()))

    @torch.no_grad()
    def embed(self, raw: Samples) -> Tensor:
        """Unit vectors ``[B, d]`` of the pictures."""
        return self.image_vectors(self.preprocessing(raw.x))

    def image_vectors(self, pixels: Tensor) -> Tensor:
        return F.normalize(_pooled(self.model.get_image_features(pixels)), dim=-1)

    def text_vectors(self, input_ids: Tensor) -> Tensor:
        return F.normalize(_pooled(self.model.get_text_features(input_ids)), dim=-1)

    def check(self, skeleton: Skeleton | None) -> None:
        if skeleton is not None:
            raise UserError(f"this reward reads pictures, not {skeleton.name} motions")


def _pooled(features: Any) -> Tensor:
    """transformers 5 wraps what transformers 4 returns."""
    return features if isinstance(features, Tensor) else features.pooler_output


def embeds(reward: Any) -> bool:
    """Can it say how alike two pictures are, as S(x_w) needs?"""
    parts = reward.rewards if isinstance(reward, WeightedReward) else [reward]
    return all(hasattr(part, "embed") for part in parts)


def load_image_reward(options: ImageRewardOptions, device: torch.device) -> Reward:
    """The reward of the options. Raises UserError for whatever is missing or unreadable."""
    paths = iter(options.reward_path or [PATHS[k] for k in options.reward if k in KINDS])
    rewards = [
        load_clip(kind, next(paths), options.reward_tokenizer, device)
        if kind in KINDS
        else load_plugin(kind, device)
        for kind in options.reward
    ]
    weights = options.reward_weights or [1.0] * len(rewards)
    return rewards[0] if len(rewards) == 1 else WeightedReward(rewards, weights)


def load_clip(kind: str, path: str, tokenizer_path: str, device: torch.device) -> Reward:
    """One of `KINDS` from a folder, a file of open_clip weights, or the hub."""
    model: Any
    try:
        if path.endswith((".pt", ".pth", ".bin")):
            model = to_clip(read_state(load_tensors(path)))
        else:
            model = CLIPModel.from_pretrained(path)
        own = Path(path) if kind == "clip" or (Path(path) / "tokenizer.json").is_file() else None
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_path or own or VIT_H)
    except UserError as error:
        raise UserError(f"--reward_path {path}: {error}") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--reward {kind}: {path} cannot be loaded ({reason})") from None
    size = int(model.config.vision_config.image_size)
    return ClipReward(model.to(device), tokenizer, Preprocessing(size, kind == "hpsv2"), kind)


def load_plugin(name: str, device: torch.device) -> Reward:
    """What a ``module:function`` of the user returns. Raises UserError when it has no score."""
    module, _, function = name.partition(":")
    try:
        reward: Reward = getattr(import_module(module), function)(device)
    except (ImportError, AttributeError) as error:
        raise UserError(f"--reward {name} cannot be imported ({error})") from None
    if not callable(getattr(reward, "score", None)):
        raise UserError(f"--reward {name} returned {type(reward).__name__}, which has no score()")
    return reward
