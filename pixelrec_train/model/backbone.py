"""Loading a Hugging Face directory as a headless backbone, and finding out how it attends."""

import json
import os

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForTextEncoding
from transformers.dynamic_module_utils import custom_object_save
from transformers.utils import logging as transformers_logging

from pixelrec_train.errors import InputError, first_line
from pixelrec_train.files import base_of_adapter, is_adapter
from pixelrec_train.model.adapter_files import is_of_causal_lm, put_on
from pixelrec_train.model.model_directory import check_directory
from pixelrec_train.run import watchdog


def load_backbone(directory, flag_name, dtype=torch.float32, random_init=False, trust=False, kind=AutoModel):
    """The transformer of a Hugging Face directory without its language-model head; of T5's kind the encoder.

    Never from a hub, with code from the directory only if `trust`, weights from safetensors only. With
    random_init they stay on disk, and new ones are drawn as the architecture's authors do. With kind =
    AutoModelForCausalLM the head is there; with dtype = "auto" the precision is that of the files. An adapter
    is added to the layers of its base.

    Raises:
        InputError: the directory is no such thing, needs remote code, or lacks some of its weights.
    """
    asked, directory = directory, check_directory(directory, flag_name, trust, merges=True)
    if is_adapter(asked) and not random_init:
        return load_merged(asked, flag_name, dtype, trust, kind)
    absent = []
    try:
        settings = AutoConfig.from_pretrained(str(directory), local_files_only=True, trust_remote_code=trust)
        if kind is AutoModel and has_encoder_alone(settings):
            kind = AutoModelForTextEncoding
        if random_init:
            model = kind.from_config(settings, dtype=dtype, trust_remote_code=trust)
        else:
            model, absent = pretrained(directory, dtype, trust, kind)
    except Exception as error:  # whatever a library makes of a file that anybody may have written
        raise InputError(
            f"{flag_name} {directory} could not be loaded: {first_line(error)} "
            f"It needs config.json and model.safetensors of an architecture transformers knows."
        ) from None
    if absent:
        raise InputError(
            f"{flag_name} {directory}: {len(absent)} weights of the architecture in config.json are not in "
            f"its weight files, or in another shape, {absent[0]} for one. They would be random. Are both "
            f"files of the same model?"
        )
    if not reads_plain_text(model):
        raise InputError(f"{flag_name} {directory} ({type(model).__name__}) is not a plain text model.")
    return model


def load_merged(directory, flag_name, dtype, trust, kind):
    """The base of an adapter with the adapter added to its layers in fp32, in the base's precision then."""
    causal, base = is_of_causal_lm(directory), base_of_adapter(directory)
    outer = AutoModelForCausalLM if causal else kind
    whose = f"{flag_name} {directory} is an adapter of"
    model = load_backbone(base, whose, dtype, trust=trust, kind=outer)
    precision = model.dtype
    try:
        put_on(directory, (model if causal else model.base_model).float())[0].merge_and_unload()
    except Exception as error:  # whatever a library makes of a file that anybody may have written
        raise InputError(
            f"{flag_name} {directory} does not fit its base {base}: {first_line(error)} It must be the very "
            f"model that it was trained upon."
        ) from None
    for parameter in model.parameters():  # and no buffer: rotary frequencies stay fp32
        parameter.requires_grad_(True).data = parameter.data.to(precision)
    model = model.base_model if kind is AutoModel else model
    model.name_or_path = model.config.name_or_path = str(directory)
    return model


def has_encoder_alone(settings):
    """Whether transformers has the encoder of this encoder-decoder as a model of its own: T5, mT5, UMT5."""
    kinds = AutoModelForTextEncoding._model_mapping
    return type(settings) in kinds and kinds[type(settings)].__name__.endswith("EncoderModel")


def reads_plain_text(model):
    """Whether it is one transformer over one table of word embeddings."""
    config = model.config
    two_parts = getattr(config, "is_encoder_decoder", False) and not has_encoder_alone(config)
    if not isinstance(getattr(config, "hidden_size", None), int) or two_parts:
        return False
    try:
        return isinstance(model.get_input_embeddings(), nn.Embedding)
    except NotImplementedError:
        return False


@watchdog.busy("reading weights")
def pretrained(directory, dtype, trust, kind):
    """(model, names of the weights that its files lack)"""
    with quiet():
        model, report = kind.from_pretrained(
            str(directory),
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=trust,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are in the report, and refused with a better sentence
            output_loading_info=True,
        )
    other_shapes = (name for name, *_ in report["mismatched_keys"])
    absent = map(str, (*report["missing_keys"], *other_shapes))
    return model, [name for name in absent if "pooler." not in name]


def write_backbone(backbone, directory, weights):
    """A directory that plain transformers loads bit-equal; written without touching the live module."""
    dtype = next(iter(weights.values())).dtype
    directory.mkdir(parents=True, exist_ok=True)
    config = backbone.config.to_dict()
    config |= {"architectures": [type(backbone).__name__], "dtype": str(dtype).removeprefix("torch.")}
    config.pop("_attn_implementation", None)
    (directory / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n", encoding="utf-8")
    twice = second_names(backbone)
    weights = {name: tensor.contiguous() for name, tensor in weights.items() if name not in twice}
    save_tensors(weights, directory / "model.safetensors")
    for part in (backbone, backbone.config):
        if type(part).__module__.startswith("transformers_modules."):
            custom_object_save(part, directory)  # a tower with code of its own takes it along


def starting_backbone(hllm, tower, bf16=False):
    """The backbone of "item" or "user", pretrained or with random weights, as the flags say."""
    directory, drawn = getattr(hllm, f"{tower}_model_dir"), tower in hllm.random_init
    return load_backbone(
        directory, f"--{tower}_model_dir", to_train_in(bf16, drawn), drawn, tower in hllm.trust_remote_code
    )  # fmt: skip


def to_train_in(bf16, random_init=False):
    """The dtype in which weights are loaded to be trained: that of the engine, which would round them anyway.

    Each rank of a machine loads them, so an fp32 copy of 8 B weights would be 32 GB times the ranks; in the
    precision of their files they are not copied at all, but mapped. What is drawn is drawn in fp32.
    """
    return torch.bfloat16 if bf16 and not random_init else torch.float32


def second_names(model):
    """State-dict names of parameters that have another name already; a file must not hold them twice."""
    return (
        model.state_dict().keys() - dict(model.named_parameters()).keys() - dict(model.named_buffers()).keys()
    )


def save_tensors(tensors, path):
    """safetensors makes files only their owner can read; these get the permissions of any other file."""
    save_file(tensors, path, {"format": "pt"})
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)


@watchdog.busy("reading weights")
def read_tensors(path):
    """{name: tensor} of a safetensors file that is ours, or an InputError where it is not whole."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} could not be read: {first_line(error)} Is it cut short?") from None


def under(prefix, tensors):
    """Those of a module, under the names that they have in it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def check_vocabulary(item_llm, item_text, directory):
    """Raises InputError when the tokenizer made ids the model has no embedding for."""
    rows = item_llm.get_input_embeddings().weight.shape[0]
    largest = item_text.largest_token
    if largest >= rows:
        raise InputError(
            f"the tokenizer in {directory} makes token id {largest}, but the model there has only {rows} "
            f"embeddings. They must come from the same model."
        )


@torch.no_grad()
def is_causal(backbone: nn.Module) -> bool:
    """Whether a position is blind to later ones: measured, not looked up by name."""
    width = backbone.config.hidden_size
    weight = next(backbone.parameters())
    probe = torch.randn(2, 4, width, generator=torch.Generator().manual_seed(0)).to(weight)
    probe[1, :3] = probe[0, :3]  # two sequences that differ in the last position only
    was_training = backbone.training
    backbone.eval()
    out = backbone(inputs_embeds=probe, **no_cache(backbone)).last_hidden_state
    backbone.train(was_training)
    return torch.allclose(out[0, :3], out[1, :3], atol=1e-6)


def no_cache(backbone):
    """Decoders must not fill a key-value cache; encoders do not know the word."""
    return {"use_cache": False} if hasattr(backbone.config, "use_cache") else {}


class quiet:
    """Silence transformers' loading report: unused heads are expected here."""

    def __enter__(self):
        self.level = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()

    def __exit__(self, *exception):
        transformers_logging.set_verbosity(self.level)
