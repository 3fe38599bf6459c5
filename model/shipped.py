"""The trained models that come with the project; ``card.json`` beside them says how they were made.

A base MDM of the embedded dataset, a TMR that serves as its reward, another one that judges, and
small co-embedding evaluators. `prepare.ship_weights` writes the folder.
"""

from pathlib import Path

SHIPPED = Path(__file__).resolve().parent / "weights" / "embedded"
MODEL_FILE = "model000005000.safetensors"
REWARD_FILE, JUDGE_FILE = "reward.safetensors", "judge.safetensors"
EVALUATORS_FOLDER = "evaluators"
CARD_FILE = "card.json"
