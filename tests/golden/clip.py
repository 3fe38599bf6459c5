"""OpenAI's CLIP text tower against upstream's numbers."""

from collections.abc import Iterator

import torch

from model.text.encoders import clip_token_ids
from model.text.openai_clip import BPE_FILE, load_tokenizer, text_model
from tests.golden.base import Golden, Row, covers
from utils.places import PROJECT_ROOT

VOCABULARY = PROJECT_ROOT / "clip"  # where prepare/download_clip.sh puts it


@covers("clip_text*.npz")
@torch.no_grad()
def clip_text(g: Golden) -> Iterator[Row]:
    """Token ids need CLIP's vocabulary on disk; the tower is compared on the recorded ids."""
    if (VOCABULARY / BPE_FILE).is_file():
        ids = clip_token_ids(load_tokenizer(VOCABULARY), g.strings("captions"))
        yield g.equal("tokens", ids, g["tokens"])
    else:
        print(f"note: {g.name}: its tokens are compared only when {BPE_FILE} is in {VOCABULARY}")
    state = g.state_dict()
    known = g.tensor("token_embedding/ids")
    end = max(int(known.max()), int(g["tokens"].max()))
    table = torch.zeros(end + 1, g.scalar("config/width"))  # rows that no caption uses stay 0
    table[known] = g.tensor("token_embedding/rows")
    model = text_model({**state, "token_embedding.weight": table}, heads=g.scalar("config/heads"))
    sizes = (model.config.num_hidden_layers, model.config.projection_dim)
    yield g.equal("sizes", sizes, (g.scalar("config/layers"), g.scalar("config/embed_dim")))
    vectors = model(input_ids=g.tensor("tokens")).text_embeds
    yield g.close("text_embed", vectors, g.tensor("text_embed").squeeze(0), atol=2e-5)
