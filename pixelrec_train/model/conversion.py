"""The language model of a checkpoint as others take it: half precision, weight files of bounded size.

It gets config, tokenizer, chat template and itemic_meta.json of the model that training started from. A file
holds at most so many bytes, and hardly more than one is in memory at a time.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import write_json
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.backbone import save_tensors, second_names
from pixelrec_train.model.model_directory import check_directory
from pixelrec_train.model.model_files import write_beside
from pixelrec_train.model.vocabulary import META_FILE, read

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
BASE = "--base_model_dir"
# What two directories of one model may say differently: how it is stored, and how it is used.
FREE = {
    "dtype", "torch_dtype", "architectures", "transformers_version", "_name_or_path", "use_cache",
    "bos_token_id", "eos_token_id", "pad_token_id",
}  # fmt: skip


def convert(base, trained, destination, dtype, shard_bytes, trust=False):
    """Write a directory that plain transformers loads.

    Args:
        base: the directory that training started from.
        trained: llm/ of a checkpoint, whole and as it was written.
        destination: a directory to make.
        dtype: of DTYPES.
        shard_bytes: a weight file holds no more, unless one tensor does.

    Returns:
        {file: bytes of its tensors}

    Raises:
        InputError: the two are not of one model.
    """
    skeleton = skeleton_of(base, trained, trust)
    check_tokenizers(base, trained, trust)
    check_meta(base, trained)
    stored = Stored(trained)
    names = stored.check(skeleton, base)
    kind = DTYPES[dtype]
    files = shards(stored, names, kind, shard_bytes)
    check_room(destination, sum(stored.bytes_of(name, kind) for name in names))
    destination.mkdir(parents=True)
    for file, part in files.items():
        save_tensors({name: stored.read(name, kind) for name in part}, destination / file)
    sizes = {file: sum(stored.bytes_of(name, kind) for name in part) for file, part in files.items()}
    if len(files) > 1:
        where = {name: file for file, part in files.items() for name in part}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": dict(sorted(where.items()))}
        write_json(destination / "model.safetensors.index.json", index)
    write_beside(base, destination, kind, type(skeleton).__name__)
    return sizes


def skeleton_of(base, trained, trust):
    """The architecture without weights, once both directories say it is the same."""
    check_directory(base, BASE, trust)
    settings, others = (
        AutoConfig.from_pretrained(str(directory), local_files_only=True, trust_remote_code=trust)
        for directory in (base, trained)
    )
    ours, theirs = settings.to_dict(), others.to_dict()
    plain_first = sorted((ours.keys() | theirs.keys()) - FREE, key=lambda n: (type(ours.get(n)) is list, n))
    for name in plain_first:
        if ours.get(name) != theirs.get(name):
            raise not_of_one_model(
                base, trained, f"{name} is {ours.get(name)} in its config.json, {theirs.get(name)} there"
            )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(settings, trust_remote_code=trust)


def check_tokenizers(base, trained, trust):
    """Raises InputError where the two make other ids of a text."""
    ours, theirs = (load_tokenizer(d, flag, trust) for d, flag in ((base, BASE), (trained, "the checkpoint")))
    words, others = ours.get_vocab(), theirs.get_vocab()
    if words != others:
        word = min(w for w in words | others if words.get(w) != others.get(w))
        raise not_of_one_model(
            base, trained, f"{word!r} is token {words.get(word)} of its tokenizer, {others.get(word)} there"
        )
    fast = [x.backend_tokenizer for x in (ours, theirs) if hasattr(x, "backend_tokenizer")]
    rules = [json.loads(tokenizer.to_str()) for tokenizer in fast]
    for name in ("model", "normalizer", "pre_tokenizer", "added_tokens") if len(rules) == 2 else ():
        if rules[0][name] != rules[1][name]:
            raise not_of_one_model(base, trained, f"their tokenizers have the same words and another {name}")


def check_meta(base, trained):
    """Raises InputError where itemic_meta.json says otherwise of the ids, or only one of the two has it."""
    there = [(Path(directory) / META_FILE).is_file() for directory in (base, trained)]
    if there[0] != there[1]:
        which = "the checkpoint" if there[1] else "it"
        raise not_of_one_model(base, trained, f"only {which} has {META_FILE}")
    if any(there):
        ours, theirs = (read(Path(directory) / META_FILE, BASE)[0] for directory in (base, trained))
        for name in ("codec", "codebook_sizes", "first_new_id", "rows"):
            if getattr(ours, name) != getattr(theirs, name):
                raise not_of_one_model(base, trained, f"{META_FILE} has another {name}")


def not_of_one_model(base, trained, what):
    return InputError(
        f"{BASE} {base} is not the model that {trained} was trained from: {what}. Name the directory that "
        f"training started from (--model_dir)."
    )


class Stored:
    """The weight files of a directory, read a tensor at a time."""

    def __init__(self, directory):
        self.directory, self.files = Path(directory), {}
        try:
            for path in sorted(self.directory.glob("*.safetensors")):
                file = safe_open(path, "pt")
                self.files |= dict.fromkeys(file.keys(), file)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{self.directory} could not be read: {first_line(error)}") from None

    def check(self, skeleton, base):
        """Names to be written: what the architecture needs, and of tied tables the first alone."""
        needed = {name: list(p.shape) for name, p in (*skeleton.named_parameters(), *kept_buffers(skeleton))}
        twice = second_names(skeleton)
        for name in sorted(needed.keys() | self.files.keys() - twice):
            found = self.files[name].get_slice(name).get_shape() if name in self.files else None
            if found != needed.get(name):
                wanted = needed.get(name, "no part of it")
                raise not_of_one_model(
                    base, self.directory, f"{name} is {found or 'absent'} there, and by config.json {wanted}"
                )
        return list(needed)

    def bytes_of(self, name, dtype):
        shape = self.files[name].get_slice(name).get_shape()
        return torch.empty(shape, dtype=dtype, device="meta").nbytes

    def read(self, name, dtype):
        tensor = self.files[name].get_tensor(name)
        return tensor.to(dtype).contiguous() if tensor.is_floating_point() else tensor


def kept_buffers(skeleton):
    kept = skeleton.state_dict().keys()
    return [(name, buffer) for name, buffer in skeleton.named_buffers() if name in kept]


def check_room(destination, needed):
    """Raises InputError where so many bytes do not fit."""
    there = next(parent for parent in destination.resolve().parents if parent.is_dir())
    if (free := shutil.disk_usage(there).free) < 1.01 * needed:
        raise InputError(
            f"{needed / 1e9:.2f} GB are needed for {destination}, {free / 1e9:.2f} GB are free. Make room, "
            f"or write elsewhere."
        )


def shards(stored, names, dtype, shard_bytes):
    """{file: [names]}, in order, each file as full as it goes."""
    parts, room = [[]], shard_bytes
    for name in names:
        size = stored.bytes_of(name, dtype)
        if size > room and parts[-1]:
            parts.append([])
            room = shard_bytes
        parts[-1].append(name)
        room -= size
    if len(parts) == 1:
        return {"model.safetensors": parts[0]}
    return {f"model-{n:05d}-of-{len(parts):05d}.safetensors": part for n, part in enumerate(parts, 1)}
