"""MLD's and MotionLCM's motion VAE and its losses against upstream's numbers.

Upstream has latents as ``[n, B, d]`` in many places, this project as ``[B, n, d]``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loaders.features import features_to_joints
from data_loaders.normalizer import Statistics, convert
from data_loaders.skeleton import HUMANML, skeleton_for_dim
from model.latent.checkpoints import LatentSettings, LatentWeights, vae_config
from model.latent.losses import VAELossWeights, vae_losses
from model.latent.vae import MotionVAE
from tests.golden.base import Golden, Row, covers
from utils.masks import length_mask

PASS = 2e-5  # of one forward pass, absolute


def weights_of(g: Golden, vae: str = "", denoiser: str = "") -> LatentWeights:
    """The networks whose keys begin with these prefixes of the file."""
    parts = [g.state_dict(prefix) if prefix else {} for prefix in (vae, denoiser)]
    return LatentWeights(Path(g.name), *parts)


def settings_of(g: Golden) -> LatentSettings:
    relu = bool(g.scalar("cfg/text_relu")) if g.has("cfg/text_relu") else True
    return LatentSettings(num_heads=g.scalar("cfg/num_heads"), text_relu=relu)


def vae_of(g: Golden, prefix: str = "sd/") -> MotionVAE:
    weights = weights_of(g, vae=prefix)
    vae = MotionVAE(vae_config(weights, settings_of(g)))
    vae.load_state_dict(weights.vae)
    return vae.eval()


def sizes(g: Golden, config: Any, prefix: str = "") -> Iterator[Row]:
    """What was read from the shapes of the weights against what the file states."""
    tokens = "n_tokens_multi" if prefix else "n_tokens"
    names = {
        "nfeats": "num_features",
        "latent_dim": "latent_dim",
        "hidden_dim": "hidden_dim",
        "ff_size": "ff_size",
        "num_layers": "layers",
        "text_dim": "text_dim",
        "time_dim": "time_dim",
        "has_pre_post_proj": "projected",
        "pe_max_len": "max_positions",
        tokens: "latent_tokens",
    }
    for key, name in names.items():
        if g.has(f"cfg/{key}") and hasattr(config, name):
            yield g.equal(f"{prefix}cfg/{key}", int(getattr(config, name)), g[f"cfg/{key}"])


def batch_first(x: Tensor) -> Tensor:
    """``[n, B, ...]`` <-> ``[B, n, ...]``."""
    return x.transpose(0, 1)


def record(network: nn.Module, norm: str) -> list[Tensor]:
    """Collects the output of every block of a skip transformer: that of its last norm."""
    outputs: list[Tensor] = []
    for name, module in network.named_modules():
        if name.endswith(f".{norm}") or name == norm:
            module.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    return outputs


@covers("mld_vae*.npz", "motionlcm_*_vae*.npz")
@torch.no_grad()
def motion_vae(g: Golden) -> Iterator[Row]:
    for prefix in ("", "multi/"):
        if not g.has(f"{prefix}sd/global_motion_token"):
            continue
        vae = vae_of(g, f"{prefix}sd/")
        yield from sizes(g, vae.config, prefix)
        yield from encoding(g, vae, prefix)
        yield from decoding(g, vae, prefix)
    yield from padding(g, vae_of(g))
    yield from traces(g)
    yield from stage_one_losses(g, vae_of(g))


def encoding(g: Golden, vae: MotionVAE, prefix: str) -> Iterator[Row]:
    x, mask = g.tensor("x"), g.tensor("mask")
    yield g.equal(f"{prefix}mask", length_mask(g.tensor("length"), x.shape[1]), mask)
    found = vae.distribution(x, mask)
    noise = batch_first(g.tensor(f"{prefix}encode/eps"))
    std = (found.logvar / 2).exp()
    for name, value in (("mu", found.mean), ("std", std)):
        key = f"{prefix}encode/{name}"
        yield g.close(key, batch_first(value), g[key], atol=PASS)
    latent, expected = found.sample(noise), g.tensor(f"{prefix}encode/latent")
    if g.name.startswith("mld"):
        expected = batch_first(expected)
    yield g.close(f"{prefix}encode/latent", latent, expected, atol=PASS)


def decoding(g: Golden, vae: MotionVAE, prefix: str) -> Iterator[Row]:
    lengths, frames = g.tensor("length"), g.tensor("x").shape[1]
    mean, latent = batch_first(g.tensor(f"{prefix}encode/mu")), g.tensor(f"{prefix}encode/latent")
    if g.name.startswith("mld"):
        latent = batch_first(latent)
    for name, value in (("mu", mean), ("latent", latent)):
        key = f"{prefix}decode/from_{name}"
        yield g.close(key, vae.decode(value, lengths, frames), g[key], atol=PASS)
    key = f"{prefix}decode/joints_from_mu"
    if not g.has(key):
        return
    decoded = g.tensor(f"{prefix}decode/from_mu")
    stats, evaluator = statistics(g)
    skeleton = skeleton_for_dim(decoded.shape[-1]) or HUMANML
    joints = features_to_joints(stats.denormalize(decoded), skeleton)
    yield g.close(key, joints, g[key], atol=1e-4)
    key = f"{prefix}decode/renorm4t2m_from_mu"
    yield g.close(key, convert(decoded, stats, evaluator), g[key], atol=1e-4, rtol=1e-5)


def statistics(g: Golden) -> tuple[Statistics, Statistics]:
    return (
        Statistics("dataset_stats", g.tensor("norm/mean"), g.tensor("norm/std")),
        Statistics("evaluator_stats", g.tensor("norm/mean_eval"), g.tensor("norm/std_eval")),
    )


def padding(g: Golden, vae: MotionVAE) -> Iterator[Row]:
    """The same motions with more padding (MotionLCM's files)."""
    if not g.has("x_padded"):
        return
    x, mask = g.tensor("x_padded"), g.tensor("mask_padded")
    mean = vae.distribution(x, mask).mean
    yield g.close("encode_padded/mu", batch_first(mean), g["encode_padded/mu"], atol=PASS)
    recorded = batch_first(g.tensor("encode_padded/mu"))
    decoded = vae.decode(recorded, g.tensor("length"), x.shape[1])
    yield g.close("decode_padded/from_mu", decoded, g["decode_padded/from_mu"], atol=PASS)


def traces(g: Golden) -> Iterator[Row]:
    """Outputs of all blocks in running order, ``[L, S, B, h]``."""
    vae, lengths = vae_of(g), g.tensor("length")
    encoder, decoder = record(vae.encoder, "norm2"), record(vae.decoder, "norm3")
    vae.distribution(g.tensor("x"), g.tensor("mask"))
    vae.decode(batch_first(g.tensor("encode/mu")), lengths, g.tensor("x").shape[1])
    for name, blocks in (("encoder", encoder), ("decoder", decoder)):
        key = f"trace/{name}_blocks"
        if g.has(key):
            yield g.close(key, torch.stack(blocks).transpose(1, 2), g[key], atol=PASS)


def stage_one_losses(g: Golden, vae: MotionVAE) -> Iterator[Row]:
    """MotionLCM's are taken on the padded batch; MLD's (2023) know no mask."""
    early = g.name.startswith("mld")
    x = g.tensor("x" if early else "x_padded")
    mask = g.tensor("mask" if early else "mask_padded")
    latents = vae.distribution(x, mask)
    latent = latents.sample(batch_first(g.tensor("loss/eps")))
    decoded = vae.decode(latent, g.tensor("length"), x.shape[1])
    stats, _ = statistics(g)
    skeleton = skeleton_for_dim(x.shape[-1]) or HUMANML
    if early:
        yield g.close("loss/motion_rst", decoded, g["loss/motion_rst"], atol=PASS)
        for name, motion in (("rst", decoded), ("ref", x)):
            joints = features_to_joints(stats.denormalize(motion), skeleton)
            yield g.close(f"loss/joints_{name}", joints, g[f"loss/joints_{name}"], atol=1e-4)
    cases = {"loss": mask, "loss_unmasked": mask | True, "loss_velocity": mask}
    for case, counted in cases.items():
        if not g.keys(f"{case}/"):
            continue
        weights = VAELossWeights(positions=0.5 if case == "loss_velocity" else 0.0)
        counted = mask | True if early else counted
        found = vae_losses(decoded, x, counted, latents, stats, skeleton, weights)
        expected = {
            "recons_feature": found.features,
            "recons_joints": found.joints,
            "kl_motion": found.kl,
            "total": found.total,
            "rec_feats_loss": found.features,
            "rec_joints_loss": found.joints,
            "rec_velocity_loss": weights.positions * found.positions,
            "kl_loss": weights.kl * found.kl,
            "loss": found.total,
        }
        for name, value in expected.items():
            if g.has(f"{case}/{name}"):
                yield g.close(f"{case}/{name}", value, g[f"{case}/{name}"], rtol=1e-5)
