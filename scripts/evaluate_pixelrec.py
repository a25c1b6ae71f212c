"""Judge a trained checkpoint. From the repository root:

python scripts/evaluate_pixelrec.py --checkpoint results/pixelrec/best_model --split test
deepspeed --num_gpus 8 scripts/evaluate_pixelrec.py --checkpoint …      # the same figures, sooner
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the deepspeed launcher adds only scripts/

try:
    from pixelrec_train.commands.evaluate_pixelrec import main
except KeyboardInterrupt:
    sys.exit(130)
except ModuleNotFoundError as error:
    sys.exit(f"error: {error} in {sys.executable}. Run first: source .venv/bin/activate")

if __name__ == "__main__":
    main()
