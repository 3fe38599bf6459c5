"""What a run shows of itself at every saved checkpoint: benchmark figures and generated motions.

The options have upstream's names; both are off by default.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_loaders.humanml import resolve_dataset
from eval import humanml_benchmark
from model.text.encoders import TextEncoderOptions
from rewards.co_embedding import EvaluatorFiles, EvaluatorPaths
from sample import generation
from train.data import TrainingOptions
from utils.options import option


@dataclass
class InspectionOptions(TrainingOptions, TextEncoderOptions, EvaluatorPaths):
    eval_during_training: bool = option(
        False, "benchmark every checkpoint; needs the evaluators", free="always"
    )
    eval_split: str = option(
        "val", "split of that benchmark; test would leak into your choices", free="always"
    )
    eval_batch_size: int = option(32, "motions generated at once for it", minimum=1, free="always")
    eval_rep_times: int = option(3, "its replications", minimum=1, free="always")
    eval_num_samples: int = option(
        1000, "motions generated per replication", minimum=1, free="always"
    )
    gen_during_training: bool = option(
        False, "generate motions from every checkpoint", free="always"
    )
    gen_num_samples: int = option(
        3, "captions of the val split to generate for", minimum=1, free="always"
    )
    gen_num_repetitions: int = option(2, "motions per caption", minimum=1, free="always")
    gen_guidance_param: float | None = option(
        None, "guidance scale of both; none = as published", minimum=0, free="always"
    )


def inspector(options: InspectionOptions) -> Callable[[Path], None]:
    """What to do with each saved checkpoint.

    Raises UserError at once where the evaluators of a wanted benchmark are missing.
    """
    if options.eval_during_training:
        folder = resolve_dataset(options.dataset, options.data_dir)
        EvaluatorFiles.find(options.dataset, folder.path, options.evaluator_dir, options.glove_dir)

    def inspect(path: Path) -> None:
        common = {
            "model_path": str(path),
            "guidance_param": options.gen_guidance_param,
            "seed": options.seed,
            "dataset": options.dataset,
            "data_dir": options.data_dir,
            "text_encoder_path": options.text_encoder_path,
            "device": options.device,
            "overwrite": True,
        }
        if options.gen_during_training:
            generation.generate(
                generation.Options(
                    num_samples=options.gen_num_samples,
                    num_repetitions=options.gen_num_repetitions,
                    split="val",
                    **common,
                )
            )
        if options.eval_during_training:
            humanml_benchmark.evaluate(
                humanml_benchmark.Options(
                    eval_mode="debug",
                    split=options.eval_split,
                    batch_size=options.eval_batch_size,
                    replications=options.eval_rep_times,
                    num_motions=options.eval_num_samples,
                    evaluator_dir=options.evaluator_dir,
                    glove_dir=options.glove_dir,
                    **common,
                )
            )

    return inspect
