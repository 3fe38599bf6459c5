"""What the benchmark runs: networks, data and the work of every measured item, fast and plain."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_loaders.humanml import MotionBatch, MotionDataset, make_loader, open_dataset
from diffusion.sampling import SamplerOptions
from eval.protocol import Embeddings, Protocol, measure
from eval.speed.plain_path import PlainAlgorithm, PlainGenerator, PlainReward, plain_start_up
from eval.speed.steps import TrainingSteps
from model.latent.generator import MLDGenerator
from model.latent.skip_transformer import SkipTransformerConfig
from model.mdm.generator import MDMGenerator
from model.mdm.network import MDM, MDMConfig
from model.seam import Samples
from rewards.co_embedding import Evaluators, EvaluatorSizes
from rewards.tmr import TMRReward
from tmr.model import TMRConfig
from train.preference.algorithm import PreferenceAlgorithm
from train.preference.options import PreferenceOptions
from train.preference.pairs import Key
from utils.masks import length_mask
from utils.seeding import torch_generator

GUIDANCE = 2.5
EVALUATION_BATCH, GENERATION_BATCH = 32, 256  # pools of the plain path; what memory holds


@dataclass(frozen=True)
class LatentSizes:
    """MLD*, whose published sizes are the defaults: VAE and denoiser, the width of a caption's
    vector, DDIM's steps, and K."""

    trunk: SkipTransformerConfig = field(default_factory=SkipTransformerConfig)
    text_width: int = 768
    steps: int = 50
    candidates: int = MLDGenerator.usual_candidates


@dataclass(frozen=True)
class Sizes:
    """Networks and amounts; motions are those of one generation and of one evaluation."""

    network: MDMConfig
    reward: TMRConfig
    batch: int
    candidates: int
    motions: int
    clips: int
    evaluators: EvaluatorSizes = field(default_factory=EvaluatorSizes)
    latent: LatentSizes = field(default_factory=LatentSizes)


SMALL = Sizes(
    MDMConfig("builtin", 128, 512, 4, arch="trans_dec", mask_frames=True, diffusion_steps=50),
    TMRConfig("builtin", 128, 512, 3),
    batch=16,
    candidates=4,
    motions=32,
    clips=500,
    evaluators=EvaluatorSizes(text_hidden=64, motion_hidden=64, embedding=16),
    latent=LatentSizes(SkipTransformerConfig(128, 512, 5), text_width=256),
)
FULL = Sizes(MDMConfig("builtin", diffusion_steps=50), TMRConfig("builtin"), 64, 4, 1024, 25_000)
QUICK = Sizes(
    MDMConfig("builtin", 16, 16, 1, 2, arch="trans_dec", mask_frames=True, diffusion_steps=6),
    TMRConfig("builtin", 16, 16, 1, 2),
    batch=2,
    candidates=2,
    motions=32,
    clips=60,
    evaluators=EvaluatorSizes(263, 8, 8, 10, 8, 8, 8),
    latent=LatentSizes(SkipTransformerConfig(16, 16, 3, 2), text_width=16, steps=3),
)


def layer_flops(length: int, memory: int, width: int, ff: int) -> int:
    """Of one layer: projections, products of self-attention and feed-forward of `length` positions;
    with cross-attention to `memory` positions where there are some. A multiply-add counts as 2."""
    own = 2 * length * (4 * width**2 + 2 * width * ff) + 4 * length**2 * width
    cross = 4 * (length + memory) * width**2 + 4 * length * memory * width
    return own + (cross if memory else 0)


def network_flops(model: MDM, frames: int, tokens: int) -> int:
    """Of one motion through the denoiser, without terms that do not grow with the motion."""
    config = model.config
    if config.arch == "trans_enc":
        layer = layer_flops(frames + 1, 0, config.latent_dim, config.ff_size)
    elif config.arch == "trans_dec":
        layer = layer_flops(frames, tokens, config.latent_dim, config.ff_size)
    else:
        raise ValueError(f"no count for {config.arch}")
    return config.layers * layer + 4 * frames * model.num_features * config.latent_dim


@dataclass(frozen=True)
class Item:
    """Work that is timed, and the operations of the network that it needs, on both paths.

    dtype: the type whose peak the fast path is measured against; the plain path is float32.
    """

    name: str
    fast: Callable[[], object]
    plain: Callable[[], object] | None = None
    flops: float = 0.0
    plain_flops: float = 0.0
    dtype: torch.dtype = torch.float32


class Workload:
    """Networks, one batch and the items. `dtype` is the number type of the fast path."""

    def __init__(
        self,
        sizes: Sizes,
        folder: Path,
        generator: MDMGenerator,
        reward: TMRReward,
        dtype: torch.dtype,
        rank: int = 0,
    ) -> None:
        self.sizes, self.folder, self.dtype, self.reward = sizes, folder, dtype, reward
        self.device = generator.device
        self.data = self.open()
        pad_to = generator.padded_frames
        batches = make_loader(self.data, sizes.batch, shuffle=True, seed=rank, pad_to=pad_to)
        self.batch: MotionBatch = next(iter(batches)).to(self.device)
        self.raw = Samples(self.batch.motion, self.batch.lengths)
        self.keys = [Key("", caption) for caption in self.batch.captions]
        self.options = PreferenceOptions(tau=1.0, num_candidates=sizes.candidates)
        self.plain_generator = PlainGenerator.of(generator)
        self.plain_reward = PlainReward(reward.model)
        plain = PlainAlgorithm(self.options, self.plain_generator, self.plain_reward)
        self.plain = TrainingSteps(plain, self.raw, self.keys, torch.float32)
        self.use(generator)
        self.evaluators = Evaluators(sizes.evaluators).to(self.device).eval().requires_grad_(False)

    def use(self, generator: MDMGenerator) -> None:
        """Take this generator on the fast path."""
        self.generator = generator
        few = replace(generator, sampler=SamplerOptions("dpm_sde", self.few_steps))
        self.fast, self.few = (
            TrainingSteps(
                PreferenceAlgorithm(self.options, policy, self.reward),
                self.raw,
                self.keys,
                self.dtype,
            )
            for policy in (generator, few)
        )

    @property
    def few_steps(self) -> int:
        """Solver steps that choose the worst candidate nearly as all steps do."""
        return 2 * self.generator.levels // 5

    def open(self) -> MotionDataset:
        return open_dataset("benchmark", "train", str(self.folder))

    def items(self) -> list[Item]:
        """In the order of the table."""
        steps, k = self.generator.levels, self.sizes.candidates
        few, rows = self.few_steps, 2 * k  # both passes of guidance for every candidate
        full, padded = self.generator.skeleton.max_length, self.batch.motion.shape[1]
        forward, plain_forward = (rows * f for f in self._batch_flops(full))
        # 2 motions x (3 policy + 1 reference); errors are of the batch as it is padded
        loss, plain_loss = (8 * f for f in self._batch_flops(padded))
        prompts, plain_prompts = (2 * steps * f for f in self._prompt_flops())
        count, fast, plain = self.sizes.motions, self.fast, self.plain
        return [
            Item("start-up, cold", self.cold_start_up),
            Item("start-up, warm", self.open, lambda: plain_start_up(self.data)),
            Item("text encoding", self.encode_texts, self.encode_texts_plainly),
            Item(
                *("denoiser, guided", self.denoiser(), self.plain_denoiser()),
                *(forward, plain_forward, self.dtype),
            ),
            Item(
                *("rollout", fast.rollout, plain.rollout),
                *(steps * forward, steps * plain_forward, self.dtype),
            ),
            Item(
                *("reward", lambda: self.score(self.reward), self.score_plainly),
                *((k + 1) * flops for flops in self._reward_flops()),
            ),
            Item(
                *("loss step", fast.loss_step, plain.loss_step),
                *(loss, plain_loss, self.dtype),
            ),
            Item(
                *("SoPo step", fast.sopo_step, plain.sopo_step),
                *(steps * forward + loss, steps * plain_forward + plain_loss, self.dtype),
            ),
            Item(
                *(f"SoPo step, {few} solver steps", self.few.sopo_step, plain.sopo_step),
                *(few * forward + loss, steps * plain_forward + plain_loss, self.dtype),
            ),
            Item(
                f"generation of {count}",
                lambda: self.generate(self.generator),
                lambda: self.generate(self.plain_generator),
                *(prompts, plain_prompts, self.dtype),
            ),
            Item(
                f"evaluation of {count}",
                lambda: self.judge(self.generate(self.generator)),
                lambda: self.judge(self.generate(self.plain_generator)),
                *(prompts, plain_prompts, self.dtype),
            ),
        ]

    def _flops(self, lengths: Tensor, tokens: int, frames: int) -> tuple[int, int]:
        """Of one pass: what the motions need, and what the plain path computes, all `frames`."""
        model = self.generator.model
        needed = lengths.tolist() if model.config.mask_frames else [frames] * len(lengths)
        plain = len(lengths) * network_flops(model, frames, tokens)
        return sum(network_flops(model, n, tokens) for n in needed), plain

    def _batch_flops(self, frames: int) -> tuple[int, int]:
        tokens = self.generator.encode_text(self.batch.captions).tokens.shape[1]
        return self._flops(self.batch.lengths, tokens, frames)

    def _prompt_flops(self) -> tuple[int, int]:
        captions, lengths = self.prompts()
        tokens = self.generator.encode_text(captions).tokens.shape[1]
        return self._flops(lengths, tokens, self.generator.skeleton.max_length)

    def _reward_flops(self) -> tuple[int, int]:
        """Of all motions of the batch through the reward's motion encoder, on both paths."""
        config, lengths = self.reward.model.config, self.batch.lengths.tolist()
        sizes = (config.latent_dim, config.ff_size)
        needed = sum(config.layers * layer_flops(length + 2, 0, *sizes) for length in lengths)
        return needed, needed

    def prompts(self) -> tuple[list[str], Tensor]:
        """Captions and lengths of the evaluated motions, in no order."""
        order = np.random.default_rng(0).permutation(len(self.data))
        entries = [self.data.entries[i] for i in np.resize(order, self.sizes.motions)]
        lengths = torch.tensor([entry.length // 4 * 4 for entry in entries])
        return [entry.captions[0].text for entry in entries], lengths.clamp(max=196)

    def cold_start_up(self) -> None:
        """Without the packed file; the files themselves are in the system's cache."""
        (self.folder / "packed.safetensors").unlink(missing_ok=True)
        self.open()

    def encode_texts(self) -> None:
        self.generator.encode_text(self.batch.captions)
        self.reward.embed_texts(self.batch.captions)

    def encode_texts_plainly(self) -> None:
        self.plain_generator.encode_text(self.batch.captions)
        self.plain_reward.embed_texts(self.batch.captions)

    def _noised(self) -> tuple[Tensor, Tensor, int]:
        """Lengths, x_t and its frames for all candidates."""
        lengths = self.batch.lengths.repeat_interleave(self.sizes.candidates)
        frames = self.generator.padded_frames or int(lengths.max())
        return lengths, torch.randn(len(lengths), frames, 263, device=self.device), frames

    def denoiser(self) -> Callable[[], Tensor]:
        """One guided call for all candidates, as the sampling loop makes it."""
        lengths, x, frames = self._noised()
        condition = self.generator.encode_text(self.batch.captions)
        condition = condition.repeat_interleave(self.sizes.candidates)
        t = torch.zeros(len(x), dtype=torch.long, device=self.device)
        denoise = self.generator.denoiser(condition, lengths, frames)

        @torch.no_grad()
        def call() -> Tensor:
            with self.fast.autocast():
                return denoise(x, t)

        return call

    def plain_denoiser(self) -> Callable[[], None]:
        """Two passes for each of the K candidates, at the full length."""
        generator, frames = self.plain_generator, self.generator.skeleton.max_length
        mask = length_mask(self.batch.lengths, frames)
        condition = generator.encode_text(self.batch.captions)
        x = torch.randn(len(mask), frames, 263, device=self.device)
        t = torch.zeros(len(x), dtype=torch.long, device=self.device)

        @torch.no_grad()
        def call() -> None:
            for _ in range(self.sizes.candidates):
                generator.model(x, t, condition, mask)
                generator.model(x, t, condition, mask, torch.ones_like(t, dtype=torch.bool))

        return call

    def score(self, reward: TMRReward) -> None:
        """All candidates and the preferred motions."""
        k = self.sizes.candidates + 1
        captions = [caption for caption in self.batch.captions for _ in range(k)]
        reward.score(self.raw.repeat_interleave(k), captions)

    def score_plainly(self) -> None:
        for _ in range(self.sizes.candidates + 1):
            self.plain_reward.score(self.raw, self.batch.captions)

    def generate(self, generator: MDMGenerator) -> Tensor:
        """Motions ``[N, T, D]`` for the evaluated captions, in the batches of the evaluation."""
        captions, lengths = self.prompts()
        rng, parts = torch_generator(0, self.device), []
        for rows in torch.arange(len(captions)).split(self.generation_batch(generator)):
            condition = generator.encode_text([captions[i] for i in rows.tolist()])
            # one more of the full length, as the evaluation asks for, so that all parts fit
            own = lengths[rows].index_fill(0, torch.tensor([0]), 196)
            parts.append(generator.draw(condition, own.to(self.device), rng))
        return torch.cat(parts)

    def generation_batch(self, generator: MDMGenerator) -> int:
        """Pools of 32 on the plain path; as many as memory holds on ours."""
        return EVALUATION_BATCH if generator is self.plain_generator else GENERATION_BATCH

    def judge(self, motions: Tensor) -> None:
        """What follows the generation of one replication: embedding and metrics. Texts and ground
        truth are embedded once per evaluation, so that random vectors stand for them."""
        lengths = self.prompts()[1]
        embedded = [
            self.evaluators.embed_motions(motions[rows], lengths[rows]).cpu()
            for rows in torch.arange(len(motions)).split(EVALUATION_BATCH)
        ]
        rng = np.random.RandomState(0)
        width = self.sizes.evaluators.embedding
        texts, real = rng.standard_normal((2, len(motions), width))
        protocol = Protocol(1, len(motions), diversity_pairs=len(motions) // 2)
        measure(Embeddings(texts, torch.cat(embedded).numpy()), real, protocol, rng)
