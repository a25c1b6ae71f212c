"""Texts as other projects keep them, .txt, JSON, JSON lines, Parquet: read, and made samples."""
