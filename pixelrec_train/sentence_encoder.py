"""How a text encoder was meant to be read: the JSON files of a sentence-transformers directory."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from pixelrec_train.errors import InputError
from pixelrec_train.files import model_files, write_json

MODULES, PROMPTS, LIMITS = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
POOLINGS = {  # ours: theirs, since version 5.5 and before
    "mean": ("mean", "pooling_mode_mean_tokens"),
    "cls": ("cls", "pooling_mode_cls_token"),
    "last_token": ("lasttoken", "pooling_mode_lasttoken"),
    "max": ("max", "pooling_mode_max_tokens"),
    "weighted_mean": ("weightedmean", "pooling_mode_weightedmean_tokens"),
    "sqrt_mean": ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
}
OF_DOCUMENTS = "document", "passage", "corpus"  # names of prompts, in the order they are looked for
ACTIVATIONS = {
    "linear.Identity": "identity", "activation.Tanh": "tanh", "activation.ReLU": "relu",
    "activation.GELU": "gelu", "activation.SiLU": "silu", "activation.Sigmoid": "sigmoid",
}  # fmt: skip
NORMALISE = "normalise"


@dataclass(frozen=True)
class Dense:
    """A linear layer behind the pooling."""

    folder: str  # of its weights, in the directory
    width_in: int
    width_out: int
    bias: bool
    activation: str  # a value of ACTIVATIONS

    def __str__(self):
        return f"a Dense layer {self.width_in} -> {self.width_out} ({self.activation})"


@dataclass(frozen=True)
class SentenceEncoder:
    """How a text becomes a vector."""

    pooling: str  # of its tokens' states, a key of POOLINGS
    layers: tuple[Dense | str, ...] = ()  # behind the pooling, in this order; NORMALISE = to length 1
    prompt: str = ""  # in front of every text
    max_tokens: int | None = None  # a longer text is cut to so many; its closing special tokens stay
    lowercase: bool = False

    @staticmethod
    def of(directory, flag_name, pooling=None) -> "SentenceEncoder | None":
        """Of a model directory; None where nothing says how it is read.

        Args:
            pooling: in place of the directory's own; everything else it says stays.

        Raises:
            InputError: it says something that cannot be done here.
        """
        directory = model_files(directory)
        if not (directory / MODULES).is_file():
            return SentenceEncoder(pooling) if pooling else None
        files = Files(directory, flag_name)
        folder, layers = files.modules()
        limits, prompts = files.read(LIMITS), files.read(PROMPTS)
        if limits.get("transformer_task", "feature-extraction") != "feature-extraction":
            raise files.refused(LIMITS, f"asks for {limits['transformer_task']!r}")
        found = files.read(f"{folder}/config.json", needed=True)
        prompt = prompt_of_documents(prompts)
        if prompt and not found.get("include_prompt", True):
            raise files.refused(f"{folder}/config.json", "leaves the prompt out of the pooling")
        return SentenceEncoder(
            pooling or files.pooling(folder, found), tuple(files.layer(*layer) for layer in layers),
            prompt, files.max_tokens(limits), bool(limits.get("do_lower_case")),
        )  # fmt: skip

    def within(self, max_tokens, prompt) -> "SentenceEncoder":
        """The same for texts of at most max_tokens, with another prompt; None = its own."""
        limit = min(max_tokens, self.max_tokens or max_tokens)
        return dataclasses.replace(self, max_tokens=limit, prompt=self.prompt if prompt is None else prompt)

    def __str__(self):
        of_tokens = {"last_token": "its last token", "cls": "its first token"}
        steps = [of_tokens.get(self.pooling, f"the {self.pooling.replace('_', ' ')} of its tokens")]
        steps += ["scaled to length 1" if layer == NORMALISE else str(layer) for layer in self.layers]
        prompt = f"the prompt {self.prompt!r}" if self.prompt else "no prompt"
        return f"{', '.join(steps)}; {prompt}, at most {self.max_tokens:,} tokens"

    @property
    def folders(self):
        """Where each of `layers` lies in a directory that `write` makes."""
        kinds = ("Normalize" if layer == NORMALISE else "Dense" for layer in self.layers)
        return [f"{number}_{kind}" for number, kind in enumerate(kinds, 2)]

    def write(self, directory, width):
        """The JSON files, so that sentence-transformers and `of` read the same again; no weights.

        width: of the tokens' states, without which sentence-transformers makes no pooling.
        """
        directory, folders = Path(directory), ("1_Pooling", *self.folders)
        for folder in folders:
            (directory / folder).mkdir(parents=True, exist_ok=True)
        chosen = {theirs: name == self.pooling for name, (_, theirs) in POOLINGS.items()}
        chosen |= {"word_embedding_dimension": width, "include_prompt": True}
        write_json(directory / "1_Pooling/config.json", chosen)
        full_names = {name: f"torch.nn.modules.{theirs}" for theirs, name in ACTIVATIONS.items()}
        for layer, folder in zip(self.layers, self.folders, strict=True):
            if layer != NORMALISE:
                write_json(directory / folder / "config.json", {
                    "in_features": layer.width_in, "out_features": layer.width_out, "bias": layer.bias,
                    "activation_function": full_names[layer.activation],
                })  # fmt: skip
        write_json(directory / LIMITS, {"max_seq_length": self.max_tokens, "do_lower_case": self.lowercase})
        prompts = {"query": self.prompt, "document": self.prompt}
        write_json(directory / PROMPTS, {"prompts": prompts, "default_prompt_name": "document"})
        kinds = [("", "Transformer"), *((folder, folder.split("_")[1]) for folder in folders)]
        write_json(directory / MODULES, [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for n, (path, kind) in enumerate(kinds)
        ])  # fmt: skip


def prompt_of_documents(prompts):
    """Of config_sentence_transformers.json: the one for documents, else the one for every text, else ""."""
    named = prompts.get("prompts") or {}
    by_default = named.get(prompts.get("default_prompt_name"), "")
    return next((named[name] for name in OF_DOCUMENTS if named.get(name)), by_default) or ""


class Files:
    """The JSON files of one directory; what cannot be done here is refused in one sentence."""

    def __init__(self, directory, flag_name):
        self.directory, self.flag_name = directory, flag_name

    def refused(self, name, what):
        return InputError(
            f"{self.flag_name} {self.directory} is a sentence-transformers directory whose {name} {what}, "
            f"which is not done here. Use another encoder, or take {MODULES} away: it is then read as the "
            f"mean of its tokens, or as --pooling says."
        )

    def read(self, name, needed=False, kind=dict):
        """What a file holds; {} where it is absent and may be."""
        path = self.directory / name
        if not path.is_file() and not needed:
            return {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if not isinstance(found, kind):
            raise InputError(
                f"{self.flag_name} {self.directory} is a sentence-transformers directory, but its {name} is "
                f"missing or damaged. Fetch the directory again, with its folders."
            )
        return found

    def modules(self):
        """(folder of its pooling, [(kind, folder)] of what comes behind)"""
        found = self.read(MODULES, kind=list)
        try:
            parts = [(entry["type"].split("."), entry["path"]) for entry in found]
        except (TypeError, KeyError, AttributeError):
            raise self.refused(MODULES, "names its modules in an unknown form") from None
        kinds = [names[-1] if names[0] == "sentence_transformers" else ".".join(names) for names, _ in parts]
        folders = [folder for _, folder in parts]
        for place, kind in enumerate(kinds):
            known = ("Transformer",), ("Pooling",), ("Dense", "Normalize")
            if kind not in known[min(place, 2)]:
                raise self.refused(MODULES, f"has {kind} in place {place + 1}")
        if len(kinds) < 2 or folders[0]:
            what = f"keeps its transformer in {folders[0]}/" if kinds else "is empty"
            raise self.refused(MODULES, "names no Pooling" if len(kinds) == 1 and not folders[0] else what)
        return folders[1], list(zip(kinds[2:], folders[2:], strict=True))

    def pooling(self, folder, found):
        """Key of POOLINGS that the pooling's config.json asks for."""
        asked = found.get("pooling_mode") or [n for n, (_, flag) in POOLINGS.items() if found.get(flag)]
        asked = [asked] if isinstance(asked, str) else list(asked) or ["mean"]
        known = {theirs: name for name, (theirs, _) in POOLINGS.items()} | {name: name for name in POOLINGS}
        if len(asked) > 1 or asked[0] not in known:
            raise self.refused(f"{folder}/config.json", f"asks for {' and '.join(map(str, asked))}")
        return known[asked[0]]

    def layer(self, kind, folder):
        name = f"{folder}/config.json"
        found = self.read(name, needed=kind == "Dense")
        for key in ("module_input_name", "module_output_name"):
            if found.get(key) not in (None, "sentence_embedding"):
                raise self.refused(name, f"has {key} {found[key]!r}")
        if kind == "Normalize":
            return NORMALISE
        activation = found.get("activation_function", "torch.nn.modules.activation.Tanh")
        short = str(activation).removeprefix("torch.nn.modules.")
        if short not in ACTIVATIONS or found.get("use_residual"):
            what = "has a residual" if short in ACTIVATIONS else f"has the activation {activation}"
            raise self.refused(name, what)
        widths = found.get("in_features"), found.get("out_features")
        if not all(isinstance(width, int) for width in widths):
            raise self.refused(name, f"has the widths {widths[0]} and {widths[1]}")
        return Dense(folder, *widths, bool(found.get("bias", True)), ACTIVATIONS[short])

    def max_tokens(self, limits):
        """Of the file of limits, else of tokenizer and architecture; None = no limit."""
        if isinstance(limits.get("max_seq_length"), int):
            return limits["max_seq_length"]
        own = self.read("tokenizer_config.json").get("model_max_length")
        positions = self.read("config.json").get("max_position_embeddings")
        found = [limit for limit in (own, positions) if isinstance(limit, int | float) and limit < 1e9]
        return int(min(found)) if found else None
