"""Hidden words: what is chosen, the loss beside transformers' own, and an encoder that item towers load."""

import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, events, run_command
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, AutoModelForMaskedLM, BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from pixelrec_train.config.texts import TextsConfig
from pixelrec_train.data.loader import Slot
from pixelrec_train.data.texts.masking import MaskedDataset, MaskingCollator
from pixelrec_train.errors import InputError
from pixelrec_train.flags import parse_args
from pixelrec_train.tasks.masked_words import MaskedTask

WORDS = [f"word{n} of a tale about whales" for n in range(40)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert") / "bert"
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.train_from_iterator(WORDS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIAL))
    around = [("[CLS]", 2), ("[SEP]", 3)]
    inner.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    names = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape)
    BertForMaskedLM(config).save_pretrained(folder)
    return folder, tokenizer


class Store:
    """Texts of words alone, as tokens/blocks.Cut has them."""

    def __init__(self, texts):
        self.texts, self.num_samples = texts, len(texts)

    def tokens(self, i):
        return self.texts[i], None


@pytest.fixture
def store(bert):
    rng = np.random.default_rng(0)
    return Store([rng.integers(5, len(bert[1]), n) for n in (1, 3, 20, 400)])


def test_what_is_chosen_depends_on_seed_epoch_and_text_alone(bert, store):
    data = MaskedDataset(store, bert[1], 0.15, 7)
    again, fixed = MaskedDataset(store, bert[1], 0.15, 7), MaskedDataset(store, bert[1], 0.15, 7, fixed=True)

    def row(data, epoch, text, position=0):
        return [part.tolist() for part in data[Slot(epoch, position, text)]]

    assert row(data, 2, 3) == row(again, 2, 3, position=9) != row(data, 1, 3)
    assert row(fixed, 2, 3) == row(fixed, 0, 3) not in (row(data, 0, 3), row(data, 2, 3))
    for text, words in enumerate(store.texts):
        ids, places, labels = data[Slot(0, 0, text)]
        assert len(places) == max(round(0.15 * len(words)), 1) == len(set(places.tolist()))
        plain = np.concatenate([[2], words, [3]])
        assert np.array_equal(plain[places], labels)
        same = np.ones(len(plain), bool)
        same[places] = False
        assert np.array_equal(ids[same], plain[same])  # what is not chosen is left alone
    many = [data[Slot(epoch, 0, 3)] for epoch in range(60)]
    chosen = np.concatenate([ids[places] for ids, places, _ in many])
    true = np.concatenate([labels for *_, labels in many])
    assert (chosen == 4).mean() == pytest.approx(0.8, abs=0.03)
    assert (chosen == true).mean() == pytest.approx(0.1, abs=0.03)


def test_the_loss_is_transformers_own(bert, store):
    model = AutoModelForMaskedLM.from_pretrained(bert[0]).eval()
    data = MaskedDataset(store, bert[1], 0.15, 7)
    texts = [data[Slot(0, 0, text)] for text in (0, 1, 2)] + [data[Slot(0, 0, -1)]]
    batch = MaskingCollator(0)(texts)
    labels = torch.full_like(batch.ids, -100)
    labels[batch.rows, batch.columns] = batch.labels
    theirs = model(input_ids=batch.ids, attention_mask=batch.real.long(), labels=labels).loss
    task = MaskedTask(model, bert[0])
    loss, metrics = task(batch)
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert metrics["masked_top1"][1] == 5 == task.weight(batch) and batch.counts["samples"] == 3
    assert task.judge([batch, batch])["valid_loss"] == pytest.approx(theirs.item(), rel=1e-5)
    with pytest.raises(InputError, match="hold no word"):
        task.judge([MaskingCollator(0)([data[Slot(0, 0, -1)]])])


def test_what_does_not_go_with_it():
    for words in ("--lora_r 4", "--stage sft", "--peft_enabled True"):
        with pytest.raises(InputError, match="--objective mlm trains an encoder"):
            given = ["--model_dir", "m", "--train_file", "a", "--objective", "mlm", *words.split()]
            parse_args(TextsConfig, given)


@pytest.mark.launch
def test_a_run_writes_an_encoder_that_plain_transformers_loads(bert, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(WORDS[:30]))
    (tmp_path / "b.txt").write_text("\n".join(WORDS[30:]))
    words = (
        f"--objective mlm --model_dir {bert[0]} --train_file a.txt --eval_file b.txt --block_size 16 "
        "--bf16 False --dataloader_num_workers 0 --learning_rate 1e-2 --num_train_epochs 2 --output_dir out "
        "--logging_dir log --logging_steps 1 --cache_dir cache --mask_share 0.3"
    ).split()
    result = run_command([sys.executable, ROOT / "scripts/train_text.py", *words], cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    losses = [event["valid_loss"] for event in events(tmp_path / "out", "eval")]
    assert losses[1] < losses[0]
    made = tmp_path / "out/best_model/encoder"
    tower, before = AutoModel.from_pretrained(made), AutoModel.from_pretrained(bert[0])
    assert not torch.equal(tower.embeddings.word_embeddings.weight, before.embeddings.word_embeddings.weight)
    whole = AutoModelForMaskedLM.from_pretrained(made)
    assert whole.cls.predictions.decoder.weight is whole.bert.embeddings.word_embeddings.weight
