"""What stands in Parquet files of chats and documents, and what is wrong: check_samples.py FILES…"""

from command import run

run(__file__, __name__)
