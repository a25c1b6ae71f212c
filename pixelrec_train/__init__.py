"""LLM recommenders on one hand-written DeepSpeed engine loop."""

import os

# Where a rank dies, torch's C++ parts would bury the sentence that says so under stack traces of their own.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

__version__ = "0.1.0"


def __getattr__(name):
    """from pixelrec_train import Recommender: it brings torch, so it is looked up when it is asked for."""
    if name == "Recommender":
        from pixelrec_train.trainings.recommend import Recommender

        return Recommender
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
