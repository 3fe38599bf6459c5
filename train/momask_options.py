"""The options of MoMask's trainings, and which of them belong to which network."""

from dataclasses import dataclass, fields
from pathlib import Path

from model.momask.checkpoints import LENGTHS_FOLDER, RESIDUAL_PREFIX, TEXT_ENCODERS
from model.momask.rvq import RVQConfig
from model.momask.transformers import TransformerConfig
from model.text.encoders import TextEncoderOptions
from train.data import TrainingOptions
from utils.errors import UserError
from utils.options import option, with_default

STAGES = ("rvq", "base", "residual", "lengths")


@dataclass
class MoMaskOptions(RVQConfig, TransformerConfig, TrainingOptions, TextEncoderOptions):
    stage: str = option("", "network to train, one after the other", choices=STAGES, required=True)
    vq_name: str = option("rvq", "folder of the finished RVQ, which lies beside save_dir")
    window: int = option(64, "frames of the motions that the RVQ learns from", minimum=4)
    positions_weight: float = option(
        0.5, "further weight of the joint positions in the RVQ's loss", minimum=0
    )
    commitment_weight: float = option(0.02, "of the commitment loss of the RVQ", minimum=0)
    text_encoder_type: str = option(
        "clip", "text encoder; builtin needs no download", choices=TEXT_ENCODERS
    )
    dropout: float = with_default(0.2, "dropout in training")
    lr: float = with_default(2e-4)
    adam_beta2: float = with_default(0.99)

    def validate(self) -> None:
        """Raises UserError for options of another network, and for a folder in which nothing would
        find this one."""
        for name in sorted(OF_ANY_STAGE - OF_STAGE[self.stage]):
            if getattr(self, name) != getattr(type(self)(), name):
                raise UserError(f"--{name} is no option of --stage {self.stage}; leave it out")
        name = Path(self.save_dir).name
        if self.stage == "residual" and not name.startswith(RESIDUAL_PREFIX):
            raise UserError(
                f"--save_dir {self.save_dir}: residual transformers are found by their names, "
                f"which begin with {RESIDUAL_PREFIX}"
            )
        if self.stage == "lengths" and name != LENGTHS_FOLDER:
            raise UserError(
                f"--save_dir {self.save_dir}: the length estimator is looked for in a folder "
                f"{LENGTHS_FOLDER} beside the transformers"
            )
        if Path(self.vq_name).name != self.vq_name:
            raise UserError(
                f"--vq_name {self.vq_name}: a name, not a path; it lies beside save_dir"
            )
        if self.latent_dim % self.n_heads:
            raise UserError(
                f"--n_heads {self.n_heads} does not divide --latent_dim {self.latent_dim}"
            )
        if self.stage == "rvq":
            self._validate_rvq()

    def _validate_rvq(self) -> None:
        if self.use_ema:
            raise UserError(
                "--use_ema: the codebooks of an RVQ follow its encoder, so averages of the encoder "
                "would meet codes of another one; leave it out"
            )
        unit = self.rvq_config().frames_per_token
        if self.window % unit:
            raise UserError(f"--window {self.window} must be a multiple of {unit} frames")

    @property
    def vq_folder(self) -> Path:
        return Path(self.save_dir).absolute().parent / self.vq_name

    def rvq_config(self) -> RVQConfig:
        return RVQConfig(**{field.name: getattr(self, field.name) for field in fields(RVQConfig)})

    def transformer_config(self) -> TransformerConfig:
        sizes = {field.name: getattr(self, field.name) for field in fields(TransformerConfig)}
        shared = self.share_weight and self.stage == "residual"
        return TransformerConfig(**{**sizes, "share_weight": shared})


def _names(kind: type) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind)) - {"dropout"}


OF_RVQ = _names(RVQConfig) | {"window", "positions_weight", "commitment_weight"}
OF_CAPTIONS = frozenset({"vq_name", "text_encoder_type", "text_encoder_path"})
OF_RESIDUAL = _names(TransformerConfig) | OF_CAPTIONS
OF_STAGE = {
    "rvq": OF_RVQ,
    "base": OF_RESIDUAL - {"share_weight"},
    "residual": OF_RESIDUAL,
    "lengths": OF_CAPTIONS,
}
OF_ANY_STAGE = OF_RVQ | OF_RESIDUAL
