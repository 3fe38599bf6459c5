"""The finished replications of an evaluation, so that a stopped one can go on."""

from pathlib import Path
from typing import Any, Protocol

from eval.protocol import Figures, Replication
from utils.errors import UserError
from utils.files import read_object, write_json, write_text
from utils.unpickle import DAMAGE


class RandomState(Protocol):
    """Whatever draws: its state, for JSON, and back."""

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class Progress:
    """A file beside the log, rewritten as a whole after every replication.

    options: what must be the same for the figures to be those of an unbroken run.
    """

    def __init__(self, log: Path, options: dict[str, Any]) -> None:
        self.log, self.path = log, log.with_suffix(".progress.json")
        self.options = options

    def save(self, draws: RandomState, replications: list[Replication]) -> None:
        content = {
            "options": self.options,
            "log": self.log.read_text(encoding="utf-8"),
            "replications": [{n: row.to_json() for n, row in r.items()} for r in replications],
            "state": draws.state(),
        }
        write_json(self.path, content)

    def forget(self) -> list[Replication]:
        """Start anew: no replication is finished."""
        self.path.unlink(missing_ok=True)
        return []

    def load(self, draws: RandomState) -> list[Replication]:
        """Bring the log and the random draws back to the end of the last replication.

        Raises UserError when there is nothing to go on with, or it is of other options.
        """
        if not self.path.is_file():
            results = self.log.with_suffix(".json")
            reason = f"{results} is finished" if results.exists() else f"no {self.path}"
            raise UserError(f"--resume: nothing to go on with ({reason}); run without --resume")
        content = read_object(self.path)
        stored = content.get("options")
        if not isinstance(stored, dict):
            raise self._damaged("it lacks the options")
        changed = [name for name, value in self.options.items() if stored.get(name) != value]
        if changed:
            raise UserError(
                f"--resume: {self.path} is of other options ({', '.join(changed)} differ); "
                "use the same ones, or start again with --overwrite"
            )
        try:
            log = str(content["log"])
            draws.load_state(content["state"])
            replications = [
                {name: Figures.from_json(row) for name, row in replication.items()}
                for replication in content["replications"]
            ]
        except DAMAGE as error:
            raise self._damaged(f"{type(error).__name__}: {error}") from None
        write_text(self.log, log)
        return replications

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"--resume: {self.path} is damaged ({reason}); start again with --overwrite"
        )
