"""The ways to make samples, by name: families, one for each project that has them."""

FAMILIES = {
    "openonerec": (
        "video_rec", "item_understand", "user_profile", "label_pred", "label_cond_rec", "rec_reason",
    ),
    "minionerec": (
        "sid_history_to_sid", "sid_to_title", "title_to_sid", "sid_history_to_title", "title_history_to_sid",
        "description_to_sid", "sid_history_to_description", "title_history_to_title", "preference",
    ),
    "onerec_think": (
        "type_a_sid_to_title", "type_a_sid_to_description", "type_a_sid_to_category", "type_a_sid_to_context",
        "type_b_title_to_sid", "type_b_title_prefix_to_sid", "type_b_title_contains_to_sid",
        "type_b_description_to_sid", "type_b_description_contains_to_sid", "type_b_categories_to_sid",
        "type_c_seq_last_2", "type_c_seq_last_3", "type_c_seq_last_5", "type_c_seq_full",
        "type_d_prefix_category", "type_d_prefix_examples", "type_d_similar_items",
        "type_e_copurchase_forward", "type_e_copurchase_backward", "type_e_category_transition",
    ),
    "reasoning": ("purchase_alignment", "sid_prediction", "item_caption", "reasoned_prediction"),
}  # fmt: skip
SETS = {  # names for several of them
    "minionerec": FAMILIES["minionerec"][:5],  # those that its sft.py joins
    "onerec_think": FAMILIES["onerec_think"],
}
TASKS = tuple(task for family in FAMILIES.values() for task in family)
MIXES = {  # shares of the tasks in training
    "onerec_think": {
        "purchase_alignment": 0.2430, "sid_prediction": 0.6573, "item_caption": 0.0494, "general": 0.0503,
    },
}  # fmt: skip

THINKING = {*FAMILIES["openonerec"], "reasoned_prediction"} - {"user_profile"}


def say_think(tasks):
    """Whether questions of these tasks' chats end in /think or /no_think, unless a person says otherwise."""
    return not THINKING.isdisjoint(tasks)


def named(tasks):
    """The tasks of a list in which sets may stand, each once."""
    return tuple(dict.fromkeys(task for name in tasks for task in SETS.get(name, (name,))))
