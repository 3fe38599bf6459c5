"""The co-embedding evaluators, their word vectors and protocol, against upstream's numbers."""

import re
from collections.abc import Iterator

import numpy as np
import torch

from eval.protocol import (
    Embeddings,
    Protocol,
    report,
    run_replications,
    summarize,
)
from rewards.co_embedding import Evaluators, EvaluatorSizes, MovementConvDecoder
from rewards.word_vectors import CLASSES, VIP_CLASS, VIP_WORDS, Sentences, WordVectorizer
from tests.golden.base import Golden, Row, covers


@covers("word_vectorizer*.npz")
def words(g: Golden) -> Iterator[Row]:
    vocabulary = dict(zip(g.strings("vocab/words"), g["vocab/index"].tolist(), strict=True))
    vectorizer = WordVectorizer(g["vocab/data"], vocabulary)
    order = dict(zip(g.strings("pos/names"), g["pos/index"].tolist(), strict=True))
    yield g.equal("pos/index", [CLASSES.index(name) for name in order], list(order.values()))
    yield g.equal("vip/names", list(VIP_WORDS), g["vip/names"])
    for name in g.strings("vip/names"):
        ours = sorted(word for word, found in VIP_CLASS.items() if found == name)
        yield g.equal(f"vip/{name}", ours, sorted(set(g.strings(f"vip/{name}"))))
    captions = [tuple(line.split()) for line in g.strings("token_strings")]
    found = vectorizer.encode(captions)
    yield g.equal("word_embeddings", found.words, g["word_embeddings"])
    yield g.equal("pos_one_hots", found.classes, g["pos_one_hots"])
    yield g.equal("sent_len", found.lengths, g["sent_len"])
    rows, classes = zip(*map(vectorizer.token, g.strings("single/tokens")), strict=True)
    yield g.equal("single/word_vec", vectorizer.vectors[list(rows)], g["single/word_vec"])
    yield g.equal(
        "single/pos_one_hot", np.eye(len(CLASSES))[list(classes)], g["single/pos_one_hot"]
    )
    known = [token.split("/")[0] in vocabulary for token in g.strings("single/tokens")]
    yield g.equal("single/in_vocab", known, g["single/in_vocab"])


@covers("t2m_evaluators*.npz")
@torch.no_grad()
def embeddings(g: Golden) -> Iterator[Row]:
    evaluators = Evaluators(
        EvaluatorSizes(
            features=g.scalar("config/dim_pose"),
            movement_hidden=g.scalar("config/dim_movement_enc_hidden"),
            movement=g.scalar("config/dim_movement_latent"),
            word=g["word_embs"].shape[-1],
            text_hidden=g.scalar("config/dim_text_hidden"),
            motion_hidden=g.scalar("config/dim_motion_hidden"),
            embedding=g.scalar("config/dim_coemb_hidden"),
        )
    ).eval()
    for name, network in evaluators.named_children():
        network.load_state_dict(g.state_dict(f"sd_{name}/"), strict=True)
    motions, lengths = g.tensor("motions"), g.tensor("m_lens")
    sentences = Sentences(g.tensor("word_embs"), g.tensor("pos_onehot"), g.tensor("cap_lens"))
    movements = evaluators.movement_encoder(motions)
    yield g.close("movements", movements, g["movements"], atol=1e-5)
    texts = evaluators.embed_texts(sentences)
    found = evaluators.embed_motions(motions, lengths)
    yield g.close("co/text_embedding", texts, g["co/text_embedding"], atol=1e-5)
    yield g.close("co/motion_embedding", found, g["co/motion_embedding"], atol=1e-5)
    order = g["co/align_idx"]
    for name, ours in (("text", texts), ("motion", found)):
        key = f"co/{name}_embedding_sorted"
        yield g.close(key, ours[order], g[key], atol=1e-5)
    valid = torch.arange(motions.shape[1]) < lengths[:, None]
    padded = evaluators.embed_motions(motions * valid.unsqueeze(-1), lengths)
    key = "co/motion_embedding_zero_padded"
    yield g.close(key, padded, g[key], atol=1e-5)


@covers("t2m_evaluators_keys*.json")
def full_size(g: Golden) -> Iterator[Row]:
    """Keys and shapes of the published checkpoints."""
    for dataset, features in (("t2m", 263), ("kit", 251)):
        with torch.device("meta"):
            evaluators = Evaluators(EvaluatorSizes(features=features))
        published = g.json[dataset]["text_mot_match/model/finest.tar"]
        for name, network in evaluators.named_children():
            found = {key: list(value.shape) for key, value in network.state_dict().items()}
            yield g.equal(f"{dataset} {name} keys", sorted(found), sorted(published[name]))
            yield g.equal(f"{dataset} {name} shapes", found == published[name], True)
        with torch.device("meta"):
            decoder = MovementConvDecoder(features, hidden=512, latent=512)
        found = {key: list(value.shape) for key, value in decoder.state_dict().items()}
        published = g.json[dataset]["Decomp_SP001_SM001_H512/model/latest.tar"]["movement_dec"]
        yield g.equal(f"{dataset} movement_dec", found == published, True)


@covers("evaluation_protocol*.npz")
def protocol(g: Golden) -> Iterator[Row]:
    sizes = Protocol(
        replications=g.scalar("replication_times"),
        diversity_pairs=g.scalar("diversity_times"),
        multimodality_pairs=g.scalar("mm_num_times"),
    )
    lines: list[str] = []
    replications = run_replications(
        sizes,
        lambda r: Embeddings(g["gen_text"][r], g["gen_motion"][r], g["gen_multimodal"][r]),
        lambda walk: Embeddings(g["gt_text"], g["gt_motion"]),
        np.random.RandomState(g.scalar("numpy_seed")),
        lines.append,
    )
    summary = summarize(replications)
    for key, estimate in report(summary).items():
        for part in ("values", "mean", "conf_interval"):
            yield g.close(f"{part}/{key}", estimate[part], g[f"{part}/{key}"], atol=1e-5)
    yield g.equal("metrics", len(report(summary)), len(g.keys("mean/")))
    log = _comparable("\n".join(lines))
    yield g.equal("log_text", log, _comparable(g.scalar("log_text")))


def _comparable(log: str) -> list[str]:
    """Lines without dates; a zero has no sign."""
    text = re.sub(r"Time: .*", "Time:", log).replace("-0.0000", "0.0000")
    return text.rstrip("\n").split("\n")
