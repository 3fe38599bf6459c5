"""MLD*: its rows of the benchmark, on the batch, the reward and the evaluators of MDM's rows.

Its sentence-T5 is not part of the work on either path: vectors of its width stand for captions.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data_loaders.humanml import MotionDataset
from eval.speed.plain_latent import PlainMLD
from eval.speed.plain_path import PlainAlgorithm
from eval.speed.steps import TrainingSteps
from eval.speed.workload import EVALUATION_BATCH, GENERATION_BATCH, Item, LatentSizes, Workload
from model.latent.checkpoints import LatentSettings
from model.latent.denoiser import DenoiserConfig, LatentDenoiser
from model.latent.generator import MLDGenerator
from model.latent.vae import MotionVAE, VAEConfig
from model.text.condition import Condition
from train.preference.algorithm import PreferenceAlgorithm
from utils.seeding import torch_generator


@dataclass(frozen=True)
class AnyText:
    """One vector per caption, the same for all, of a text encoder's width."""

    width: int
    pooled: bool = True

    def encode(self, captions: list[str]) -> Condition:
        tokens = torch.ones(len(captions), 1, self.width)
        return Condition(tokens, torch.ones(len(captions), 1, dtype=torch.bool))


def untrained_mld(
    sizes: LatentSizes, data: MotionDataset, device: torch.device, autocast: torch.dtype | None
) -> MLDGenerator:
    """New networks with a fixed seed; the text is `AnyText`."""
    torch.manual_seed(0)
    trunk = vars(sizes.trunk)
    width, features = sizes.trunk.hidden_dim, data.skeleton.feature_dim
    vae = MotionVAE(VAEConfig(**trunk, num_features=features, latent_dim=width))
    text = {"text_dim": sizes.text_width, "time_dim": sizes.text_width}
    model = LatentDenoiser(DenoiserConfig(**trunk, **text, latent_dim=width))
    generator = MLDGenerator(
        model.to(device).eval(),
        vae.to(device).eval().requires_grad_(False),
        LatentSettings(),
        data.stats.to(device),
        AnyText(sizes.text_width),
        data.skeleton,
        device,
        autocast=autocast,
    )
    return replace(generator, sampler=replace(generator.sampler, steps=sizes.steps))


class LatentWorkload:
    """The items of MLD*, with the K that the paper has for it."""

    def __init__(self, work: Workload) -> None:
        self.work, self.device = work, work.device
        sizes, dtype = work.sizes.latent, work.dtype
        autocast = None if dtype == torch.float32 else dtype
        self.generator = untrained_mld(sizes, work.data, work.device, autocast)
        self.plain_generator = PlainMLD.of(self.generator)
        options = replace(work.options, num_candidates=sizes.candidates)
        fast = PreferenceAlgorithm(options, self.generator, work.reward)
        plain = PlainAlgorithm(options, self.plain_generator, work.plain_reward)
        self.fast = TrainingSteps(fast, work.raw, work.keys, dtype)
        self.plain = TrainingSteps(plain, work.raw, work.keys, torch.float32)

    def items(self) -> list[Item]:
        """In the order of the table."""
        fast, plain, count = self.fast, self.plain, self.work.sizes.motions
        return [
            Item("MLD rollout", fast.rollout, plain.rollout),
            Item("MLD loss step", fast.loss_step, plain.loss_step),
            Item("MLD SoPo step", fast.sopo_step, plain.sopo_step),
            Item(
                f"MLD generation of {count}",
                lambda: self.generate(self.generator),
                lambda: self.generate(self.plain_generator),
            ),
            Item(
                f"MLD evaluation of {count}",
                lambda: self.work.judge(self.generate(self.generator)),
                lambda: self.work.judge(self.generate(self.plain_generator)),
            ),
        ]

    def generate(self, generator: MLDGenerator) -> Tensor:
        """Raw motions ``[N, T, D]`` for the evaluated captions, in batches as there."""
        captions, lengths = self.work.prompts()
        rng, parts = torch_generator(0, self.device), []
        size = EVALUATION_BATCH if generator is self.plain_generator else GENERATION_BATCH
        for rows in torch.arange(len(captions)).split(size):
            condition = generator.encode_text([captions[i] for i in rows.tolist()])
            # one of the full length, so that all parts fit
            own = lengths[rows].index_fill(0, torch.tensor([0]), generator.skeleton.max_length)
            drawn = generator.sample(condition, generator.blank(own.to(self.device)), rng)
            parts.append(generator.decode(drawn).x)
        return torch.cat(parts)
