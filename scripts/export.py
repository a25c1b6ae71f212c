"""A two-tower checkpoint for other programs: FAISS indexes, towers, a sentence-transformers directory."""

from command import run

run(__file__, __name__)
