"""open_clip's state dicts in transformers' `CLIPModel`, by renaming: HPSv2 needs no other package.

The two are the same network. Only the attention's input weights are stored as one there and as
three here, and the projections are transposed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from utils.errors import UserError

NAMES = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.proj": "visual_projection.weight",
}
PARTS = (
    ("visual.ln_pre.", "vision_model.pre_layrnorm."),
    ("visual.ln_post.", "vision_model.post_layernorm."),
    ("visual.transformer.resblocks.", "vision_model.encoder.layers."),
    ("transformer.resblocks.", "text_model.encoder.layers."),
    ("ln_final.", "text_model.final_layer_norm."),
)
INSIDE = (
    (".ln_1.", ".layer_norm1."),
    (".ln_2.", ".layer_norm2."),
    (".attn.", ".self_attn."),
    (".mlp.c_fc.", ".mlp.fc1."),
    (".mlp.c_proj.", ".mlp.fc2."),
)
TRANSPOSED = ("text_projection", "visual.proj")


@dataclass(frozen=True)
class Heads:
    """What a state dict does not tell; of ViT-H-14."""

    vision: int = 16
    text: int = 16


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """An open_clip state dict under the names of `CLIPModel`."""
    result: dict[str, Tensor] = {}
    for key, value in state.items():
        name = NAMES.get(key) or _inner_name(key)
        if ".in_proj_" in name:
            kind = name.rpartition("_")[2]
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                result[name.replace(f"in_proj_{kind}", f"{letter}_proj.{kind}")] = part
        else:
            result[name] = value.T if key in TRANSPOSED else value
    return result


def _inner_name(key: str) -> str:
    for old, new in PARTS:
        if key.startswith(old):
            key = new + key.removeprefix(old)
            break
    for old, new in INSIDE:
        key = key.replace(old, new)
    return key


def config_of(state: dict[str, Tensor], heads: Heads) -> CLIPConfig:
    """The sizes of the two towers; the activation is the exact GELU."""

    def layers(prefix: str) -> int:
        numbers = {
            key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)
        }
        return len(numbers)

    width, _, patch, _ = state["visual.conv1.weight"].shape
    side = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    context, text_width = state["positional_embedding"].shape
    vocabulary = len(state["token_embedding.weight"])
    projection = state["text_projection"].shape[1]
    common: dict[str, Any] = {"hidden_act": "gelu", "projection_dim": projection}
    vision_layers, text_layers = "visual.transformer.resblocks.", "transformer.resblocks."
    vision = common | {
        "hidden_size": width,
        "intermediate_size": len(state[f"{vision_layers}0.mlp.c_fc.weight"]),
        "num_hidden_layers": layers(vision_layers),
        "num_attention_heads": heads.vision,
        "patch_size": patch,
        "image_size": patch * side,
    }
    text = common | {
        "hidden_size": text_width,
        "intermediate_size": len(state[f"{text_layers}0.mlp.c_fc.weight"]),
        "num_hidden_layers": layers(text_layers),
        "num_attention_heads": heads.text,
        "max_position_embeddings": context,
        "vocab_size": vocabulary,
        "eos_token_id": vocabulary - 1,  # the text is read at its first end token, the last id
        "bos_token_id": vocabulary - 2,
        "pad_token_id": 0,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection)


def to_clip(state: dict[str, Tensor], heads: Heads | None = None) -> CLIPModel:
    """The model of an open_clip state dict, in float32 and eval mode.

    Raises UserError when it is none.
    """
    try:
        model: Any = CLIPModel(config_of(state, heads or Heads()))
        missing, unexpected = model.load_state_dict(renamed(state), strict=False)
    except (KeyError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"these are no weights of an open_clip model ({reason})") from None
    missing = [name for name in missing if not name.endswith("position_ids")]
    if wrong := [*missing, *(n for n in unexpected if n != "attn_mask")]:
        raise UserError(f"these are no weights of an open_clip model ({wrong[0]} does not fit)")
    result: CLIPModel = model.float().eval().requires_grad_(False)
    return result


def read_state(content: Any) -> dict[str, Tensor]:
    """The state dict of a checkpoint, which HPSv2 keeps under ``state_dict``."""
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError("these are no weights of an open_clip model (no state_dict)")
    return {key.removeprefix("module."): value.float() for key, value in state.items()}
