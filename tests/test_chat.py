"""From chats and documents to tokens and labels, held against templates written out by hand."""

import json

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixelrec_train.commands import make_demo
from pixelrec_train.commands.make_demo import all_text
from pixelrec_train.data.samples import Sample
from pixelrec_train.data.samples.rows import samples
from pixelrec_train.data.tokens.chat import THINK_EMPTY, Renderer, with_thoughts
from pixelrec_train.errors import InputError
from pixelrec_train.libraries import load_tokenizer
from pixelrec_train.model.chat_template import CHATML
from pixelrec_train.model.tiny import write_causal_lm

VECTORS = ROOT / "tests/fixtures/openonerec"
PAD = "<|endoftext|>"
NEW_MARKS = [
    "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>",
    "<|assistant|>", "<|tool|>", "<s>",
]  # fmt: skip


def tokenizer_with(template):
    tokenizer = load_tokenizer(VECTORS / "tokenizer")
    tokenizer.add_tokens(NEW_MARKS, special_tokens=True)
    tokenizer.bos_token = "<s>"
    path = ROOT / f"tests/fixtures/chat_templates/{template}.jinja"
    if template == "qwen3":
        tokenizer.chat_template = CHATML
    elif template != "chatml":
        tokenizer.chat_template = path.read_text()
    return tokenizer


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def chat(*messages):
    return Sample("id", "made", messages, None)


# Each template once more, by hand: messages -> (text, is label), piece by piece; the pad token comes behind.


def chatml(messages):
    for message in messages:
        learned = message["role"] == "assistant"
        yield f"<|im_start|>{message['role']}\n", False
        yield message["content"] + "<|im_end|>", learned
        yield "\n", False
    yield PAD, False


def qwen3(messages):
    def is_question(message):
        text = message["content"]
        told = text.startswith("<tool_response>") and text.endswith("</tool_response>")
        return message["role"] == "user" and not told

    questions = [i for i, message in enumerate(messages) if is_question(message)]
    last_question = questions[-1] if questions else len(messages) - 1
    for i, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "tool":
            begins = i == 0 or messages[i - 1]["role"] != "tool"
            ends = i == len(messages) - 1 or messages[i + 1]["role"] != "tool"
            yield "<|im_start|>user" * begins + f"\n<tool_response>\n{content}\n</tool_response>", False
            yield "<|im_end|>\n" * ends, False
            continue
        yield f"<|im_start|>{role}\n", False
        if role == "assistant":
            thought = ""
            if "</think>" in content:
                parts = content.split("</think>")
                thought, content = parts[0].split("<think>")[-1].strip("\n"), parts[-1].lstrip("\n")
            if i > last_question and (i == len(messages) - 1 or thought):
                content = content.lstrip("\n")
                content = f"<think>\n{thought}\n</think>\n\n{content}"
        yield content + "<|im_end|>", role == "assistant"
        yield "\n", False
    yield PAD, False


def llama3(messages):
    yield "<s>", False
    for message in messages:
        yield f"<|start_header_id|>{message['role']}<|end_header_id|>\n\n", False
        yield message["content"].strip() + "<|eot_id|>", message["role"] == "assistant"
    yield PAD, False


def chatglm(messages):
    """Nothing of its own ends an answer: what comes next does."""
    yield "[gMASK]<sop>", False
    answered = False
    for message in messages:
        yield f"<|{message['role']}|>", answered
        yield "\n", False
        answered = message["role"] == "assistant"
        yield message["content"], answered
    yield PAD, answered


def llama2(messages):
    for message in messages:
        content = message["content"].strip()
        if message["role"] == "user":
            yield f"<s>[INST] {content} [/INST]", False
        else:
            yield f" {content} <|im_end|>", True  # the vectors' tokenizer has this eos
    yield PAD, False


def opened_thoughts(messages):
    for i, message in enumerate(messages):
        content, thought = message["content"].strip(), ""
        yield f"<|im_start|>{message['role']}\n", False
        if message["role"] == "assistant":
            if "</think>" in content:
                parts = content.split("</think>")
                thought, content = parts[0].split("<think>")[-1].strip(), parts[-1].strip()
            if i == len(messages) - 1:
                yield "<think>\n", False  # given when it is asked
                yield f"{thought}\n</think>\n\n", True
        yield content + "<|im_end|>", message["role"] == "assistant"
        yield "\n", False
    yield PAD, False


def plain(messages):
    for i, message in enumerate(messages):
        last = i == len(messages) - 1
        if message["role"] == "assistant":
            yield "Answer: ", False
            yield message["content"].rstrip("\n"), True
            yield "\n\n", last  # and the pad token: all that ends an answer
        else:
            yield f"{message['role']}: {message['content'].strip()}\n", False
    yield PAD, messages[-1]["role"] == "assistant"


BY_HAND = dict(
    chatml=chatml, qwen3=qwen3, llama3=llama3, chatglm=chatglm, llama2=llama2,
    opened_thoughts=opened_thoughts, plain=plain, no_prompt=chatml,
)  # fmt: skip
RENDERERS = {template: Renderer(tokenizer_with(template)) for template in BY_HAND}
NASTY = st.text(alphabet="ab拉🍜\n \t\ue000é", max_size=6) | st.sampled_from(
    [
        "<think>\nwhy\n</think>\n\nso", "<think>\n\n</think>\n\n", "<think>x", "</think>", "a\n</think>b\n\n",
        "<|im_start|>assistant\nfake", "<|im_end|>", "<tool_response>", "</tool_response>", "ab \n\t\n ",
        "\ue0000\ue000", "Answer: ", " ",
    ]
)  # fmt: skip
CONTENT = st.lists(NASTY, max_size=4).map("".join)
ROLES = st.sampled_from(["user", "assistant", "assistant", "user", "system", "tool"])
CHATS = st.lists(
    st.builds(lambda role, content: dict(role=role, content=content), ROLES, CONTENT), min_size=1
)
TURNS = st.lists(CONTENT, min_size=1, max_size=5).map(
    lambda texts: [(assistant if i % 2 else user)(text) for i, text in enumerate(texts)]
)


@pytest.mark.parametrize("template", BY_HAND)
@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_labels_are_what_the_assistant_says_and_its_end_in_whatever_the_template_writes(template, data):
    messages = data.draw(TURNS if template == "llama2" else CHATS)
    check(template, messages)


def check(template, messages):
    renderer, pieces = RENDERERS[template], list(BY_HAND[template](messages))
    expected = "".join(piece for piece, _ in pieces)
    is_label = [learned for piece, learned in pieces for _ in piece]
    text, spans = renderer.text(chat(*messages))
    assert text == expected
    found = [False] * len(text)
    for start, stop in spans:
        found[start:stop] = [True] * (stop - start)
    assert found == is_label
    offsets = renderer.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ((ids, labels),) = renderer.encode([chat(*messages)])
    assert ids.tolist() == offsets["input_ids"]
    slow = [is_label[start] for start, _ in offsets["offset_mapping"]]
    assert labels.tolist() == [False] + slow[1:]


@pytest.mark.parametrize("template", BY_HAND)
@given(turns=TURNS.filter(lambda turns: len(turns) % 2 == 0))
@settings(max_examples=40, deadline=None)
def test_a_prompt_is_the_beginning_of_the_training_text_up_to_the_first_label(template, turns):
    renderer = RENDERERS[template]
    text, spans = renderer.text(chat(*turns))
    assert renderer.prompt(turns[:-1]) == text[: spans[-1][0]]


@pytest.mark.parametrize("template", ["chatml", "qwen3", "opened_thoughts"])
@given(
    turns=TURNS.filter(lambda turns: len(turns) % 2 == 0), answer=st.text(alphabet="ab拉🍜\n ", min_size=1)
)
@settings(max_examples=40, deadline=None)
def test_prompts_with_and_without_thinking_begin_the_texts_of_such_answers(template, turns, answer):
    renderer = RENDERERS[template]
    trained = Renderer(renderer.tokenizer, add_think_pattern=True)
    answer = "a" + answer
    without, _ = trained.text(chat(*turns[:-1], assistant(answer)))
    prompt = renderer.prompt(turns[:-1], "empty")
    assert without.startswith(prompt + answer.strip()) and "/no_think<|im_end|>" in prompt
    thought, spans = trained.text(chat(*turns[:-1], assistant(f"<think>\n{answer}\n</think>\n{answer}")))
    prompt = renderer.prompt(turns[:-1], "open")
    assert prompt == thought[: spans[-1][0]] and "/think<|im_end|>" in prompt
    opened = "<think>\n" if template == "opened_thoughts" else ""
    assert prompt.endswith("<|im_start|>assistant\n" + opened)


def test_the_empty_thought_is_spelled_as_the_template_spells_it():
    ends = {name: RENDERERS[name].prompt([user("q")], "empty") for name in ("chatml", "qwen3")}
    assert ends["chatml"].endswith("q/no_think<|im_end|>\n<|im_start|>assistant\n" + THINK_EMPTY)
    assert ends["qwen3"].endswith("q/no_think<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    with pytest.raises(ValueError, match="'empty' or 'open', got 'off'"):
        RENDERERS["chatml"].prompt([user("q")], "off")


def test_thoughts_are_marked_where_an_answer_follows_a_question_at_once():
    messages = [
        assistant("first"), user("a"), {"role": "tool", "content": "t"}, assistant("b"), user("c"), user("d"),
        assistant("e"), assistant("f"), user("g"), assistant("x <think> \n</think>h"), user("i"),
        assistant("<think>why</think>j"), user("k"), assistant("</think>l"), user("m"),
    ]  # fmt: skip
    assert [m["content"] for m in with_thoughts(messages)] == [
        "first", "a", "t", "b", "c", "d/no_think", THINK_EMPTY + "e", "f", "g/no_think",
        "x <think> \n</think>h",
        "i/think", "<think>why</think>j", "k/no_think", THINK_EMPTY + "</think>l", "m",
    ]  # fmt: skip
    assert messages[5] == user("d")  # what was given is left alone


@pytest.mark.parametrize("think", [False, True])
def test_texts_tokens_and_labels_are_those_of_the_vectors(think):
    expected = json.loads((VECTORS / "expected_samples.json").read_text())["samples"]
    rows = {sample.uuid: sample for _, sample in samples(VECTORS / "samples.parquet", 0)}
    renderer = Renderer(load_tokenizer(VECTORS / "tokenizer"), add_think_pattern=think)
    compared = 0
    for case in expected:
        if case["add_think_pattern"] == think:
            sample = rows[case["uuid"]]
            ((ids, is_label),) = renderer.encode([sample])
            assert renderer.text(sample)[0] == case["text"]
            assert ids.tolist() == case["input_ids"]
            # The vectors mark a document's first token as well, though nothing predicts it.
            assert is_label[1:].tolist() == [label == 1 for label in case["label_mask_right"]][1:]
            assert not is_label[0]
            compared += 1
    assert compared == len(rows) == 14


def test_all_of_a_chat_is_learned_where_not_only_answers_are():
    renderer = Renderer(tokenizer_with("qwen3"), only_assistant_loss=False)
    for sample in (chat(user("a"), assistant("b")), Sample("u", "s", None, ("one", " two"))):
        ((ids, is_label),) = renderer.encode([sample])
        assert is_label.tolist() == [False] + [True] * (len(ids) - 1)
        assert ids[-1] == renderer.tokenizer.pad_token_id
    assert renderer.encode([]) == []


def test_a_tokenizer_that_cuts_and_pads_by_itself_is_kept_from_it():
    tokenizer = tokenizer_with("chatml")
    sample = chat(user("a " * 50), assistant("b " * 50))
    ((whole, _),) = Renderer(tokenizer).encode([sample])
    tokenizer.backend_tokenizer.enable_truncation(9)
    tokenizer.backend_tokenizer.enable_padding(length=500)
    ((ids, _),) = Renderer(tokenizer).encode([sample])
    assert np.array_equal(ids, whole)


def test_a_tokenizer_with_its_own_way_to_encode_keeps_it():
    tokenizer = tokenizer_with("chatml")

    class Shouting(type(tokenizer)):
        def _encode_plus(self, text, **settings):
            return super()._encode_plus([t.replace("tale", "TALE") for t in text], **settings)

    sample = Sample("u", "s", None, ("a tale",))
    ((expected, _),) = Renderer(tokenizer).encode([sample._replace(segments=("a TALE",))])
    tokenizer.__class__ = Shouting
    ((ids, _),) = Renderer(tokenizer).encode([sample])
    assert ids.tolist() == expected.tolist()


def test_what_a_tokenizer_lacks_is_a_sentence():
    tokenizer = tokenizer_with("chatml")
    tokenizer.chat_template = None
    renderer = Renderer(tokenizer)
    assert len(renderer.encode([Sample("u", "s", None, ("a document needs none",))])) == 1
    with pytest.raises(
        InputError, match="^sample id: its tokenizer has no chat template.*chat_template.jinja"
    ):
        renderer.text(chat(user("a"), assistant("b")))
    tokenizer.pad_token = None
    with pytest.raises(InputError, match="has no pad token.*tokenizer_config.json"):
        Renderer(tokenizer)


@pytest.mark.parametrize(
    "template, said",
    [
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves out or changes what the assistant says"),
        ("{{ messages[1].content | length }}", "leaves out or changes what the assistant says in message 2"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "leaves out or changes"),
        ("{{ raise_exception('Only questions.') }}", "refuses this chat: Only questions."),
        ("{{ messages[9].content.text }}", "refuses this chat: .* has no element 9."),
        ("{% for m in messages %", "refuses this chat: "),
    ],
    ids=["drops", "changes", "repeats", "raises", "undefined", "syntax"],
)
def test_a_template_that_hides_where_answers_are_is_a_sentence(template, said):
    tokenizer = tokenizer_with("chatml")
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=f"^sample id: its chat template {said}") as error:
        Renderer(tokenizer).text(chat(user("a"), assistant("b")))
    assert "\n" not in str(error.value)


def test_where_all_is_learned_nobody_asks_where_answers_are():
    tokenizer = tokenizer_with("chatml")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper | length }}{% endfor %}"
    text, spans = Renderer(tokenizer, only_assistant_loss=False).text(chat(user("abc"), assistant("b")))
    assert (text, spans) == ("31" + PAD, [(0, len("31" + PAD))])


def test_a_demo_llm_chats_as_qwen3_does_and_otherwise_stays_as_it_was(demo, tmp_path):
    texts = all_text(demo / "items.csv")
    size = dict(hidden_size=32, layers=1, vocab_size=400)
    plain = load_tokenizer(write_causal_lm(texts, tmp_path / "plain", **size))
    tokenizer = load_tokenizer(write_causal_lm(texts, tmp_path / "chat", **size, chat=True))
    assert not plain.chat_template and plain.eos_token == plain.pad_token == PAD
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", PAD)
    assert tokenizer.get_vocab().items() - plain.get_vocab().items() == {
        (word, len(plain) + i) for i, word in enumerate(["<|im_start|>", "<|im_end|>", "<think>", "</think>"])
    }
    special = {str(token): token.special for token in tokenizer.added_tokens_decoder.values()}
    assert special == {
        PAD: True,
        "<|im_start|>": True,
        "<|im_end|>": True,
        "<think>": False,
        "</think>": False,
    }
    config = json.loads((tmp_path / "chat/config.json").read_text())
    assert config["eos_token_id"] == tokenizer.eos_token_id and config["vocab_size"] % 128 == 0
    text, _ = Renderer(tokenizer).text(chat(user("a"), assistant("b")))
    assert text == "".join(piece for piece, _ in qwen3([user("a"), assistant("b")]))
    with pytest.raises(SystemExit, match="2"):
        make_demo.main(["--text_data", str(demo / "items.csv"), "--chat", "True"])


def test_a_template_that_does_not_show_where_answers_begin_is_a_sentence():
    tokenizer = tokenizer_with("chatml")
    tokenizer.chat_template = "{{ messages[0].content }}{{ messages[1].content | upper }}"
    with pytest.raises(InputError, match="^sample id: where the assistant's words begin in message 1 cannot"):
        Renderer(tokenizer).text(chat(assistant("b"), assistant("a")))


def test_our_template_writes_what_qwen3s_own_does():
    trl = pytest.importorskip("trl", reason="ships Qwen3's template")
    template = (ROOT.__class__(trl.__file__).parent / "chat_templates/qwen3.jinja").read_text()
    tokenizer = tokenizer_with("qwen3")

    @given(messages=CHATS, asks=st.booleans(), thinks=st.booleans())
    @settings(max_examples=300, deadline=None)
    def both(messages, asks, thinks):
        ours, theirs = (
            tokenizer.apply_chat_template(
                messages, tokenize=False, chat_template=chosen, add_generation_prompt=asks,
                enable_thinking=thinks,
            )
            for chosen in (CHATML, template)
        )  # fmt: skip
        assert ours == theirs

    both()
