"""From the results of generation to the runs of a page."""

from collections.abc import Mapping, Sequence

from data_loaders.annotations import Annotations
from data_loaders.facts import Fact
from data_loaders.humanml import resolve_dataset
from sample.results import Results
from sample.viewer.page import Motion, Run
from utils.errors import UserError

Facts = Mapping[str, Sequence[Fact]]


def stated_facts(dataset: str, data_dir: str = "") -> Facts:
    """What captions of a dataset state; empty where it is not there or carries no annotations."""
    try:
        folder = resolve_dataset(dataset, data_dir)
    except UserError:
        return {}
    annotations = Annotations.load(folder.path)
    notes = annotations.captions if annotations else {}
    return {caption: note.facts for caption, note in notes.items()}


def runs_of(results: Results, seed: int, facts: Facts) -> list[Run]:
    """A run per repetition, so that the motions of a caption stand side by side."""

    def motion(row: int) -> Motion:
        caption = results.text[row]
        return Motion(caption, results.joints(row), seed, facts=facts.get(caption, ()))

    samples, repetitions = range(results.num_samples), range(results.num_repetitions)
    return [
        Run(f"take {r + 1}", [motion(results.row(sample, r)) for sample in samples])
        for r in repetitions
    ]
