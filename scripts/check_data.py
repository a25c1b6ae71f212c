"""What training would see of a dataset, and what is odd about it. From the repository root:

python scripts/check_data.py NAME                       # dataset/NAME.csv and information/NAME.csv
python scripts/check_data.py NAME --item_model_dir … --user_model_dir …       # tokens, memory, time as well
python scripts/check_data.py --help                     # every flag
"""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    from pixelrec_train.commands.check_data import main
except KeyboardInterrupt:
    sys.exit(130)
except ModuleNotFoundError as error:
    sys.exit(f"error: {error} in {sys.executable}. Run first: source .venv/bin/activate")

if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "… | head" ends it without a word
    main()
