"""The network: what may and what may not change its output."""

import pytest
import torch

from model.mdm.network import MDM, MDMConfig
from model.text.encoders import Condition
from tests.model.tiny import FEATURES, random_condition, random_motion, tiny_mdm
from utils.masks import length_mask

LAYOUTS = [
    {"arch": "trans_enc"},
    {"arch": "trans_dec"},
    {"arch": "trans_dec", "emb_trans_dec": True},
    {"arch": "trans_dec", "emb_trans_dec": True, "legacy_emb_token": True},
    {"arch": "gru"},
]
NAMES = ["encoder", "decoder", "decoder+time", "decoder+text", "gru"]
each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=NAMES)
each_transformer = pytest.mark.parametrize("layout", LAYOUTS[:4], ids=NAMES[:4])
STEPS = torch.tensor([3, 6])


def takes_tokens(layout: dict) -> bool:
    """Several tokens fit where the text is only ever attended to."""
    return layout["arch"] == "trans_dec" and not layout.get("legacy_emb_token")


def condition_for(layout: dict) -> Condition:
    return random_condition([2, 4] if takes_tokens(layout) else [1, 1])


@each_transformer
@torch.no_grad()
def test_padding_never_changes_valid_frames(layout: dict) -> None:
    model, condition = tiny_mdm(**layout), condition_for(layout)
    lengths = torch.tensor([6, 9])
    x = random_motion(2, 9, FEATURES)
    longer = torch.cat([x, 1e3 * random_motion(2, 4, FEATURES)], dim=1)
    longer[0, 6:] = -50.0
    short = model(x, STEPS, condition, length_mask(lengths, 9))
    long = model(longer, STEPS, condition, length_mask(lengths, 13))
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(long[row, :length], short[row, :length], rtol=1e-5, atol=1e-5)


@each_transformer
@torch.no_grad()
def test_a_sample_does_not_depend_on_its_neighbours(layout: dict) -> None:
    model, condition = tiny_mdm(**layout), condition_for(layout)
    x = random_motion(2, 6, FEATURES)
    mask = length_mask(torch.tensor([4, 6]), 6)
    together = model(x, STEPS, condition, mask)
    for row in range(2):
        tokens = int(condition.mask[row].sum())
        own = Condition(
            condition.tokens[row : row + 1, :tokens], condition.mask[row : row + 1, :tokens]
        )
        valid = mask[row]
        alone = model(
            x[row : row + 1, valid], STEPS[row : row + 1], own, mask[row : row + 1, valid]
        )
        torch.testing.assert_close(together[row, valid], alone[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_model_without_frame_masking_attends_to_padding() -> None:
    model = tiny_mdm(mask_frames=False)
    x = random_motion(1, 6, FEATURES)
    t, condition = STEPS[:1], random_condition([1])
    masked = model(x, t, condition, length_mask(torch.tensor([4]), 6))
    torch.testing.assert_close(masked, model(x, t, condition), rtol=0, atol=0)
    changed = x.clone()
    changed[:, 4:] += 1
    assert (model(changed, t, condition)[:, :4] - masked[:, :4]).abs().max() > 1e-3


@each_layout
@torch.no_grad()
def test_dropped_text_is_the_unconditional_model(layout: dict) -> None:
    model, condition = tiny_mdm(**layout), condition_for(layout)
    x, mask = random_motion(2, 6, FEATURES), length_mask(torch.tensor([4, 6]), 6)
    dropped = model(x, STEPS, condition, mask, torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(dropped, model(x, STEPS, None, mask), rtol=1e-5, atol=1e-6)
    assert (model(x, STEPS, condition, mask) - dropped).abs().max() > 1e-3


@each_transformer
@torch.no_grad()
def test_text_is_dropped_per_sample(layout: dict) -> None:
    model, condition = tiny_mdm(**layout), condition_for(layout)
    x = random_motion(2, 6, FEATURES)
    mixed = model(x, STEPS, condition, None, torch.tensor([True, False]))
    torch.testing.assert_close(mixed[0], model(x, STEPS)[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mixed[1], model(x, STEPS, condition)[1], rtol=1e-5, atol=1e-6)


@each_layout
@torch.no_grad()
def test_the_step_and_the_order_of_frames_matter(layout: dict) -> None:
    model, condition = tiny_mdm(**layout), condition_for(layout)
    x = random_motion(2, 6, FEATURES)
    found = model(x, STEPS, condition)
    assert found.shape == x.shape
    assert (model(x, STEPS + 1, condition) - found).abs().max() > 1e-3
    assert (model(x.flip(1), STEPS, condition).flip(1) - found).abs().max() > 1e-3


def test_an_unconstrained_model_has_no_text_parameters() -> None:
    model = tiny_mdm(unconstrained=True)
    assert not [name for name in model.state_dict() if name.startswith("embed_text")]
    x = random_motion(2, 6, FEATURES)
    with torch.no_grad():
        torch.testing.assert_close(model(x, STEPS, random_condition([1, 1])), model(x, STEPS))


def test_every_parameter_is_trained() -> None:
    for layout in LAYOUTS:
        model, condition = tiny_mdm(**layout), condition_for(layout)
        model(random_motion(2, 6, FEATURES), STEPS, condition).square().sum().backward()
        idle = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
        assert not idle, f"{layout}: {idle}"


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"arch": "trans_enc"}, 17_880_327),
        ({"arch": "trans_dec"}, 26_293_511),
        ({"arch": "trans_dec", "text_encoder_type": "bert"}, 26_424_583),
        ({"arch": "gru"}, 13_927_687),
    ],
)
def test_default_sizes_are_the_published_ones(changes: dict, count: int) -> None:
    with torch.device("meta"):
        model = MDM(MDMConfig(**changes), num_features=263)
    assert sum(p.numel() for p in model.parameters()) == count
