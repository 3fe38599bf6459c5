"""Where scripts write, as options that they share."""

from dataclasses import dataclass
from pathlib import Path

from utils.files import prepare_output_dir
from utils.options import option


@dataclass
class OverwriteOptions:
    """For every script that refuses to write over what an earlier run has left."""

    overwrite: bool = option(False, "write over what is already there", free="always")


@dataclass
class ResumeOptions(OverwriteOptions):
    """For every script that may be interrupted."""

    resume: bool = option(False, "go on where an earlier run has stopped", free="always")


@dataclass
class OutputDirOptions(OverwriteOptions):
    """For every script that makes a folder of results."""

    output_dir: str = option("", "folder to write to; none = beside the checkpoint", free="always")

    def new_folder(self, default: str | Path = "") -> Path:
        """The folder, made, or `default`. Raises UserError as `prepare_output_dir` does."""
        place = self.output_dir or default
        return prepare_output_dir(place, self.overwrite, option="--output_dir")


@dataclass
class OutOptions(OverwriteOptions):
    """For every script that makes data for others to read."""

    out: str = option("", "folder to write", required=True, free="always")

    def new_folder(self) -> Path:
        """The folder, made. Raises UserError as `prepare_output_dir` does."""
        return prepare_output_dir(self.out, self.overwrite, option="--out")
