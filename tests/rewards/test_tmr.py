"""The reward: raw motions in, [0, 1] out, whatever the padding and the precision."""

import pytest
import torch
import torch.nn.functional as F

from data_loaders.skeleton import HUMANML, KIT
from model.seam import Samples
from model.text.encoders import BuiltinEncoder
from rewards.seam import differentiable, similarity
from rewards.tmr import TMRReward
from tests.tmr.tiny import FEATURES, tiny_tmr
from tmr.model import TMR
from utils.errors import UserError

CAPTIONS = ["a person walks", "a man raises his left arm", "a person walks"]
LENGTHS = torch.tensor([4, 9, 7])


@pytest.fixture
def reward() -> TMRReward:
    return TMRReward(tiny_tmr())


@pytest.fixture
def motions() -> torch.Tensor:
    return 3 * torch.randn(3, 9, FEATURES, generator=torch.Generator().manual_seed(1)) + 1


def test_equals_a_computation_by_hand(reward, motions) -> None:
    """One motion at a time, from the encoders alone: normalise once, encode, cosine, half."""
    tmr, expected = reward.model, []
    for motion, length, caption in zip(motions, LENGTHS, CAPTIONS, strict=True):
        normalised = (motion[None, :length] - tmr.stats.mean) / tmr.stats.std
        valid = torch.ones(1, length, dtype=torch.bool)
        motion_latent = tmr.motion_encoder(normalised, valid)[0, 0]
        words = BuiltinEncoder().encode([caption])
        text_latent = tmr.text_encoder(words.tokens, words.mask)[0, 0]
        cosine = motion_latent @ text_latent / (motion_latent.norm() * text_latent.norm())
        expected.append(0.5 * cosine + 0.5)
    found = reward.score(Samples(motions, LENGTHS), CAPTIONS)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-5, atol=1e-5)


def test_takes_raw_motions(reward, motions) -> None:
    """A motion normalised beforehand is another motion, with another reward."""
    raw = reward.score(Samples(motions, LENGTHS), CAPTIONS)
    normalised = reward.score(Samples(reward.model.stats.normalize(motions), LENGTHS), CAPTIONS)
    assert (raw - normalised).abs().max() > 1e-3


@pytest.mark.parametrize("filler", [0.0, 100.0, float("nan"), float("inf")])
def test_ignores_padding(reward, motions, filler: float) -> None:
    expected = reward.score(Samples(motions, LENGTHS), CAPTIONS)
    padded = F.pad(motions, (0, 0, 0, 5))
    padded[torch.arange(14) >= LENGTHS[:, None]] = filler
    found = reward.score(Samples(padded, LENGTHS), CAPTIONS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    embedded = reward.embed(Samples(padded, LENGTHS))
    torch.testing.assert_close(
        embedded, reward.embed(Samples(motions, LENGTHS)), rtol=1e-5, atol=1e-5
    )


def test_every_valid_frame_counts(reward, motions) -> None:
    before = reward.embed(Samples(motions, LENGTHS))
    motions[1, 8] += 1
    after = reward.embed(Samples(motions, LENGTHS))
    assert (after - before)[1].abs().max() > 1e-4
    assert torch.equal(after[0], before[0])


def test_lies_between_0_and_1() -> None:
    a = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    scores = similarity(a, a.roll(1, dims=0))
    assert torch.all((scores >= 0) & (scores <= 1))
    torch.testing.assert_close(similarity(a, 2 * a), torch.ones(200))
    torch.testing.assert_close(similarity(a, -a), torch.zeros(200), rtol=0, atol=1e-6)
    right_angle = similarity(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
    assert right_angle.item() == 0.5


def test_is_in_float32_inside_reduced_precision(motions) -> None:
    plain = TMRReward(tiny_tmr()).score(Samples(motions, LENGTHS), CAPTIONS)
    reward = TMRReward(tiny_tmr())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = reward.score(Samples(motions, LENGTHS), CAPTIONS)
        unguarded = reward.model.encode_motions(motions, LENGTHS)
    assert found.dtype == torch.float32
    assert torch.equal(found, plain)
    exact = reward.embed(Samples(motions, LENGTHS))
    assert not torch.equal(unguarded, exact), "bfloat16 makes no difference here: a blunt test"


def test_takes_motions_of_reduced_precision(reward, motions) -> None:
    found = reward.score(Samples(motions.bfloat16(), LENGTHS), CAPTIONS)
    expected = reward.score(Samples(motions.bfloat16().float(), LENGTHS), CAPTIONS)
    assert torch.equal(found, expected)


def test_is_frozen_and_without_dropout() -> None:
    reward = TMRReward(tiny_tmr(dropout=0.5).train())
    motions = torch.randn(3, 9, FEATURES, requires_grad=True)
    first, second = (reward.score(Samples(motions, LENGTHS), CAPTIONS) for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not any(p.requires_grad for p in reward.model.parameters())


def test_every_caption_is_embedded_once(reward, motions, monkeypatch) -> None:
    asked: list[list[str]] = []
    original = TMR.encode_texts

    def encode(self: TMR, captions: list[str]) -> torch.Tensor:
        asked.append(captions)
        return original(self, captions)

    monkeypatch.setattr(TMR, "encode_texts", encode)
    first = reward.score(Samples(motions, LENGTHS), CAPTIONS)
    second = reward.score(Samples(motions, LENGTHS), CAPTIONS)
    assert asked == [["a person walks"], ["a man raises his left arm"]]
    assert torch.equal(first, second)


def test_what_was_embedded_before_changes_no_bit(reward) -> None:
    """A resumed run begins with no text embedded, in the middle of the captions."""
    more = [*CAPTIONS, "somebody turns around and sits down on the floor", "jump"]
    reward.embed_texts(more[1:4])
    assert torch.equal(reward.embed_texts(more), TMRReward(reward.model).embed_texts(more))


def test_a_reloaded_run_folder_gives_the_same_rewards(reward, motions, tmp_path) -> None:
    reward.model.save(tmp_path)
    loaded = TMRReward(TMR.load(tmp_path))
    found = loaded.score(Samples(motions, LENGTHS), CAPTIONS)
    assert torch.equal(found, reward.score(Samples(motions, LENGTHS), CAPTIONS))


def test_another_skeleton_is_refused() -> None:
    reward = TMRReward(tiny_tmr(features=HUMANML.feature_dim))
    reward.check(HUMANML)
    with pytest.raises(UserError, match="takes 263 features"):
        reward.check(KIT)


def test_a_run_of_another_skeleton_is_refused_on_loading(tmp_path) -> None:
    tiny_tmr(features=HUMANML.feature_dim).save(tmp_path)
    assert isinstance(TMRReward.load(tmp_path, torch.device("cpu"), "", HUMANML), TMRReward)
    with pytest.raises(UserError, match="takes 263 features"):
        TMRReward.load(tmp_path, torch.device("cpu"), "", KIT)


def test_rewards_with_a_gradient_are_told_from_others(reward) -> None:
    class Plain:
        score = embed = check = None

    assert differentiable(reward) is reward
    with pytest.raises(UserError, match="the reward Plain has no gradient"):
        differentiable(Plain())
