"""LLM recommenders on one hand-written DeepSpeed engine loop."""

import os

# Where a rank dies, torch's C++ parts would bury the sentence that says so under stack traces of their own.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

__version__ = "0.1.0"
