"""The sweep of a text-to-image model: rows of options times seeds, their pairs and their table."""

from collections.abc import Sequence
from pathlib import Path

from eval.picture_figures import NO_LORA
from train.stages import Stage, StageRunner, command, is_stale, refuse_changes, section
from train.sweep_plan import OWN, PICTURES, Options, Sweep
from utils.errors import UserError

PAIRS, JUDGE = "prepare.image_pairs", "eval.eval_images"
FILES = (
    *("data_dir", "model_path", "resolution", "caption_column"),
    *("reward", "reward_path", "reward_weights", "device"),
)


class PictureSweep(Sweep):
    """All its commands; the pipeline without LoRA is the row `base`."""

    training, product = PICTURES, "lora{:09d}.safetensors"

    def stages(self) -> list[Stage]:
        return [*self.pairs.values(), *self.runs, *self.table(self.runs)]

    def _pairs(self, method: str) -> Path:
        """One folder of fixed pairs for all methods that read them: one reward ranks them."""
        folder = self.folder / "pairs"
        candidates = {
            "num_candidates": self.common.get("num_candidates"),
            "sampling_steps": self.common.get("candidate_steps"),
            "guidance": self.common.get("guidance_param"),
        }
        values = self._inherit(PAIRS, FILES) | candidates
        values |= section(PAIRS, self.pair_options, "pairs", *OWN)
        wanted = command(PAIRS, values | {"out": folder}, "pairs")
        refuse_changes(folder / "dataset.json", wanted.options)
        product, arguments = folder / "metadata.jsonl", wanted.arguments
        if folder.is_dir() and not product.is_file():
            arguments = [*arguments, "--overwrite"]
        self.pairs[folder] = Stage(folder.name, product, arguments)
        return folder

    def table(self, runs: Sequence[Stage]) -> list[Stage]:
        """One command for the base and all runs, so that all are compared from the same noise."""
        if not runs or "eval_images" not in self.evaluation:
            return []
        where, output = "evaluation: eval_images", self.folder / "eval_images.json"
        own = {
            "names": ["base", *(run.kind for run in runs)],
            "lora_path": [NO_LORA, *(str(run.product) for run in runs)],
            "output": output,
        }
        given = section(JUDGE, self.evaluation["eval_images"], where, *OWN, *own)
        wanted = command(JUDGE, self._inherit(JUDGE, FILES) | given | own, where)
        stale = is_stale(output, wanted.options, [run.product for run in runs])
        return [Stage("table", output, wanted.arguments, stale=stale)]

    def judge(self, finished: Sequence[Stage], runner: StageRunner) -> list[Stage]:
        failed = runner.run(stages := self.table(finished))
        for stage in stages if not failed else []:
            print(f"\n{stage.product.with_suffix('.md').read_text(encoding='utf-8')}")
        return failed

    def check_inputs(self) -> None:
        """Raises UserError when the data are missing, or the pipeline is a folder without one."""
        for options in self.run_options:
            if not Path(options.data_dir).is_dir():
                raise UserError(f"{options.data_dir} does not exist; name the folder of pictures")


def sweep_of(options: Options) -> Sweep:
    """The sweep that the options ask for. Raises UserError as it does."""
    return PictureSweep(options) if options.script == PICTURES else Sweep(options)
