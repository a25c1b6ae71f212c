"""Give every item a semantic id, or read and write those of other projects. From the repository root:

python scripts/build_semantic_ids.py --checkpoint results/pixelrec/best_model        # of the item LLM
python scripts/build_semantic_ids.py --encoder_model_dir … --text_data … --quantiser rq_kmeans_balanced
python scripts/build_semantic_ids.py --matrix embeddings.npy --matrix_ids item_ids.txt
python scripts/build_semantic_ids.py --matrix new.npy --matrix_ids new.txt --codebooks results/semantic_ids
python scripts/build_semantic_ids.py --import_index NAME.index.json --codec minionerec
python scripts/build_semantic_ids.py --help             # every flag
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the deepspeed launcher adds only scripts/

try:
    from pixelrec_train.commands.build_semantic_ids import main
except KeyboardInterrupt:
    sys.exit(130)
except ModuleNotFoundError as error:
    sys.exit(f"error: {error} in {sys.executable}. Run first: source .venv/bin/activate")

if __name__ == "__main__":
    main()
