"""LLM recommenders on one hand-written DeepSpeed engine loop."""

__version__ = "0.1.0"
