"""README.md of a checkpoint: what it is, how good, of which data, and the lines that load it.

It is true at any time: saved with validation figures, written anew with the table when the run has ended.
"""

import dataclasses
import json
import re
from pathlib import Path

from pixelrec_train.files import write_whole
from pixelrec_train.flags import FILE, MODEL, REQUIRED, as_text

CARD = "README.md"
HLLM, LM, IDS = "hllm_head.safetensors", "llm", "semantic_ids.json"
ELSEWHERE = ("output_dir", "cache_dir")  # flags that say where, and not what


def card(flags, directory, name, figures):
    """The text.

    Args:
        flags: of the run, all of its command's.
        directory: where the checkpoint's files lie by now, its run.json among them.
        name: where they will lie, from the run directory.
        figures: lines of Markdown.
    """
    directory = Path(directory)
    record = json.loads((directory / "run.json").read_text(encoding="utf-8"))
    kind, tags, loading = kind_of(directory, str(Path(flags.output_dir) / name))
    bases = {name: value for name, value, default in set_flags(flags, MODEL)}
    hub = record.get("hub") or {}
    known = [what.split("@")[0] for what in hub.values()]
    front = ["---", "library_name: pixelrec_train", f"tags: {json.dumps(tags)}"]
    front += [f"base_model: {json.dumps(known)}"] * bool(known) + ["---"]
    data = {f"--{name}": value for name, value, default in set_flags(flags, FILE)}
    for name, value in record.get("data", {}).items():
        mark = "fingerprint of " * bool(re.fullmatch("[0-9a-f]{16}", str(value)))
        data |= {mark + name.replace("_", " "): value} if value else {}
    parts = [
        *front, "", f"# {escaped(Path(flags.output_dir).name)}: {kind}", "", *figures, "",
        "## Load it", "", *loading, "",
        "## Data", "", *table(("", "")), *(row(name, value) for name, value in data.items()), "",
    ]  # fmt: skip
    if bases:
        parts += ["## Trained upon", "", *table(("flag", "model"))]
        parts += [row(f"--{name}", hub.get(name, value)) for name, value in bases.items()] + [""]
    parts += ["## Flags that differ from the defaults", "", *table(("flag", "value", "default"))]
    parts += [row(f"--{name}", value, default) for name, value, default in set_flags(flags)] + [""]
    made = {"ranks": record.get("ranks"), "machine": record.get("machine"), "commit": record.get("commit")}
    made |= record.get("versions", {})
    parts += ["## Made with", "", ", ".join(f"{n} {escaped(v)}" for n, v in made.items() if v), ""]
    return "\n".join(parts)


def kind_of(directory, place):
    """(what it is, tags, lines that load it)"""
    door = [
        "```python", "from pixelrec_train import Recommender", "",
        f"door = Recommender.load({quoted(place)})", "print(door.recommend([door.item_ids[:3]], k=5))", "```",
    ]  # fmt: skip
    if (directory / HLLM).is_file():
        alone = [path.name for path in directory.glob("*.safetensors")] == [HLLM]
        items = items_by_text(directory, place) if alone and (directory / "item_llm").is_dir() else []
        return "a two-tower recommender (HLLM)", ["recommendation", "two-tower", "hllm"], door + items
    if not (directory / LM).is_dir():
        return "a model", ["recommendation"], ["With the command that trained it, see run.json."]
    plain = [
        "```python", "from transformers import AutoModelForCausalLM, AutoTokenizer", "",
        f"model = AutoModelForCausalLM.from_pretrained({quoted(f'{place}/{LM}')})",
        f"tokenizer = AutoTokenizer.from_pretrained({quoted(f'{place}/{LM}')})", "```",
    ]  # fmt: skip
    if not (directory / IDS).is_file():
        return "a language model", ["text-generation"], plain
    tags = ["recommendation", "generative", "semantic-ids"]
    return "a generative recommender", tags, [*door, "", "Its language model alone:", "", *plain]


def items_by_text(directory, place):
    """How any text is embedded as an item."""
    encoder, command = f"{place}/item_llm", []
    if not (directory / "item_llm/modules.json").is_file():
        encoder = "exported/sentence_transformers"
        command = [
            "```", f"python scripts/export.py --checkpoint {place} --output_dir exported", "```", "",
        ]  # fmt: skip
    return [
        "", "An item's embedding, of its text alone:", "", *command,
        "```python", "from sentence_transformers import SentenceTransformer", "",
        f"print(SentenceTransformer({quoted(encoder)}).encode([\"title: a text\"]).shape)", "```",
    ]  # fmt: skip


def set_flags(flags, path=None):
    """[(name, value, default)] of flags that change what is learned and are not at their default.

    path: those of this kind of path; None = those that are neither files nor models.
    """
    return [
        (f.name, as_text(value), "" if f.default is REQUIRED else as_text(f.default))
        for f in dataclasses.fields(flags)
        if (value := getattr(flags, f.name)) != f.default and value is not None
        and not f.metadata["may_differ"] and f.name not in ELSEWHERE
        and (f.metadata["path"] == path if path else f.metadata["path"] not in (FILE, MODEL))
    ]  # fmt: skip


def judged_so_far(judged, state):
    """Figures where a checkpoint is saved before its run has ended.

    Args:
        judged: (step, {figure: value}) of the newest evaluation, or None.
        state: engine's TrainState.
    """
    lines = [f"Saved after step {state.step:,} of {state.total_steps:,}; its run had not ended by then."]
    if judged is None or judged[0] != state.step:
        return [*lines, "It was not judged there."]
    figures = [row(name, f"{value:.4f}") for name, value in judged[1].items() if isinstance(value, float)]
    return [*lines, "On validation (fractions, losses in nats):", "", *table(("figure", "value")), *figures]


def judged_at_the_end(text):
    """Of a run's table.md: its tables as they are, and what is said about them with no mark of Markdown."""
    return [line if line.startswith("|") else escaped(line) for line in text.splitlines()]


def conclude(flags, name):
    """Write the card of the run's best_model anew, once the run has left table.md."""
    run = Path(flags.output_dir)
    if (run / name).is_dir():
        figures = judged_at_the_end((run / "table.md").read_text(encoding="utf-8"))
        write_whole(run / name / CARD, card(flags, run / name, name, figures))


def rename(directory, before, name):
    """Let the card in a copy of a checkpoint name the copy.

    before, name: of the checkpoint and of the copy, from the run directory.
    """
    path = Path(directory) / CARD
    if path.is_file():
        record = json.loads((path.parent / "run.json").read_text(encoding="utf-8"))
        old, new = (str(Path(record["config"]["output_dir"]) / place) for place in (before, name))
        write_whole(path, path.read_text(encoding="utf-8").replace(old, new))  # not into the checkpoint's


def table(names):
    return [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]


def row(*cells):
    return f"| {' | '.join(map(escaped, cells))} |"


def escaped(value):
    """As one line of Markdown that shows it as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|~!&$])", r"\\\1", " ".join(str(value).split()))


def quoted(text):
    """As a Python string, on one line."""
    return json.dumps(text, ensure_ascii=False)
