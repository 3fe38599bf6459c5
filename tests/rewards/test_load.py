"""The evaluators as a reward, and weighted sums of rewards."""

import shutil
from pathlib import Path

import pytest
import torch

from data_loaders.humanml import open_dataset
from data_loaders.skeleton import HUMANML, KIT
from model.seam import Samples
from rewards.co_embedding import CoEmbedder, EvaluatorFiles
from rewards.co_embedding_reward import EvaluatorReward
from rewards.load import RewardOptions, load_reward, load_reward_without_data
from rewards.seam import similarity
from rewards.tmr import TMRReward
from rewards.weighted import WeightedReward
from tests.data_loaders.datasets import write_dataset
from tests.rewards.evaluator_files import TINY, write_evaluators
from tests.rewards.glove import write_glove
from tests.tmr.tiny import tiny_tmr
from utils.errors import UserError
from utils.files import read_json, write_json
from utils.masks import length_mask

CPU = torch.device("cpu")
LENGTHS = torch.tensor([40, 24, 8])
CAPTIONS = ["a person walks", "a person runs to the left", "walk"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("rewards")
    write_dataset(root / "data", {"000001": 48, "000002": 60})
    write_evaluators(root / "t2m")
    write_glove(root / "glove", width=TINY.word)
    tiny_tmr(features=HUMANML.feature_dim).save(root / "tmr")
    return root


@pytest.fixture(scope="module")
def evaluator(place: Path) -> EvaluatorReward:
    files = EvaluatorFiles.find("humanml", place / "data", str(place / "t2m"), str(place / "glove"))
    return EvaluatorReward(CoEmbedder.load(files, CPU), {})


def motions(frames: int = 40, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    raw = 3 + 50 * torch.randn(3, frames, HUMANML.feature_dim, generator=rng)
    return raw.masked_fill(~length_mask(LENGTHS, frames).unsqueeze(-1), 0.0)


def test_the_reward_falls_with_the_co_embedding_distance(evaluator: EvaluatorReward) -> None:
    raw = torch.cat([motions(seed=seed) for seed in range(8)])
    lengths, captions = LENGTHS.repeat(8), CAPTIONS * 8
    rewards = evaluator.score(Samples(raw, lengths), captions)
    difference = evaluator.embed_texts(captions) - evaluator.embed(Samples(raw, lengths))
    distance = difference.square().sum(-1).sqrt()
    assert torch.equal(rewards.argsort(), distance.argsort(descending=True))
    assert ((rewards > 0) & (rewards <= 1)).all()
    torch.testing.assert_close(1 / rewards - 1, distance, rtol=1e-4, atol=1e-5)


def test_the_reward_ignores_padding_and_company(evaluator: EvaluatorReward) -> None:
    whole = evaluator.score(Samples(motions(), LENGTHS), CAPTIONS)
    noise = torch.randn(3, 12, HUMANML.feature_dim)
    padded = torch.cat([motions(), noise], dim=1)
    padded = torch.where(length_mask(LENGTHS, 52).unsqueeze(-1), padded, torch.tensor(77.0))
    torch.testing.assert_close(evaluator.score(Samples(padded, LENGTHS), CAPTIONS), whole)
    for row, length in enumerate(LENGTHS.tolist()):
        one = Samples(motions()[row : row + 1, :length], LENGTHS[row : row + 1])
        alone = evaluator.score(one, CAPTIONS[row : row + 1])
        torch.testing.assert_close(alone, whole[row : row + 1])


def test_what_was_embedded_before_changes_no_bit(evaluator: EvaluatorReward) -> None:
    captions = ["a person walks", "a person runs to the left", "the person", "a walk"]
    evaluator.embed_texts(captions[1:3])
    fresh = EvaluatorReward(evaluator.embedder, {})
    assert torch.equal(evaluator.embed_texts(captions), fresh.embed_texts(captions))


def test_the_tokens_of_the_dataset_are_used_where_there_are_any(evaluator: EvaluatorReward) -> None:
    other = EvaluatorReward(evaluator.embedder, {"a person walks": ("run/VERB",)})
    first, second = (r.embed_texts(CAPTIONS) for r in (evaluator, other))
    assert not torch.allclose(first[0], second[0])
    assert torch.equal(first[1:], second[1:])


def test_a_weighted_reward_is_the_mean_of_its_parts(
    place: Path, evaluator: EvaluatorReward
) -> None:
    tmr = TMRReward(tiny_tmr(features=HUMANML.feature_dim))
    both = WeightedReward([tmr, evaluator], [3.0, 1.0])
    parts = [r.score(Samples(motions(), LENGTHS), CAPTIONS) for r in (tmr, evaluator)]
    expected = 0.75 * parts[0] + 0.25 * parts[1]
    torch.testing.assert_close(both.score(Samples(motions(), LENGTHS), CAPTIONS), expected)


def test_similarity_under_a_weighted_reward_is_the_mean_similarity(
    evaluator: EvaluatorReward,
) -> None:
    tmr = TMRReward(tiny_tmr(features=HUMANML.feature_dim))
    both = WeightedReward([tmr, evaluator], [1.0, 2.0])

    def alike(reward) -> torch.Tensor:
        a, b = (reward.embed(Samples(motions(seed=seed), LENGTHS)) for seed in (1, 2))
        return similarity(a, b)

    expected = alike(tmr) / 3 + 2 * alike(evaluator) / 3
    torch.testing.assert_close(alike(both), expected, rtol=1e-4, atol=1e-5)


def options_of(place: Path, **changes) -> RewardOptions:
    settings = {
        "reward_path": [str(place / "tmr")],
        "evaluator_dir": str(place / "t2m"),
        "glove_dir": str(place / "glove"),
    }
    return RewardOptions(**(settings | changes))


def test_the_options_choose_the_reward(place: Path) -> None:
    data = open_dataset("humanml", "train", str(place / "data"))
    tmr = load_reward(options_of(place), CPU, data)
    guo = load_reward(options_of(place, reward=["evaluator"]), CPU, data)
    weights = {"reward": ["evaluator", "tmr"], "reward_weights": [1.0, 3.0]}
    both = load_reward(options_of(place, **weights), CPU, data)
    scores = [r.score(Samples(motions(), LENGTHS), CAPTIONS) for r in (tmr, guo, both)]
    torch.testing.assert_close(scores[2], 0.25 * scores[0] + 0.75 * scores[1])  # TMR comes first
    caption = data.entries[0].captions[0]
    assert guo.tokens[caption.text] == caption.tokens


def test_the_reward_reads_distilbert_from_the_named_folder(place: Path, tmp_path: Path) -> None:
    data = open_dataset("humanml", "train", str(place / "data"))
    folder = shutil.copytree(place / "tmr", tmp_path / "tmr")
    config = read_json(folder / "config.json")
    config["data"]["text_to_token_emb"]["modelname"] = "distilbert-base-uncased"
    write_json(folder / "config.json", config)
    options = options_of(place, reward_path=[str(folder)])
    options.reward_text_encoder_path = str(tmp_path / "no_distilbert")
    with pytest.raises(UserError, match="no_distilbert"):
        load_reward(options, CPU, data)


def test_what_does_not_fit_is_told(place: Path, evaluator: EvaluatorReward) -> None:
    with pytest.raises(UserError, match="takes 263 features, kit motions have 251"):
        evaluator.check(KIT)
    with pytest.raises(UserError, match="holds 1 for 2 rewards"):
        options_of(place, reward=["tmr", "evaluator"], reward_weights=[1.0]).validate()
    with pytest.raises(UserError, match="all zero"):
        options_of(place, reward_weights=[0.0]).validate()


def test_a_weighted_reward_checks_all_its_parts(evaluator: EvaluatorReward) -> None:
    kit = TMRReward(tiny_tmr(features=KIT.feature_dim))
    with pytest.raises(UserError, match="takes 263 features, kit motions have 251"):
        WeightedReward([kit, evaluator], [1.0, 1.0]).check(KIT)


def test_the_evaluators_see_the_motion_from_its_first_frame(evaluator: EvaluatorReward) -> None:
    """Normalised, then zeros, of which the convolutions read a few frames."""
    raw, embedder = motions(), evaluator.embedder
    expected = []
    for motion, length in zip(raw, LENGTHS.tolist(), strict=True):
        padded = torch.zeros(1, length + 4, HUMANML.feature_dim)
        padded[0, :length] = (motion[:length] - embedder.stats.mean) / embedder.stats.std
        expected.append(embedder.embed_motions(padded, torch.tensor([length]))[0])
    found = evaluator.embed(Samples(raw, LENGTHS))
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_the_reward_of_realign_is_that_of_the_last_split(place: Path, monkeypatch) -> None:
    data = open_dataset("humanml", "train", str(place / "data"))
    val = open_dataset("humanml", "val", str(place / "data"))
    asked: list[object] = []
    monkeypatch.setattr(
        "rewards.load.load_realign", lambda options, device, split: asked.append(split) or Always()
    )
    options = options_of(place, reward=["realign"], realign_path="file.pth")
    assert isinstance(load_reward(options, CPU, data), Always)
    assert isinstance(load_reward(options, CPU, data, val, data), Always)
    assert asked == [data, data]


class Always:
    """A reward of everything."""

    def check(self, skeleton: object) -> None:
        pass


def test_prompts_without_a_dataset_have_the_rewards_that_need_none(place: Path) -> None:
    options = options_of(place, reward=["tmr", "jerk"])
    found = load_reward_without_data(options, CPU, HUMANML)
    assert isinstance(found, WeightedReward)
    for kind in ("evaluator", "realign"):
        with pytest.raises(UserError, match=f"--reward {kind} needs a dataset"):
            load_reward_without_data(options_of(place, reward=[kind]), CPU, HUMANML)
    with pytest.raises(UserError, match="takes 263 features, kit motions have 251"):
        load_reward_without_data(options_of(place), CPU, KIT)
