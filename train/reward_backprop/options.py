"""The options of reward back-propagation."""

from dataclasses import dataclass

from diffusion.sampling import SamplerOptions
from rewards.load import RewardOptions
from train.tuning import TuningOptions
from utils.errors import UserError
from utils.options import option, with_default

METHODS = ("draft", "refl", "easytune")
LAST_STEPS = 10  # K of EasyTune's published settings


@dataclass
class BackpropOptions(RewardOptions, TuningOptions):
    method: str = option("draft", "which steps carry gradient to the reward", choices=METHODS)
    sampling_steps: int = option(50, "DDIM steps S of a sample", minimum=1)
    guidance_param: float | None = option(
        None, "guidance scale of the samples; none = as the model is sampled", minimum=0
    )
    backprop_steps: int | None = option(
        None, f"K: the last steps that carry gradient; none = {LAST_STEPS}, for refl 1", minimum=1
    )
    refl_range: int = option(
        20, "refl: its step is one of the last M - 1 of them, all alike likely", minimum=2
    )
    denoising_weight: float = option(
        0.0, "weight of the clips' plain denoising error, an anchor to the data", minimum=0
    )
    grad_clip: float = with_default(1.0)

    @property
    def last_steps(self) -> int:
        """K."""
        return self.backprop_steps or (1 if self.method == "refl" else LAST_STEPS)

    @property
    def sampler(self) -> SamplerOptions:
        return SamplerOptions("ddim", self.sampling_steps)

    def validate(self) -> None:
        RewardOptions.validate(self)
        if "evaluator" in self.reward:
            raise UserError("--reward evaluator has no gradient here; use --reward tmr")
        if self.method == "refl" and self.last_steps != 1:
            raise UserError(
                f"--method refl differentiates one step; leave out --backprop_steps "
                f"{self.backprop_steps}, and set --refl_range for where it lies"
            )
        name, count = "backprop_steps", self.last_steps
        if self.method == "refl":
            name, count = "refl_range", self.refl_range
        if count > self.sampling_steps:
            raise UserError(
                f"--{name} {count} exceeds the {self.sampling_steps} steps of --sampling_steps"
            )
