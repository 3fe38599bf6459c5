"""Low-rank adapters (LoRA, Hu et al. 2022) of a motion model's linear layers, through peft.

Only the adapters are trained. The reference of preference optimisation is the same network with
them switched off, so that no second copy is held. Every linear layer gets one; attention's packed
matrix of queries, keys and values is none and stays as it is.
"""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from utils.errors import UserError
from utils.extras import extra
from utils.files import atomic_write
from utils.options import option

LORA_FILE = "lora.safetensors"


@dataclass
class LoraOptions:
    lora_rank: int = option(
        0, "train adapters of this rank instead of all weights; 0 = all weights", minimum=0
    )
    lora_alpha: float | None = option(
        None, "scale of the adapters times their rank; none = the rank", minimum=0
    )


def add_lora(model: nn.Module, options: LoraOptions, seed: int) -> None:
    """New adapters, which change nothing yet; all else of `model` is frozen from now on.

    Raises UserError without peft.
    """
    peft = extra("peft", "lora", "adapters (--lora_rank)")
    rank = options.lora_rank
    alpha = rank if options.lora_alpha is None else options.lora_alpha
    layers = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def has_lora(model: nn.Module) -> bool:
    return any("lora_" in name for name, _ in model.named_parameters())


def frozen_copy(model: nn.Module) -> nn.Module:
    """The reference of a policy: a copy that is not trained, or the network without adapters."""
    if has_lora(model):
        return WithoutLora(model)
    return copy.deepcopy(model).eval().requires_grad_(False)


class WithoutLora(nn.Module):
    """A network as it was before it got adapters; it shares all weights with it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        with lora_off(self.model):
            return self.model(*args, **kwargs)


@contextmanager
def lora_off(model: nn.Module) -> Iterator[None]:
    layers = [layer for _, layer in _adapted(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def merged(model: nn.Module) -> nn.Module:
    """The plain network that computes the same; `model` itself where it has no adapters."""
    if not has_lora(model):
        return model
    plain = copy.deepcopy(model)
    for name, layer in list(_adapted(plain)):
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(plain.get_submodule(parent), child, layer.get_base_layer())
    return plain


def save_lora(path: Path, model: nn.Module) -> None:
    """The adapters alone, with their rank and scale; nothing where `model` has none."""
    if not has_lora(model):
        return
    (_, first), *_ = _adapted(model)
    numbers = {"lora_rank": first.r["default"], "lora_alpha": first.lora_alpha["default"]}
    state = {
        name.replace(".default", ""): p.detach().cpu().contiguous()
        for name, p in model.named_parameters()
        if "lora_" in name
    }
    with atomic_write(path) as temporary:
        save_file(
            state, temporary, {"options": json.dumps(numbers)}
        )  # one entry: their order varies


def load_lora(path: Path, model: nn.Module) -> None:
    """Give a network the adapters that `save_lora` wrote.

    Raises UserError when they are missing, damaged, or of another network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads((file.metadata() or {})["options"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        options = LoraOptions(int(numbers["lora_rank"]), float(numbers["lora_alpha"]))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds no adapters that can be read ({error})") from None
    add_lora(model, options, seed=0)
    own = {name.replace(".default", ""): p for name, p in model.named_parameters()}
    wanted = {name: p for name, p in own.items() if "lora_" in name}
    if {n: p.shape for n, p in wanted.items()} != {n: t.shape for n, t in state.items()}:
        raise UserError(f"{path} holds the adapters of another network than this one")
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(state[name])


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that have adapters, by name."""
    layer_class = extra("peft.tuners.lora", "lora", "adapters").LoraLayer
    return ((n, m) for n, m in model.named_modules() if isinstance(m, layer_class))
