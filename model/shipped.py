"""The trained models that come with the project; ``card.json`` beside them says how they were made.

A base MDM of the embedded dataset, a TMR that serves as its reward, another one that judges, and
small co-embedding evaluators: `train.ship_weights` writes that folder. For pictures a pipeline of
the embedded shapes and two CLIPs, one as reward and one as judge: `train.ship_pictures`.
"""

from pathlib import Path

SHIPPED = Path(__file__).resolve().parent / "weights" / "embedded"
MODEL_FILE = "model000005000.safetensors"
REWARD_FILE, JUDGE_FILE = "reward.safetensors", "judge.safetensors"
EVALUATORS_FOLDER = "evaluators"
CARD_FILE = "card.json"

PICTURES = SHIPPED.with_name("shapes")
PIPELINE_FOLDER, REWARD_FOLDER, JUDGE_FOLDER = "pipeline", "reward", "judge"
