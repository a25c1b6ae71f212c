"""Embeddings of a catalogue that a job has left in --cache_dir: every command looks here first.

scripts/embed_items.py alone writes them (embedding_job.py); other commands, which hold the whole table in
memory anyway, write nothing of it here: their checkpoints are mostly looked at once.
"""

from pathlib import Path

import torch
import transformers

from pixelrec_train import distributed
from pixelrec_train.data.cache import fingerprint, is_cached, loaded
from pixelrec_train.run.checkpoints import MANIFEST
from pixelrec_train.run.log import say

KIND, IDS = "item_embeddings", "item_ids.txt"
TABLE = f"{KIND}.npy"


def directory_of(cache_dir, mark):
    return Path(cache_dir) / f"{KIND}-{mark}"


def find(cache_dir, mark, eval_tokens, to_the_bit=False):
    """[num_items, D] fp32 that a job has left, mapped into memory, or None. Every rank calls it, and all get
    the same answer: where one machine lacks them, all compute.

    to_the_bit: they are None as well where they were computed in another way than here.
    """
    directory, there, other = directory_of(cache_dir, mark), is_cached(cache_dir, KIND, mark), ""
    if there:
        arrays, facts = loaded(directory, mode="c")
        other = differing(facts["way"], way_of(eval_tokens))
    if not all(distributed.gather_objects(there and not (to_the_bit and other))):
        return None
    table = arrays[KIND]
    rounding = f"; these may differ in rounding from what is computed here: {other}" if other else ""
    say(
        f"item embeddings: {len(table):,} of width {table.shape[1]} are reused from {directory}, where "
        f"scripts/embed_items.py left them{rounding}"
    )
    return table


def way_of(eval_tokens):
    """What decides how embeddings are rounded, beside what they are of."""
    device = distributed.device().type
    name = torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "--eval_tokens": eval_tokens, "device": f"{device} {name}",
        "threads (OMP_NUM_THREADS)": torch.get_num_threads() if device == "cpu" else None,
        "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip


def differing(then, now):
    """In words; nothing where they are equal."""
    names = [name for name in now if now[name] != then.get(name)]
    return ", ".join(f"{name} {then.get(name)} there, {now[name]} here" for name in names)


def mark_of_checkpoint(checkpoint, inputs, model):
    """Names the item embeddings of a checkpoint that was verified: its manifest has a checksum of every file.
    What a text's tokens are follows from the fingerprint of ItemText, also where a flag has changed it."""
    dtype = next(model.user_llm.parameters()).dtype
    return fingerprint(
        "item embeddings of a checkpoint 1", inputs.interactions.fingerprint, inputs.item_text.fingerprint,
        Path(checkpoint) / MANIFEST, dtype,
    )  # fmt: skip


def write_item_ids(item_ids, directory):
    """item_ids.txt: line i names row i; a backslash stands as two, a line break as backslash and n."""
    with open(Path(directory) / IDS, "w", encoding="utf-8") as file:
        file.writelines(name.replace("\\", "\\\\").replace("\n", "\\n") + "\n" for name in item_ids)
