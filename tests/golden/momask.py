"""MoMask's transformers: passes, training, generation, preference terms, and the whole chain."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_loaders.normalizer import Statistics
from model.layers import encoder_layer
from model.mdm.network import PositionalEncoding
from model.momask.draws import keep_top
from model.momask.lengths import LengthEstimator
from model.momask.likelihood import (
    count_probability,
    exact_weight,
    hide,
    masked_count,
    masked_error,
    shared_mask,
)
from model.momask.rvq import RVQVAE, RVQConfig
from model.momask.sampling import TokenSampling, generate_base, generate_residual
from model.momask.statistics import biased
from model.momask.training import CorruptionDraws, active_layer, corrupt, token_loss
from model.momask.transformers import (
    BaseTransformer,
    ResidualTransformer,
    TokenTransformer,
    TransformerConfig,
    Vocabulary,
    guided_logits,
)
from tests.golden.base import Golden, Row, covers
from tests.golden.momask_rvq import Recorded, rvq_of, scaled
from train.preference.losses import DenoisingErrors, sopo_loss


def vocabulary_of(g: Golden) -> Vocabulary:
    return Vocabulary(*(g.scalar(f"cfg/{k}") for k in ("num_tokens", "code_dim", "num_quantizers")))


def transformer_of(g: Golden, kind: type[TokenTransformer], prefix: str = "") -> Any:
    """In eval mode. The positional table is not stored; it is made anew."""
    config = TransformerConfig(
        latent_dim=g.scalar("cfg/latent_dim"),
        ff_size=g.scalar("cfg/ff_size"),
        n_layers=g.scalar("cfg/num_layers"),
        n_heads=g.scalar("cfg/num_heads"),
        dropout=g.scalar("cfg/dropout"),
        cond_drop_prob=g.scalar("cfg/cond_drop_prob"),
        share_weight=not prefix,
    )
    model = kind(config, vocabulary_of(g), g.scalar("cfg/clip_dim"))
    state = {**model.state_dict(), **g.state_dict(f"{prefix}sd/")}
    assert len(state) == len(g.keys(f"{prefix}sd/")) + 1, "only position_enc.pe may be missing"
    model.load_state_dict(state)
    return model.eval()


def positions(g: Golden, table: PositionalEncoding) -> Row:
    return g.close("pe/table", table.pe[: len(g["pe/table"]), 0], g["pe/table"], atol=2e-5)


def valid_of(g: Golden, tokens: int) -> Tensor:
    return torch.arange(tokens) < g.tensor("token_lengths")[:, None]


def classes_last(g: Golden, key: str) -> Tensor:
    """Upstream's ``[..., classes, n]`` -> ``[..., n, classes]``."""
    return g.tensor(key).transpose(-1, -2)


def close(g: Golden, key: str, logits: Tensor, tolerance: float) -> Row:
    expected = classes_last(g, key)
    return g.close(key, logits, expected, atol=tolerance * max(1.0, float(expected.abs().max())))


def gradients(g: Golden, model: nn.Module, loss: Tensor, prefix: str) -> Iterator[Row]:
    model.zero_grad()
    loss.backward()
    named = dict(model.named_parameters())
    for key in g.keys(f"{prefix}grad/"):
        found = named[key.split("/grad/")[1]].grad
        assert found is not None
        yield g.close(key, found, g[key], atol=1e-4)


@covers("momask_base*.npz")
def base(g: Golden) -> Iterator[Row]:
    model = transformer_of(g, BaseTransformer)
    yield positions(g, model.position_enc)
    yield g.equal(
        "mask_id, pad_id", (model.mask_id, model.pad_id), (g["cfg/mask_id"], g["cfg/pad_id"])
    )
    with torch.no_grad():
        yield from base_passes(g, model)
        for name in ("gen_gumbel", "gen_categorical", "gen_greedy", "edit"):
            yield from base_generation(g, model, name)
    yield from base_training(g, model)
    yield from preference(g, model)
    with torch.no_grad():
        yield from bound(g, model)


def base_passes(g: Golden, model: BaseTransformer) -> Iterator[Row]:
    ids, text, valid = (
        g.tensor("forward/ids"),
        g.tensor("text_emb"),
        ~g.tensor("forward/padding_mask"),
    )
    hidden = torch.ones(len(ids), dtype=torch.bool)
    yield close(g, "forward/logits_cond", model(ids, text, valid), 2e-5)
    yield close(g, "forward/logits_uncond", model(ids, text, valid, hidden), 2e-5)
    guided = guided_logits(model, ids, text, valid, scale=g.scalar("forward/cond_scale"))
    yield close(g, "forward/logits_cfg", guided, 1e-4)
    kept = keep_top(classes_last(g, "forward/logits_cfg"), 0.9)
    yield g.equal("forward/top_k_cfg", kept, g["forward/top_k_cfg"])
    x = model.sequence(model.embed_text(text, None), model.token_emb(ids))
    bias = torch.zeros(x.shape[:2]).masked_fill(F.pad(~valid, (1, 0)), float("-inf"))[:, None, None]
    seen = F.pad(valid, (1, 0), value=True)
    expected = g.tensor("forward/trace_layers").transpose(1, 2)
    for i, layer in enumerate(model.seqTransEncoder.layers):
        x = encoder_layer(layer, x, bias)
        yield g.close(f"forward/trace_layers {i}", x[seen], expected[i][seen], atol=2e-5)


def base_training(g: Golden, model: BaseTransformer) -> Iterator[Row]:
    ids, text = g.tensor("train/ids"), g.tensor("text_emb")
    valid = valid_of(g, ids.shape[1])
    names = ("rand_time", "rand_perm", "draw_10", "rand_id", "draw_88")
    drawn = CorruptionDraws(*(g.tensor(f"train/{name}") for name in names))
    corrupted = corrupt(ids, valid, model.mask_id, model.pad_id, drawn)
    yield g.equal("train/input_ids", corrupted.ids, g["train/input_ids"])
    labels = ids.masked_fill(~corrupted.chosen, model.mask_id)
    yield g.equal("train/labels", labels, g["train/labels"])
    logits = model(corrupted.ids, text, valid)
    yield close(g, "train/logits", logits, 2e-5)
    yield g.equal("train/pred_id", logits.argmax(dim=-1), g["train/pred_id"])
    found = token_loss(logits, ids, corrupted.chosen)
    yield g.close("train/loss", found.loss, g["train/loss"], atol=2e-5)
    yield g.close("train/acc", found.accuracy, g["train/acc"], atol=1e-6)
    yield from gradients(g, model, found.loss, "train/")


def base_generation(g: Golden, model: BaseTransformer, name: str) -> Iterator[Row]:
    options = TokenSampling(
        iterations=g.scalar(f"{name}/timesteps"),
        guidance=g.scalar(f"{name}/cond_scale"),
        temperature=g.scalar(f"{name}/temperature"),
        top_k_threshold=g.scalar(f"{name}/topk_filter_thres"),
        gumbel=g.has(f"{name}/gumbel_uniform"),
    )
    noise = g.tensor(f"{name}/gumbel_uniform" if options.gumbel else f"{name}/exponential")
    given = None
    if g.has(f"{name}/tokens"):
        given = g.tensor(f"{name}/tokens").masked_fill(g.tensor(f"{name}/edit_mask"), -1)
    text, tokens = g.tensor("text_emb"), g[f"{name}/ids"].shape[1]
    seen: list[Tensor] = []
    logits: list[Tensor] = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(inputs[0][: len(text)])
        if options.guidance != 1:  # both passes of guidance in one batch
            conditional, unconditional = output.chunk(2)
            output = unconditional + options.guidance * (conditional - unconditional)
        logits.append(output)

    handle = model.register_forward_hook(record)
    valid = valid_of(g, tokens)  # what stands beyond a length is never read
    ids = generate_base(model, text, valid, options, Recorded(*noise), given)
    handle.remove()
    expected = g.tensor(f"{name}/input_ids")
    yield g.equal(f"{name}/input_ids", torch.stack(seen)[:, valid], expected[:, valid])
    found, expected = torch.stack([logits[0], logits[-1]]), classes_last(g, f"{name}/logits")
    largest = float(expected.abs().max())
    yield g.close(
        f"{name}/logits", found[:, valid], expected[:, valid], atol=1e-4 * max(1.0, largest)
    )
    yield g.equal(f"{name}/ids", ids, g[f"{name}/ids"])


def preference(g: Golden, model: BaseTransformer) -> Iterator[Row]:
    """The project's own terms, on upstream's logits."""
    text, lengths = g.tensor("text_emb"), g.tensor("token_lengths")
    motions = {name: g.tensor(f"pref/ids_{name}") for name in ("winner", "loser")}
    valid = valid_of(g, motions["winner"].shape[1])
    count = masked_count(g.tensor("pref/u"), lengths)
    mask = shared_mask(g.tensor("pref/scores"), count, valid)
    yield g.equal("pref/num_masked", count, g["pref/num_masked"])
    yield g.equal("pref/mask", mask, g["pref/mask"])
    reference = transformer_of(g, BaseTransformer)
    reference.output_process.poseFinal.bias.data = g.tensor("pref/reference_bias")
    errors = {}
    for name, ids in motions.items():
        yield g.equal(f"pref/input_{name}", hide(ids, mask, valid, model), g[f"pref/input_{name}"])
        policy = masked_error(model, ids, mask, text, valid)
        with torch.no_grad():
            frozen = masked_error(reference, ids, mask, text, valid)
        errors[name] = DenoisingErrors(policy, frozen)
        yield g.close(
            f"pref/error_policy_{name}", policy, g[f"pref/error_policy_{name}"], atol=2e-5
        )
        key = f"pref/error_reference_{name}"
        yield g.close(key, frozen, g[key], atol=2e-5)
    found = sopo_loss(
        errors["winner"],
        errors["loser"],
        g.tensor("pref/beta_w"),
        1.0,
        g.tensor("pref/gate"),
        lengths,
    )
    yield g.close("pref/z", found.margin, g["pref/z"], atol=1e-4)
    yield g.close("pref/loss", found.loss.mean(), g["pref/loss"], atol=2e-5)
    model.zero_grad()
    found.loss.mean().backward()
    gradient = model.output_process.poseFinal.bias.grad
    yield g.close("pref/grad_bias", gradient, g["pref/grad_bias"], atol=1e-4)


def bound(g: Golden, model: BaseTransformer) -> Iterator[Row]:
    """Every mask of one short sequence."""
    ids, row = g.tensor("elbo/ids"), g.scalar("elbo/row")
    tokens = len(ids)
    masks = torch.tensor(
        [[bool(bits >> i & 1) for i in range(tokens)] for bits in range(1, 2**tokens)]
    )
    text = g.tensor("text_emb")[row].expand(len(masks), -1)
    errors = masked_error(
        model, ids.expand(len(masks), -1), masks, text, torch.ones_like(masks)
    ).double()
    sizes = masks.sum(1)
    per_size = torch.stack([errors[sizes == m].mean() for m in range(1, tokens + 1)])
    yield g.close("elbo/per_size", per_size, g["elbo/per_size"], atol=2e-5)
    nll = tokens * per_size.mean()
    yield g.close("elbo/nll_bound", nll, g["elbo/nll_bound"], rtol=2e-5)
    count, total = torch.arange(1, tokens + 1), torch.full((tokens,), tokens)
    found = count_probability(count, total)
    yield g.close("elbo/cosine_probability", found, g["elbo/cosine_probability"], atol=1e-6)
    yield g.close("elbo/weight", exact_weight(count, total), g["elbo/weight"], rtol=2e-5)


@covers("momask_residual*.npz")
def residual(g: Golden) -> Iterator[Row]:
    for prefix in ("", "noshare/"):
        if not g.keys(f"{prefix}sd/"):
            continue
        model = transformer_of(g, ResidualTransformer, prefix)
        yield g.equal(f"{prefix}pad_id", model.pad_id, g["cfg/pad_id"])
        yield positions(g, model.position_enc)
        yield from residual_training(g, model, prefix)
        with torch.no_grad():
            yield from residual_generation(g, model, prefix)


def residual_training(g: Golden, model: ResidualTransformer, prefix: str) -> Iterator[Row]:
    key = f"{prefix}train/"
    ids, text = g.tensor(f"{key}ids"), g.tensor("text_emb")
    valid = valid_of(g, ids.shape[1])
    layer = active_layer(g.tensor(f"{key}uniform"), model.vocabulary.layers)
    yield g.equal(f"{key}active_layer", layer, g[f"{key}active_layer"])
    padded = ids.masked_fill(~valid.unsqueeze(-1), model.pad_id)
    labels = padded.gather(-1, layer.view(-1, 1, 1).expand(*valid.shape, 1)).squeeze(-1)
    yield g.equal(f"{key}labels", labels, g[f"{key}labels"])
    history = model.history(padded, layer)
    yield g.close(f"{key}history_sum", history, g[f"{key}history_sum"], atol=2e-5)
    logits = model(history, layer, text, valid)
    yield close(g, f"{key}logits", logits, 2e-5)
    found = token_loss(logits, labels, valid)
    yield g.close(f"{key}loss", found.loss, g[f"{key}loss"], atol=2e-5)
    yield g.close(f"{key}acc", found.accuracy, g[f"{key}acc"], atol=1e-6)
    yield from gradients(g, model, found.loss, key)


def residual_generation(g: Golden, model: ResidualTransformer, prefix: str) -> Iterator[Row]:
    text, history = g.tensor("text_emb"), g.tensor(f"{prefix}train/history_sum")
    valid = valid_of(g, history.shape[1])
    layer = torch.full((len(text),), g.scalar(f"{prefix}cfg_forward/layer"))
    inputs, scale = (history, layer, text, valid), g.scalar(f"{prefix}cfg_forward/cond_scale")
    yield close(g, f"{prefix}cfg_forward/logits_cond", model(*inputs), 2e-5)
    guided = guided_logits(model, *inputs, scale=scale)
    yield close(g, f"{prefix}cfg_forward/logits", guided, 1e-4)
    ids = g.tensor(f"{prefix}gen_gumbel/base_ids")
    options = TokenSampling(residual_guidance=g.scalar(f"{prefix}gen_gumbel/cond_scale"))
    noise = Recorded(*g.tensor(f"{prefix}gen_gumbel/gumbel_uniform"))
    drawn = generate_residual(model, ids, text, valid, options, noise)
    yield g.equal(f"{prefix}gen_gumbel/ids", drawn, g[f"{prefix}gen_gumbel/ids"])
    plain = replace(options, residual_guidance=1.0)
    greedy = generate_residual(model, ids, text, valid, plain, Recorded())
    yield g.equal(f"{prefix}gen_greedy/ids", greedy, g[f"{prefix}gen_greedy/ids"])


# Lengths, the whole chain, statistics, full size


@covers("momask_length*.npz")
@torch.no_grad()
def lengths(g: Golden) -> Iterator[Row]:
    model = LengthEstimator(g.scalar("cfg/input_size"), g.scalar("cfg/output_size"))
    model.load_state_dict(g.state_dict())
    model.eval()
    text = g.tensor("text_emb")
    yield g.close("logits", model(text), g["logits"], atol=2e-5)
    yield g.close("probs", model(text).softmax(dim=-1), g["probs"], atol=2e-5)
    yield g.close("loss", model.loss(text, g.tensor("labels")), g["loss"], atol=2e-5)
    drawn = model.sample(text, Recorded(g.tensor("exponential")))
    yield g.equal("sampled_tokens", drawn, g["sampled_tokens"])


@covers("momask_pipeline*.npz")
@torch.no_grad()
def pipeline(g: Golden) -> Iterator[Row]:
    """The chain over the networks of the files beside it, and the statistics."""
    base_file, residual_file, rvq_file = (
        Golden(g.path.with_name(g.name.replace("pipeline", part)))
        for part in ("base", "residual", "rvq")
    )
    yield g.equal("base_ids", base_file["gen_gumbel/ids"], g["base_ids"])
    base_ids = g.tensor("base_ids")
    valid = base_ids >= 0
    noise = Recorded(*residual_file.tensor("gen_gumbel/gumbel_uniform"))
    options = TokenSampling(residual_guidance=g.scalar("cond_scale_residual"))
    model = transformer_of(residual_file, ResidualTransformer)
    ids = generate_residual(
        model, base_ids, residual_file.tensor("text_emb"), valid, options, noise
    )
    yield g.equal("all_ids", ids, g["all_ids"])
    motion = rvq_of(rvq_file, "t2m/").decode(ids)
    yield scaled(g, "motion_normalised", motion, 2e-5)
    stats = Statistics("momask_stats", g.tensor("mean"), g.tensor("std"))
    yield scaled(g, "motion_raw", stats.denormalize(motion), 2e-5)
    for name in ("t2m", "kit"):
        std = g.tensor(f"feat_bias/{name}/std")
        for times, key in enumerate(("std", "std_once", "std_twice")):
            key = f"feat_bias/{name}/{key}"
            yield g.close(key, biased(std, times), g[key], rtol=1e-6)


@covers("momask_checkpoints*.json")
def full_size(g: Golden) -> Iterator[Row]:
    """Every key and shape of the published files, and nothing besides."""
    options = g.json["options"]
    rvq_options = {k: v for k, v in options["rvq"].items() if k in RVQConfig.__dataclass_fields__}
    config = RVQConfig(**rvq_options)
    shared, sizes = g.json["shared_by_t2m_and_kit"], options["transformers"]
    vocabulary = Vocabulary(config.nb_code, config.code_dim, config.num_quantizers)
    known = {k: v for k, v in sizes.items() if k in TransformerConfig.__dataclass_fields__}
    transformer = TransformerConfig(**known)
    with torch.device("meta"):
        for name, variant in g.json["variants"].items():
            yield from layout(g, f"{name} rvq", RVQVAE(config, variant["nfeats"]), variant["rvq"])
        parts = {
            "base_transformer": BaseTransformer(transformer, vocabulary, sizes["clip_dim"]),
            "residual_transformer": ResidualTransformer(transformer, vocabulary, sizes["clip_dim"]),
            "length_estimator": LengthEstimator(sizes["clip_dim"]),
        }
        for name, model in parts.items():
            yield from layout(g, name, model, shared[name])


def layout(g: Golden, name: str, model: nn.Module, expected: dict[str, Any]) -> Iterator[Row]:
    found = {key: list(value.shape) for key, value in model.state_dict().items()}
    yield g.equal(f"{name}: keys", sorted(found), sorted(expected["shapes"]))
    wrong = [key for key, shape in expected["shapes"].items() if found.get(key) != shape]
    yield g.equal(f"{name}: keys of another shape", wrong, [])
    count = sum(p.numel() for p in model.parameters())
    yield g.equal(f"{name}: parameters", count, expected["parameters"])
