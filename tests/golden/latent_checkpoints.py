"""Keys and shapes of the published checkpoints of MLD and MotionLCM."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.latent.checkpoints import (
    UNUSED,
    LatentWeights,
    denoiser_config,
    read_settings,
    vae_config,
)
from model.latent.denoiser import LatentDenoiser
from model.latent.vae import MotionVAE
from model.text.sentence_vectors import CLIP_LARGE, SENTENCE_T5
from tests.golden.base import Golden, Row, covers


@covers("mld_checkpoints*.json")
def full_size_keys(g: Golden) -> Iterator[Row]:
    """Every key and shape of the published files, and which model they are recognised as."""
    layouts = g.json["state_dict_shapes"]
    counts = g.json["parameter_counts"]
    for name, layout in layouts.items():
        shapes = {**layouts[layout["same_as"]], **layout["plus"]} if "same_as" in layout else layout
        parts: dict[str, dict[str, Tensor]] = {"vae": {}, "denoiser": {}}
        for key, shape in shapes.items():
            part, _, rest = key.partition(".")
            parts[part][rest] = torch.empty(shape, device="meta")
        weights = LatentWeights(Path(name), **parts)
        settings = read_settings(weights, {})
        with torch.device("meta"):
            networks: dict[str, nn.Module] = {"vae": MotionVAE(vae_config(weights, settings))}
            if weights.denoiser:
                networks["denoiser"] = LatentDenoiser(denoiser_config(weights, settings))
        for part, network in networks.items():
            expected = {k: v.shape for k, v in parts[part].items() if k != UNUSED}
            found = {k: v.shape for k, v in network.state_dict().items()}
            yield g.equal(f"{name} {part} keys and shapes", found == expected, True)
            if name in counts:
                size = sum(p.numel() for p in network.parameters())
                size += parts[part][UNUSED].numel() if UNUSED in parts[part] else 0
                yield g.equal(f"{name} {part} parameters", size, counts[name][part])
        yield from recognised(g, name, weights, networks)


def recognised(
    g: Golden, name: str, weights: LatentWeights, networks: Mapping[str, Any]
) -> Iterator[Row]:
    variant = "mld" if name.startswith("mld") else "v1" if "_v1_" in name else "v2"
    yield g.equal(f"{name} variant", weights.variant, variant)
    stated = g.json["architecture"].get(name)
    if stated is None:
        return
    vae, denoiser = networks["vae"].config, networks["denoiser"].config
    found = {
        "latent_dim": [vae.latent_tokens, vae.latent_dim],
        "hidden": denoiser.hidden_dim,
        "ff_size": vae.ff_size,
        "num_layers": vae.layers,
        "num_heads": vae.num_heads,
        "dropout": vae.dropout,
        "pe_max_len": vae.max_positions,
        "text_dim": denoiser.text_dim,
        "time_proj_dim": denoiser.time_dim,
        "text_act": "relu" if denoiser.text_relu else None,
        "pre_post_proj": denoiser.projected,
    }
    encoders = {"clip_large": CLIP_LARGE, "sentence_t5": SENTENCE_T5}
    encoder = encoders[read_settings(weights, {}).text_encoder_type]
    yield g.equal(f"{name} text encoder", stated["text_encoder"].split()[0] == encoder, True)
    yield g.equal(f"{name} sizes", {k: stated[k] for k in found} == found, True)
