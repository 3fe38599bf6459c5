"""The script as a whole with tiny files, and what it hands to the evaluators."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data_loaders.humanml import open_dataset
from data_loaders.normalizer import Statistics
from eval.eval_humanml import Evaluation, Options, evaluate, log_path
from eval.protocol import Protocol
from model.text_encoders import Condition
from tests.data_loaders.datasets import write_dataset
from tests.data_loaders.glove import write_glove
from tests.eval.evaluator_files import MEAN, STD, TINY, write_evaluators
from tests.sample.checkpoints import write_tiny_checkpoint
from utils.errors import UserError
from utils.files import read_json

CLIPS, LONGEST = 70, 63


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, a model, evaluators and word vectors."""
    root = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    lengths = {f"{i:06d}": int(rng.integers(40, LONGEST + 1)) for i in range(CLIPS)}
    write_dataset(root / "HumanML3D", lengths)
    write_evaluators(root / "t2m")
    write_glove(root / "glove", width=TINY.word)
    write_tiny_checkpoint(root / "mdm")
    return root


def options_of(place: Path, **others: object) -> Options:
    settings = {
        "model_path": str(place / "mdm" / "model000000007.pt"),
        "eval_mode": "debug",
        "data_dir": str(place / "HumanML3D"),
        "evaluator_dir": str(place / "t2m"),
        "glove_dir": str(place / "glove"),
        "replications": 2,
        "num_motions": 64,
        "diversity_pairs": 40,
        "device": "cpu",
    }
    return Options(**(settings | others))


def test_whole_evaluation_is_written_and_repeatable(place: Path, tmp_path: Path) -> None:
    path = evaluate(options_of(place, output_dir=str(tmp_path / "one")))
    assert path.name == "eval_humanml_mdm_000000007_gscale2.5_debug.log"
    assert path.read_text().count("!!! DONE !!!") == 2
    results = read_json(path.with_suffix(".json"))["results"]
    assert len(results["FID_vald"]["values"]) == 2
    assert results["FID_vald"]["mean"] > results["FID_ground truth"]["mean"]
    assert path.with_suffix(".md").read_text().splitlines()[-1].startswith("| mdm | ")
    again = evaluate(options_of(place, output_dir=str(tmp_path / "two")))
    assert read_json(again.with_suffix(".json"))["results"] == results
    other = evaluate(options_of(place, output_dir=str(tmp_path / "three"), seed=11))
    assert read_json(other.with_suffix(".json"))["results"] != results


def test_an_earlier_log_is_kept_unless_told_otherwise(place: Path, tmp_path: Path) -> None:
    options = options_of(place, output_dir=str(tmp_path))
    log_path(options).write_text("hours of work")
    with pytest.raises(UserError, match="--overwrite"):
        evaluate(options)
    assert log_path(options).read_text() == "hours of work"


def test_log_name_tells_what_upstream_does_not_have(place: Path) -> None:
    def name(**others: object) -> str:
        return log_path(options_of(place, **others)).name

    start = "eval_humanml_mdm_000000007"
    assert name(guidance_param=1.0, eval_mode="wo_mm") == f"{start}_wo_mm.log"
    assert name(sampler="ddim", sample_steps=2) == f"{start}_gscale2.5_debug_ddim2.log"
    assert name(split="val") == f"{start}_gscale2.5_debug_val.log"
    assert log_path(options_of(place)).parent == place / "mdm"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluator_dir": "nowhere"}, r"lacks nowhere/text_mot_match/model/finest\.tar"),
        ({"glove_dir": "nowhere"}, r"lacks nowhere/our_vab_data\.npy"),
        ({"diversity_pairs": 300}, "need 301"),
        ({"eval_mode": "mm_short"}, "multimodality needs 4 pools"),
        ({"model_path": "nowhere/model000000001.pt"}, "does not exist"),
    ],
)
def test_what_cannot_work_is_told_before_it_runs(
    place: Path, tmp_path: Path, settings: dict, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(options_of(place, output_dir=str(tmp_path), **settings))
    assert not list(tmp_path.iterdir())


class ConstantGenerator:
    """Samples the value 1 everywhere, also after the lengths, up to the longest motion."""

    device = torch.device("cpu")

    def __init__(self, stats: Statistics) -> None:
        self.stats = stats

    def encode_text(self, captions: list[str]) -> Condition:
        return Condition(torch.zeros(len(captions), 1, 1), torch.ones(len(captions), 1).bool())

    def sample(self, condition, lengths, sampler, guidance, generator=None) -> torch.Tensor:
        assert len(condition) == len(lengths)
        return torch.ones(len(lengths), int(lengths.max()), self.stats.feature_dim)


class RecordingEmbedder:
    """Embeds a motion as its length, and keeps what it was given."""

    def __init__(self, stats: Statistics) -> None:
        self.stats = stats
        self.motions: list[torch.Tensor] = []

    def embed_texts(self, tokens: list) -> torch.Tensor:
        return torch.zeros(len(tokens), 1)

    def embed_motions(self, motions: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        self.motions.append(motions)
        return lengths.float().unsqueeze(1)


@pytest.fixture
def evaluation(place: Path) -> Evaluation:
    data = open_dataset("humanml", "test", str(place / "HumanML3D"))
    width = data.stats.feature_dim
    stats = Statistics("evaluator_stats", torch.full((width,), MEAN), torch.full((width,), STD))
    protocol = Protocol(1, motions=64, diversity_pairs=40, repeated_captions=10, repeats=3)
    options = options_of(place)
    generator, embedder = ConstantGenerator(data.stats), RecordingEmbedder(stats)
    return Evaluation(generator, data, embedder, protocol, options)


def test_generated_motions_reach_the_evaluators_whole_and_in_their_statistics(
    evaluation: Evaluation,
) -> None:
    found = evaluation.generated(0)
    assert found.motions.shape == (64, 1)
    assert found.motions.max() <= LONGEST
    data, frames = evaluation.data.stats, evaluation.data.skeleton.max_length
    expected = (float(data.std[0]) + float(data.mean[0]) - MEAN) / STD
    for motions in evaluation.embedder.motions:  # the repeats among them
        assert motions.shape[1] == frames
        torch.testing.assert_close(motions, torch.full_like(motions, expected))


def test_repeats_are_of_one_caption_with_its_length(evaluation: Evaluation) -> None:
    repeated = evaluation.generated(0).repeated
    assert repeated.shape == (32, 3, 1)
    assert (repeated == repeated[:, :1]).all()
    assert len(np.unique(repeated)) > 1


def test_ground_truth_is_zero_after_the_length_and_normalised_directly(
    evaluation: Evaluation,
) -> None:
    found = evaluation.ground_truth(0)
    assert len(found.motions) == 64
    motions, lengths = torch.cat(evaluation.embedder.motions), found.motions[:, 0]
    for motion, length in zip(motions, lengths.astype(int), strict=True):
        assert (motion[length:] == 0).all()
        raw = motion[:length] * STD + MEAN  # 1000 number + frame, see the dataset's helper
        assert raw[0, 0] >= 999
        torch.testing.assert_close(
            raw[1:, 0] - raw[:-1, 0], torch.ones(length - 1), atol=0.05, rtol=0
        )


def test_walks_and_replications_are_drawn_anew(evaluation: Evaluation) -> None:
    assert not (evaluation.ground_truth(0).motions == evaluation.ground_truth(1).motions).all()
    assert (evaluation.ground_truth(1).motions == evaluation.ground_truth(1).motions).all()
    assert not (evaluation.generated(0).motions == evaluation.generated(1).motions).all()


def test_diverged_models_are_told(evaluation: Evaluation) -> None:
    evaluation.generator.stats = Statistics(
        "dataset_stats", evaluation.data.stats.mean, evaluation.data.stats.std
    )
    evaluation.generator.sample = lambda condition, lengths, *_, **__: torch.full(
        (len(lengths), int(lengths.max()), evaluation.data.stats.feature_dim), float("nan")
    )
    with pytest.raises(UserError, match="diverged"):
        evaluation.generated(0)
