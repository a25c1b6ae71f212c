"""Whether towers, checkpoint, flags and texts fit together."""

from pixelrec_train.errors import InputError
from pixelrec_train.model.backbone import is_causal


def check_towers(item_llm, user_llm, hllm):
    """Raises InputError where the two towers, their flags and the texts do not fit together.

    item_llm: None where items are their id embeddings.
    """
    if not is_causal(user_llm):
        raise InputError(
            f"--user_model_dir {hllm.user_model_dir} ({type(user_llm).__name__}) lets a position see "
            f"later ones; the user LLM must be causal, or it reads the item it has to predict."
        )
    history = max(hllm.max_seq_length, hllm.seq_length_in_evaluation) - 1
    needs = [("user", user_llm, history, "--max_seq_length (or --eval_seq_length)")]
    if item_llm is not None:
        needs.append(("item", item_llm, hllm.max_text_length + hllm.item_emb_token_n, "--max_text_length"))
    for name, model, needed, flag_name in needs:
        limit = getattr(model.config, "max_position_embeddings", needed)
        if needed > limit:
            raise InputError(
                f"{flag_name} needs {needed} positions, but the {name} LLM has {limit}. Lower the flag."
            )


def check_parts(model, hllm):
    """Raises InputError when the checkpoint of --init_from has other parts than the flags ask for."""
    token_n = int(model.item_llm is not None and model.item_llm.item_token is not None)
    for wrong, found in (
        (hllm.id_only != (model.item_llm is None),
         f"{'no' if model.item_llm is None else 'an'} item LLM, but --id_only is {hllm.id_only}"),
        (not hllm.id_only and token_n != hllm.item_emb_token_n,
         f"{token_n} [ITEM] tokens, but --item_emb_token_n is {hllm.item_emb_token_n}"),
        (model.item_id is not None and not hllm.has_item_ids,
         "item id embeddings; add --item_id_embedding, or they would be lost"),
        (model.offsets is not None and list(model.offsets.sums) != list(hllm.offsets),
         f"--offsets {','.join(model.offsets.sums if model.offsets else ())}; give the same ones"),
        (model.item_features is not None and not hllm.item_features,
         "item features; add --item_features, or their network would be lost"),
        (model.times is not None and not hllm.time_features,
         "learned when items are taken; add --time_features, or that would be lost"),
    ):  # fmt: skip
        if wrong:
            raise InputError(f"--init_from {hllm.init_from} has {found}.")
    item = None if model.item_llm is None else model.item_llm.backbone
    check_towers(item, model.user_llm.backbone, hllm)
