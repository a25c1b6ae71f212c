"""Checkpoints behind HTTP: an API, and a page for people."""
