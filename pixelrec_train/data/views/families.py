"""All views by name: OpenOneRec's, MiniOneRec's and OneRec-Think's."""

from pixelrec_train.data.views import minionerec, onerec_think, openonerec, reasoning

FAMILIES = (openonerec, minionerec, onerec_think, reasoning)
VIEWS = {view.task: view for family in FAMILIES for view in family.VIEWS}
