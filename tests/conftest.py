"""Settings of the whole test run."""

import os

from utils.threads import settle_threads

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is first imported
settle_threads()  # read when torch is first imported
