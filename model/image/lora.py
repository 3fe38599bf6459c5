"""LoRA on a denoiser of diffusers: added, read and written as diffusers does (Hu et al. 2022)."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.image.pipelines import Wrapper
from model.lora import LoraOptions
from utils.errors import UserError
from utils.extras import extra
from utils.files import atomic_write
from utils.options import option, with_default

FILE = "pytorch_lora_weights.safetensors"


@dataclass
class DenoiserLoraOptions(LoraOptions):
    lora_rank: int = with_default(128, "rank of the adapters", minimum=1)
    lora_targets: list[str] = option(
        [], "ends of the names of the layers that get one; none = the family's attention"
    )


class Adapters(nn.Module):
    """The LoRA parameters of a denoiser as a module of their own, which shares them with it: what
    is optimised, averaged and saved."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        named = [(name, p) for name, p in denoiser.named_parameters() if "lora_" in name]
        self.names = [name for name, _ in named]
        self.weights = nn.ParameterList([p for _, p in named])

    def named_weights(self) -> dict[str, Tensor]:
        """Under the names that they have in the denoiser."""
        return dict(zip(self.names, self.weights, strict=True))


def add_lora(wrapper: Wrapper, options: DenoiserLoraOptions, seed: int) -> Adapters:
    """New adapters in float32, which change nothing yet (B = 0); all else is frozen.

    Raises UserError when no layer has such a name.
    """
    denoiser: Any = wrapper.denoiser.requires_grad_(False).eval()
    targets = options.lora_targets or list(wrapper.lora_targets)
    config = extra("peft").LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha or options.lora_rank,
        init_lora_weights="gaussian",
        target_modules=targets,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            denoiser.add_adapter(config)
        except ValueError as error:
            raise UserError(f"--lora_targets {' '.join(targets)}: {error}") from None
    extra("diffusers.training_utils").cast_training_params(denoiser, torch.float32)
    return Adapters(denoiser)


def save_lora(path: Path, wrapper: Wrapper, adapters: Adapters) -> None:
    """The file that diffusers' ``load_lora_weights`` reads."""
    denoiser, name = wrapper.denoiser, wrapper.denoiser_name
    state = extra("peft").get_peft_model_state_dict(denoiser, adapters.named_weights())
    metadata = denoiser.peft_config["default"].to_dict()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, atomic_write(path) as temporary:
        wrapper.pipe.save_lora_weights(
            folder,
            weight_name=FILE,
            **{f"{name}_lora_layers": state, f"{name}_lora_adapter_metadata": metadata},
        )
        (Path(folder) / FILE).replace(temporary)


def lora_file(path: str | Path) -> Path:
    """The file of this name, or that of a run's folder. Raises UserError when there is none."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"--lora_path {path} does not exist")
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"--lora_path {path} holds no {FILE}")
    return file


def load_lora(wrapper: Wrapper, path: str | Path) -> None:
    """Raises UserError when it is missing, no LoRA, or one of another model."""
    file = lora_file(path)
    denoiser: Any = wrapper.denoiser
    try:
        wrapper.pipe.load_lora_weights(str(file.parent), weight_name=file.name)
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--lora_path {path} does not fit this model ({reason})") from None
    if not getattr(denoiser, "peft_config", None):
        raise UserError(f"--lora_path {path} is the LoRA of another model: no layer of it is here")
