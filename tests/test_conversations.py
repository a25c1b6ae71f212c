"""OneRec-Think's conversations, columns conversations and type, as samples."""

import json
import re
import sys

import pyarrow as pa
import pytest
from conftest import run_command
from pyarrow import parquet
from test_check_samples import check, kinds
from test_samples import CHAT, read, write
from test_train_qwen3 import SCRIPT, flags, folder  # noqa: F401 (a fixture)

from pixelrec_train.data.convert.onerec_think_parquet import ROWS, write_conversations
from pixelrec_train.data.samples import Sample
from pixelrec_train.data.samples.rows import Problem
from pixelrec_train.errors import InputError

SPOKEN = [
    {"from": "system", "value": "be kind"},
    {"from": "human", "value": "a?"},
    {"from": "gpt", "value": "b"},
]
SYSTEM = {"role": "system", "content": "be kind"}
TYPE = "type_a_sid_to_title"


def theirs(path, table):
    """A file without uuid and source."""
    parquet.write_table(pa.table(table), path, row_group_size=2)
    return path


FORMS = {
    "roles": ([SYSTEM, *CHAT], "as it is"),
    "speakers": (SPOKEN, "as it is"),
    "JSON text of roles": ([SYSTEM, *CHAT], "JSON"),
    "JSON text of speakers": (SPOKEN, "JSON"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_conversation_is_a_chat_in_either_form(form, tmp_path):
    chat, how = FORMS[form]
    cell = json.dumps(chat) if how == "JSON" else chat
    path = theirs(tmp_path / "a.parquet", {"conversations": [cell] * 3, "type": [TYPE, "x", TYPE]})
    expected = (SYSTEM, *CHAT)
    assert read(path) == [
        Sample(f"a.parquet row {n}", source, expected, None) for n, source in ((1, TYPE), (2, "x"), (3, TYPE))
    ]


def test_uuid_and_source_come_first_where_they_are_there(tmp_path):
    path = write(tmp_path / "a.parquet", {"conversations": [SPOKEN], "type": ["x"]})
    assert [(sample.uuid, sample.source) for sample in read(path)] == [("u0", "s")]


BROKEN = {
    "no message": ([], "conversations is empty"),
    "nothing": (None, "it has neither messages nor segments"),
    "a speaker that nobody knows": ([{"from": "bot", "value": "x"}], "a role is not one of system, user"),
    "no text": ([{"from": "human", "value": None}], "a content is no text and no list of texts"),
    "text that is no JSON": ("[{]", "conversations is not JSON"),
    "no list": ('{"a": 1}', "conversations is no list"),
    "a word in it": ('["a"]', "a message is no object"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_conversation_is_a_problem_of_its_row(name, tmp_path):
    cell, says = BROKEN[name]
    cell = json.dumps(cell) if isinstance(cell, list) else cell
    path = theirs(tmp_path / "a.parquet", {"conversations": [json.dumps(SPOKEN), cell], "type": ["x"] * 2})
    good, problem = read(path)
    assert isinstance(good, Sample) and isinstance(problem, Problem)
    assert problem.row == 2 and problem.what.startswith(says), problem


def test_a_type_that_is_not_there_is_said(tmp_path):
    path = theirs(tmp_path / "a.parquet", {"conversations": [SPOKEN, SPOKEN], "type": [None, " "]})
    assert [problem.what for problem in read(path)] == ["source is missing", "source is empty"]
    path = theirs(tmp_path / "b.parquet", {"conversations": [SPOKEN]})
    with pytest.raises(InputError, match=r"has no column source: .* \(or type and conversations\)"):
        read(path)
    path = theirs(tmp_path / "c.parquet", {"messages": [json.dumps(CHAT)], "type": ["x"]})
    with pytest.raises(InputError, match="has no column uuid and no source"):
        read(path)


def test_samples_are_written_as_their_generator_writes_them(tmp_path):
    """In row groups, whole or not at all; what is read again are the same samples."""
    samples = [Sample(f"s-{n}", f"type_{n % 3}", (SYSTEM, *CHAT), None) for n in range(ROWS + 5)]
    path = tmp_path / "Beauty_conversations_train_onerec.parquet"
    write_conversations(path, ((sample, {"user_id": "u"}) for sample in samples))
    table = parquet.read_table(path)
    assert table.column_names == ["conversations", "type"]
    assert table.slice(1, 1).to_pylist() == [{"conversations": [SYSTEM, *CHAT], "type": "type_1"}]
    assert [found[1:] for found in read(path)] == [sample[1:] for sample in samples]
    with pytest.raises(InputError, match="holds chats, but profile makes documents"):
        document = Sample("d", "profile", None, ("a text",))
        write_conversations(tmp_path / "b.parquet", iter([(samples[0], {}), (document, {})]))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_check_counts_them_by_type_and_finds_nothing_wrong(tmp_path, capsys):
    path = theirs(tmp_path / "a.parquet", {"conversations": [SPOKEN] * 5, "type": [TYPE] * 3 + ["x"] * 2})
    status, out = check(capsys, path)
    assert status == 0 and "samples: 5 in 1 file: 5 chats, 0 documents" in out
    assert out.splitlines()[3].split()[:2] == [TYPE, "3"]
    path = theirs(tmp_path / "b.parquet", {"conversations": [SPOKEN, SPOKEN[2:]], "type": ["x"] * 2})
    status, out = check(capsys, path)
    assert status == 1 and kinds(out) == {"the first message is the assistant's": (1, [f"{path} row 2"])}


@pytest.mark.launch
def test_train_qwen3_reads_them(folder, tmp_path):  # noqa: F811
    """A dry run counts the samples of every type and their labels: an answer of two words and its end."""
    chats = [[{"from": "human", "value": f"one {n}"}, {"from": "gpt", "value": "a tale"}] for n in range(40)]
    table = {"conversations": chats, "type": [TYPE] * 30 + ["x"] * 10}
    path = theirs(tmp_path / "Beauty_conversations_train_onerec.parquet", table)
    settings = {"name": "chat_completion_parquet", "sources": path.name, "max_length": 128}
    (tmp_path / "dataset.json").write_text(json.dumps(settings))
    more = {"dataset_config": tmp_path / "dataset.json", "cache_dir": tmp_path / "cache", "dry_run": 1}
    result = run_command([sys.executable, SCRIPT, *flags(folder, tmp_path / "run", **more)])
    assert result.returncode == 0, result.stdout + result.stderr
    samples = rf"samples: 40 with [\d,]+ tokens, [1-9][\d,]+ of them labels: 30 {TYPE}, 10 x\n"
    assert re.search(samples, result.stdout), result.stdout
