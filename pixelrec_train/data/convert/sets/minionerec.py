"""MiniOneRec's files of a data set, read by scripts/prep.py's reader: see convert/minionerec_reading.py.

prep writes its semantic ids and its split as well; here its interactions and items alone become tables. Times
are places in a user's history, from 0.
"""

from pixelrec_train.data.convert.minionerec_reading import read
from pixelrec_train.data.convert.sets.source import Item, Source, blocks_of

LICENCE = "MiniOneRec is under the Apache licence; its data are Amazon's reviews of 2018, see amazon2018."
OF_FOLDER = True


def source(folder):
    tables = read(folder)
    name = (tables.facts["name"] or folder.resolve().name).lower()
    return from_tables(f"minionerec_{name}", folder, tables)


def from_tables(title, folder, tables, published=()):
    rows = ((user, item, time, None) for item, user, time in tables.interactions)
    return Source(title, [folder], blocks_of(rows), (Item(*row) for row in tables.items), list(published))
