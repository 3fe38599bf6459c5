"""The sidecar ``annotations.json`` of prepared datasets: what captions state, and clip families."""

from dataclasses import dataclass, field
from pathlib import Path

from data_loaders.facts import FACT_CHECKS, Fact
from utils.errors import UserError
from utils.files import read_json, write_json

FILE_NAME = "annotations.json"


@dataclass(frozen=True)
class CaptionNote:
    """facts: stated by the caption. meaning: equal for captions that state the same."""

    facts: tuple[Fact, ...]
    meaning: str


@dataclass(frozen=True)
class ClipNote:
    """family: the content without side, style or count; labels: free for the dataset."""

    family: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass
class Annotations:
    """captions: text -> note; clips: id -> note."""

    captions: dict[str, CaptionNote] = field(default_factory=dict)
    clips: dict[str, ClipNote] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        content = {
            "captions": {
                text: {"facts": [[f.kind, f.value] for f in n.facts], "meaning": n.meaning}
                for text, n in self.captions.items()
            },
            "clips": {
                name: {"family": n.family, "labels": n.labels} for name, n in self.clips.items()
            },
        }
        write_json(folder / FILE_NAME, content)

    @staticmethod
    def load(folder: Path) -> "Annotations | None":
        """None where the folder has none; raises UserError when the file is malformed."""
        path = folder / FILE_NAME
        if not path.is_file():
            return None
        content = read_json(path)
        try:
            captions = {
                text: CaptionNote(tuple(Fact(k, v) for k, v in note["facts"]), note["meaning"])
                for text, note in content["captions"].items()
            }
            clips = {
                name: ClipNote(note["family"], note.get("labels", {}))
                for name, note in content["clips"].items()
            }
            texts = [n.meaning for n in captions.values()] + [n.family for n in clips.values()]
            if not all(isinstance(text, str) for text in texts):
                raise TypeError("a meaning or a family is no text")
            if not all(isinstance(note.labels, dict) for note in clips.values()):
                raise TypeError("labels are no dictionary")
            unknown = {f.kind for n in captions.values() for f in n.facts} - set(FACT_CHECKS)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is malformed ({type(error).__name__}: {error})") from None
        if unknown:
            raise UserError(f"{path} states facts of unknown kind: {', '.join(sorted(unknown))}")
        return Annotations(captions, clips)
