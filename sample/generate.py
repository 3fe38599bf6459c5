"""Generate motions for prompts, and draw them.

    python -m sample.generate --text_prompt "a person waves with the left hand"
    python -m sample.generate --model_path save/my_model/model000750000.pt --text_prompt ...
    python -m sample.generate --model_path ... --input_text prompts.txt --motion_length 4.5
    python -m sample.generate --model_path ... --num_samples 10 --num_repetitions 3
    python -m sample.generate --text_prompt ... --best_of 4 --export bvh glb

Without --model_path it takes the small model that comes with the project, which knows the words of
the embedded dataset. Without a prompt, captions are drawn from a split of the dataset. The output
folder holds index.html (all motions in 3-D, for any browser), results.npy (joints, captions,
lengths; see sample/results.py), results.txt, results_len.txt, one video per motion
(sample00_rep00.mp4) and grids of them (samples_00_to_02.mp4: a row per caption). --best_of
generates several motions per prompt and keeps the one that a reward likes best (docs/rewards.md);
--export writes them for other tools as well (docs/export.md).
"""

from utils.start import entry_point

from sample.generation import Options, generate
from utils.options import parse_options


@entry_point
def main() -> None:
    print(f"results: {generate(parse_options(Options, description=__doc__))}")


if __name__ == "__main__":
    main()
