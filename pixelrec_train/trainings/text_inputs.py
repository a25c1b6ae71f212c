"""What a training on texts reads: the files as samples and packs, by the flags."""

import json
from pathlib import Path

from pixelrec_train.config.texts import ALL, ANSWERS, LAST
from pixelrec_train.data.samples.dataset_file import DatasetFile
from pixelrec_train.data.samples.files import Source
from pixelrec_train.data.texts.as_samples import DOCUMENTS, TEXT_PAIRS, as_samples
from pixelrec_train.data.texts.reading import files_of
from pixelrec_train.data.texts.templates import Template
from pixelrec_train.data.tokens.chat import Ends
from pixelrec_train.errors import InputError
from pixelrec_train.files import possible_directory
from pixelrec_train.flags import given
from pixelrec_train.run import directory as run_directory
from pixelrec_train.trainings.sample_inputs import packed, store_of, tokenizer_of
from pixelrec_train.trainings.train_samples import trusted

DOCUMENT_END = "<|endoftext|>"  # Qwen's, GPT-2's: its eos ends a turn of a chat, and this a text


def files_to_read(config):
    """([Path] of --train_file, of --eval_file), once the places that a run writes to are looked at.

    Raises:
        InputError: nothing is there, a file is trained on and to validate, or the run cannot be kept.
    """
    possible_directory(config.cache_dir, "--cache_dir")
    run_directory.check_kept(config.output_dir, model_dir=config.model_dir)
    files, held_out = files_of(config.train_file, "--train_file"), files_of(config.eval_file, "--eval_file")
    trained_on = {file.resolve() for file in files}
    if both := [file for file in held_out if file.resolve() in trained_on]:
        raise InputError(f"--eval_file {both[0]} is in --train_file, too: it would not be held out.")
    return files, held_out


class Reading:
    """How files become packs, by the flags."""

    def __init__(self, config, form, loss_on=ANSWERS):
        """
        Args:
            config: TextModelFlags.
            form: as_samples.Form.
            loss_on: of --loss_on.
        """
        template = Template.load(config.template) if config.template else None
        self.config, self.form, self.template, self.loss_on = config, form, template, loss_on
        self.read = {}
        self.tokenizer = tokenizer_of(config, self.dataset(()), trusted(config))
        if template:
            self.tokenizer.chat_template = template.jinja()
        elif form.what not in (DOCUMENTS, TEXT_PAIRS) and not self.tokenizer.chat_template:
            raise InputError(
                f"the tokenizer of {config.model_dir} has no chat template, which {form.what} need. Name "
                f"one: --template configs/templates/qwen2_chatml.json, for instance."
            )
        self.end = end_of_text(self.tokenizer, config.end_mark)
        if self.tokenizer.pad_token is None:  # what a rank without a pack reads
            self.tokenizer.pad_token = self.end
        stops = template.stops if template else ()
        self.ends = Ends(self.end, stops, loss_on == LAST, form.what == TEXT_PAIRS)

    def dataset(self, files):
        """A DatasetFile that says the same as the flags; its sources are left to packed()."""
        config = self.config
        return DatasetFile(
            Path(config.train_file[0]), [Source(tuple(files))], shuffle_seed=config.seed,
            base_model_dir=Path(config.tokenizer_dir) if config.tokenizer_dir else None,
            only_assistant_loss=self.loss_on != ALL,
        )  # fmt: skip

    def samples(self, files):
        """(Source, lines for the plan) of as_samples, which is asked once for each list of files."""
        if (key := tuple(files)) not in self.read:
            self.read[key] = as_samples(files, self.form, self.config.cache_dir)
        return self.read[key]

    def packed(self, files, flag_name, laid=lambda store: store):
        """(PackDataset, PackCollator, lines for the plan); laid: see sample_inputs.packed."""
        source, told = self.samples(files)
        packs, collator, lines = packed(
            self.config, self.dataset(files), [source], flag_name, self.tokenizer, self.ends, laid
        )
        return packs, collator, [*told, *lines]

    def store(self, files):
        """(TokenStore, lines for the plan)"""
        source, told = self.samples(files)
        return store_of(self.config, self.dataset(files), [source], self.tokenizer, self.ends), told

    def beside(self):
        """{name: text} of files that an export of the model has for its template."""
        if not self.template:
            return {}
        words = self.tokenizer.get_vocab()
        ends = [words[word] for word in (self.tokenizer.eos_token, *self.template.stops) if word in words]
        how = {"eos_token_id": list(dict.fromkeys(ends)), "pad_token_id": self.tokenizer.pad_token_id}
        return {
            "chat_template.jinja": self.tokenizer.chat_template,
            "generation_config.json": json.dumps(how, indent=2) + "\n",
        }

    def lines(self, files, held_out):
        """For the plan."""
        config = self.config
        yield f"files: {len(files):,} to train, {len(held_out):,} to validate; {self.end} ends a text"
        if config.peft_enabled is False and (
            idle := sorted(n for n in given(config) if n.startswith("lora_"))
        ):
            yield f"peft.enabled is false: {', '.join(idle)} have no effect"
        for stop in self.ends.of_answers:
            ids = self.tokenizer(stop, add_special_tokens=False).input_ids
            if len(ids) > 1:
                yield f"template: {stop!r} is no word of this tokenizer, which reads it as {len(ids)}"


def end_of_text(tokenizer, asked):
    """The token that ends a text. Raises InputError where there is none."""
    words = tokenizer.get_vocab()
    if asked and asked not in words:
        raise InputError(
            f"--end_mark {asked} is no token of the tokenizer. It has {tokenizer.all_special_tokens}."
        )
    found = asked or (DOCUMENT_END if DOCUMENT_END in words else tokenizer.eos_token or tokenizer.sep_token)
    if not found:
        raise InputError("the tokenizer has no token that ends a text. Name one of its tokens: --end_mark.")
    return found
