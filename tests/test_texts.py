"""Text files: every form read alike, templates and their labels, blocks against the plain stream, and a "
"run."""

import bz2
import gzip
import json
import re
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from conftest import ROOT, events, run_command
from transformers import AutoModelForCausalLM, AutoTokenizer

from pixelrec_train.commands import clean_text, quantise_model
from pixelrec_train.config.preferences import DpoConfig
from pixelrec_train.config.texts import TextsConfig
from pixelrec_train.data.samples.cells import Remarks
from pixelrec_train.data.texts import forms
from pixelrec_train.data.texts.as_samples import CHATS, DOCUMENTS, Form, as_samples
from pixelrec_train.data.texts.reading import Place, files_of, rows_of
from pixelrec_train.data.texts.templates import Template
from pixelrec_train.data.tokens.blocks import Blocks, Pieces
from pixelrec_train.data.tokens.chat import Ends, Renderer
from pixelrec_train.data.tokens.token_store import TokenStore
from pixelrec_train.errors import InputError
from pixelrec_train.flags import parse_args
from pixelrec_train.model.tiny import write_causal_lm

ROWS = [{"text": f"a tale number {n}"} for n in range(5)]
CHAT = [
    {"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A whale."},
    {"role": "user", "content": "Big?"}, {"role": "assistant", "content": "Very big."},
]  # fmt: skip
NAMES = "qwen2_chatml llama3_instruct chatglm3 baichuan2_chat deepseek_chat".split()


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return write_causal_lm(["a tale number 12 of a whale, very big"] * 3, folder / "lm", 32, 1, chat=True)


@pytest.fixture
def tokenizer(lm):
    return AutoTokenizer.from_pretrained(lm)


def written(folder):
    """The same rows in every kind of file."""
    lines = "".join(json.dumps(row) + "\n\n" for row in ROWS).encode()
    files = {
        "rows.jsonl": lines, "rows.ndjson": b"\xef\xbb\xbf" + lines, "rows.jsonl.gz": gzip.compress(lines),
        "rows.json": json.dumps(ROWS, indent=1).encode(),
        "packed.json.bz2": bz2.compress(json.dumps(ROWS).encode()),
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content)
    pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), folder / "rows.parquet")
    return [*files, "rows.parquet"]


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    for name in written(tmp_path):
        assert [row for _, row in rows_of(tmp_path / name)] == ROWS, name
    text = tmp_path / "rows.txt"
    text.write_bytes("one\r\n\n  \n二\n".encode("gb18030"))
    assert [(p.number, row) for p, row in rows_of(text)] == [(1, "one"), (4, "二")]
    assert [row for _, row in rows_of(text, "file")] == ["one\r\n\n  \n二\n"]
    (tmp_path / ".hidden.txt").write_text("no")
    assert len(files_of([str(tmp_path)], "--train_file")) == 7
    assert len(files_of([f"{tmp_path}/*.jsonl"], "--train_file")) == 1


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT[:2]},
        {"messages": json.dumps(CHAT[:2])},
        {"conversations": [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "A whale."}]},
        {"instruction": "What is it?", "input": "", "output": "A whale."},
        {"instruction": "What is", "input": "it?", "output": "A whale."},
        {"input": "What is it?", "output": "A whale."},
        {"prompt": "What is it?", "response": "A whale."},
        {"question": "What is it?", "answer": "A whale.", "id": 3},
    ],
)
def test_every_form_of_a_chat_is_the_same_chat(row, tmp_path):
    found = forms.chat(Place(tmp_path / "a.jsonl", "line", 1), row, Remarks())
    joined = [m | {"content": m["content"].replace("\n", " ")} for m in found.messages]
    assert joined == CHAT[:2] and found.source == "a"


def test_a_system_message_and_earlier_turns_go_before(tmp_path):
    place = Place(tmp_path / "a.jsonl", "line", 1)
    row = {"instruction": "Big?", "output": "Very big.", "history": [["What is it?", "A whale."]]}
    row |= {"system": "Be short."}
    system = {"role": "system", "content": "Be short."}
    assert list(forms.chat(place, row, Remarks()).messages) == [system, *CHAT]
    row = {"messages": CHAT, "system": "Be short."}
    assert list(forms.chat(place, row, Remarks()).messages) == [system, *CHAT]


def test_a_document_is_the_first_field_with_text_or_the_chat(tmp_path):
    place = Place(tmp_path / "a.jsonl", "line", 1)

    def text(row, *names):
        return forms.document(place, row, names or forms.TEXT_FIELDS, Remarks()).segments

    assert text({"text": " ", "content": "b", "body": "c"}) == ("b",) and text("plain") == ("plain",)
    assert text({"body": "c", "text": "a"}, "body", "text") == ("c",)
    joined = "User: What is it?\nAssistant: A whale.\nUser: Big?\nAssistant: Very big."
    assert text({"messages": CHAT}) == (joined,)
    turns = [{"from": {"user": "human"}.get(m["role"], "gpt"), "value": m["content"]} for m in CHAT]
    assert text({"conversations": turns, "text": None}) == (joined,)


@pytest.mark.parametrize(
    "what, content, says",
    [
        (CHATS, "just words", r"a.txt line 1: a line of text is no chat.*--skip_bad_rows"),
        (CHATS, '{"messages": [{"role": "user", "content": "x"}]}', "nobody answers in it"),
        (CHATS, '{"messages": [{"role": "bot", "content": "x"}]}', "a role is not one of system, user"),
        (CHATS, '{"messages": "[{"}', "messages is not JSON"),
        (CHATS, '{"a": 1}', "none of messages, conversations, instruction.*it has a"),
        (CHATS, '{"input": "x", "output": 3}', "none of messages"),
        (CHATS, '{"input": "x", "output": "y", "history": ["a"]}', "history is no list of pairs"),
        (
            CHATS,
            '{"input": "x", "output": "y"}\n{"input": 1\n[1]',
            "line 2: it is not JSON.*line 3: it is no",
        ),
        (CHATS, '{"a": 1, "a": 2}', "the key a stands there twice"),
        (DOCUMENTS, '{"text": 3}', "text is no text"),
        (DOCUMENTS, '{"title": "x"}', "none of text, content, document, body, messages, conversations"),
        (DOCUMENTS, '{"text": "\\ud800"}', "half of a surrogate pair"),
        (DOCUMENTS, "", "is empty"),
        (DOCUMENTS, "words", "begins with 'w': it is no JSON lines"),
        (DOCUMENTS, "[1, 2", "is not valid JSON"),
        (DOCUMENTS, "[]", "there is no text in"),
        (DOCUMENTS, "a\0b", "NUL byte"),
    ],
)
def test_rows_that_are_no_samples_are_named(what, content, says, tmp_path):
    path = tmp_path / ("a.txt" if content == "just words" else "a.jsonl")
    path.write_text(content)
    with pytest.raises(InputError, match=re.compile(says, re.S)):
        as_samples([path], Form(what), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("texts-*")) if (tmp_path / "cache").exists() else True


def test_bad_rows_are_left_out_and_counted_where_that_is_asked_for(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"input": "x", "output": "y"}\n{"a": 1}\n{"b": 1}\n')
    source, lines = as_samples([path], Form(CHATS, skip_bad=True), tmp_path / "cache")
    assert pyarrow.parquet.read_table(source.files[0]).num_rows == 1
    (line,) = lines
    assert "left out, as it is none of" in line and ": 2, the first in" in line and "line 2" in line


def test_files_that_are_not_there_or_stand_twice(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    for names, says in (
        (["no.txt"], "--train_file no.txt does not exist"),
        ([f"{tmp_path}/*.json"], "holds no file that ends in .txt"),
        ([f"{tmp_path}/a.txt", str(tmp_path)], "a.txt twice"),
    ):
        with pytest.raises(InputError, match=says):
            files_of(names, "--train_file")


def shingled(text):
    return {text[at : at + 5] for at in range(len(text) - 4)}


def test_cleaning_keeps_the_first_of_what_is_alike_and_counts_the_rest(tmp_path, capsys):
    pytest.importorskip("datasketch")
    rng = np.random.default_rng(0)
    words = ["".join(chr(97 + c) for c in rng.integers(0, 26, 6)) for _ in range(400)]
    base = [" ".join(rng.choice(words, 40)) for _ in range(30)]
    near = [text[:-3] + "xyz" for text in base[:10]]  # most pieces are common
    rows = [{"text": text, "n": n} for n, text in enumerate([*base, *near])]
    rows += [{"text": base[0].upper() + "  "}, {"text": "ab"}, {"text": "y" * 5000}, {"other": 1}]
    rows += [{"instruction": "What is it?", "output": "A whale that nobody has seen before."}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    clean_text.main.__wrapped__(
        [str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "out.jsonl"), "--min_characters", "5",
         "--max_characters", "4000"]
    )  # fmt: skip
    kept = [json.loads(line) for line in open(tmp_path / "out.jsonl")]
    expected = []  # the slow way: every text against all that were kept
    for text in (*base, *near):
        pieces = shingled(text)
        alike = [len(pieces & shingled(other)) / len(pieces | shingled(other)) for other in expected]
        expected += [text] * (max(alike, default=0) < 0.8)
    assert [row["text"] for row in kept[:-1]] == expected == base and kept[-1] == rows[-1]
    told = capsys.readouterr().out
    assert "31 of 45 rows kept" in told
    for line in (
        "10 left out: nearly there before",
        "1 left out: there before",
        "1 left out: shorter than 5",
    ):
        assert line in told
    with pytest.raises(InputError, match="is there already"):
        clean_text.main.__wrapped__([str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "out.jsonl")])


@pytest.mark.parametrize("name", NAMES)
def test_a_template_says_which_characters_are_learned(name, tokenizer):
    template = Template.load(ROOT / f"configs/templates/{name}.json")
    words = [w for w in (*template.stops, template.begin) if w.startswith(("<", "["))]
    tokenizer.add_tokens(words, special_tokens=True)
    tokenizer.chat_template = template.jinja()
    texts = [("system", "Be short."), *((m["role"], m["content"]) for m in CHAT)]
    said = [template.around[role][0] + text + template.around[role][1] for role, text in texts]
    plain = template.begin + "".join(said)
    chat = tuple({"role": role, "content": text} for role, text in texts)
    renderer = Renderer(tokenizer, ends=Ends("<|endoftext|>", template.stops))
    sample = forms.Sample("x", "y", chat, None)
    text, spans = renderer.text(sample)
    assert text == plain + "<|endoftext|>"
    stop = {"chatglm3": "<|user|>", "baichuan2_chat": "</s>", "deepseek_chat": "<｜end▁of▁sentence｜>"}
    ends = stop.get(name, template.around["assistant"][1].strip())
    last = "<|endoftext|>" if name == "chatglm3" else ends
    learned = [text[a:b].lstrip(" ") for a, b in spans]
    assert learned == ["A whale." + ends, "Very big." + last]
    ids, is_label = renderer.encode([sample])[0]
    labels = [tokenizer.decode(ids[i]) for i in np.flatnonzero(is_label)]
    assert "".join(labels).replace(" ", "") == "".join(learned).replace(" ", "")
    prompt = tokenizer.apply_chat_template(list(chat[:-1]), tokenize=False, add_generation_prompt=True)
    assert plain.startswith(prompt) and plain[len(prompt) :].lstrip(" ").startswith("Very big.")
    only_last = Renderer(tokenizer, ends=Ends("<|endoftext|>", template.stops, last_answer_only=True))
    assert [text[a:b].lstrip(" ") for a, b in only_last.text(sample)[1]] == learned[1:]


def test_both_dialects_say_the_same(tmp_path):
    one = json.loads((ROOT / "configs/templates/qwen2_chatml.json").read_text())
    messages = [
        {"role": role, "template": f"{one[f'{role}_prefix']}{{{word}}}{one[f'{role}_suffix']}"}
        for role, word in (("system", "system"), ("user", "input"), ("assistant", "output"))
    ]
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"messages": messages, "separator": "", "stop_tokens": ["<|im_end|>"]}))
    assert Template.load(path) == Template.load(ROOT / "configs/templates/qwen2_chatml.json")
    assert "{" not in Template.load(path).around["user"][0]


@pytest.mark.parametrize(
    "content, says",
    [
        ("{", "is not valid JSON"),
        ("[]", "it must hold an object"),
        ('{"user_prefx": ""}', "'user_prefx' is no key of a template"),
        ('{"user_prefix": 3}', "user_prefix must be a text"),
        ('{"user_prefix": "U: "}', "no words for the role assistant"),
        ('{"messages": 3}', "messages must be a list"),
        ('{"messages": [{"role": "bot", "template": "{content}"}]}', "a message must have a role"),
        ('{"messages": [{"role": "user", "template": "no place"}]}', "must hold one of"),
        ('{"messages": [%s, %s]}' % (('{"role": "user", "template": "{input}"}',) * 2), "twice"),
        ('{"user_prefix": "", "stop_tokens": "x"}', "stop_tokens must be a list of texts"),
    ],
)
def test_bad_templates(content, says, tmp_path):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(InputError, match=says):
        Template.load(tmp_path / "t.json")


@pytest.mark.parametrize("size", [2, 7, 16, 1000])
def test_blocks_are_the_stream_and_pieces_the_documents(size, lm, tokenizer, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(f"a tale number {n}" * (n % 5 + 1) for n in range(23)))
    source, _ = as_samples([path], Form(DOCUMENTS), tmp_path / "cache")
    store = TokenStore.open_or_build([source], tokenizer, lm, tmp_path / "cache", ends=Ends("<|im_end|>"))
    texts = [store.tokens(i)[0] for i in range(store.num_samples)]
    assert all(tokenizer.decode(ids[-1]) == "<|im_end|>" for ids in texts)
    stream, blocks, pieces = np.concatenate(texts), Blocks(store, size), Pieces(store, size)
    expected = [stream[at : at + size] for at in range(0, len(stream), size)]
    cut = [ids[at : at + size] for ids in texts for at in range(0, len(ids), size)]
    for view, parts in ((blocks, expected), (pieces, cut)):
        assert view.num_samples == len(parts) and view.lengths.tolist() == list(map(len, parts))
        assert view.entry_bounds == [(0, len(parts))] and view.source.tolist() == [0] * len(parts)
        for i, part in enumerate(parts):
            ids, is_label = view.tokens(i)
            assert np.array_equal(ids, part) and is_label.tolist() == [k > 0 for k in range(len(part))]
            assert view.num_labels[i] == len(part) - 1


@pytest.mark.parametrize(
    "words, says",
    [
        ("--stage sft --block_size 8", "--block_size 8 is for --stage pretrain, this is sft"),
        ("--block_size 8 --loss_on last", "--loss_on last is for --stage sft, this is pretrain"),
        ("--patience 3", "--patience 3 needs --eval_file"),
        ("--fp16 True", "--fp16 is refused: its range ends at 65,504"),
        ("--push_to_hub True", "--push_to_hub is refused"),
        ("--optim adafactor", "--optim must be one of AdamW's names"),
        ("--qlora True", "needs --lora_r"),
        ("--train_file ,", "--train_file must name a file"),
    ],
)
def test_flags_that_contradict(words, says):
    given = ["--model_dir", "m", "--train_file", "a.txt", *words.split()]
    with pytest.raises(InputError, match=says):
        parse_args(TextsConfig, given)


def test_peft_enabled_says_whether_there_are_adapters():
    def config(*words):
        return parse_args(TextsConfig, ["--model_dir", "m", "--train_file", "a.txt", *words])

    assert config("--peft_enabled", "True").lora_r == 8 and config().lora_r is None
    off = config("--peft_enabled", "False", "--lora_r", "4", "--lora_dropout", "0.3", "--qlora", "True")
    assert off.lora_r is None and not off.load_in_4bit
    assert config("--text_fields", "a").stage == config("--block_size", "9").stage == "pretrain"
    judged = config("--metric_for_best_model", "eval_loss", "--eval_file", "b")
    assert judged.stage == "sft" and judged.best_by == "valid_loss"


def test_the_shipped_preferences_are_read_as_they_are():
    config = parse_args(DpoConfig, ["--config", "configs/text/rlhf.yaml"])
    assert (config.beta, config.loss_type, config.best_by) == (0.1, "sigmoid", None) and config.eval_file


@pytest.mark.parametrize("name", ["pretrain", "finetune"])
def test_the_shipped_files_are_read_as_they_are(name):
    config = parse_args(TextsConfig, ["--config", f"configs/text/{name}.yaml"])
    assert config.eval_file and config.model_dir.startswith("results/text_demo/") and not config.bf16
    assert (config.stage, config.lora_r) == {"pretrain": ("pretrain", None), "finetune": ("sft", 16)}[name]


@pytest.mark.launch
def test_a_run_from_yaml_has_the_loss_that_transformers_has_and_adapters_load_in_peft(lm, tmp_path):
    import peft

    chats = [{"messages": [m | {"content": f"{m['content']} {n}"} for m in CHAT]} for n in range(12)]
    for name, rows in (("a.jsonl", chats[:9]), ("b.jsonl", chats[9:])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sft.yaml").write_text(f"""
model_name_or_path: {lm}
template_path: {ROOT}/configs/templates/qwen2_chatml.json
data: {{train_file: a.jsonl, eval_file: b.jsonl, max_length: 256}}
peft: {{enabled: true, lora_r: 4, target_modules: all-linear}}
training_args:
  {{output_dir: out, logging_dir: log, max_steps: 2, bf16: false, dataloader_num_workers: 0,
    learning_rate: 1.0e-2, logging_steps: 1, fp16: false, evaluation_strategy: epoch}}
""")
    command = [sys.executable, ROOT / "scripts/train_text.py", "--config", "sft.yaml", "--cache_dir", "cache"]
    result = run_command(command, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "--eval_strategy has no effect here" in result.stdout
    assert "stage: sft, labels: answers of chats" in result.stdout
    best = tmp_path / "out/best_model"
    tokenizer = AutoTokenizer.from_pretrained(best / "llm")
    whole = AutoModelForCausalLM.from_pretrained(best / "llm").eval()
    base = AutoModelForCausalLM.from_pretrained(lm)
    adapted = peft.PeftModel.from_pretrained(base, best / "adapter").eval()
    assert AutoTokenizer.from_pretrained(best / "adapter").chat_template == tokenizer.chat_template
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in whole.generation_config.eos_token_id
    total, count = 0.0, 0
    for row in chats[9:]:
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False) + "<|endoftext|>"
        found = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
        answers = re.finditer(r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)", text, re.S)
        spans = [match.span(1) for match in answers]
        ids = found.input_ids
        starts = found.offset_mapping[0, :, 0].tolist()
        labels = torch.tensor([[any(a <= start < b for a, b in spans) for start in starts]])
        with torch.no_grad():
            logits = whole(ids).logits
            assert torch.allclose(adapted(ids).logits, logits, atol=1e-5)
        words = logits[0, :-1, : len(tokenizer)]  # rows beyond are no words, and get no probability here
        losses = torch.nn.functional.cross_entropy(words, ids[0, 1:], reduction="none")
        total, count = total + losses[labels[0, 1:]].sum().item(), count + labels.sum().item()
    evaluation = min(events(tmp_path / "out", "eval"), key=lambda event: event["valid_loss"])
    assert evaluation["valid_loss"] == pytest.approx(total / count, rel=1e-4)
    pytest.importorskip("bitsandbytes")
    small = tmp_path / "small"
    words = ["--model_dir", str(best / "llm"), "--output_model_dir", str(small)]
    quantise_model.main.__wrapped__(words)
    again = AutoModelForCausalLM.from_pretrained(small).eval()
    ids = torch.arange(8)[None]
    with torch.no_grad():
        off = (again(ids).logits.float() - whole(ids).logits).abs().max() / whole(ids).logits.abs().max()
    assert 0 < off < 0.1 and json.loads((small / "quantising.json").read_text())["bits"] == 8
    with pytest.raises(InputError, match="columns are no multiple of 64.*Take --bits 8"):
        quantise_model.main.__wrapped__([*words, "--bits", "4", "--overwrite"])
    with pytest.raises(InputError, match="would replace --model_dir"):
        quantise_model.main.__wrapped__([*words[:2], "--output_model_dir", str(best)])
    talk = [sys.executable, ROOT / "scripts/chat.py", "--model", best / "llm", "--temperature", "0"]
    assert run_command([*talk, "--max_new_tokens", "5", "--prompt", "What is it?"]).returncode == 0
