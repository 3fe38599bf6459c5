"""Settings of the whole test run."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub's client is first imported
