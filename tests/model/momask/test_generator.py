"""MoMask behind the seam: its tokens, its samples and its checkpoints."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_loaders.skeleton import HUMANML, KIT
from diffusion.sampling import SamplerOptions
from model.families import load_generator
from model.momask.checkpoints import load_momask
from model.momask.generator import MoMaskGenerator
from model.seam import Samples
from tests.model.momask.tiny import CAPTIONS, CODES, FRAMES, LAYERS, Seen, raw_motions, seeded
from utils.errors import UserError
from utils.files import read_json, write_json


def test_ids_are_those_of_the_motion_padded_to_the_longest(generator) -> None:
    raw = raw_motions()
    found = generator.encode(raw)
    assert found.x.shape == (3, 49, LAYERS)
    stats, rvq = generator.stats, generator.parts.tokens.rvq
    for row, length in enumerate(FRAMES.tolist()):
        padded = torch.zeros(1, 196, KIT.feature_dim)
        padded[0, :length] = (raw.x[row, :length] - stats.mean) / stats.std
        assert torch.equal(found.x[row, : length // 4], rvq.encode(padded)[0, : length // 4])
        assert (found.x[row, length // 4 :] == -1).all()
    garbage = raw.x.masked_fill(~raw.mask.unsqueeze(-1), float("nan"))
    assert torch.equal(generator.encode(Samples(garbage, FRAMES)).x, found.x)


def test_decoding_gives_raw_motions_with_zeros_beyond_a_length(generator) -> None:
    ids = generator.encode(raw_motions())
    found = generator.decode(ids)
    assert found.x.shape == (3, 40, KIT.feature_dim)
    expected = generator.parts.tokens.rvq.decode(ids.x[:, :10])
    stats = generator.stats
    torch.testing.assert_close(found.x[1], expected[1] * stats.std + stats.mean)
    assert not found.x[~found.mask].any()
    spilled = replace(generator, spill=4).decode(ids).x
    assert spilled[0, 24:28].any()
    assert not spilled[0, 28:].any()


def test_lengths_are_cut_to_whole_tokens(generator) -> None:
    odd = torch.tensor([27, 43, 3])
    blank = generator.blank(odd)
    assert blank.frames.tolist() == [24, 40, 4]
    sampled = generator.sample(generator.encode_text(CAPTIONS), blank, seeded())
    assert generator.decode(sampled).frames.tolist() == [24, 40, 4]


def test_samples_follow_the_seed_and_carry_the_lengths_of_the_batch(generator) -> None:
    condition, like = generator.encode_text(CAPTIONS), generator.encode(raw_motions())
    first, again, other = (generator.sample(condition, like, seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, other.x)
    assert first.x.shape == like.x.shape
    assert torch.equal(first.frames, FRAMES)
    valid = generator.parts.tokens.valid(FRAMES, 49)
    assert ((first.x[..., 0] >= 0) == valid).all()
    assert first.x.max() < CODES


def test_a_start_keeps_the_other_share_of_the_base_ids(generator) -> None:
    condition, like = generator.encode_text(CAPTIONS), generator.encode(raw_motions())
    seen = Seen(generator)
    found = generator.sample(condition, like, seeded(), start=0.5)
    # guidance doubles the batch; the first call shows all that is to be drawn
    hidden = seen.ids[0][:3] == generator.model.mask_id
    assert hidden.sum(1).tolist() == [3, 5, 1]
    kept = generator.parts.tokens.valid(FRAMES, 10) & ~hidden
    assert torch.equal(found.x[:, :10, 0][kept], like.x[:, :10, 0][kept])
    assert not torch.equal(found.x[:, :10, 1:][kept], like.x[:, :10, 1:][kept])


def test_sampling_leaves_the_mode_of_the_network_and_uses_no_dropout(generator) -> None:
    generator.model.train()
    condition, like = generator.encode_text(CAPTIONS), generator.blank(FRAMES)
    for layer in generator.model.seqTransEncoder.layers:
        layer.dropout1.p = 0.5
    first, second = (generator.sample(condition, like, seeded()).x for _ in range(2))
    assert torch.equal(first, second)
    assert generator.model.training
    assert not generator.parts.residual.training


def test_samples_in_reduced_precision(generator) -> None:
    reduced = replace(generator, autocast=torch.bfloat16)
    found = reduced.sample(generator.encode_text(CAPTIONS), generator.blank(FRAMES), seeded())
    assert found.x.max() < CODES
    assert generator.decode(found).x.isfinite().all()


def test_less_signal_is_left_at_higher_levels(generator) -> None:
    signal = generator.signal(torch.arange(generator.levels))
    assert generator.levels == 49
    assert (signal.diff() < 0).all()
    assert 0 < signal[-1] < signal[0] < 1


def test_guidance_is_as_published_unless_told(generator) -> None:
    assert generator.token_sampling.guidance == 2.0  # KIT's
    assert replace(generator, guidance=3.0).token_sampling.guidance == 3.0
    assert generator.token_sampling.iterations == 3
    assert replace(generator, sampler=SamplerOptions()).token_sampling.iterations == 10


def test_checkpoints_come_back(generator, tmp_path: Path) -> None:
    path = generator.save(tmp_path, 7, None, {"dataset": "kit"})
    assert path.name == "model000000007.pt"
    assert read_json(tmp_path / "args.json")["dataset"] == "kit"
    found = load_generator(tmp_path, sampler=generator.sampler, skeleton=KIT)
    condition, blank = generator.encode_text(CAPTIONS), generator.blank(FRAMES)
    motions = [g.decode(g.sample(condition, blank, seeded())).x for g in (generator, found)]
    assert torch.equal(*motions)
    lengths = [g.draw_lengths(condition, seeded()) for g in (generator, found)]
    assert torch.equal(*lengths)
    assert ((lengths[0] % 4 == 0) & (lengths[0] >= 4) & (lengths[0] <= 196)).all()


def test_a_checkpoint_holds_the_average_where_there_is_one(generator, tmp_path: Path) -> None:
    average = generator.frozen().model
    with torch.no_grad():
        average.token_emb.weight.add_(1.0)
    path = generator.save(tmp_path, 3, average, {})
    found = load_generator(path)
    assert torch.equal(found.model.token_emb.weight, average.token_emb.weight)


def test_only_the_base_transformer_can_be_trained(generator) -> None:
    parts = generator.parts
    assert all(p.requires_grad for p in generator.model.parameters())
    frozen = (parts.tokens.rvq, parts.residual, parts.lengths, generator.frozen().model)
    assert not any(p.requires_grad for network in frozen for p in network.parameters())


def damage(tmp_path: Path, generator: MoMaskGenerator, **changes) -> Path:
    path = generator.save(tmp_path, 1, None, {})
    args = {**read_json(tmp_path / "args.json"), **changes}
    write_json(tmp_path / "args.json", {k: v for k, v in args.items() if v is not None})
    return path


WRONG = {
    "no sizes": ({"t2m_transformer": None}, "no sizes of the base transformer"),
    "no width": ({"text_width": None}, "lacks text_width"),
    "other sizes": ({"text_width": 7}, "does not fit .of another shape: cond_emb.weight"),
    "other text": ({"text_encoder_type": "bert"}, "'bert', neither clip nor builtin"),
}


@pytest.mark.parametrize("name", WRONG)
def test_says_what_is_wrong_with_a_run(generator, tmp_path: Path, name: str) -> None:
    changes, message = WRONG[name]
    with pytest.raises(UserError, match=message) as caught:
        load_generator(damage(tmp_path, generator, **changes))
    assert "\n" not in str(caught.value)


def test_refuses_what_tokens_have_no_counterpart_for(generator, folder: Path) -> None:
    with pytest.raises(UserError, match="sampler ddim is for diffusion"):
        load_generator(folder, sampler=SamplerOptions("ddim", 5))
    with pytest.raises(UserError, match="--compile"):
        load_generator(folder, compiled=True)
    with pytest.raises(UserError, match="omega snr has no counterpart"):
        replace(generator, weighting="snr")
    with pytest.raises(UserError, match="200 frames is longer than MoMask's 196"):
        long = Samples(torch.zeros(1, 200, KIT.feature_dim), torch.tensor([200]))
        generator.encode(long)
    with pytest.raises(UserError, match="makes kit motions of 251 features"):
        load_generator(folder, skeleton=HUMANML)
    without = replace(generator, parts=replace(generator.parts, lengths=None))
    with pytest.raises(UserError, match="no length estimator"):
        without.draw_lengths(generator.encode_text(CAPTIONS))


def test_a_published_folder_and_its_file_are_the_same_generator(folder: Path) -> None:
    first, second = (load_generator(path) for path in (folder, folder / "model" / "latest.tar"))
    assert torch.equal(first.model.token_emb.weight, second.model.token_emb.weight)
    assert load_momask(folder).text_encoder_type == "builtin"
