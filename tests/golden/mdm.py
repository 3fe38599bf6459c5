"""MDM in every variant, a training step, and guided sampling, against upstream's numbers."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from data_loaders.features import features_to_joints
from data_loaders.skeleton import HUMANML, skeleton_for_dim
from diffusion.gaussian import GaussianDiffusion, masked_mse
from diffusion.samplers import sample_ancestral
from diffusion.schedule import make_schedule
from model.mdm.batching import guided_denoiser
from model.mdm.network import MDM, MDMConfig
from model.text.encoders import Condition
from tests.golden.base import Golden, Row, covers

GROUPS = {
    "out": {},
    "out_mask_frames": {"mask_frames": True},
    "out_emb_trans_dec": {"emb_trans_dec": True},
    "out_emb_trans_dec_mask_frames": {"emb_trans_dec": True, "mask_frames": True},
    "out_emb_trans_dec_legacy": {"emb_trans_dec": True, "legacy_emb_token": True},
    "out_single_prompt": {"mask_frames": True},
}


def config_of(g: Golden) -> MDMConfig:
    kind = g.scalar("config/text_encoder_type") if g.has("config/text_encoder_type") else "clip"
    flags = {
        name: bool(g.scalar(f"config/{name}"))
        for name in ("mask_frames", "emb_trans_dec")
        if g.has(f"config/{name}")
    }
    return MDMConfig(
        arch=g.scalar("config/arch"),
        text_encoder_type="clip" if kind == "none" else kind,
        latent_dim=g.scalar("config/latent_dim"),
        ff_size=g.scalar("config/ff_size"),
        layers=g.scalar("config/num_layers"),
        num_heads=g.scalar("config/num_heads"),
        cond_mask_prob=float(g.scalar("config/cond_mask_prob")),
        pos_embed_max_len=g.scalar("config/pos_embed_max_len"),
        unconstrained=not any(k.startswith("embed_text") for k in g.state_dict()),
        **flags,
    )


def model_of(g: Golden, config: MDMConfig) -> MDM:
    weights = g.state_dict()
    text_width = weights["embed_text.weight"].shape[1] if "embed_text.weight" in weights else None
    model = MDM(config, g.scalar("config/njoints"), text_width)
    model.load_state_dict(weights)
    return model.eval()


def batch_first(x: torch.Tensor) -> torch.Tensor:
    """Upstream's ``[B, D, 1, T]`` -> ``[B, T, D]``."""
    return x.squeeze(2).transpose(1, 2)


def condition_of(g: Golden, group: str = "out") -> Condition | None:
    if not g.has("text_embed"):
        return None
    tokens = g.tensor("text_embed").transpose(0, 1)
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
    if g.has("text_mask"):
        mask = ~g.tensor("text_mask")
    condition = Condition(tokens, mask)
    if group == "out_single_prompt":
        condition = condition[:1].repeat(len(tokens))
    return condition


def inputs_of(g: Golden) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mask = g.tensor("mask").view(len(g["mask"]), -1)
    return batch_first(g.tensor("x")), g.tensor("timesteps"), mask


@covers("mdm_trans_*.npz", "mdm_gru*.npz", "mdm_no_cond*.npz")
def outputs(g: Golden) -> Iterator[Row]:
    x, t, mask = inputs_of(g)
    base = config_of(g)
    groups = sorted({key.split("/")[0] for key in g.keys("out")})
    for group in groups:
        model = model_of(g, replace(base, **GROUPS[group]))
        condition = condition_of(g, group)
        with torch.no_grad():
            found = {"cond": model(x, t, condition, mask)}
            if condition is not None:
                everything = torch.ones(len(x), dtype=torch.bool)
                found["uncond"] = model(x, t, condition, mask, everything)
                scale = float(g.scalar("config/guidance_scale"))
                denoise = guided_denoiser(model, condition, mask, scale)
                found[f"cfg_{str(scale).replace('.', '_')}"] = denoise(x, t)
        for name, value in found.items():
            key = f"{group}/{name}"
            if g.has(key):
                tolerance = 5e-5 if name.startswith("cfg") else 2e-5
                yield g.close(key, value, batch_first(g.tensor(key)), atol=tolerance)
    if g.has("internal/time_emb"):
        model = model_of(g, base)
        with torch.no_grad():
            time = model.embed_timestep(t)
            yield g.close("internal/time_emb", time[None], g["internal/time_emb"], atol=2e-5)
            token = model._condition(time.unsqueeze(1), condition_of(g), None)[0]
            yield g.close(
                "internal/class_token", token.transpose(0, 1), g["internal/class_token"], atol=2e-5
            )


@covers("mdm_train_step*.npz")
def train_step(g: Golden) -> Iterator[Row]:
    x0, t, mask = inputs_of(g)
    model = model_of(g, config_of(g))
    diffusion = GaussianDiffusion(make_schedule("cosine", g.scalar("num_timesteps")))
    x_t = diffusion.q_sample(x0, t, batch_first(g.tensor("noise")))
    error = masked_mse(model(x_t, t, condition_of(g), mask), x0, mask)
    yield g.close("rot_mse", error, g["rot_mse"], atol=1e-6, rtol=1e-6)
    yield g.close("loss", error.mean(), g["loss"], atol=1e-6, rtol=1e-6)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=g.scalar("adamw/lr"), weight_decay=g.scalar("adamw/weight_decay")
    )
    error.mean().backward()
    named = dict(model.named_parameters())
    for key in g.keys("grad/"):
        yield g.close(key, named[key[5:]].grad, g[key], atol=1e-6)
    gradients = {name: p.grad.clone() for name, p in named.items()}
    optimizer.step()
    for key in g.keys("after_adamw/"):
        name = key[len("after_adamw/") :]
        clear = gradients[name].abs() >= 1e-7  # AdamW's first step is the sign of the gradient
        actual, expected = named[name].detach(), g.tensor(key)
        yield g.close(key, actual[clear], expected[clear], atol=1e-6)
        yield g.close(f"{key} (vanishing gradient)", actual[~clear], expected[~clear], atol=2e-4)


@covers("mdm_sampling*.npz")
def sampling(g: Golden) -> Iterator[Row]:
    model = model_of(g, config_of(g))
    mask = g.tensor("mask").view(len(g["mask"]), -1)
    x_T = batch_first(g.tensor("x_T"))
    noise = [batch_first(step) for step in g.tensor("step_noise")]
    diffusion = GaussianDiffusion(make_schedule("cosine", g.scalar("num_timesteps")))
    scale = float(g.scalar("config/guidance_scale"))
    denoise = guided_denoiser(model, condition_of(g), mask, scale)
    sample = sample_ancestral(denoise, diffusion, x_T, lambda step: noise[step])
    expected = batch_first(g.tensor("sample"))
    yield g.close("sample", sample, expected, atol=1e-4)
    raw = g.tensor("denormalized").squeeze(1)
    skeleton = skeleton_for_dim(raw.shape[-1]) or HUMANML
    joints = features_to_joints(raw, skeleton).permute(0, 2, 3, 1)
    yield g.close("joints", joints, g["joints"], atol=1e-4)


@covers("mdm_keys_*.json")
def full_size_keys(g: Golden) -> Iterator[Row]:
    """Every key and shape of the published layout, and nothing besides."""
    known = set(MDMConfig.__dataclass_fields__)
    args = {k: v for k, v in g.json["args_that_select_it"].items() if k in known}
    features = g.json["state_dict"]["output_process.poseFinal.weight"][0]
    with torch.device("meta"):
        model = MDM(MDMConfig(**args), features)
    found = {key: list(value.shape) for key, value in model.state_dict().items()}
    expected = g.json["state_dict"]
    yield g.equal("keys", sorted(found), sorted(expected))
    yield g.equal(
        "shapes", [found.get(key) == expected[key] for key in expected], [True] * len(expected)
    )
    count = sum(p.numel() for p in model.parameters())
    yield g.equal(
        "trainable parameters", count, g.json["trainable_parameters_without_text_encoder"]
    )
