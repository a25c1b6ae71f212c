"""The peers' ways of doing things, written from their description (no code of theirs), without their bugs.

They compute what we compute; where a peer's own code has a bug that makes it faster or slower, the bug is not
here. "Pixelrec" is zhangrz22/HLLM, "HLLM" is bytedance/HLLM.
"""

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import normalize
from transformers import LogitsProcessorList


def dense_row(model, item_token, texts):
    """Pixelrec: all items in one row under a dense T x T mask, LM-head logits computed and thrown away.

    Args:
        model: a causal LM with its head, sdpa attention.
        item_token: [D] embedding that every text ends in.
        texts: PackedTexts.

    Returns:
        [I, D]
    """
    item = torch.repeat_interleave(torch.arange(len(texts.lengths)), texts.lengths)
    last = texts.lengths.cumsum(0) - 1
    position = torch.arange(len(item)) - (last - texts.lengths + 1)[item]
    mask = (item[:, None] == item[None]).tril()  # [T, T]
    embeds = model.get_input_embeddings()(texts.token_ids).index_copy(
        0, last, item_token.expand(len(last), -1)
    )
    out = model(
        inputs_embeds=embeds[None], position_ids=position[None], attention_mask=mask[None, None],
        output_hidden_states=True, use_cache=False,
    )  # fmt: skip
    return out.hidden_states[-1][0, last]


def padded(model, item_token, texts, longest):
    """Every item a row of `longest` tokens, padding masked; with logits if the model has a head."""
    lengths = texts.lengths
    real = (torch.arange(longest) < lengths[:, None]).to(texts.token_ids.device)  # [I, longest]
    ids = torch.zeros(real.shape, dtype=torch.long, device=real.device)
    ids[real] = texts.token_ids
    rows = torch.arange(len(lengths))
    embeds = model.get_input_embeddings()(ids)
    embeds = embeds.index_put((rows, lengths - 1), item_token.expand(len(rows), -1))
    has_head = model.get_output_embeddings() is not None
    out = model(
        inputs_embeds=embeds, attention_mask=real.long(), output_hidden_states=has_head, use_cache=False
    )
    hidden = out.hidden_states[-1] if has_head else out.last_hidden_state
    return hidden[rows, lengths - 1]


@torch.no_grad()
def encode_catalogue(model, item_token, item_text, batch_size):
    """The catalogue in its own order, each batch padded to its longest text -> [num_items, D]."""
    numbers = np.arange(len(item_text.lengths))
    batches = (item_text.pack(numbers[i : i + batch_size]) for i in range(0, len(numbers), batch_size))
    return torch.cat([padded(model, item_token, texts, int(texts.lengths.max())) for texts in batches])


def tokenise(tokenizer, texts, longest):
    """HLLM: one call per item, on every access; its placeholder for [ITEM] behind."""
    return [tokenizer.encode(text)[:longest] + [0] for text in texts]


def read_interactions(path):
    """pandas: a Series of item lists by user, oldest first; ids numbered in the order of their first row."""
    table = pd.read_csv(path)
    table["item"] = pd.factorize(table["item_id"])[0]
    table["user"] = pd.factorize(table["user_id"])[0]
    return table.sort_values("timestamp", kind="stable").groupby("user")["item"].apply(list)


@torch.no_grad()
def places(encode, catalogue, held_out, k, batch_size, device="cpu"):
    """HLLM: all scores of a batch of users, seen items at -inf, topk; [E] places of targets, k if absent."""
    items = torch.nn.functional.normalize(torch.from_numpy(catalogue).to(device), dim=1)
    found = []
    for first in range(0, len(held_out), batch_size):
        users = range(first, min(first + batch_size, len(held_out)))
        histories = [held_out.history(e) for e in users]
        scores = torch.nn.functional.normalize(encode(histories), dim=1) @ items.T  # [b, num_items]
        row = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
        scores[torch.from_numpy(row), torch.from_numpy(np.concatenate(histories))] = -torch.inf
        best = scores.topk(k).indices.cpu().numpy()
        hit = best == held_out.target[users][:, None]
        found.append(np.where(hit.any(1), hit.argmax(1), k))
    return np.concatenate(found)


def hllm_loss(task, items, valid, one_by_one=False):
    """HLLM's training loss on one rank: every place of every window and every negative is encoded.

    Positives and negatives are two forward passes of packed rows, the accuracy metrics come from topk.

    Args:
        task: TwoTowerTask, whose towers and temperature are used.
        items: Items of the [W, S + 1] places of all windows, then of all negatives.
        valid: [W, S] bool.
        one_by_one: each text in a forward pass of its own; the slow twin for exactness.
    """
    model, places = task.model, valid.shape[0] * (valid.shape[1] + 1)
    texts, parts = items.texts, [(0, places), (places, len(items.numbers))]
    if one_by_one:
        parts = [(i, i + 1) for i in range(len(items.numbers))]
    encoded = torch.cat([model.item_llm(texts.part(*part)) for part in parts])
    positive, negatives = encoded[:places].unflatten(0, (len(valid), -1)), encoded[places:]
    user = normalize(model.user_llm(positive[:, :-1])[valid], dim=-1)
    target, pool = normalize(positive[:, 1:][valid], dim=-1), normalize(negatives, dim=-1)
    scale = model.logit_scale.exp()
    wrong = user @ pool.T
    wrong = wrong.masked_fill(target @ pool.T > task.same_item_cosine, torch.finfo(wrong.dtype).min)
    logits = torch.cat([(user * target).sum(-1, keepdim=True), wrong], dim=1) * scale
    with torch.no_grad():
        for k in (1, 5, 10, 50, 100):
            if k < logits.shape[1]:
                (logits.topk(k).indices == 0).any(-1).float().mean().item()
    return -logits.log_softmax(-1)[:, 0].mean()


@torch.no_grad()
def generate(model, ids, token_ids, mask, beams, temperature=None):
    """MiniOneRec: transformers' beam search; every step asks a dictionary about every beam.

    Args:
        ids: [N, L] token ids of the catalogue's semantic ids.
        token_ids, mask: [B, T] prompts, padded on the left.
        temperature: at which so many are drawn, as it does for rollouts; None = they are searched.

    Returns:
        [B, beams, L] token ids, [B, beams] log-probabilities (None of those drawn).
    """
    allowed, longest = {}, token_ids.shape[1]
    for tokens in ids.tolist():
        for level, token in enumerate(tokens):
            allowed.setdefault("-".join(map(str, tokens[:level])), set()).add(token)
    allowed = {prefix: sorted(tokens) for prefix, tokens in allowed.items()}

    def processor(read, scores):
        scores = scores.log_softmax(-1)
        penalty = torch.full_like(scores, -1e6)
        for row, tokens in enumerate(read[:, longest:].tolist()):
            penalty[row, allowed.get("-".join(map(str, tokens)), [])] = 0
        return scores + penalty

    how = {"num_beams": beams, "do_sample": False, "length_penalty": 0.0, "output_scores": True}
    if temperature:
        how = {"num_beams": 1, "do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    out = model.generate(
        input_ids=token_ids, attention_mask=mask, num_return_sequences=beams, max_new_tokens=ids.shape[1],
        logits_processor=LogitsProcessorList([processor]), return_dict_in_generate=True, **how,
    )  # fmt: skip
    sequences = out.sequences[:, longest:].unflatten(0, (-1, beams))
    return sequences, None if temperature else out.sequences_scores.unflatten(0, (-1, beams))


def padded_next_item(model, items, times, lengths):
    """SASRec as it is usually trained: every history padded to the longest, all scores, torch's loss.

    Args:
        items, times: [B, S + 1], padded on the right; lengths: [B] items of each.

    Returns:
        The mean loss in nats, the share of targets that are ranked first.
    """
    valid = torch.arange(1, items.shape[1]) < lengths[:, None]
    hidden, target = model(items[:, :-1], times[:, :-1])[valid], items[:, 1:][valid]
    scores = hidden @ model.items.T
    loss = torch.nn.functional.cross_entropy(scores, target, reduction="sum") / valid.sum()
    return loss, (scores.argmax(-1) == target).float().mean()


def chat_tokens(tokenizer, messages):
    """OpenOneRec: a chat when the loader comes to it, each epoch anew; labels by a walk over its ids.

    Returns:
        [T] ids, [T] bool: what lies between <|im_start|>assistant and <|im_end|>, the latter included.
    """
    text = tokenizer.apply_chat_template(messages, tokenize=False) + tokenizer.pad_token
    ids = tokenizer.encode(text, add_special_tokens=False)
    begin = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    is_label, inside = np.zeros(len(ids), bool), False
    for place, token in enumerate(ids):
        is_label[place] = inside
        if token == end:
            inside = False
        elif ids[place - len(begin) + 1 : place + 1] == begin:
            inside = True
    return ids, is_label
