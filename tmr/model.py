"""The TMR model: motion and text encoders into one latent space, a decoder, and its run folder.

A run folder holds ``config.json`` and ``last_weights/{motion_encoder,text_encoder,
motion_decoder}.pt`` as upstream writes them; ours also hold ``best_weights``
(chosen on val) and ``stats``, and there the weights' names are links: a save writes a folder of
another name and then switches the link, so that the three parts are always of one step. One
``.safetensors`` file (model/single_file.py) with the config as its arguments is read wherever a
run folder is.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_loaders.normalizer import Statistics
from model.distribution import Distribution
from model.layers import TransformerOptions
from model.single_file import (
    is_single_file,
    read_single_args,
    read_single_state,
    read_single_stats,
    write_single_file,
)
from model.text.encoders import (
    TOKEN_KINDS,
    CachedTextEncoder,
    Condition,
    TextEncoder,
    build_text_encoder,
)
from model.weights import check_size, load_strictly, transformer_weights
from tmr.encoders import ActorDecoder, ActorEncoder
from utils.errors import UserError
from utils.files import load_tensors, read_object, save_tensors, sync, write_json
from utils.options import from_record, with_default
from utils.places import here_or_project

BEST, LAST = "best_weights", "last_weights"
PARTS = ("motion_encoder", "text_encoder", "motion_decoder")
STATS_EPS = 1e-12
MODEL_NAMES = {"bert": "distilbert-base-uncased"}  # of the text encoders, in upstream's files
PUBLISHED_FOLDERS = ("models", "pretrained_tmr")  # of TMR's archive, of the SoPo release


@dataclass
class TMRConfig(TransformerOptions):
    """Sizes; the defaults are those of the published models."""

    text_encoder_type: str = with_default("bert", "token encoder", choices=TOKEN_KINDS)
    latent_dim: int = with_default(256, "width of the latent space")
    layers: int = with_default(6)


class TMR(nn.Module):
    """Takes raw (un-normalised) motions; it owns its statistics and its text encoder."""

    def __init__(self, config: TMRConfig, stats: Statistics, text_encoder: TextEncoder) -> None:
        super().__init__()
        self.config, self.stats, self.words = config, stats, text_encoder
        sizes: dict[str, Any] = {
            "latent_dim": config.latent_dim,
            "ff_size": config.ff_size,
            "num_layers": config.layers,
            "num_heads": config.num_heads,
            "dropout": config.dropout,
        }
        self.motion_encoder = ActorEncoder(stats.feature_dim, **sizes)
        self.text_encoder = ActorEncoder(text_encoder.width, **sizes)
        self.motion_decoder = ActorDecoder(stats.feature_dim, **sizes)

    @property
    def device(self) -> torch.device:
        return self.motion_encoder.tokens.device

    def normalize(self, motions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Raw ``[B, T, D]`` -> normalised, zero beyond the lengths; and the mask ``[B, T]``.

        Whatever stands beyond a length, NaN included, is never read.
        """
        if motions.shape[-1] != self.stats.feature_dim:
            raise UserError(
                f"this TMR model takes motions of {self.stats.feature_dim} features, these have "
                f"{motions.shape[-1]}. (TMR's published KIT model takes 263-d HumanML3D features, "
                "not KIT's own 251; train one on those with train.train_tmr --dataset kit)"
            )
        motions = motions[:, : int(lengths.max())].to(self.device)
        mask = torch.arange(motions.shape[1], device=self.device) < lengths.to(self.device)[:, None]
        normalised = self.stats.normalize(motions)
        return torch.where(mask.unsqueeze(-1), normalised, torch.zeros_like(normalised)), mask

    def motion_distribution(self, normalised: Tensor, mask: Tensor) -> Distribution:
        return Distribution(*self.motion_encoder(normalised, mask).float().unbind(1))

    def text_distribution(self, condition: Condition) -> Distribution:
        encoded = self.text_encoder(condition.tokens, condition.mask)
        return Distribution(*encoded.float().unbind(1))

    def encode_motions(self, motions: Tensor, lengths: Tensor) -> Tensor:
        """Mean latents ``[B, d]`` of raw motions ``[B, T, D]`` with lengths ``[B]``."""
        return self.motion_distribution(*self.normalize(motions, lengths)).mean

    def encode_texts(self, captions: list[str]) -> Tensor:
        """Mean latents ``[B, d]``."""
        return self.text_distribution(self.words.encode(captions).to(self.device)).mean

    def save(self, folder: Path, weights: str = LAST) -> Path:
        """Write config, statistics and the three parts; returns the weights' folder.

        A process that is killed meanwhile leaves the three parts of before.
        """
        if not self._is_of_this_model(folder):
            for other in (BEST, LAST):  # those of an overwritten model
                _remove(folder / other)
            write_json(folder / "config.json", self._config_dict())
            save_tensors(folder / "stats" / "mean.pt", self.stats.mean)
            save_tensors(folder / "stats" / "std.pt", self.stats.std)
        link = folder / weights
        old = os.readlink(link) if link.is_symlink() else ""
        new = f"{weights}_b" if old == f"{weights}_a" else f"{weights}_a"
        _remove(folder / new)
        for part in PARTS:
            state = {k: v.detach().cpu() for k, v in getattr(self, part).state_dict().items()}
            save_tensors(folder / new / f"{part}.pt", state)
        _switch(link, new)
        _remove(folder / f"{weights}_{'a' if new.endswith('b') else 'b'}")
        return link

    def _is_of_this_model(self, folder: Path) -> bool:
        """Are config and statistics in `folder` those of this model?"""
        try:
            config = read_object(folder / "config.json")
            stats = [load_tensors(folder / "stats" / f"{name}.pt") for name in ("mean", "std")]
        except UserError:
            return False
        own = (self.stats.mean.cpu(), self.stats.std.cpu())
        return config == self._config_dict() and all(map(torch.equal, stats, own))

    def save_single_file(self, path: Path, dtype: torch.dtype, training: dict[str, Any]) -> None:
        """Write all of a run folder as one file; `training` (its ``args.json``) is kept in it."""
        state = {
            f"{part}.{key}": value.to(dtype)
            for part in PARTS
            for key, value in getattr(self, part).state_dict().items()
        }
        write_single_file(path, state, {**self._config_dict(), "training": training}, self.stats)

    def _config_dict(self) -> dict[str, Any]:
        """The layout that upstream's config.json has, so that one reader serves both."""
        c = self.config
        sizes = {
            "vae": True,
            "latent_dim": c.latent_dim,
            "ff_size": c.ff_size,
            "num_layers": c.layers,
            "num_heads": c.num_heads,
            "dropout": c.dropout,
            "activation": "gelu",
        }
        return {
            "data": {
                "motion_loader": {"nfeats": self.stats.feature_dim},
                "text_to_token_emb": {
                    "modelname": MODEL_NAMES.get(c.text_encoder_type, c.text_encoder_type)
                },
            },
            "model": {
                "motion_encoder": {"nfeats": self.stats.feature_dim, **sizes},
                "text_encoder": {"nfeats": self.words.width, **sizes},
                "motion_decoder": {"nfeats": self.stats.feature_dim, **sizes},
            },
        }

    @staticmethod
    def load(
        folder: str | Path, device: torch.device | str = "cpu", text_encoder_path: str = ""
    ) -> "TMR":
        """Load a run folder or a single file, frozen and in eval mode.

        Of a folder it takes ``best_weights`` where they exist, else ``last_weights``, else the
        training checkpoint. Raises UserError for whatever is missing or does not fit.
        """
        folder = find_run(folder)
        config = _load_config(folder)
        try:
            sizes = config["model"]["motion_encoder"]
            name = config["data"]["text_to_token_emb"]["modelname"]
            record = {
                "text_encoder_type": name if name in TOKEN_KINDS else "bert",
                "layers": sizes["num_layers"],
                **{key: sizes[key] for key in ("latent_dim", "ff_size", "num_heads", "dropout")},
            }
        except (KeyError, TypeError) as error:
            raise UserError(f"the config of {folder} lacks the entry {error}") from None
        options = from_record(TMRConfig, record, f"the config of {folder}")
        stats, parts = _load_stats(folder, config), _load_parts(folder)
        stored = sum(v.numel() * 4 for part in parts.values() for v in part.values())
        weights = transformer_weights(options.layers, options.latent_dim, options.ff_size)
        check_size(weights, stored, str(folder))
        encoder = build_text_encoder(options.text_encoder_type, text_encoder_path or None, device)
        model = TMR(options, stats.to(device), CachedTextEncoder(encoder))
        for part, state in parts.items():
            load_strictly(getattr(model, part), state, f"{folder}: {part}")
        return model.to(device).eval().requires_grad_(False)


def _load_config(folder: Path) -> dict[str, Any]:
    if is_single_file(folder):
        return read_single_args(folder)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not a TMR run folder (no config.json); train one with "
            "python -m train.train_tmr, or fetch the published one"
        )
    return read_object(folder / "config.json")


def _load_parts(folder: Path) -> dict[str, dict[str, Tensor]]:
    if is_single_file(folder):
        return _split_parts(read_single_state(folder))
    for weights in (BEST, LAST):
        if (folder / weights).is_dir():
            return {part: _load_part(folder / weights / f"{part}.pt") for part in PARTS}
    checkpoint = folder / "logs" / "checkpoints" / "last.ckpt"
    if not checkpoint.is_file():
        raise UserError(f"{folder} holds no weights: neither last_weights nor {checkpoint} exists")
    content = load_tensors(checkpoint)
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise UserError(f"{checkpoint} is no checkpoint of TMR: it has no state_dict")
    return _split_parts(state)


def _load_part(path: Path) -> dict[str, Tensor]:
    state = load_tensors(path)
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        raise UserError(f"{path} is no dictionary of tensors")
    return state


def _split_parts(state: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """``motion_encoder.KEY`` and so on -> KEY by part; other keys are left out."""
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        if part in parts:
            parts[part][rest] = value
    return parts


def _load_stats(folder: Path, config: dict[str, Any]) -> Statistics:
    """In the run folder or file (ours), or where upstream's config has them below a parent."""
    if is_single_file(folder):
        stats = read_single_stats(folder)
        return Statistics("reward_stats", stats.mean, stats.std, STATS_EPS)
    try:
        normalizer = config["data"]["motion_loader"].get("normalizer", {})
        relative = Path(normalizer.get("base_dir", "stats/humanml3d/guoh3dfeats"))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"the config of {folder} says no place of statistics ({error})") from None
    places = [folder / "stats", *(parent / relative for parent in folder.resolve().parents)]
    places.append(relative)
    for place in places:
        if (place / "mean.pt").is_file():
            mean, std = load_tensors(place / "mean.pt"), load_tensors(place / "std.pt")
            return Statistics("reward_stats", mean, std, STATS_EPS).checked(str(place))
    raise UserError(
        f"{folder}: no mean.pt and std.pt in {folder / 'stats'} or in {relative}; the reward "
        "normalises motions with its own statistics and cannot do without them"
    )


def _switch(link: Path, name: str) -> None:
    """Let `link` lead to the folder `name` beside it, in one step."""
    if link.is_dir() and not link.is_symlink():  # as earlier versions and upstream write it
        aside = link.with_name(f"{link.name}_b")
        _remove(aside)
        link.rename(aside)
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(name)
    new.replace(link)
    sync(link.parent)


def _remove(path: Path) -> None:
    """A folder or a link, where there is one."""
    if path.is_symlink():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


def find_run(folder: str | Path) -> Path:
    """The run folder of this name; a published one may lie in any of `PUBLISHED_FOLDERS`."""
    folder = Path(folder)
    if str(folder.parent) not in PUBLISHED_FOLDERS:
        return folder
    return here_or_project(folder, *(Path(name, folder.name) for name in PUBLISHED_FOLDERS))
