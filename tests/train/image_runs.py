"""Tiny runs of the tuning of pictures."""

from pathlib import Path

from tests.model.image.tiny import REDNESS


def image_arguments(data: Path, pipeline: Path, save_dir: Path) -> list[str]:
    """Two steps of ``train.train_sopo_image`` with a reward that looks at one colour."""
    given = {
        "data_dir": data,
        "model_path": pipeline,
        "reward": REDNESS,
        "save_dir": save_dir,
        "device": "cpu",
        "batch_size": 2,
        "accumulate": 2,
        "num_candidates": 2,
        "candidate_steps": 2,
        "lora_rank": 2,
        "num_steps": 2,
        "val_pictures": 2,
        "val_interval": 1,
        "probe_batches": 1,
        "log_interval": 1,
        "train_platform_type": "NoPlatform",
    }
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]
