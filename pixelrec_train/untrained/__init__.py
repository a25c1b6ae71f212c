"""Recommenders without training steps: what every trained model has to beat, and may start from."""
