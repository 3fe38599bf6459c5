"""MoMask's length estimator: how many tokens a caption's motion has."""

import torch.nn.functional as F
from torch import Tensor, nn

from model.momask.draws import Draws, draw_categorical

CLASSES = 50  # 0..49 tokens; 49 tokens are the 196 frames of the longest motion
SLOPE = 0.2  # of LeakyReLU below 0


class LengthEstimator(nn.Module):
    """Text feature ``[B, E]`` to logits ``[B, 50]`` over token counts."""

    def __init__(self, text_width: int = 512, classes: int = CLASSES, dropout: float = 0.2) -> None:
        super().__init__()
        self.output = nn.Sequential(
            *_layer(text_width, 512),
            nn.Dropout(dropout),
            *_layer(512, 256),
            nn.Dropout(dropout),
            *_layer(256, 128),
            nn.Linear(128, classes),
        )

    def forward(self, text: Tensor) -> Tensor:
        return self.output(text)

    def loss(self, text: Tensor, tokens: Tensor) -> Tensor:
        """Cross entropy of the true token counts ``[B]``."""
        return F.cross_entropy(self(text), tokens)

    def sample(self, text: Tensor, draws: Draws) -> Tensor:
        """Token counts ``[B]``, drawn from the softmax; 0 is possible."""
        return draw_categorical(self(text), 1.0, draws)


def _layer(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.LeakyReLU(SLOPE)]
