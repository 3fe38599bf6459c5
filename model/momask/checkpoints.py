"""MoMask's folders, published or own: read strictly, and written so that upstream reads them.

    checkpoints/{t2m,kit}/RVQ/{opt.txt, model/net_best_fid.tar, meta/{mean,std}.npy}
    checkpoints/{t2m,kit}/BASE/{opt.txt, model/latest.tar}
    checkpoints/{t2m,kit}/RESIDUAL/{opt.txt, model/net_best_fid.tar}
    checkpoints/{t2m,kit}/length_estimator/model/finest.tar

A transformer's ``opt.txt`` names its RVQ, ``vq_name``, which lies beside it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from data_loaders.normalizer import Statistics
from data_loaders.skeleton import skeleton_for_dim
from model.momask.lengths import LengthEstimator
from model.momask.options_file import BASE_FILE, OptionsFile, write_options
from model.momask.rvq import RVQVAE, RVQConfig
from model.momask.token_space import TokenSpace
from model.momask.transformers import (
    BaseTransformer,
    ResidualTransformer,
    TokenTransformer,
    TransformerConfig,
)
from model.text.encoders import (
    CLIP_POSITIONS,
    BuiltinEncoder,
    CachedTextEncoder,
    ClipEncoder,
    PooledEncoder,
    TextEncoder,
)
from model.weights import check_size, load_strictly
from utils.errors import UserError
from utils.files import atomic_write, load_tensors, save_tensors
from utils.options import check_bounds

POSITION_TABLE = "position_enc.pe"  # stored by upstream, recomputed here
DIGEST = "vq_digest"  # ours in opt.txt: whether the RVQ is still that of the training
AVERAGES = "code_averages"  # ours, beside upstream's weights, so that a training can go on
LENGTHS_FOLDER = "length_estimator"
RESIDUAL_PREFIX = "tres"  # how upstream's names of residual transformers begin
RVQ_SIZES = (
    "nb_code",
    "code_dim",
    "num_quantizers",
    "down_t",
    "width",
    "depth",
    "dilation_growth_rate",
)
TEXT_ENCODERS = ("clip", "builtin")
TRANSFORMER_SIZES = ("latent_dim", "ff_size", "n_layers", "n_heads")
# Options of upstream's RVQ that have one value in every published model, and no other here.
PUBLISHED = {"stride_t": 2, "vq_act": "relu", "vq_norm": None, "shared_codebook": False}
Transformer = TypeVar("Transformer", bound=TokenTransformer)


@dataclass(frozen=True)
class Part:
    """One network: how messages call it, its file, and the file's keys for it, newest first."""

    name: str
    file: str
    keys: tuple[str, ...]


RVQ = Part("RVQ", "net_best_fid.tar", ("vq_model", "net"))
BASE = Part("base transformer", BASE_FILE, ("t2m_transformer", "trans"))
RESIDUAL = Part("residual transformer", "net_best_fid.tar", ("res_transformer",))
LENGTHS = Part("length estimator", "finest.tar", ("estimator",))


@dataclass(frozen=True)
class MoMaskParts:
    """Everything that turns a caption into a motion; `lengths` is None where it is missing.

    text_encoder_type: ``clip``, as published, or ``builtin``.
    """

    tokens: TokenSpace
    base: BaseTransformer
    residual: ResidualTransformer
    lengths: LengthEstimator | None
    text_encoder: TextEncoder
    text_encoder_type: str = "clip"


def load_momask(
    model_path: str | Path,
    device: torch.device | str = "cpu",
    text_encoder_path: str = "",
    residual: str = "",
) -> MoMaskParts:
    """All networks in eval mode, from the folder of a base transformer or a file in its ``model``.

    `residual` names the folder of the residual transformer beside it; without, it is the only one
    of the same RVQ whose name begins with ``tres``. Raises UserError for whatever is missing or
    does not fit.
    """
    path = Path(model_path)
    if not path.exists():
        raise UserError(f"--model_path {path} does not exist; name a base transformer's folder")
    folder = path if path.is_dir() else path.parent.parent
    options = OptionsFile.read(folder)
    name = options.text("vq_name")
    tokens = load_tokens(folder.parent / name, device)
    base_file = folder / "model" / BASE.file if path.is_dir() else path
    base = load_base(folder, tokens, device, base_file)
    residual_folder = find_residual(folder.parent, name, residual)
    lengths = None
    if (folder.parent / LENGTHS_FOLDER).is_dir():
        lengths = load_lengths(folder.parent / LENGTHS_FOLDER, base.text_width, device)
    kind = options.values.get("text_encoder_type", "clip")
    return MoMaskParts(
        tokens,
        base,
        load_residual(residual_folder, tokens, device),
        lengths,
        load_text_encoder(kind, base.text_width, text_encoder_path, device, str(folder)),
        kind,
    )


def find_residual(root: Path, vq_name: str, name: str = "") -> Path:
    """The folder of the residual transformer in `root` that reads the tokens of `vq_name`.

    Raises UserError when there is none, or several and no name.
    """
    if name:
        if not (root / name).is_dir():
            raise UserError(f"{root / name} does not exist; name a residual transformer's folder")
        return root / name
    folders = [path.parent for path in sorted(root.glob(f"{RESIDUAL_PREFIX}*/opt.txt"))]
    found = [path for path in folders if OptionsFile.read(path).values.get("vq_name") == vq_name]
    if len(found) != 1:
        names = f" ({', '.join(path.name for path in found)}); name one" if found else ""
        raise UserError(
            f"{root} holds {len(found)} folders {RESIDUAL_PREFIX}* of a residual transformer for "
            f"the RVQ {vq_name}{names}"
        )
    return found[0]


def load_tokens(folder: Path, device: torch.device | str = "cpu") -> TokenSpace:
    """The RVQ, in eval mode, and its statistics. Raises UserError for what does not fit."""
    config = _rvq_config(OptionsFile.read(folder))
    path = folder / "model" / RVQ.file
    state, content = read_part(path, RVQ)
    mean, std = (folder / "meta" / f"{name}.npy" for name in ("mean", "std"))
    stats = Statistics.load(mean, std, "momask_stats").to(device)
    check_size(config.weights, path.stat().st_size, str(path))
    rvq = RVQVAE(config, _shape(state, "encoder.model.0.weight", path)[1])
    if rvq.num_features != stats.feature_dim:
        raise UserError(
            f"{path} reads motions of {rvq.num_features} features, the statistics in "
            f"{folder / 'meta'} are of {stats.feature_dim}; copy both from one RVQ"
        )
    skeleton = skeleton_for_dim(rvq.num_features)
    if skeleton is None:
        raise UserError(f"{path}: no skeleton has {rvq.num_features} features")
    load_strictly(rvq, state, f"{path}, with the sizes of its opt.txt,")
    if AVERAGES in content:
        try:
            rvq.quantizer.load_averages(content[AVERAGES])
        except (KeyError, TypeError, RuntimeError):
            raise UserError(f"{path}: its {AVERAGES} are not those of its codebooks") from None
    return TokenSpace(rvq.to(device).eval(), stats, skeleton, folder)


def _check_config(config: RVQConfig | TransformerConfig, path: Path) -> None:
    try:
        check_bounds(config)
        if isinstance(config, TransformerConfig):
            config.validate()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _rvq_config(options: OptionsFile) -> RVQConfig:
    for key, only in PUBLISHED.items():
        options.require(key, str(only))
    config = RVQConfig(
        **{name: options.integer(name) for name in RVQ_SIZES},
        dropout=options.number("dropout", default=RVQConfig.dropout),
        quantize_dropout_prob=options.number(
            "quantize_dropout_prob", RVQConfig.quantize_dropout_prob
        ),
        mu=options.number("mu", default=RVQConfig.mu),
    )
    _check_config(config, options.path)
    return config


def load_base(
    folder: Path,
    tokens: TokenSpace,
    device: torch.device | str = "cpu",
    file: Path | None = None,
) -> BaseTransformer:
    """In eval mode. Raises UserError when it was made for another RVQ."""
    path = file or folder / "model" / BASE.file
    state, _ = read_part(path, BASE)
    vocabulary = tokens.vocabulary
    _check_tokens(
        path,
        tokens,
        tuple(_shape(state, "token_emb.weight", path)),
        (vocabulary.codes + 2, vocabulary.width),
    )
    return _load_transformer(BaseTransformer, OptionsFile.read(folder), tokens, path, state, device)


def load_residual(
    folder: Path, tokens: TokenSpace, device: torch.device | str = "cpu"
) -> ResidualTransformer:
    """In eval mode. Raises UserError when it was made for another RVQ."""
    path = folder / "model" / RESIDUAL.file
    state, _ = read_part(path, RESIDUAL)
    vocabulary, options = tokens.vocabulary, OptionsFile.read(folder)
    shared = options.flag("share_weight")
    table = _shape(state, "token_embed_weight_" if shared else "token_embed_weight", path)
    layers = _shape(state, "quant_emb.weight", path)[1]
    _check_tokens(
        path,
        tokens,
        (layers, *table[1:]),
        (vocabulary.layers, vocabulary.codes + 1, vocabulary.width),
    )
    return _load_transformer(ResidualTransformer, options, tokens, path, state, device)


def _check_tokens(
    path: Path, tokens: TokenSpace, found: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    if found != expected:
        raise UserError(
            f"{path} is a transformer of another RVQ: its table of tokens is "
            f"{list(found)}, that of {tokens.folder.name} would be {list(expected)}"
        )


def _load_transformer(
    kind: type[Transformer],
    options: OptionsFile,
    tokens: TokenSpace,
    path: Path,
    state: dict[str, Tensor],
    device: torch.device | str,
) -> Transformer:
    if options.text("vq_name") != tokens.folder.name:
        raise UserError(
            f"{options.path}: this transformer reads the tokens of {options.text('vq_name')}, not "
            f"those of {tokens.folder.name}"
        )
    if options.values.get(DIGEST, tokens.digest) != tokens.digest:
        raise UserError(
            f"{path} was trained on other tokens: {tokens.folder} has been trained again "
            "since; train this transformer anew, or bring that RVQ back"
        )
    config = TransformerConfig(
        **{name: options.integer(name) for name in TRANSFORMER_SIZES},
        dropout=options.number("dropout", default=TransformerConfig.dropout),
        cond_drop_prob=options.number("cond_drop_prob"),
        share_weight=kind is ResidualTransformer and options.flag("share_weight"),
    )
    _check_config(config, options.path)
    check_size(config.weights, path.stat().st_size, str(path))
    model = kind(config, tokens.vocabulary, _shape(state, "cond_emb.weight", path)[1])
    state = {**state, POSITION_TABLE: model.position_enc.pe}
    load_strictly(model, state, f"{path}, with the sizes of its opt.txt,")
    return model.to(device).eval()


def load_lengths(
    folder: Path, text_width: int, device: torch.device | str = "cpu"
) -> LengthEstimator:
    """In eval mode. Raises UserError when it is missing or reads another text encoder."""
    path = folder / "model" / LENGTHS.file
    state, _ = read_part(path, LENGTHS)
    width = _shape(state, "output.0.weight", path)[1]
    if width != text_width:
        raise UserError(
            f"{path} reads text features of width {width}, the transformers of {text_width}; they "
            "were trained with different text encoders"
        )
    model = LengthEstimator(width, _shape(state, "output.11.weight", path)[0])
    load_strictly(model, state, f"{path}: the length estimator")
    return model.to(device).eval()


def load_text_encoder(
    kind: str, width: int, path: str, device: torch.device | str, where: str
) -> TextEncoder:
    """The encoder whose features, of the `width` of a stored model, its transformers read.

    Raises UserError, which begins with `where`, when the kind or the width is another one.
    """
    if kind not in TEXT_ENCODERS:
        raise UserError(f"{where}: text_encoder_type is {kind!r}, neither clip nor builtin")
    encoder = momask_text_encoder(kind, path, device)
    if encoder.width != width:
        raise UserError(
            f"{where} reads text features of width {width}, the text encoder gives "
            f"{encoder.width}; pass --text_encoder_path with CLIP ViT-B/32"
        )
    return encoder


def momask_text_encoder(kind: str, path: str, device: torch.device | str) -> TextEncoder:
    """CLIP with its full context, as published, or ``builtin``, this project's own."""
    if kind == "builtin":
        return CachedTextEncoder(PooledEncoder(BuiltinEncoder()))
    clip = ClipEncoder(path or "openai/clip-vit-base-patch32", device, CLIP_POSITIONS)
    return CachedTextEncoder(clip)


def read_part(path: Path, part: Part) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state dict of a network, and all that its file holds.

    Raises UserError when the file is missing, unsafe or holds something else.
    """
    content = load_tensors(path)
    keys = [key for key in part.keys if isinstance(content, dict) and key in content]
    if not keys or not isinstance(content[keys[0]], Mapping):
        raise UserError(f"{path} holds no {part.name} of MoMask (no entry {part.keys[0]})")
    return dict(content[keys[0]]), content


def _shape(state: Mapping[str, Tensor], key: str, path: Path) -> torch.Size:
    if key not in state:
        raise UserError(f"{path} lacks {key}; it is no file of this network of MoMask")
    return state[key].shape


def save_tokens(
    folder: Path, rvq: RVQVAE, stats: Statistics, args: dict[str, Any], file: str = RVQ.file
) -> Path:
    """Write a folder that `load_tokens` reads; returns the path of the weights.

    `args`: further entries of ``opt.txt``; `file`: the name of the weights' file.
    """
    write_options(folder, {**args, **asdict(rvq.config), **PUBLISHED})
    for name, value in (("mean", stats.mean), ("std", stats.std)):
        with atomic_write(folder / "meta" / f"{name}.npy") as temporary:
            np.save(temporary, value.cpu().numpy().astype(np.float32))
    return save_part(folder / "model" / file, RVQ, rvq, {AVERAGES: rvq.quantizer.averages()})


def save_transformer(
    folder: Path,
    model: BaseTransformer | ResidualTransformer,
    vq_name: str,
    args: dict[str, Any],
    file: str = "",
) -> Path:
    """Write a folder that `load_base` or `load_residual` reads; returns the path of the weights.

    `file`: the name of the weights' file; none = the one that is read.
    """
    part = BASE if isinstance(model, BaseTransformer) else RESIDUAL
    write_options(folder, {**args, **asdict(model.config), "vq_name": vq_name})
    return save_part(folder / "model" / (file or part.file), part, model)


def save_part(
    path: Path, part: Part, model: nn.Module, further: Mapping[str, Any] | None = None
) -> Path:
    """Write one network's ``.tar`` with `further` entries; returns its path."""
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    save_tensors(path, {part.keys[0]: state, **(further or {})})
    return path
