"""A resumed run encodes other captions together than an unbroken one, and comes to the same."""

import torch
from transformers import DistilBertConfig, DistilBertModel

from tests.golden.text_encoders import write_distilbert
from tests.train.scripts import Workspace, same_weights


def test_a_resumed_run_with_distilbert_equals_the_unbroken_one(
    workspace: Workspace, tmp_path
) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "person", "walks", "left", "right"]
    sizes = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}
    config = {**sizes, "vocab_size": len(words), "max_position_embeddings": 64}
    torch.manual_seed(0)
    state = DistilBertModel(DistilBertConfig(**config)).state_dict()
    write_distilbert(tmp_path / "bert", config, words, state)
    words = ["--arch", "trans_dec", "--text_encoder_type", "bert", "--save_interval", "2"]
    words += ["--text_encoder_path", str(tmp_path / "bert"), "--num_steps"]
    workspace.run("train_mdm", tmp_path / "whole", *words, "4")
    workspace.run("train_mdm", tmp_path / "parts", *words, "2")
    workspace.run("train_mdm", tmp_path / "parts", *words, "4", "--resume")
    last = "model000000004.pt"
    assert same_weights(tmp_path / "whole" / last, tmp_path / "parts" / last)
