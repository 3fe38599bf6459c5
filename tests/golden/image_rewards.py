"""Rewards of pictures against numbers of transformers and open_clip."""

import json
from collections.abc import Iterator
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel

from rewards.image import ClipReward, _pooled
from rewards.open_clip import Heads, to_clip
from rewards.pixels import Preprocessing
from tests.golden.base import Golden, Row, covers

PASS = 2e-5


def reward_of(model: CLIPModel, kind: str, mean: Any = None, std: Any = None) -> ClipReward:
    """The tokenizer is not needed, as the files hold ids."""
    colours = {} if mean is None else {"mean": tuple(mean), "std": tuple(std)}
    size = int(model.config.vision_config.image_size)
    return ClipReward(model, None, Preprocessing(size, kind == "hpsv2", **colours), kind)


@covers("image_clip_reward*.npz")
@torch.no_grad()
def clip_reward(g: Golden) -> Iterator[Row]:
    model = CLIPModel(CLIPConfig(**json.loads(g.scalar("cfg/model_json"))))
    model.load_state_dict(g.state_dict("model/"))
    pixels, ids = g.tensor("pixel_values"), g.tensor("input_ids")
    k = len(pixels) // len(ids)
    every = ids.repeat_interleave(k, dim=0)
    for key, found in (
        ("image_features", _pooled(model.eval().get_image_features(pixels))),
        ("text_features", _pooled(model.get_text_features(ids))),
        ("logits_per_text", model(ids, pixels).logits_per_text),
        ("logit_scale_exp", model.logit_scale.exp()),
    ):
        yield g.close(key, found, g[key], atol=PASS)
    scores = {
        "cos": reward_of(model, "hpsv2").score_tokens(pixels, every).view(-1, k),
        "pickscore": reward_of(model, "pickscore").score_tokens(pixels, every).view(-1, k),
        "clip_score_100": reward_of(model, "clip").score_tokens(pixels, every).view(-1, k),
    }
    for name, found in scores.items():
        yield g.close(f"score/{name}", found, g[f"score/{name}"], atol=100 * PASS)
    probabilities = scores["pickscore"].softmax(dim=1)
    yield g.close("score/pickscore_probs", probabilities, g["score/pickscore_probs"], atol=PASS)
    yield g.equal("score/worst", scores["cos"].argmin(dim=1), g["score/worst"])
    yield g.equal("score/best", scores["cos"].argmax(dim=1), g["score/best"])
    vectors = reward_of(model, "clip").image_vectors(pixels).view(len(ids), k, -1)
    alike = vectors @ vectors.transpose(1, 2)
    key = "score/similarity_image_image"
    yield g.close(key, alike, g[key], atol=PASS)
    yield from preprocessing(g, model)


def preprocessing(g: Golden, model: CLIPModel) -> Iterator[Row]:
    image = g.tensor("preprocess/rgb").permute(2, 0, 1)[None].float() / 255
    for name, kind in (("clip", "clip"), ("hpsv2", "hpsv2")):
        prepare = reward_of(model, kind, g["preprocess/mean"], g["preprocess/std"]).preprocessing
        key = f"preprocess/{name}_pixel_values"
        yield g.close(key, prepare(image)[0], g[key], atol=PASS)


@covers("image_open_clip_reward*.npz")
@torch.no_grad()
def open_clip_reward(g: Golden) -> Iterator[Row]:
    config = json.loads(g.scalar("cfg/json"))
    vision, text = config["vision_cfg"], config["text_cfg"]
    heads = Heads(vision["width"] // vision["head_width"], text["heads"])
    reward = reward_of(to_clip(g.state_dict("state_dict/"), heads), "hpsv2")
    pixels, ids = g.tensor("pixel_values"), g.tensor("input_ids")
    for key, found in (
        ("image_features", reward.image_vectors(pixels)),
        ("text_features", reward.text_vectors(ids)),
        ("score/hpsv2", reward.score_tokens(pixels, ids)),
        ("logit_scale_exp", reward.model.logit_scale.exp()),
    ):
        yield g.close(key, found, g[key], atol=PASS)
