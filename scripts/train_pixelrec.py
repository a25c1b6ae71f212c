"""Train a two-tower HLLM. From the repository root:

bash scripts/run_train_pixelrec.sh                      # the recipe; then: tail -f logs/pixelrec_train.log
deepspeed --num_gpus 8 scripts/train_pixelrec.py --interaction_data … --text_data … \\
    --item_model_dir … --user_model_dir …
python scripts/train_pixelrec.py --dry_run 8 …          # print the plan for 8 ranks and stop
python scripts/train_pixelrec.py --help                 # every flag
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the deepspeed launcher adds only scripts/

try:
    from pixelrec_train.commands.train_pixelrec import main
except KeyboardInterrupt:
    sys.exit(130)
except ModuleNotFoundError as error:
    sys.exit(f"error: {error} in {sys.executable}. Run first: source .venv/bin/activate")

if __name__ == "__main__":
    main()
