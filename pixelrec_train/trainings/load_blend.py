"""A blend to be evaluated: what was told of its data, read; and its parts, loaded."""

from dataclasses import fields

from pixelrec_train.config import DataFlags, TextFlags
from pixelrec_train.data.inputs import Inputs, read_interactions, split_of
from pixelrec_train.data.item_text import ItemText
from pixelrec_train.data.views.parts import WHOLE
from pixelrec_train.engine.resume import recorded
from pixelrec_train.errors import InputError
from pixelrec_train.recommend.blend_file import blend_file, read_blend
from pixelrec_train.recommend.checkpoints import Loaded, check_split_as_trained, data_files
from pixelrec_train.recommend.parts import UNTRAINED, Parts, checkpoints_of, loader, named_parts
from pixelrec_train.trainings.baselines import untrained
from pixelrec_train.trainings.blending import as_written, chosen_by_validation

HELD_OUT = {"split_data", "valid_data", "test_data", "split_protocol"}


def load_blend(config):
    """(Loaded, Blended) of --checkpoint A+B, or of a blend.json. config: EvaluateConfig."""
    file, names = named(config.checkpoint)
    names += named_parts(config.hybrid) if config.hybrid else []
    checkpoints = checkpoints_of(names, "--checkpoint", UNTRAINED)
    for checkpoint in checkpoints:
        check_split_as_trained(checkpoint, "--checkpoint", config)
    data, texts = (told(group, file, checkpoints, config) for group in (DataFlags, TextFlags))
    read = read_interactions(data, with_times=True)  # a part may read them
    split = split_of(read, data, WHOLE)  # of all a user took: a cold item is one nobody took in training

    def words():
        if not texts.text_data:
            raise InputError(f"--checkpoint {config.checkpoint}: tfidf reads texts. Name --text_data.")
        from pixelrec_train.data.item_fields import read_fields  # brings pandas and pyarrow with it

        fields, _ = read_fields(read.item_ids, texts)
        return [" ".join(values or ()) for values in fields]

    files = data_files(data, text_data=texts.text_data)
    makers = untrained(config, read, split, words, [])
    parts = Parts(makers, loader(files, config.trust_remote_code, config, config.num_beams))
    if file:
        blended = as_written(file, parts, read, config)
    else:
        blended = chosen_by_validation(
            names, parts, read, split, config, vars(data) | vars(texts), bool(config.hybrid)
        )
    inputs = Inputs(read, split, ItemText.unread(read.num_items))
    return Loaded("hybrid" if blended.file.hybrid else "blend", inputs, blended.recommender), blended


def named(spec):
    """(BlendFile or None, names of the parts) of --checkpoint A+B, or of a blend.json."""
    path = blend_file(spec)
    file = path and read_blend(path, "--checkpoint")
    return file, list(file.parts) if file else named_parts(spec)


def told(group, file, checkpoints, config):
    """Flags of a group: as the command has them, else as a blend.json or the first checkpoint has them."""
    own = {f.name: getattr(config, f.name) for f in fields(group) if hasattr(config, f.name)}
    own = {name: value for name, value in own.items() if value not in (None, ())}
    sources = [recorded(checkpoint, "--checkpoint")["config"] for checkpoint in checkpoints]
    sources = [file.data] if file else sources
    deciding = "interaction_data" if group is DataFlags else "text_data"
    found = next((source for source in sources if source.get(deciding)), {})
    if HELD_OUT & own.keys():
        found = {name: value for name, value in found.items() if name not in HELD_OUT}
    flags = {f.name: found[f.name] for f in fields(group) if f.name in found} | own
    if group is DataFlags and "interaction_data" not in flags:
        raise InputError(f"--checkpoint {config.checkpoint} has no data of its own. Name --interaction_data.")
    return group(**flags)
