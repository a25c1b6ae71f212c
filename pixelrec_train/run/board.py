"""What TensorBoard shows of a finished run besides curves: its flags beside its figures, and its items."""

import dataclasses
from pathlib import Path

import numpy as np

from pixelrec_train.files import whole_file, write_whole
from pixelrec_train.flags import FILE, as_text

CONFIG, VECTORS, LABELS = "projector_config.pbtxt", "items.tensors.tsv", "items.metadata.tsv"
MOST_ITEMS, MOST_NUMBERS = 10_000, 4_000_000  # what a browser can hold


def add_hparams(writer, flags, row, step):
    """The HPARAMS tab: flags that change what is learned, and final/FIGURE of a row of the last table.

    As SummaryWriter.add_hparams, but in the run's own folder, beside its curves.

    Args:
        writer: torch's SummaryWriter.
        row: {figure: number or something else}
    """
    from torch.utils.tensorboard.summary import hparams

    told = {
        f.name: value if isinstance(value := getattr(flags, f.name), int | float | str) else as_text(value)
        for f in dataclasses.fields(flags)
        if not f.metadata["may_differ"] and f.metadata["path"] != FILE
    }
    figures = {f"final/{name}": x for name, x in row.items() if isinstance(x, int | float)}
    for summary in hparams(told, figures):
        writer.file_writer.add_summary(summary, step)
    for name, value in figures.items():
        writer.add_scalar(name, value, step)
    writer.flush()


def write_projector(directory, vectors, labels, seed):
    """The PROJECTOR tab: vectors in TensorBoard's folder of a run, and what stands beside each.

    Args:
        vectors: [N, D]; of more than it can hold some are drawn.
        labels: {column: N values}
    """
    directory, (count, width) = Path(directory), vectors.shape
    kept = min(count, MOST_ITEMS, max(1, MOST_NUMBERS // width))
    drawn = np.sort(np.random.default_rng(seed).permutation(count)[:kept])
    with whole_file(directory / VECTORS) as file:
        np.savetxt(file, vectors[drawn], fmt="%.5g", delimiter="\t")
    with whole_file(directory / LABELS) as file:
        file.write("\t".join(labels) + "\n")
        for n in drawn:
            file.write("\t".join(one_cell(values[n]) for values in labels.values()) + "\n")
    # Last, since it names the other two.
    write_whole(
        directory / CONFIG,
        f'embeddings {{\n  tensor_name: "items"\n  tensor_path: "{VECTORS}"\n'
        f'  metadata_path: "{LABELS}"\n}}\n',
    )


def forget(directory):
    """Remove what an earlier run left in TensorBoard's folder: curves and items."""
    for pattern in ("events.out.tfevents.*", CONFIG, VECTORS, LABELS):
        for file in Path(directory).glob(pattern):
            file.unlink()


def one_cell(value):
    """As text without tabs and line breaks; what is None is empty."""
    return "" if value is None else " ".join(str(value).split())
