"""The frozen text encoders of latent motion diffusion and of ReAlign's reward.

MLD (2023) reads CLIP ViT-L/14, MotionLCM's models read sentence-T5-large, one vector per caption;
ReAlign reads the tokens before them. Both come from a local `transformers` folder or the hub.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from model.text.condition import Condition, pad_tokens, pooled_condition
from model.text.pretrained import from_pretrained
from utils.errors import UserError
from utils.files import load_tensors

CLIP_LARGE = "openai/clip-vit-large-patch14"
SENTENCE_T5 = "sentence-transformers/sentence-t5-large"
T5_CONTEXT = 256  # the published model's own cut, end token included
DENSE_FILES = ("2_Dense/model.safetensors", "2_Dense/pytorch_model.bin")


class ClipLargeEncoder:
    """CLIP's projected text feature at the first end token, not normalised; 77-token cut.

    Captions are padded with the tokenizer's own pad token to 77, without an attention mask.
    """

    pooled = True

    def __init__(self, path: str = CLIP_LARGE, device: torch.device | str = "cpu") -> None:
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        self.tokenizer = from_pretrained(AutoTokenizer, path, "CLIP")
        model = from_pretrained(CLIPTextModelWithProjection, path, "CLIP", weights=True)
        self.model = model.float().to(device).eval().requires_grad_(False)
        self.width: int = self.model.config.projection_dim

    def token_ids(self, captions: list[str]) -> Tensor:
        """``[B, 77]``."""
        size = self.model.config.max_position_embeddings
        batch = self.tokenizer(
            captions, padding="max_length", truncation=True, max_length=size, return_tensors="pt"
        )
        return batch["input_ids"]

    @torch.no_grad()
    def encode(self, captions: list[str]) -> Condition:
        ids = self.token_ids(captions).to(self.model.device)
        vectors = [self.model(input_ids=row).text_embeds for row in ids.split(1)]
        return pooled_condition(torch.cat(vectors))


class T5TokenEncoder:
    """The last hidden state of every token of a caption, its end token included.

    The hub's weights are in half precision and are read as float32.
    """

    pooled = False

    def __init__(self, path: str = SENTENCE_T5, device: torch.device | str = "cpu") -> None:
        from transformers import AutoTokenizer, T5EncoderModel

        self.tokenizer = from_pretrained(AutoTokenizer, path, "sentence-T5")
        model = from_pretrained(T5EncoderModel, path, "sentence-T5", weights=True)
        self.model = model.float().to(device).eval().requires_grad_(False)
        self.width: int = self.model.config.d_model

    def token_ids(self, caption: str) -> Tensor:
        """``[L]``; blanks around the caption count nothing."""
        batch = self.tokenizer(
            [caption.strip()], truncation=True, max_length=T5_CONTEXT, return_tensors="pt"
        )
        return batch["input_ids"][0]

    def encode(self, captions: list[str]) -> Condition:
        return pad_tokens([self.tokens(caption) for caption in captions])

    @torch.no_grad()
    def tokens(self, caption: str) -> Tensor:
        """``[L, E]`` of one caption."""
        ids = self.token_ids(caption).to(self.model.device)
        return self.model(input_ids=ids[None]).last_hidden_state[0]


class SentenceT5Encoder(T5TokenEncoder):
    """The mean over a caption's tokens, then a linear layer, then unit length (Ni et al.,
    "Sentence-T5", 2021)."""

    pooled = True

    def __init__(self, path: str = SENTENCE_T5, device: torch.device | str = "cpu") -> None:
        super().__init__(path, device)
        self.dense = read_dense(path).to(device)
        self.width = len(self.dense)

    def encode(self, captions: list[str]) -> Condition:
        means = [self.tokens(caption).mean(dim=0, keepdim=True) for caption in captions]
        vectors = [F.normalize(F.linear(mean, self.dense), dim=-1) for mean in means]
        return pooled_condition(torch.cat(vectors))


def read_dense(path: str) -> Tensor:
    """Weight ``[768, 1024]`` of the layer after the mean, from ``2_Dense`` of a folder or the hub.

    Raises UserError when it is missing or of another form.
    """
    file = _dense_file(path)
    state = load_file(file) if file.suffix == ".safetensors" else load_tensors(file)
    weight = state.get("linear.weight") if isinstance(state, dict) else None
    if not torch.is_tensor(weight) or set(state) != {"linear.weight"}:
        raise UserError(f"{file} must hold linear.weight and nothing else; fetch {path} again")
    return weight.float()


def _dense_file(path: str) -> Path:
    from transformers.utils import cached_file

    for only_local in (True, False):
        for name in DENSE_FILES:
            try:
                return Path(cached_file(path, name, local_files_only=only_local))
            except OSError:
                continue
    raise UserError(
        f"{path} lacks {DENSE_FILES[0]}, the last layer of sentence-T5; fetch the whole of "
        f"{SENTENCE_T5} and pass its folder as --text_encoder_path"
    )
