"""TMR's networks, losses, metrics, texts and statistics against upstream's numbers."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from data_loaders.normalizer import Statistics
from model.distribution import Distribution, kl_divergence
from model.seam import Samples
from model.text.encoders import CachedTextEncoder, Condition, DistilBertEncoder, pad_tokens
from rewards.seam import similarity
from rewards.tmr import TMRReward
from tests.golden.base import Golden, Row, covers
from tests.golden.text_encoders import write_distilbert
from tests.upstream_protocols import batched_metrics
from tmr.encoders import ActorDecoder, ActorEncoder
from tmr.losses import (
    LossWeights,
    info_nce,
    similar_sentences,
    tmr_losses,
)
from tmr.model import STATS_EPS, TMR, TMRConfig
from tmr.retrieval import metrics_of_ranks, retrieval_metrics, tied_ranks


class FixedWidth:
    """Stands in for a text encoder where only its width matters."""

    pooled = False

    def __init__(self, width: int) -> None:
        self.width = width

    def encode(self, captions: list[str]) -> Condition:
        raise NotImplementedError


def config_of(g: Golden, prefix: str = "cfg/") -> TMRConfig:
    return TMRConfig(
        latent_dim=g.scalar(f"{prefix}latent_dim"),
        ff_size=g.scalar(f"{prefix}ff_size"),
        layers=g.scalar(f"{prefix}num_layers"),
        num_heads=g.scalar(f"{prefix}num_heads"),
    )


def model_of(g: Golden) -> TMR:
    width = g.scalar("cfg/motion_nfeats")
    stats = Statistics("reward_stats", torch.zeros(width), torch.ones(width))
    model = TMR(config_of(g), stats, FixedWidth(g.scalar("cfg/text_nfeats")))
    model.load_state_dict(g.state_dict())
    return model.eval()


@covers("tmr_encoders*.npz")
@torch.no_grad()
def encoders(g: Golden) -> Iterator[Row]:
    model = model_of(g)
    for kind, encoder in (("motion", model.motion_encoder), ("text", model.text_encoder)):
        x, mask = g.tensor(f"{kind}/x"), g.tensor(f"{kind}/mask")
        yield g.close(f"{kind}/seq_input", encoder.sequence(x), g[f"{kind}/seq_input"], atol=2e-5)
        encoded = encoder(x, mask)
        found = Distribution(*encoded.unbind(1))
        yield g.close(f"{kind}/encoded", encoded, g[f"{kind}/encoded"], atol=2e-5)
        yield g.close(f"{kind}/mu", found.mean, g[f"{kind}/mu"], atol=2e-5)
        yield g.close(f"{kind}/logvar", found.logvar, g[f"{kind}/logvar"], atol=2e-5)
        yield g.close(f"{kind}/latent_mean", found.mean, g[f"{kind}/latent_mean"], atol=2e-5)
        marker = f"{kind}/latent_sampled_fact"
        for key in g.keys(marker):
            sampled = found.sample(g.tensor(f"{kind}/eps"), float(key[len(marker) :]))
            yield g.close(key, sampled, g[key], atol=2e-5)
        alone = [encoder(x[i : i + 1, m], mask[i : i + 1, m]) for i, m in enumerate(mask)]
        yield g.close(
            f"{kind}/encoded_unpadded", torch.cat(alone), g[f"{kind}/encoded_unpadded"], atol=2e-5
        )
    table = model.motion_encoder.positions.pe[: len(g["pe/table"])]
    yield g.close("pe/table", table, g["pe/table"], atol=2e-5)
    yield g.close(
        "decode/out",
        model.motion_decoder(g.tensor("decode/z"), g.tensor("decode/mask")),
        g["decode/out"],
        atol=2e-5,
    )
    mask = g.tensor("motion/mask")
    for kind in ("text", "motion"):
        decoded = model.motion_decoder(g.tensor(f"{kind}/latent_mean"), mask)
        yield g.close(
            f"forward/{kind}_to_motion", decoded, g[f"forward/{kind}_to_motion"], atol=2e-5
        )
    yield from similarities(g)


def similarities(g: Golden) -> Iterator[Row]:
    x, y, paired = (g.tensor(f"sim/{name}") for name in ("x", "y", "y_paired"))
    matrix = F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).T
    yield g.close("sim/matrix", matrix, g["sim/matrix"], atol=2e-5)
    yield g.close("sim/score_matrix", matrix / 2 + 0.5, g["sim/score_matrix"], atol=2e-5)
    scores = similarity(x, paired)
    yield g.close("sim/score_vector", scores, g["sim/score_vector"], atol=2e-5)
    yield g.close("sim/score_1d", scores[0], g["sim/score_1d"], atol=2e-5)
    text, motion = g.tensor("text/latent_mean"), g.tensor("motion/latent_mean")
    yield g.close(
        "sim/text_motion_score_vector",
        similarity(text, motion),
        g["sim/text_motion_score_vector"],
        atol=2e-5,
    )


@covers("tmr_losses*.npz")
def losses(g: Golden) -> Iterator[Row]:
    model = model_of(g)
    motion, mask = g.tensor("batch/motion_x"), g.tensor("batch/motion_mask")
    texts = model.text_distribution(
        Condition(g.tensor("batch/text_x"), g.tensor("batch/text_mask"))
    )
    motions = model.motion_distribution(motion, mask)
    noise = (g.tensor("batch/eps_text"), g.tensor("batch/eps_motion"))
    exclude = similar_sentences(g.tensor("batch/sent_emb"), 0.80)
    found = tmr_losses(model, texts, motions, motion, mask, noise, exclude, LossWeights())
    for name in ("recons", "kl", "latent", "contrastive"):
        yield g.close(f"loss/{name}", getattr(found, name), g[f"loss/{name}"], rtol=1e-5)
    yield g.close("loss/loss", found.total, g["loss/loss"], rtol=1e-5)
    yield g.close("loss/t_latents", texts.sample(noise[0]), g["loss/t_latents"], atol=2e-5)
    yield g.close("loss/m_latents", motions.sample(noise[1]), g["loss/m_latents"], atol=2e-5)
    found.total.backward()
    named = dict(model.named_parameters())
    for key in g.keys("grad/"):
        scale = float(np.abs(g[key]).max())
        yield g.close(key, named[key[5:]].grad, g[key], rtol=1e-4, atol=1e-4 * scale)
    yield from loss_terms(g)
    yield from metrics(g)


def loss_terms(g: Golden) -> Iterator[Row]:
    t, m = (Distribution(g.tensor(f"kl/{k}_mu"), g.tensor(f"kl/{k}_logvar")) for k in ("t", "m"))
    standard = Distribution(torch.zeros_like(t.mean), torch.zeros_like(t.mean))
    pairs = {
        "t_vs_m": (t, m),
        "m_vs_t": (m, t),
        "m_vs_std": (m, standard),
        "t_vs_std": (t, standard),
    }
    for name, (q, p) in pairs.items():
        yield g.close(f"kl/{name}", kl_divergence(q, p), g[f"kl/{name}"], rtol=1e-5)
    target = g.tensor("batch/motion_x")
    for name, key in (("text", "t_motions"), ("motion", "m_motions")):
        loss = F.smooth_l1_loss(g.tensor(f"recons/{key}"), target)
        yield g.close(f"recons/{name}", loss, g[f"recons/{name}"], rtol=1e-5)
    latent = F.smooth_l1_loss(g.tensor("latent/x"), g.tensor("latent/y"))
    yield g.close("latent/loss", latent, g["latent/loss"], rtol=1e-5)
    sentences = g.tensor("nce/sent_emb")
    own = torch.eye(len(sentences), dtype=torch.bool)
    for i, (temperature, threshold, use) in enumerate(
        zip(g["nce/temperature"], g["nce/threshold_selfsim"], g["nce/use_sent_emb"], strict=True)
    ):
        exclude = similar_sentences(sentences, float(threshold)) if use and threshold else None
        loss = info_nce(g.tensor("nce/x"), g.tensor("nce/y"), float(temperature), exclude)
        yield g.close(f"nce/loss case {i}", loss, g["nce/loss"][i], rtol=1e-5)
        masked = 0 if exclude is None else int((exclude & ~own).sum())
        yield g.equal(f"nce/n_masked case {i}", masked, g["nce/n_masked"][i])


def metrics(g: Golden) -> Iterator[Row]:
    names = g.strings("metrics/names")

    def vector(figures: dict[str, float]) -> np.ndarray:
        return np.array([figures[name] for name in names if name in figures])

    def expected(key: str, figures: dict[str, float]) -> np.ndarray:
        return np.array([v for n, v in zip(names, g[key], strict=True) if n in figures])

    sims, sentences = g["metrics/sims"], g["metrics/sent_emb"]
    cases: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        "normal": (sims, None),
        "ties": (g["metrics/sims_ties"], None),
    }
    for key in g.keys("metrics/threshold_"):
        if key.count("_") == 1:
            threshold = float(key.rsplit("_", 1)[1])
            same = sentences @ sentences.T > 2 * threshold - 1
            np.fill_diagonal(same, True)
            cases[key.split("/")[1]] = (sims, same)
    for name, (matrix, correct) in cases.items():
        figures = retrieval_metrics(matrix, correct)
        yield g.close(
            f"metrics/{name}", vector(figures), expected(f"metrics/{name}", figures), atol=1e-9
        )
        for direction, part in (("t2m", matrix), ("m2t", matrix.T)):
            yield g.close(
                f"metrics/{name}_{direction}_rank0",
                tied_ranks(part, correct),
                g[f"metrics/{name}_{direction}_rank0"],
                atol=1e-9,
            )
    unrounded = retrieval_metrics(sims, digits=None)
    yield g.close(
        "metrics/normal_unrounded",
        vector(unrounded),
        expected("metrics/normal_unrounded", unrounded),
        atol=1e-9,
    )
    guo = batched_metrics(sims, g["metrics/guo_batches"])
    yield g.close("metrics/guo", vector(guo), expected("metrics/guo", guo), atol=1e-9)
    yield g.equal(
        "metrics/names known",
        set(names)
        <= {n for p in ("t2m", "m2t") for n in metrics_of_ranks(np.zeros(1), p)}
        | {n for n in names if n.endswith("/len")},
        True,
    )


@covers("tmr_text*.npz")
@torch.no_grad()
def texts(g: Golden) -> Iterator[Row]:
    captions = g.strings("captions")
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        write_distilbert(
            folder / "bert",
            json.loads(g.scalar("bert/config_json")),
            g.strings("bert/vocab"),
            g.state_dict("sd/"),
        )
        bert = DistilBertEncoder(str(folder / "bert"))
        condition = bert.encode(captions)
        yield g.equal("batch/length", condition.mask.sum(1), g["batch/length"])
        valid = condition.mask.numpy()
        yield g.close("batch/x", condition.tokens.numpy()[valid], g["batch/x"][valid], atol=2e-5)
        collated = CachedTextEncoder(bert, batch_size=1).encode(captions)
        yield g.close("collated/x", collated.tokens, g["collated/x"], atol=2e-5)
        yield g.equal("collated/mask", collated.mask, g["collated/mask"])
        yield from end_to_end(g, CachedTextEncoder(bert), captions)
    begin, end = g["cache/slice"][g.strings("cache/texts").index(g.scalar("cache/query"))]
    rows = pad_tokens([g.tensor("cache/big")[begin:end]])
    yield g.close("cache/query_x", rows.tokens[0], g["cache/query_x"], atol=1e-6)


def end_to_end(g: Golden, words: CachedTextEncoder, captions: list[str]) -> Iterator[Row]:
    stats = Statistics(
        "reward_stats", g.tensor("e2e/mean"), g.tensor("e2e/std"), g.scalar("e2e/eps")
    )
    model = TMR(config_of(g, "tmr_cfg/"), stats, words)
    model.load_state_dict(g.state_dict("tmr_sd/"))
    reward = TMRReward(model)
    raw = g.tensor("e2e/motion_raw").unsqueeze(0)
    lengths = torch.tensor([raw.shape[1]])
    normalised = model.normalize(raw, lengths)[0][0]
    yield g.close(
        "e2e/motion_normalised", normalised, g["e2e/motion_normalised"], atol=2e-5, rtol=1e-5
    )
    latent = reward.embed(Samples(raw, lengths))
    yield g.close("e2e/latent_motion", latent[0], g["e2e/latent_motion"], atol=2e-5)
    caption = g.scalar("e2e/caption")
    yield g.close(
        "e2e/latent_text", reward.embed_texts([caption])[0], g["e2e/latent_text"], atol=2e-5
    )
    score = reward.score(Samples(raw, lengths), [caption])[0]
    yield g.close("e2e/score", score, g["e2e/score"], atol=2e-5)
    yield g.equal("e2e/score_str", f"{float(score):.3}", g["e2e/score_str"])
    yield g.close(
        "e2e/latent_all_captions",
        reward.embed_texts(captions),
        g["e2e/latent_all_captions"],
        atol=2e-5,
    )
    repeated = raw.expand(len(captions), -1, -1)
    scores = reward.score(Samples(repeated, lengths.expand(len(captions))), captions)
    yield g.close("e2e/scores_all_captions", scores, g["e2e/scores_all_captions"], atol=2e-5)


@covers("tmr_stats*.npz")
def statistics(g: Golden) -> Iterator[Row]:
    name = g.scalar("example/dataset")
    stats = Statistics(
        "reward_stats", g.tensor(f"{name}/mean"), g.tensor(f"{name}/std"), g.scalar("eps")
    )
    yield g.equal("eps", stats.eps, STATS_EPS)
    yield g.close(
        "example/normalised",
        stats.normalize(g.tensor("example/raw")),
        g["example/normalised"],
        atol=1e-5,
        rtol=1e-6,
    )
    yield g.close(
        "example/inverse",
        stats.denormalize(g.tensor("example/normalised")),
        g["example/inverse"],
        atol=1e-6,
        rtol=1e-6,
    )


@covers("tmr_checkpoint*.json")
def full_size(g: Golden) -> Iterator[Row]:
    """Keys and shapes of the three published files."""
    for part, options in g.json["config"]["model"].items():
        if part not in ("motion_encoder", "text_encoder", "motion_decoder"):
            continue
        sizes = {k: v for k, v in options.items() if k not in ("_target_", "activation")}
        network = ActorDecoder if part == "motion_decoder" else ActorEncoder
        with torch.device("meta"):
            state = network(**sizes).state_dict()
        found = {key: list(value.shape) for key, value in state.items()}
        expected = g.json["state_dict_shapes"][f"last_weights/{part}.pt"]
        yield g.equal(f"{part} keys", sorted(found), sorted(expected))
        yield g.equal(f"{part} shapes", all(found.get(k) == v for k, v in expected.items()), True)
