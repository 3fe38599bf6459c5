"""MoMask in the one checkpoint file of a run: all networks, their sizes in ``args.json``.

The base transformer alone is tuned, but a file that holds the others as well needs no folders
beside it. Upstream's layout is in model/momask/checkpoints.py; the entries of the file carry the
names that its files have.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from data_loaders.skeleton import skeleton_for_dim
from model.checkpoint_files import load_stats, read_model_args
from model.momask.checkpoints import (
    BASE,
    LENGTHS,
    RESIDUAL,
    RVQ,
    MoMaskParts,
    Part,
    load_text_encoder,
    read_part,
)
from model.momask.lengths import LengthEstimator
from model.momask.options_file import FAMILY
from model.momask.rvq import RVQVAE, RVQConfig
from model.momask.token_space import TokenSpace
from model.momask.transformers import BaseTransformer, ResidualTransformer, TransformerConfig
from model.weights import check_size, load_strictly
from utils.errors import UserError
from utils.files import save_tensors, write_json
from utils.options import from_record
from utils.provenance import provenance

WIDEST = 8192  # of text features
Config = TypeVar("Config", RVQConfig, TransformerConfig)


def save_run(
    folder: Path, step: int, parts: MoMaskParts, base: nn.Module, args: Mapping[str, Any]
) -> Path:
    """Write ``model{step:09d}.pt`` with `base` in place of the parts' own, ``args.json`` and
    ``stats.npz``; returns the model's path."""
    networks: dict[Part, nn.Module | None] = {
        RVQ: parts.tokens.rvq,
        BASE: base,
        RESIDUAL: parts.residual,
        LENGTHS: parts.lengths,
    }
    settings = {
        "family": FAMILY,
        "text_encoder_type": parts.text_encoder_type,
        "text_width": parts.base.text_width,
        RVQ.keys[0]: asdict(parts.tokens.rvq.config),
        BASE.keys[0]: asdict(parts.base.config),
        RESIDUAL.keys[0]: asdict(parts.residual.config),
    }
    write_json(folder / "args.json", {**args, **settings, "provenance": provenance()})
    parts.tokens.stats.save_together(folder / "stats.npz")
    path = folder / f"model{step:09d}.pt"
    content = {part.keys[0]: _cpu_state(net) for part, net in networks.items() if net is not None}
    save_tensors(path, content)
    return path


def _cpu_state(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().cpu() for key, value in network.state_dict().items()}


def load_run(
    model_path: Path, device: torch.device | str = "cpu", text_encoder_path: str = ""
) -> MoMaskParts:
    """What `save_run` wrote, in eval mode. Raises UserError for whatever does not fit."""
    args = read_model_args(model_path)
    stats = load_stats(model_path, args)
    skeleton = skeleton_for_dim(stats.feature_dim)
    if skeleton is None:
        raise UserError(f"{model_path}: no skeleton has {stats.feature_dim} features")
    width, kind = args.get("text_width"), str(args.get("text_encoder_type", "clip"))
    if not isinstance(width, int) or not 1 <= width <= WIDEST:
        raise UserError(f"the args.json of {model_path} lacks text_width")
    codes = _config(model_path, args, RVQ, RVQConfig)
    sizes = {part: _config(model_path, args, part, TransformerConfig) for part in (BASE, RESIDUAL)}
    weights = codes.weights + sum(size.weights for size in sizes.values())
    check_size(weights, model_path.stat().st_size, str(model_path))
    rvq = RVQVAE(codes, stats.feature_dim)
    tokens = TokenSpace(rvq, stats.to(device), skeleton, model_path)
    base = BaseTransformer(sizes[BASE], tokens.vocabulary, width)
    residual = ResidualTransformer(sizes[RESIDUAL], tokens.vocabulary, width)
    lengths = None
    networks: dict[Part, nn.Module] = {RVQ: rvq, BASE: base, RESIDUAL: residual}
    _, content = read_part(model_path, RVQ)
    if LENGTHS.keys[0] in content:
        networks[LENGTHS] = lengths = LengthEstimator(width, tokens.longest + 1)
    for part, network in networks.items():
        state, _ = read_part(model_path, part)
        load_strictly(network, state, f"{model_path}: the {part.name}")
        network.to(device).eval()
    encoder = load_text_encoder(kind, width, text_encoder_path, device, str(model_path))
    return MoMaskParts(tokens, base, residual, lengths, encoder, kind)


def _config(path: Path, args: Mapping[str, Any], part: Part, kind: type[Config]) -> Config:
    """The sizes of one network. Raises UserError when they are missing or out of bounds."""
    where = f"the args.json of {path}"
    sizes = args.get(part.keys[0])
    if not isinstance(sizes, dict):
        raise UserError(f"{where} has no sizes of the {part.name}")
    return from_record(kind, sizes, where)
