"""Tiny untrained networks of MoMask, and a folder of them in upstream's layout."""

from pathlib import Path

import torch
from torch import Tensor

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import KIT, Skeleton
from model.momask.checkpoints import LENGTHS, save_part, save_tokens, save_transformer
from model.momask.generator import MoMaskGenerator
from model.momask.lengths import LengthEstimator
from model.momask.rvq import RVQVAE, RVQConfig
from model.momask.transformers import (
    BaseTransformer,
    ResidualTransformer,
    TokenTransformer,
    TransformerConfig,
    Vocabulary,
)
from model.seam import Samples
from model.text.encoders import BuiltinEncoder
from tests.model.tiny import random_motion, tiny_stats

FEATURES = 35  # of a skeleton of three joints
CODES, LAYERS = 12, 3
VOCABULARY = Vocabulary(CODES, 8, LAYERS)
TEXT_WIDTH = 6
CAPTIONS = ["a person walks", "a man waves his left hand", "someone kicks"]
FRAMES = torch.tensor([24, 40, 8])


def tiny_rvq(features: int = FEATURES, **changes) -> RVQVAE:
    """In eval mode, with random codes."""
    settings = {
        "nb_code": CODES,
        "code_dim": VOCABULARY.width,
        "num_quantizers": LAYERS,
        "width": 10,
        "depth": 2,
        "dropout": 0.0,
        "quantize_dropout_prob": 0.0,
    }
    torch.manual_seed(0)
    rvq = RVQVAE(RVQConfig(**(settings | changes)), features)
    for layer in rvq.quantizer.layers:
        layer.codebook.normal_()
    return rvq.eval()


def tiny_transformer(
    kind: type[TokenTransformer],
    text_width: int = TEXT_WIDTH,
    vocabulary: Vocabulary = VOCABULARY,
    **changes,
) -> TokenTransformer:
    """In eval mode, with weights that are large enough to make a difference."""
    settings = {"latent_dim": 16, "ff_size": 24, "n_layers": 2, "n_heads": 2, "dropout": 0.0}
    torch.manual_seed(1)
    model = kind(TransformerConfig(**(settings | changes)), vocabulary, text_width)
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model.eval()


def random_text(batch: int, width: int = TEXT_WIDTH) -> Tensor:
    return torch.randn(batch, width, generator=torch.Generator().manual_seed(3))


def valid_tokens(counts: list[int], tokens: int | None = None) -> Tensor:
    return torch.arange(tokens or max(counts)) < torch.tensor(counts)[:, None]


def write_folders(root: Path, skeleton: Skeleton = KIT, **rvq_changes) -> Path:
    """RVQ, both transformers and the length estimator; returns the base transformer's folder."""
    rvq = tiny_rvq(skeleton.feature_dim, **rvq_changes)
    stats: Statistics = tiny_stats(skeleton)
    name = "kit" if skeleton == KIT else "t2m"
    args = {"dataset_name": name, "text_encoder_type": "builtin"}
    save_tokens(root / "rvq", rvq, stats, args)
    base = tiny_transformer(BaseTransformer, BuiltinEncoder.width)
    save_transformer(root / "base", base, "rvq", args)
    residual = tiny_transformer(ResidualTransformer, BuiltinEncoder.width)
    save_transformer(root / "tres_small", residual, "rvq", args)
    lengths = root / "length_estimator" / "model" / LENGTHS.file
    save_part(lengths, LENGTHS, LengthEstimator(BuiltinEncoder.width))
    return root / "base"


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def raw_motions() -> Samples:
    """One motion per caption."""
    return Samples(random_motion(3, 40, KIT.feature_dim), FRAMES)


class Seen:
    """What the base transformer is shown."""

    def __init__(self, generator: MoMaskGenerator) -> None:
        self.ids: list[Tensor] = []
        generator.model.register_forward_pre_hook(lambda _, inputs: self.ids.append(inputs[0]))
