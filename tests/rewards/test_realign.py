"""ReAlign's reward: modes, files, what it reads and what it must not."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import HUMANML, KIT
from model.seam import Samples
from model.text.encoders import BuiltinEncoder
from rewards.load import RewardOptions, load_realign
from rewards.realign import (
    RealignModel,
    RealignReward,
    StepMode,
    StepRetrieval,
    find_file,
    measure_steps,
)
from rewards.realign_losses import RealignLossWeights, realign_losses
from rewards.realign_network import RealignConfig, RealignNetwork
from tests.model.tiny import random_motion, tiny_stats
from tests.upstream_protocols import step_probability
from tmr.losses import info_nce
from utils.errors import UserError

CAPTIONS = ["a person walks", "a man raises his left arm", "a person runs"]
LENGTHS = torch.tensor([4, 9, 7])
NAME = "SPM_KIT_Thr50_Temp1000_SAM1T0_E100.pth"


def tiny_network(
    features: int = KIT.feature_dim, text_dim: int = BuiltinEncoder.width
) -> RealignNetwork:
    """In eval mode, with four heads, as published."""
    torch.manual_seed(0)
    config = RealignConfig(
        hidden_dim=16,
        ff_size=24,
        layers=3,
        max_positions=40,
        num_features=features,
        text_dim=text_dim,
        time_dim=8,
    )
    return RealignNetwork(config).eval()


def tiny_model(mode: str = "M1T0", step: str = "clean") -> RealignModel:
    parsed = StepMode.parse(mode, mode)
    return RealignModel(tiny_network(), tiny_stats(KIT), BuiltinEncoder(), parsed, step)


@pytest.fixture
def motions() -> torch.Tensor:
    return 3 * random_motion(3, 9, KIT.feature_dim) + 1


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tiny_model().save(tmp_path / NAME, "builtin")


@torch.no_grad()
def test_equals_a_computation_by_hand(motions) -> None:
    """One motion at a time: normalise once, tell the motion tower step 0, cosine of the means."""
    model, expected = tiny_model(), []
    for motion, length, caption in zip(motions, LENGTHS, CAPTIONS, strict=True):
        normalised = (motion[None, :length] - model.stats.mean) / model.stats.std
        valid = torch.ones(1, length, dtype=torch.bool)
        latent = model.network.motion_distribution(normalised, valid, torch.zeros(1)).mean
        words = BuiltinEncoder().encode([caption])
        text = model.network.text_distribution(words.tokens, words.mask).mean
        expected.append((F.cosine_similarity(text, latent) + 1) / 2)
    found = RealignReward(model).score(Samples(motions, LENGTHS), CAPTIONS)
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("filler", [0.0, 100.0, float("nan")])
def test_ignores_padding(motions, filler: float) -> None:
    reward = RealignReward(tiny_model())
    expected = reward.score(Samples(motions, LENGTHS), CAPTIONS)
    padded = F.pad(motions, (0, 0, 0, 5))
    padded[torch.arange(14) >= LENGTHS[:, None]] = filler
    found = reward.score(Samples(padded, LENGTHS), CAPTIONS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["M0T0", "M1T0", "M0T1", "M1T1"])
@torch.no_grad()
def test_the_mode_tells_who_hears_the_step(motions, mode: str) -> None:
    told, silent = tiny_model(mode), tiny_model(mode, step="none")
    latents = told.encode_motions(motions, LENGTHS), silent.encode_motions(motions, LENGTHS)
    texts = told.encode_texts(CAPTIONS), silent.encode_texts(CAPTIONS)
    assert torch.equal(*latents) is (mode[1] == "0")
    assert torch.equal(*texts) is (mode[3] == "0")


@torch.no_grad()
def test_steps_of_noised_motions_count_only_where_asked_for(motions) -> None:
    steps = torch.tensor([0, 400, 900])
    clean, noisy = tiny_model(), tiny_model(step="noisy")
    assert torch.equal(
        clean.encode_motions(motions, LENGTHS, steps), clean.encode_motions(motions, LENGTHS)
    )
    told = noisy.encode_motions(motions, LENGTHS, steps)
    unchanged = (told == noisy.encode_motions(motions, LENGTHS)).all(dim=1)
    assert unchanged.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (NAME, "M1T0"),
        ("SPM_Noisy_T1000_M0T1_E3.pth", "M0T1"),
        ("FT-[TFS_Pured_T1000_M0T0_E200]-_Mixed_T1000_M1T1_E14_1e-2.pth", "M1T1"),
    ],
)
def test_reads_the_mode_from_the_name(name: str, mode: str) -> None:
    assert StepMode.parse(name, name).name == mode


def test_gives_back_what_was_written(file: Path, motions) -> None:
    reward = RealignReward.load(file, tiny_stats(KIT))
    assert reward.model.mode.name == "M1T0"
    expected = RealignReward(tiny_model()).score(Samples(motions, LENGTHS), CAPTIONS)
    assert torch.equal(reward.score(Samples(motions, LENGTHS), CAPTIONS), expected)
    assert not any(p.requires_grad for p in reward.model.parameters())
    other = RealignReward.load(file, tiny_stats(KIT), mode="M0T0")
    assert not torch.equal(other.score(Samples(motions, LENGTHS), CAPTIONS), expected)


def edit_file(path: Path, change) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def test_text_encoders_in_the_file_are_left_out(file: Path) -> None:
    further = {"clip_model.weight": torch.ones(2), "xlm.weight": torch.ones(2)}
    edit_file(file, lambda content: content["state_dict"].update(further))
    assert RealignReward.load(file, tiny_stats(KIT)).model.network.config.layers == 3


WRONG = {
    "no state_dict": (lambda c: c.pop("state_dict"), "no reward of ReAlign: it has no state_dict"),
    "missing tensor": (
        lambda c: c["state_dict"].pop("skel_embedding.weight"),
        "no reward of ReAlign: it lacks 'skel_embedding.weight'",
    ),
    "missing block": (
        lambda c: c["state_dict"].pop("decoder.norm.bias"),
        "does not fit .missing: decoder.norm.bias",
    ),
    "unknown tensor": (
        lambda c: c["state_dict"].update({"more": torch.ones(1)}),
        "does not fit .unknown: more",
    ),
    "two norms": (
        lambda c: c["state_dict"].update({"text_encoder.norm.bias": torch.ones(16)}),
        "motion_encoder.norm and text_encoder.norm differ",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_says_what_is_wrong_with_a_file_in_one_line(file: Path, name: str) -> None:
    change, message = WRONG[name]
    edit_file(file, change)
    with pytest.raises(UserError, match=message) as caught:
        RealignReward.load(file, tiny_stats(KIT))
    assert "\n" not in str(caught.value)


def test_refuses_motions_of_another_width(file: Path) -> None:
    with pytest.raises(UserError, match="takes motions of 251 features, the dataset's have 263"):
        RealignReward.load(file, tiny_stats(HUMANML))
    with pytest.raises(UserError, match="takes 251 features, humanml motions have 263"):
        RealignReward.load(file, tiny_stats(KIT)).check(HUMANML)


def test_refuses_a_name_without_mode(file: Path) -> None:
    nameless = file.rename(file.with_name("reward.pth"))
    with pytest.raises(UserError, match=r"reward.pth does not say .* pass --reward_mode"):
        RealignReward.load(nameless, tiny_stats(KIT))
    assert RealignReward.load(nameless, tiny_stats(KIT), mode="M0T1").model.mode.text
    with pytest.raises(UserError, match=r"--reward_mode both does not say"):
        RealignReward.load(nameless, tiny_stats(KIT), mode="both")


def test_refuses_noisy_steps_without_a_step_token(file: Path) -> None:
    with pytest.raises(UserError, match=r"--reward_step noisy: this reward \(M0T0\) has no step"):
        RealignReward.load(file, tiny_stats(KIT), mode="M0T0", step="noisy")


def test_refuses_tokens_of_another_width() -> None:
    network, mode = tiny_network(text_dim=7), StepMode(True, False)
    with pytest.raises(UserError, match="text tokens of width 7, the encoder gives 256"):
        RealignModel(network, tiny_stats(KIT), BuiltinEncoder(), mode)


def test_names_a_missing_t5_folder(file: Path, tmp_path: Path) -> None:
    edit_file(file, lambda content: content.pop("words"))
    with pytest.raises(UserError, match=r"sentence-T5 text encoder: cannot load .*nowhere"):
        RealignReward.load(file, tiny_stats(KIT), text_encoder_path=str(tmp_path / "nowhere"))


def test_refuses_more_frames_than_positions() -> None:
    reward = RealignReward(tiny_model())
    with pytest.raises(UserError, match=r"39 frames or words is too long .* 40 positions"):
        reward.embed(Samples(random_motion(1, 39, KIT.feature_dim), torch.tensor([39])))


def marked_latents(good: str, monkeypatch) -> None:
    """Latents that find the right motion with this choice of the step only."""

    def encode_motions(self, motions, lengths, steps=None):
        latents = torch.eye(len(motions), 16)
        return latents if self.step == good else latents.roll(1, dims=0)

    def encode_texts(self, captions, steps=None):
        return torch.eye(16)[[int(caption.split()[-1]) for caption in captions]]

    monkeypatch.setattr(RealignModel, "encode_motions", encode_motions)
    monkeypatch.setattr(RealignModel, "encode_texts", encode_texts)


@pytest.mark.parametrize("good", ["clean", "none"])
def test_measures_both_choices_of_the_step_and_warns_of_the_worse(monkeypatch, good: str) -> None:
    marked_latents(good, monkeypatch)
    captions = [f"caption {i}" for i in range(12)]
    data = torch.zeros(12, 4, KIT.feature_dim), torch.full((12,), 4), captions
    for chosen in ("clean", "none"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = measure_steps(RealignReward(tiny_model(step=chosen)), *data)
        assert getattr(found, good) == 1.0
        assert min(found.clean, found.none) == 0.0
        assert bool(caught) is (chosen != good)
        if caught:
            assert f"100.0 % with {good}" in str(caught[0].message)


def test_losses_ignore_a_masked_padding() -> None:
    network = tiny_network()
    target = random_motion(3, 9, KIT.feature_dim)
    words = BuiltinEncoder().encode(CAPTIONS)
    texts = network.text_distribution(words.tokens, words.mask)
    noise = (random_motion(3, 16, seed=4), random_motion(3, 16, seed=5))
    totals = []
    for frames in (9, 14):
        longer = F.pad(target, (0, 0, 0, frames - 9))
        mask = torch.arange(frames) < LENGTHS[:, None]
        longer = longer * mask.unsqueeze(-1)
        motions = network.motion_distribution(longer, mask)
        losses = realign_losses(network, texts, motions, longer, mask, noise, None)
        totals.append((losses.recons.sum() * frames, losses.contrastive, losses.kl.sum()))
    for short, long in zip(*totals, strict=True):
        torch.testing.assert_close(long, short, rtol=1e-5, atol=1e-5)


def test_steps_are_drawn_as_the_release_does_not_as_its_remark_says() -> None:
    shares = step_probability(1000)
    assert shares[:100].sum().item() == pytest.approx(0.286, abs=0.001)
    assert shares.sum().item() == pytest.approx(1.0)


def test_statistics_are_the_datasets_own(file: Path, motions) -> None:
    """Other statistics make other rewards, so they cannot come from anywhere else."""
    stats = tiny_stats(KIT)
    other = Statistics(stats.name, stats.mean + 1, stats.std)
    first, second = (
        RealignReward.load(file, s).score(Samples(motions, LENGTHS), CAPTIONS)
        for s in (stats, other)
    )
    assert (first - second).abs().max() > 1e-4


@torch.no_grad()
def test_the_total_is_the_weighted_sum_of_all_terms() -> None:
    assert RealignLossWeights() == RealignLossWeights(1.0, 1e-5, 1e-5, 0.1, 0.1, 0.9)
    network, target = tiny_network(), random_motion(3, 9, KIT.feature_dim)
    mask = torch.arange(9) < LENGTHS[:, None]
    words = BuiltinEncoder().encode(CAPTIONS)
    texts = network.text_distribution(words.tokens, words.mask)
    motions = network.motion_distribution(target, mask)
    noise = (random_motion(3, 16, seed=4), random_motion(3, 16, seed=5))
    weights = RealignLossWeights(0.5, 0.2, 0.3, 0.4, temperature=0.7)
    losses = realign_losses(network, texts, motions, target, mask, noise, None, weights)
    z, w = texts.sample(noise[0]), motions.sample(noise[1])
    of_text, of_motion = network.decode(z, mask), network.decode(w, mask)
    expected = [(of_text, target), (of_motion, target), (of_motion, of_text)]
    recons = torch.stack([F.smooth_l1_loss(*pair) for pair in expected])
    torch.testing.assert_close(losses.recons, recons)
    torch.testing.assert_close(losses.latent, F.smooth_l1_loss(w, z))
    torch.testing.assert_close(losses.contrastive, info_nce(z, w, 0.7))
    total = 0.5 * recons.sum() + 0.2 * losses.kl.sum() + 0.3 * losses.latent
    torch.testing.assert_close(losses.total, total + 0.4 * losses.contrastive)


def test_a_late_step_is_as_rare_as_the_release_has_it() -> None:
    shares = step_probability(1000)
    assert shares[999] / shares[0] == pytest.approx((0.2 / 899) / (0.8 / 1000))
    assert shares[99] == shares[0]
    assert shares[100] == shares[999]


def test_the_sizes_are_the_published_ones_and_no_guidance_is_told() -> None:
    config = RealignConfig()
    assert (config.num_features, config.text_dim, config.time_dim) == (263, 1024, 512)
    assert not any("cond_proj" in name for name in tiny_network().state_dict())


@torch.no_grad()
def test_a_latent_is_what_becomes_of_the_first_token() -> None:
    network, motion = tiny_network(), random_motion(3, 9, KIT.feature_dim)
    mask = torch.ones(3, 9, dtype=torch.bool)
    steps = torch.tensor([0.0, 10.0, 20.0])
    token = network.global_motion_token.expand(3, 1, -1)
    told = network.embed_steps(steps).unsqueeze(1)
    x = torch.cat([token, told, network.skel_embedding(motion)], dim=1)
    encoded = network.motion_encoder(network.query_motion_pos_encoder(x))[:, 0]
    mean, logvar = network.dist_motion_layer(encoded).chunk(2, dim=1)
    found = network.motion_distribution(motion, mask, steps)
    torch.testing.assert_close(found.mean, mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.logvar, logvar, rtol=1e-5, atol=1e-5)


def test_a_runs_folder_has_one_best_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 0 files best_"):
        find_file(tmp_path)
    for count, mode in enumerate(("M1T0", "M0T1"), start=1):
        (tmp_path / f"best_{mode}.pth").touch()
        if count == 1:
            assert find_file(tmp_path) == tmp_path / "best_M1T0.pth"
    with pytest.raises(UserError, match="holds 2 files"):
        find_file(tmp_path)


class Fifty:
    """A dataset of as many clips as its name says, for `load_realign`."""

    stats, skeleton = tiny_stats(KIT), KIT

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size


@pytest.mark.parametrize(("size", "batch"), [(50, 50), (64, 64), (100, 64)])
@pytest.mark.parametrize("captions", [7, 8])
def test_a_reward_is_measured_on_clips_of_the_dataset(
    file: Path, monkeypatch, capsys, size: int, batch: int, captions: int
) -> None:
    """On batches of 64 at most, in a random order, where there are captions for a pool."""
    asked: list[tuple] = []

    def loader(data, batch_size: int, *, shuffle: bool, pad_to: int):
        asked.append((batch_size, shuffle, pad_to))
        texts = [f"caption {n}" for n in range(captions)]
        yield SimpleNamespace(
            captions=texts, motion=torch.zeros(captions, 4, 251), lengths=torch.full((captions,), 4)
        )

    monkeypatch.setattr("rewards.load.make_loader", loader)
    monkeypatch.setattr("rewards.load.measure_steps", lambda *_: StepRetrieval(0.5, 0.25))
    options = RewardOptions(reward=["realign"], realign_path=str(file))
    reward = load_realign(options, torch.device("cpu"), Fifty(size))
    assert isinstance(reward, RealignReward)
    assert asked == [(batch, True, KIT.max_length)]
    said = "R@1 of 8 real motions 0.500 told step 0, 0.250 told none"
    assert (said in capsys.readouterr().out) == (captions == 8)
