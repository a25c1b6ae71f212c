"""Check a model directory with itemic tokens; status 1 where something is wrong. From the repository root:

python scripts/verify_model.py --hf_model_dir Qwen3-0.6B_itemic --semantic_ids results/sid/sid.json
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    from pixelrec_train.commands.verify_model import main
except KeyboardInterrupt:
    sys.exit(130)
except ModuleNotFoundError as error:
    sys.exit(f"error: {error} in {sys.executable}. Run first: source .venv/bin/activate")

if __name__ == "__main__":
    main()
