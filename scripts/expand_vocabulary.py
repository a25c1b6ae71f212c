"""Give a causal LM a token for every code of the semantic ids. From the repository root:

python scripts/expand_vocabulary.py --hf_model_dir Qwen3-0.6B --output_model_dir Qwen3-0.6B_itemic \
    --semantic_ids results/sid/sid.json        # or --itemic_layer_n 3 --vocab_size_per_layer 8192
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    from pixelrec_train.commands.expand_vocabulary import main
except KeyboardInterrupt:
    sys.exit(130)
except ModuleNotFoundError as error:
    sys.exit(f"error: {error} in {sys.executable}. Run first: source .venv/bin/activate")

if __name__ == "__main__":
    main()
