"""The co-embedding evaluators as a reward."""

import torch
import torch.nn.functional as F
from torch import Tensor

from data_loaders.captions import tag_words
from data_loaders.humanml import UNIT
from data_loaders.skeleton import Skeleton
from model.seam import Samples
from rewards.co_embedding import CoEmbedder
from rewards.seam import check_width
from utils.masks import zero_padding


class EvaluatorReward:
    """r(x, c) = 1 / (1 + ||e_text - e_motion||): the co-embedding distance of Guo et al. (2022),
    brought into (0, 1]; 1 where both embeddings agree, 1/2 at distance 1.

    `tokens`: the ``word/POS`` tokens of the dataset's captions; other captions are tagged. Motions
    are zero beyond their length, as the published figures of ground truth have it.
    """

    def __init__(self, embedder: CoEmbedder, tokens: dict[str, tuple[str, ...]]) -> None:
        self.embedder, self.tokens = embedder, tokens
        self._texts: dict[str, Tensor] = {}

    @torch.no_grad()
    def score(self, raw: Samples, captions: list[str]) -> Tensor:
        texts = self.embed_texts(captions).to(raw.x.device)
        return 1 / (1 + (texts - self.embed(raw)).norm(dim=-1))

    @torch.no_grad()
    def embed(self, raw: Samples) -> Tensor:
        """Embeddings ``[B, d]`` of raw motions ``[B, T, D]`` with lengths of at least 4.

        The convolutions read up to 3 frames after a length: one unit of padding makes them zeros
        for every motion, whatever else is in its batch.
        """
        lengths, frames = raw.frames, int(raw.frames.max())
        normalised = self.embedder.stats.normalize(raw.x[:, :frames].float())
        normalised = F.pad(zero_padding(normalised, lengths), (0, 0, 0, UNIT))
        with torch.autocast(raw.x.device.type, enabled=False):
            return self.embedder.embed_motions(normalised, lengths).to(raw.x.device)

    @torch.no_grad()
    def embed_texts(self, captions: list[str]) -> Tensor:
        """Embeddings ``[B, d]`` on the CPU; each caption is embedded once, and alone, so that its
        last bits do not depend on which others were missing."""
        for caption in dict.fromkeys(captions):
            if caption not in self._texts:
                tokens = self.tokens.get(caption) or tuple(tag_words(caption))
                self._texts[caption] = self.embedder.embed_texts([tokens])[0]
        return torch.stack([self._texts[caption] for caption in captions])

    def check(self, skeleton: Skeleton | None) -> None:
        check_width(
            "the evaluator reward",
            self.embedder.stats.feature_dim,
            skeleton,
            "pass --evaluator_dir with evaluators of this dataset",
        )
