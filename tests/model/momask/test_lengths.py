"""The length estimator: drawn lengths follow its softmax."""

import torch

from model.momask.draws import Draws
from model.momask.lengths import CLASSES, LengthEstimator
from tests.model.momask.tiny import TEXT_WIDTH, random_text


@torch.no_grad()
def test_draws_follow_the_predicted_shares() -> None:
    torch.manual_seed(0)
    model = LengthEstimator(TEXT_WIDTH).eval()
    model.output[11].bias[:4] += 5.0
    text = random_text(1)
    draws = Draws(torch.Generator().manual_seed(0))
    drawn = model.sample(text.expand(20_000, -1), draws)
    shares = torch.bincount(drawn, minlength=CLASSES) / len(drawn)
    torch.testing.assert_close(shares, model(text).softmax(-1)[0], rtol=0, atol=0.02)


def test_learns_the_length_of_a_caption() -> None:
    torch.manual_seed(0)
    model = LengthEstimator(TEXT_WIDTH)
    text, tokens = random_text(8), torch.arange(8) * 6
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    first = model.loss(text, tokens).item()
    for _ in range(15):
        loss = model.loss(text, tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < first / 3
