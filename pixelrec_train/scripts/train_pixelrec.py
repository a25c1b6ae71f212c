"""For who stands in pixelrec_train/: the script of this name in the repository."""

import runpy
import sys
from pathlib import Path

scripts = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(scripts))
runpy.run_path(str(scripts / Path(__file__).name), run_name=__name__)
