"""Make the synthetic dataset and tiny towers of the first run. From the repository root:

python scripts/make_demo.py --interaction_data dataset/demo.csv --text_data information/demo.csv \
    --towers_dir results/tiny_towers/demo
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    from pixelrec_train.commands.make_demo import main
except KeyboardInterrupt:
    sys.exit(130)
except ModuleNotFoundError as error:
    sys.exit(f"error: {error} in {sys.executable}. Run first: source .venv/bin/activate")

if __name__ == "__main__":
    main()
