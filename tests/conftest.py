"""Shared fixtures; everything is built from configurations, nothing is downloaded."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hypothesis import settings

# No deadline: timings do not belong in tests, and the first torch call of a process is slow.
settings.register_profile("graspl", deadline=None, derandomize=True)
settings.load_profile("graspl")
