"""OneRec-Think's Beauty, read by scripts/prep.py's reader: see convert/onerec_think.py.

prep writes its semantic ids as well; here its interactions and items alone become tables. Times are places
in a user's history, from 0.
"""

from pixelrec_train.data.convert.onerec_think import read
from pixelrec_train.data.convert.sets.amazon2014 import FIVE_CORE_SOURCE
from pixelrec_train.data.convert.sets.minionerec import from_tables
from pixelrec_train.data.convert.sets.source import Published

LICENCE = "OneRec-Think's data are Amazon's reviews of 2014, see amazon2014."
OF_FOLDER = True
PUBLISHED = Published(
    "22,363", "12,101", "198,502", f"Amazon 2014 Beauty, 5-core ({FIVE_CORE_SOURCE}); its sequences end at 50"
)


def source(folder):
    tables, name = read(folder)
    known = [PUBLISHED] if str(name).lower() == "beauty" else []
    return from_tables(f"onerec_think_{str(name).lower()}", folder, tables, known)
