"""Rewards of pictures: scales, sums, plug-ins, and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from data_loaders.skeleton import KIT
from model.image.small import text_sizes, word_tokenizer
from model.seam import Samples
from rewards.image import (
    ClipReward,
    ImageRewardOptions,
    embeds,
    load_image_reward,
    load_plugin,
)
from rewards.open_clip import read_state, to_clip
from rewards.pixels import Preprocessing
from rewards.weighted import WeightedReward
from tests.model.image.tiny import CAPTIONS, REDNESS, WORDS, Redness, Speechless, pictures
from utils.errors import UserError

CPU = torch.device("cpu")


def nothing(device: torch.device) -> object:
    return object()


def tiny_clip(kind: str) -> ClipReward:
    tokenizer = word_tokenizer(WORDS)
    text = text_sizes(tokenizer, 32, 1)
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    vision = {name: text[name] for name in sizes} | {"image_size": 8, "patch_size": 4}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    return ClipReward(model, tokenizer, Preprocessing(8), kind)


def scores(kind: str) -> Tensor:
    return tiny_clip(kind).score(Samples(pictures()), CAPTIONS)


def test_scales_are_those_of_their_papers() -> None:
    cosine = scores("hpsv2")
    assert cosine.abs().max() <= 1
    torch.testing.assert_close(scores("clip"), 100 * cosine.clamp(min=0))
    factor = tiny_clip("pickscore").model.logit_scale.exp()
    torch.testing.assert_close(scores("pickscore"), factor * cosine)


def test_embeddings_say_that_a_picture_is_like_itself() -> None:
    embedded = tiny_clip("clip").embed(Samples(pictures()))
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(4))
    alike = embedded @ embedded.T
    assert (alike.argmax(dim=1) == torch.arange(4)).all()


def test_saved_rewards_come_back_and_are_summed_by_weight(tmp_path: Path) -> None:
    reward = tiny_clip("clip")
    reward.model.save_pretrained(tmp_path)
    reward.tokenizer.save_pretrained(tmp_path)
    raw = Samples(pictures())
    options = ImageRewardOptions(
        reward=["clip", REDNESS],
        reward_path=[str(tmp_path)],
        reward_weights=[3.0, 1.0],
    )
    options.validate()
    both = load_image_reward(options, CPU)
    expected = 0.75 * reward.score(raw, CAPTIONS) + 0.25 * Redness().score(raw, CAPTIONS)
    torch.testing.assert_close(both.score(raw, CAPTIONS), expected)
    assert embeds(both)


def test_a_reward_without_embedding_is_known_as_such() -> None:
    assert not embeds(Speechless())
    assert not embeds(WeightedReward([Redness(), Speechless()], [1, 1]))
    assert embeds(Redness())


def test_motions_are_refused() -> None:
    with pytest.raises(UserError, match="reads pictures"):
        tiny_clip("clip").check(KIT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": ["hps"]}, "--reward hps is unknown"),
        ({"reward": ["clip"], "reward_path": ["a", "b"]}, "--reward_path holds 2 for 1"),
        ({"reward": ["clip", "hpsv2"], "reward_weights": [1.0]}, "--reward_weights holds 1 for 2"),
        ({"reward": ["clip"], "reward_weights": [0.0]}, "are all zero"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ImageRewardOptions(**options).validate()


def test_plugins_that_are_none_are_refused() -> None:
    with pytest.raises(UserError, match="cannot be imported"):
        load_plugin("no_such_module:reward", CPU)
    with pytest.raises(UserError, match="has no score"):
        load_plugin("tests.rewards.test_image:nothing", CPU)


def test_files_that_are_no_open_clip_model_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "wrong.pt")
    options = ImageRewardOptions(reward=["hpsv2"], reward_path=[str(tmp_path / "wrong.pt")])
    with pytest.raises(UserError, match=r"wrong\.pt: these are no weights of an open_clip model"):
        load_image_reward(options, CPU)
    with pytest.raises(UserError, match="no state_dict"):
        read_state([1])
    with pytest.raises(UserError, match="open_clip"):
        to_clip({})


def test_wide_pictures_are_cut_or_padded() -> None:
    wide = torch.zeros(1, 3, 4, 8)
    wide[..., 2:6] = 1
    plain = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    assert Preprocessing(4, padded=False, **plain)(wide).min() == 1, "the middle is all white"
    padded = Preprocessing(8, padded=True, **plain)(wide)[0]
    assert padded[:, :2].max() == 0
    assert padded[:, 6:].max() == 0
    torch.testing.assert_close(padded[:, 2:6], wide[0])
