"""The script as a whole with tiny files, and what it hands to the evaluators."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_loaders.annotations import Annotations, CaptionNote
from data_loaders.humanml import open_dataset
from data_loaders.normalizer import Statistics
from data_loaders.skeleton import HUMANML
from eval.humanml_benchmark import Evaluation, Options, evaluate, log_path, prepare_evaluation
from eval.protocol import MODES, Embeddings, Protocol
from eval.split_embeddings import SplitEmbeddings
from eval.tables import Options as TableOptions
from eval.tables import compare
from model.seam import Samples
from model.text.encoders import Condition
from tests.data_loaders.datasets import write_dataset
from tests.model.momask.tiny import write_folders
from tests.rewards.evaluator_files import MEAN, STD, TINY, write_evaluators
from tests.rewards.glove import write_glove
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
        "split": "test",
        "replications": 2,
        "num_motions": 64,
        "diversity_pairs": 40,
        "device": "cpu",
    }
    return Options(**(settings | others))


def test_a_small_split_lowers_the_pairs_of_diversity_in_one_line(place: Path, capsys) -> None:
    prepared = prepare_evaluation(options_of(place, diversity_pairs=0))
    assert prepared.setting.diversity_pairs == prepared.evaluation.protocol.diversity_pairs == 32
    line = "Diversity of 32 pairs instead of 300: the split has 70 clips\n"
    assert capsys.readouterr().out == line
    with pytest.raises(UserError, match="--diversity_pairs"):
        prepare_evaluation(options_of(place, diversity_pairs=64))


def test_best_of_several_is_another_row(place: Path, tmp_path: Path) -> None:
    settings = {"output_dir": str(tmp_path), "reward": ["jerk"], "replications": 1}
    reward = {}
    for count in (1, 3):
        path = evaluate(options_of(place, **settings, best_of=count))
        reward[count] = read_json(path.with_suffix(".json"))["quality"]["generated"]["reward"]
    assert path.name.endswith("_debug_best3.log")
    assert reward[3] > reward[1]
    with pytest.raises(UserError, match="--best_of needs a reward"):
        options_of(place, best_of=2).validate()


def test_whole_evaluation_is_written_and_repeatable(place: Path, tmp_path: Path) -> None:
    path = evaluate(options_of(place, output_dir=str(tmp_path / "one")))
    assert path.name == "eval_humanml_mdm_000000007_gscale2.5_debug.log"
    assert path.read_text().count("!!! DONE !!!") == 2
    results = read_json(path.with_suffix(".json"))["results"]
    assert len(results["FID_vald"]["values"]) == 2
    assert results["FID_vald"]["mean"] > results["FID_ground truth"]["mean"]
    assert path.with_suffix(".md").read_text().splitlines()[-1].startswith("| mdm | ")
    assert r"\toprule" in path.with_suffix(".tex").read_text()
    assert path.with_suffix(".csv").read_text().splitlines()[-1].startswith("mdm,")
    assert not path.with_suffix(".progress.json").exists()
    again = evaluate(options_of(place, output_dir=str(tmp_path / "two")))
    assert read_json(again.with_suffix(".json"))["results"] == results
    other = evaluate(options_of(place, output_dir=str(tmp_path / "three"), seed=11))
    assert read_json(other.with_suffix(".json"))["results"] != results


def test_motions_of_tokens_are_judged_like_any(place: Path, tmp_path: Path) -> None:
    folder = write_folders(tmp_path / "momask", HUMANML)
    path = evaluate(options_of(place, model_path=str(folder), dataset="humanml", replications=1))
    assert path == folder / "eval_humanml_base_latest_gscale4.0_debug.log"
    content = read_json(path.with_suffix(".json"))
    assert content["name"] == "base"
    assert not content["broken_motions"]["0"]
    assert content["results"]["FID_vald"]["mean"] > content["results"]["FID_ground truth"]["mean"]


def test_compile_reaches_the_generator(place: Path) -> None:
    for compile in (True, False):
        evaluation = prepare_evaluation(options_of(place, compile=compile)).evaluation
        assert evaluation.generator.compiled is compile


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
    assert Options(model_path="model000000007.pt").split == "val"
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

    def blank(self, lengths: torch.Tensor) -> Samples:
        return Samples(
            torch.zeros(len(lengths), int(lengths.max()), self.stats.feature_dim), lengths
        )

    def sample(self, condition, like: Samples, rng) -> Samples:
        assert len(condition) == len(like)
        return Samples(torch.ones_like(like.x), like.lengths)

    def decode(self, samples: Samples) -> Samples:
        return Samples(self.stats.denormalize(samples.x), samples.lengths)


class RecordingEmbedder:
    """Embeds a motion as its length, and keeps what it was given."""

    width = 1

    def __init__(self, stats: Statistics) -> None:
        self.stats = stats
        self.motions: list[torch.Tensor] = []

    def embed_texts(self, tokens: list) -> torch.Tensor:
        return torch.tensor([[float(len(t))] for t in tokens])

    def embed_motions(self, motions: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        self.motions.append(motions)
        return lengths.float().unsqueeze(1)


@pytest.fixture
def evaluation(place: Path) -> Evaluation:
    data = open_dataset("humanml", "test", str(place / "HumanML3D"))
    width = data.stats.feature_dim
    stats = Statistics("evaluator_stats", torch.full((width,), MEAN), torch.full((width,), STD))
    protocol = Protocol(1, motions=64, diversity_pairs=40, repeated_captions=10, repeats=3)
    generator, embedder = ConstantGenerator(data.stats), RecordingEmbedder(stats)
    split = SplitEmbeddings(data, embedder)
    embedder.motions.clear()
    return Evaluation(generator, split, embedder, protocol, options_of(place))


def test_generated_motions_reach_the_evaluators_whole_and_in_their_statistics(
    evaluation: Evaluation,
) -> None:
    found = evaluation.generated(0)
    assert found.motions.shape == (64, 1)
    assert found.motions.max() <= LONGEST
    data, frames = evaluation.split.data.stats, evaluation.frames
    expected = (float(data.std[0]) + float(data.mean[0]) - MEAN) / STD
    for motions in evaluation.embedder.motions:  # the repeats among them
        assert motions.shape[1] == frames
        torch.testing.assert_close(motions, torch.full_like(motions, expected))


def test_repeats_are_of_one_caption_with_its_length(evaluation: Evaluation) -> None:
    repeated = evaluation.generated(0).repeated
    assert repeated.shape == (32, 3, 1)
    assert (repeated == repeated[:, :1]).all()
    assert len(np.unique(repeated)) > 1


def test_walks_and_replications_are_drawn_anew(evaluation: Evaluation) -> None:
    assert not (evaluation.ground_truth(0).motions == evaluation.ground_truth(1).motions).all()
    assert (evaluation.ground_truth(1).motions == evaluation.ground_truth(1).motions).all()
    assert not (evaluation.generated(0).motions == evaluation.generated(1).motions).all()


def test_broken_motions_are_named_and_harm_no_other(evaluation: Evaluation) -> None:
    whole = evaluation.generated(0)
    sample = evaluation.generator.sample

    def sometimes(condition, like: Samples, rng) -> Samples:
        samples = sample(condition, like, rng)
        samples.x[3, 7, 5] = torch.nan
        return samples

    evaluation.generator.sample = sometimes
    found = evaluation.generated(0)
    lost = np.isnan(found.motions[:, 0])
    assert np.flatnonzero(lost).tolist() == [3, 35]
    assert (found.motions[~lost] == whole.motions[~lost]).all()
    assert int(np.isnan(found.repeated).sum()) == 3  # 96 repeats in batches of 32
    assert len(found.broken) == 5
    assert set(found.broken) <= {entry.name for entry in evaluation.split.data.entries}


class Stopped(Exception):
    pass


@pytest.mark.parametrize("mode", ["debug", "mm_short"])
def test_a_stopped_evaluation_goes_on_to_the_figures_of_an_unbroken_one(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setitem(
        MODES,
        mode,
        Protocol(
            3,
            repeated_captions=0 if mode == "debug" else 20,
            repeats=3,
            multimodality_pairs=2,
        ),
    )
    settings = {"replications": 3, "eval_mode": mode}
    whole = evaluate(options_of(place, output_dir=str(tmp_path / "whole"), **settings))
    generated = Evaluation.generated

    def until_the_third(self: Evaluation, replication: int) -> Embeddings:
        if replication == 2:
            raise Stopped
        return generated(self, replication)

    parts = options_of(place, output_dir=str(tmp_path / "parts"), **settings)
    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "generated", until_the_third)
        with pytest.raises(Stopped):
            evaluate(parts)
    with open(log_path(parts), "a") as file:
        file.write("half a replication")
    numbers: list[int] = []
    monkeypatch.setattr(
        Evaluation, "generated", lambda self, r: numbers.append(r) or generated(self, r)
    )
    path = evaluate(replace(parts, resume=True))
    assert numbers == [2]
    results = [read_json(p.with_suffix(".json"))["results"] for p in (path, whole)]
    assert results[0] == results[1]
    logs = [re.sub("Time: .*", "", p.read_text()) for p in (path, whole)]
    assert logs[0] == logs[1]


def test_resume_refuses_other_options_and_nothing_to_resume(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_of(place, output_dir=str(tmp_path), resume=True)
    with pytest.raises(UserError, match="nothing to go on with"):
        evaluate(options)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # keep the progress of a whole run
    evaluate(replace(options, resume=False))
    with pytest.raises(UserError, match="batch_size"):
        evaluate(replace(options, batch_size=16))


def test_distinct_meanings_are_drawn_and_told_where_a_dataset_has_annotations(
    place: Path, tmp_path: Path
) -> None:
    names = [f"{i:06d}" for i in range(CLIPS)]
    notes = {
        f"{name} {end}": CaptionNote((), name)
        for name in names
        for end in ("walks", "runs to the left")
    }
    shutil.copytree(place / "HumanML3D", tmp_path / "HumanML3D")
    Annotations(notes, {}).save(tmp_path / "HumanML3D")
    settings = {"data_dir": str(tmp_path / "HumanML3D"), "output_dir": str(tmp_path / "out")}
    path = evaluate(options_of(place, **settings))
    assert "captions of distinct meanings" in path.with_suffix(".md").read_text()
    content = read_json(path.with_suffix(".json"))
    assert content["setting"]["pools"] == "distinct meanings"
    rival = evaluate(options_of(place, output_dir=str(tmp_path / "other")))
    files = [str(p.with_suffix(".json")) for p in (path, rival)]
    with pytest.raises(UserError, match="pools is distinct meanings in the first and random"):
        compare(TableOptions(compare=files, names=["a", "b"]))


def test_too_few_meanings_are_told_before_anything_is_generated(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = [f"{i:06d} {end}" for i in range(CLIPS) for end in ("walks", "runs to the left")]
    notes = {caption: CaptionNote((), caption.split()[1]) for caption in captions}
    shutil.copytree(place / "HumanML3D", tmp_path / "HumanML3D")
    Annotations(notes, {}).save(tmp_path / "HumanML3D")
    monkeypatch.setattr(Evaluation, "generated", lambda *_: pytest.fail("generated"))
    with pytest.raises(UserError, match="distinct meanings, these captions have 2"):
        evaluate(options_of(place, data_dir=str(tmp_path / "HumanML3D")))
