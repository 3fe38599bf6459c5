"""A tiny CLIP text tower in OpenAI's files: a half-precision TorchScript archive and its merges."""

import gzip
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from model.text.openai_clip import BPE_FILE

WIDTH, LAYERS, VOCABULARY, POSITIONS, EMBEDDING = 64, 2, 518, 77, 12
MERGES = ("w a", "l k", "wa lk", "walk s</w>")  # 512 byte symbols + 4 + start and end = 518


def tiny_reference() -> CLIPTextModelWithProjection:
    """Random weights that half precision holds exactly; no bias is zero, no norm the identity."""
    torch.manual_seed(3)
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        max_position_embeddings=POSITIONS,
        projection_dim=EMBEDDING,
        hidden_act="quick_gelu",
        bos_token_id=VOCABULARY - 2,
        eos_token_id=VOCABULARY - 1,
    )
    model = CLIPTextModelWithProjection(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.half().float()


def openai_state(model: CLIPTextModelWithProjection) -> dict[str, Tensor]:
    """The weights under OpenAI's names, among other keys of its file."""
    text, block = model.text_model, "transformer.resblocks"
    state = {
        "visual.conv1.weight": torch.ones(3, 2),
        "logit_scale": torch.tensor(4.6),
        "token_embedding.weight": text.embeddings.token_embedding.weight,
        "positional_embedding": text.embeddings.position_embedding.weight,
        "ln_final.weight": text.final_layer_norm.weight,
        "ln_final.bias": text.final_layer_norm.bias,
        "text_projection": model.text_projection.weight.T,
    }
    for i, layer in enumerate(text.encoder.layers):
        attention = layer.self_attn
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        for kind in ("weight", "bias"):
            joined = torch.cat([getattr(projection, kind) for projection in projections])
            state[f"{block}.{i}.attn.in_proj_{kind}"] = joined
            for name, module in (
                ("attn.out_proj", attention.out_proj),
                ("ln_1", layer.layer_norm1),
                ("ln_2", layer.layer_norm2),
                ("mlp.c_fc", layer.mlp.fc1),
                ("mlp.c_proj", layer.mlp.fc2),
            ):
                state[f"{block}.{i}.{name}.{kind}"] = getattr(module, kind)
    return {key: value.detach().half() for key, value in state.items()}


class Holder(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def write_archive(path: Path, state: dict[str, Tensor]) -> Path:
    """A real TorchScript archive whose module tree has these tensors."""
    root = Holder()
    for key, value in state.items():
        *parents, name = key.split(".")
        module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, Holder())
            module = getattr(module, parent)
        module.register_parameter(name, nn.Parameter(value, requires_grad=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of writing; OpenAI's file is written
        torch.jit.save(torch.jit.trace(root, torch.zeros(1)), str(path))
    return path


def write_merges(folder: Path) -> Path:
    path = folder / BPE_FILE
    path.write_bytes(gzip.compress("\n".join(["#version", *MERGES, ""]).encode()))
    return path
