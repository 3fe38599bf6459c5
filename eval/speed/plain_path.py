"""The straightforward way to the same numbers, which the benchmark compares with.

It does what the public releases do: two passes of the network for guidance, PyTorch's own
transformer layers in float32, every motion padded to the full length, captions encoded anew in
every call, one candidate at a time, and one network call per kind of error.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_loaders.captions import parse_captions
from data_loaders.humanml import MotionDataset
from diffusion.samplers import noise_from, sample_ancestral
from model.mdm.generator import MDMGenerator
from model.mdm.network import MDM
from model.seam import Generator, Samples
from model.text.encoders import Condition
from rewards.tmr import TMRReward
from tmr.model import TMR
from train.preference.algorithm import PreferenceAlgorithm
from train.preference.losses import DenoisingErrors
from train.preference.methods import METHODS
from train.preference.options import PreferenceOptions
from train.preference.pairs import Candidates, CandidateSampler, PreferenceBatch
from utils.masks import length_mask


class PlainMDM(MDM):
    """The same parameters, run through `nn.TransformerEncoder` and `nn.TransformerDecoder`."""

    @staticmethod
    def of(model: MDM) -> "PlainMDM":
        """A copy of the weights of `model`, on its device."""
        config, state = model.config, model.state_dict()
        weight = state.get("embed_text.weight")
        width = None if weight is None else weight.shape[1]
        plain = PlainMDM(config, model.num_features, width)
        plain.load_state_dict(state)
        return plain.to(next(model.parameters()).device).eval()

    def _run_encoder(self, frames: Tensor, memory: Tensor, hidden: Tensor | None) -> Tensor:
        x = self.sequence_pos_encoder(torch.cat([memory, frames], dim=1))
        if hidden is not None:
            hidden = torch.nn.functional.pad(hidden, (1, 0), value=False)
        return self.output_process(self.seqTransEncoder(x, src_key_padding_mask=hidden)[:, 1:])

    def _run_decoder(
        self,
        frames: Tensor,
        time: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None,
        hidden: Tensor | None,
    ) -> Tensor:
        if self.config.emb_trans_dec:
            raise ValueError("the plain path has no decoder with a condition token")
        decoded = self.seqTransDecoder(
            tgt=self.sequence_pos_encoder(frames),
            memory=memory,
            tgt_key_padding_mask=hidden,
            memory_key_padding_mask=memory_mask,
        )
        return self.output_process(decoded)


@contextmanager
def without_fused_layers() -> Iterator[None]:
    """The public code is sequence-first, which never takes PyTorch's fused inference layers."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class PlainGenerator(MDMGenerator):
    """float32, eager, two passes, always the full length, no cache of captions."""

    @staticmethod
    def of(generator: MDMGenerator) -> "PlainGenerator":
        known = {field.name: getattr(generator, field.name) for field in fields(generator)}
        model = PlainMDM.of(generator.model)
        return PlainGenerator(**(known | {"model": model, "autocast": None, "compiled": False}))

    def with_model(self, model: torch.nn.Module) -> "PlainGenerator":
        return replace(self, model=model)

    def encode_text(self, captions: list[str]) -> Condition:
        return self.text_encoder.encoder.encode(captions).to(self.device)

    @torch.no_grad()
    def draw(
        self,
        condition: Condition,
        lengths: Tensor,
        rng: torch.Generator | None = None,
        **fixed: Any,
    ) -> Tensor:
        """All steps of ancestral sampling, whatever the sampler is."""
        frames = self.skeleton.max_length
        shape = (len(condition), frames, self.stats.feature_dim)
        mask = length_mask(lengths, frames)
        dropped = torch.ones(len(mask), dtype=torch.bool, device=mask.device)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            conditional = self.model(x, t, condition, mask)
            unconditional = self.model(x, t, condition, mask, dropped)
            return unconditional + self.guidance * (conditional - unconditional)

        x = torch.randn(shape, generator=rng, device=self.device)
        with without_fused_layers():
            x = sample_ancestral(denoise, self.diffusion, x, noise_from(rng, x))
        return x[:, : int(lengths.max())]


class PlainReward(TMRReward):
    """Captions are encoded in every call."""

    @torch.no_grad()
    def embed_texts(self, captions: list[str]) -> Tensor:
        model: TMR = self.model
        condition = model.words.encoder.encode(captions).to(model.device)
        return model.text_distribution(condition).mean


@dataclass
class PlainCandidates(CandidateSampler):
    """One candidate per caption at a time."""

    def __call__(
        self,
        winners: Samples,
        captions: list[str],
        condition: Condition,
        rng: torch.Generator | None,
    ) -> Candidates:
        one = CandidateSampler(self.policy, self.reward, 1)
        drawn = []
        for _ in range(self.num_candidates):
            drawn.append(one(winners, captions, self.policy.encode_text(captions), rng))
        order = torch.arange(len(drawn) * len(captions)).view(len(drawn), -1).T.flatten()
        return Candidates(
            Samples.cat([d.samples for d in drawn])[order],
            Samples.cat([d.raw for d in drawn])[order],
            torch.cat([d.rewards for d in drawn], dim=1),
        )


class PlainAlgorithm(PreferenceAlgorithm):
    """The method's step with the parts above and four network calls for the four errors."""

    def __init__(self, options: PreferenceOptions, policy: Generator, reward: PlainReward) -> None:
        super().__init__(options, policy, reward)
        self.candidates = PlainCandidates(policy, reward, options.num_candidates)
        self.sources = [self._source(pairing, None) for pairing in METHODS[options.method]]

    def errors(
        self, pairs: PreferenceBatch, t: Tensor, noise: Tensor
    ) -> tuple[DenoisingErrors, DenoisingErrors]:
        found = []
        for samples in (pairs.preferred, pairs.unpreferred):
            inputs = (samples, t, noise, pairs.condition)
            policy = self.policy.error(*inputs)
            with torch.no_grad(), without_fused_layers():
                found.append(DenoisingErrors(policy, self.reference.error(*inputs)))
        return found[0], found[1]


def plain_start_up(data: MotionDataset) -> int:
    """Read every clip and caption file of a dataset one by one; returns the number of frames."""
    frames = 0
    for entry in {entry.name: entry for entry in data.entries if not entry.is_subclip}.values():
        path = data.folder.path / "new_joint_vecs" / f"{entry.name}.npy"
        motion = np.load(path)
        text = (data.folder.path / "texts" / f"{entry.name}.txt").read_text(encoding="utf-8")
        parse_captions(text)
        if not np.isnan(motion).any():
            frames += len(motion)
    return frames
