"""A chat with a language model, word by word on the screen."""

import torch
from transformers import AutoModelForCausalLM, TextStreamer

from pixelrec_train import distributed
from pixelrec_train.errors import InputError
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.backbone import load_backbone
from pixelrec_train.model.model_directory import check_directory


class Talk:
    """The messages so far, and who answers."""

    def __init__(self, flags):
        """flags: ChatConfig.

        Raises:
            InputError: there is no such model, or it has no chat template and --plain is not given.
        """
        self.flags = flags
        check_directory(flags.model, "--model", flags.trust_remote_code)
        self.tokenizer = load_tokenizer(flags.model, "--model", flags.trust_remote_code)
        if not (flags.plain or self.tokenizer.chat_template):
            raise InputError(
                f"--model {flags.model} has no chat template. Add --plain to have it go on with a text."
            )
        dtype = torch.bfloat16 if flags.bf16 else torch.float32
        model = load_backbone(
            flags.model, "--model", dtype, trust=flags.trust_remote_code, kind=AutoModelForCausalLM
        )
        self.model = model.to(distributed.device()).eval()
        torch.manual_seed(flags.seed)
        self.begin()

    def begin(self):
        """Forget what was said."""
        system = self.flags.system
        self.messages = [{"role": "system", "content": system}] if system else []

    def answer(self, question):
        """Print and return the answer, which is remembered."""
        self.messages.append({"role": "user", "content": question})
        text = question
        if not self.flags.plain:
            text = self.tokenizer.apply_chat_template(
                self.messages, tokenize=False, add_generation_prompt=True
            )
        ids = self.tokenizer(text, add_special_tokens=self.flags.plain, return_tensors="pt").input_ids
        ids = ids.to(self.model.device)
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit and ids.shape[1] >= limit:
            raise InputError(
                f"the chat has {ids.shape[1]:,} tokens, and the model reads {limit:,} at most. Begin anew."
            )
        how = {"do_sample": False}
        if self.flags.temperature:
            how = {"do_sample": True, "temperature": self.flags.temperature, "top_p": self.flags.top_p}
        out = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=self.flags.max_new_tokens,
            eos_token_id=self.ends(), pad_token_id=self.tokenizer.pad_token_id,
            streamer=TextStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True), **how,
        )  # fmt: skip
        found = self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        self.messages.append({"role": "assistant", "content": found})
        return found

    def ends(self):
        """Ids that end an answer: the model's own, and what its template puts behind one."""
        told = self.model.generation_config.eos_token_id
        ends = {self.tokenizer.eos_token_id, *(told if isinstance(told, list) else [told])}
        if not self.flags.plain:
            chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x"}]
            text = self.tokenizer.apply_chat_template(chat, tokenize=False)
            behind = self.tokenizer(text[text.rindex("x") + 1 :], add_special_tokens=False).input_ids
            special = set(self.tokenizer.all_special_ids)
            special |= {n for n, word in self.tokenizer.added_tokens_decoder.items() if word.special}
            ends |= set(behind[:1]) & special
        return sorted(end for end in ends if end is not None)
