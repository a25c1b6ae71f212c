"""Make OpenOneRec's samples, Parquet files of chats or documents, from two tables and semantic ids."""

from command import run

run(__file__, __name__)
