"""The straightforward way to the numbers of latent diffusion, which the benchmark compares with.

PyTorch's own transformer layers in float32, two passes of the denoiser for guidance, every motion
encoded and decoded at the full length.
"""

import copy
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from diffusion.samplers import Denoiser
from eval.speed.plain_path import without_fused_layers
from model.latent.denoiser import LatentDenoiser
from model.latent.generator import MLDGenerator
from model.latent.skip_transformer import SkipDecoder, SkipEncoder
from model.latent.vae import MotionVAE
from model.seam import Samples
from model.text.condition import Condition
from utils.masks import length_mask, match_frames, zero_padding


class PlainSkipEncoder(SkipEncoder):
    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        return self.run(lambda block, x: block(x, src_key_padding_mask=hidden), x)


class PlainSkipDecoder(SkipDecoder):
    def forward(self, x: Tensor, memory: Tensor, hidden: Tensor | None = None) -> Tensor:
        return self.run(lambda block, x: block(x, memory, tgt_key_padding_mask=hidden), x)


def with_plain_layers(network: LatentDenoiser | MotionVAE) -> nn.Module:
    """A copy of the weights, run through `nn.TransformerEncoder`'s and `Decoder`'s own layers."""
    plain = copy.deepcopy(network)
    for name, kind in (("encoder", PlainSkipEncoder), ("decoder", PlainSkipDecoder)):
        if (part := getattr(network, name, None)) is not None:
            new = kind(network.config).to(next(part.parameters()).device)
            new.load_state_dict(part.state_dict())
            setattr(plain, name, new)
    return plain.eval()


@dataclass
class PlainMLD(MLDGenerator):
    """float32, eager, two passes, always the full length."""

    @staticmethod
    def of(generator: MLDGenerator) -> "PlainMLD":
        known = {field.name: getattr(generator, field.name) for field in fields(generator)}
        networks = {name: with_plain_layers(known[name]) for name in ("model", "vae")}
        return PlainMLD(**(known | networks | {"autocast": None, "compiled": False}))

    def encode(self, raw: Samples, rng: torch.Generator | None = None) -> Samples:
        lengths, frames = raw.frames, self.skeleton.max_length
        x = match_frames(zero_padding(self.stats.normalize(raw.x), lengths), frames)
        with torch.no_grad(), without_fused_layers():
            latents = self.vae.distribution(x, length_mask(lengths, frames))
        noise = torch.randn(latents.mean.shape, generator=rng, device=self.device)
        return Samples(latents.sample(noise), lengths)

    def decode(self, samples: Samples) -> Samples:
        lengths = samples.frames
        with torch.no_grad(), without_fused_layers():
            motion = self.vae.decode(samples.x, lengths, self.skeleton.max_length)
        raw = self.stats.denormalize(motion[:, : int(lengths.max())])
        return Samples(zero_padding(raw, lengths), lengths)

    def sample(
        self,
        condition: Condition,
        like: Samples,
        rng: torch.Generator | None = None,
        start: float = 1.0,
    ) -> Samples:
        with without_fused_layers():
            return super().sample(condition, like, rng, start)

    def predicted_noise(self, condition: Condition) -> Denoiser:
        network: nn.Module = self.model
        nothing = self.no_text.repeat(len(condition))

        def predict(x: Tensor, t: Tensor) -> Tensor:
            conditional, unconditional = network(x, t, condition), network(x, t, nothing)
            return unconditional + self.scale * (conditional - unconditional)

        return predict
