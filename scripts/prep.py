"""OneRec-Think's and MiniOneRec's files as our tables; ids in texts from one spelling to another."""

from command import run

run(__file__, __name__)
