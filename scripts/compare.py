"""One table of baselines and checkpoints on a dataset. From the repository root:

python scripts/compare.py --interaction_data … --text_data … --checkpoint results/pixelrec/best_model
python scripts/compare.py --help                        # every flag
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the deepspeed launcher adds only scripts/

try:
    from pixelrec_train.commands.compare import main
except KeyboardInterrupt:
    sys.exit(130)
except ModuleNotFoundError as error:
    sys.exit(f"error: {error} in {sys.executable}. Run first: source .venv/bin/activate")

if __name__ == "__main__":
    main()
