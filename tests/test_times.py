"""When items were taken: read of the history alone, from the same windows, in training as in evaluation."""

from datetime import datetime, timezone
from math import floor, log2

import numpy as np
import pytest
import torch
from conftest import inputs_of
from good_folder import write_checkpoint
from test_item_ids import exported, start

from pixelrec_train.clock import FIRST_YEAR, PARTS, ROWS, clock, padded_clock
from pixelrec_train.data.item_text import ItemText
from pixelrec_train.data.loader import Slot
from pixelrec_train.data.windows import HistoryDataset, TwoTowerCollator
from pixelrec_train.engine.manifest import write_manifest
from pixelrec_train.errors import InputError
from pixelrec_train.evaluation.blend import Blend, end_to_end
from pixelrec_train.evaluation.places import judge
from pixelrec_train.evaluation.retrieval import TwoTower, encode_catalogue, encode_histories
from pixelrec_train.recommend import checkpoints
from pixelrec_train.trainings.plan import describe_model


def slow_clock(times):
    rows, names = [], list(PARTS)
    for place, time in enumerate(times):
        date = datetime.fromtimestamp(time, timezone.utc)
        gap = 0
        if place:
            gap = 1 + min(floor(2 * log2(1 + floor(time) - floor(times[place - 1]))), PARTS["gap"] - 2)
        found = [min(max(date.year - FIRST_YEAR, 0), 63), date.month - 1, date.weekday(), date.hour, gap]
        rows.append([sum(PARTS[n] for n in names[:part]) + value for part, value in enumerate(found)])
    return rows


def test_a_clock_reads_what_a_calendar_says():
    times = [-86400.5, 0, 0, 1, 3599, 86399.9, 631152000, 951782400, 1.5e9, 1.69e9, 4.2e9]
    found = clock(times)
    assert found.tolist() == slow_clock(times) and found.max() < ROWS
    padded = padded_clock([times, times[:2], []], 3)
    assert padded[0].tolist() == slow_clock(times[-3:])
    assert padded[1, :2].tolist() == slow_clock(times[:2]) and not padded[1, 2].any() and not padded[2].any()


@pytest.fixture
def timed(config_with, tmp_path):
    return config_with(
        item_emb_token_n=0, freeze_item_llm=True, time_features=True, cache_dir=str(tmp_path / "cache")
    )


@pytest.fixture
def inputs(timed):
    return inputs_of(timed)


@pytest.fixture
def model(timed, inputs):
    """One that has learned something of every time."""
    model = start(timed, inputs).eval()
    with torch.no_grad():
        model.times.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return model.requires_grad_(False)


def batch_at(inputs, times_of=lambda times: times):
    """A batch of the first windows, some with their times changed."""
    dataset = HistoryDataset(inputs.split, with_times=True)
    samples = [dataset[Slot(0, n, n)] for n in range(8)] + [dataset[Slot(0, 8, -1)]]
    windows, times = [window for _, window, _ in samples], [times_of(times.copy()) for *_, times in samples]
    texts = ItemText.unread(inputs.interactions.num_items)
    return TwoTowerCollator(texts, None, 6).collate(windows, np.zeros(1, int), times), windows, times


@pytest.fixture
def users_at(model, inputs):
    """times_of -> [B, S, D] what the user LLM makes of that batch."""
    model.store_texts(torch.from_numpy(encode_catalogue(model.encode_texts, inputs.item_text, 300)))
    return lambda times_of: model(batch_at(inputs, times_of)[0])[0]


@pytest.mark.parametrize("place", range(6))
def test_no_position_knows_a_later_time_and_none_that_of_the_newest_target(users_at, place):
    def later(times):
        if len(times) == 6:
            times[place:] += 40 * 86400 + 5 * 3600
        return times

    moved = (users_at(later) - users_at(lambda times: times)).abs().amax((0, 2))  # [S]
    assert not moved[:place].any()
    assert (moved[place:] > 1e-4).all()


def test_evaluation_reads_times_as_training_does(users_at, model, inputs):
    batch, windows, times = batch_at(inputs)
    trained = users_at(lambda times: times)
    catalogue = model.stored
    for row, (window, of_one) in enumerate(zip(windows[:-1], times, strict=False)):
        history, at = [window[:-1]], [of_one[:-1]]
        judged = encode_histories(model.user_llm, catalogue, history, 6, model.times, at)
        assert torch.allclose(judged[0], trained[row, len(window) - 2], atol=1e-5)


def test_training_starts_where_it_would_without_times(users_at, model, inputs):
    with_times = users_at(lambda times: times)
    model.times.weight.zero_()
    zero = users_at(lambda times: times)
    assert not torch.allclose(with_times, zero, atol=1e-3)
    model.times = None
    assert torch.equal(users_at(lambda times: times), zero)


def test_held_out_histories_come_with_their_own_times(timed, inputs, config_with, tmp_path):
    read = inputs.interactions
    for protocol in ("leave_last_two", "last_item", "time_811"):
        split = inputs_of(config_with(time_features=True, split_protocol=protocol)).split
        for part in (split.valid, split.test.sample(20, seed=1)):
            for e, times in enumerate(part.times_of(range(min(len(part), 30)))):
                assert (times == read.times[part.start[e] : part.end[e]]).all() and len(times) >= 1
                assert len(times) == len(part.history(e)) and (np.diff(times) >= 0).all()
    assert inputs_of(config_with()).split.valid.times is None


def test_a_checkpoint_ranks_with_times_and_not_without(timed, inputs, model, tmp_path):
    checkpoint = tmp_path / "run/best_model"
    write_checkpoint(checkpoint, timed, inputs)
    model.export(checkpoint, model.state_dict(), timed.item_dir)
    (checkpoint / "manifest.json").unlink()
    write_manifest(checkpoint, {})
    files = checkpoints.data_files(timed, text_data=timed.text_data)
    found, loaded, catalogue, length = checkpoints.load_towers(checkpoint, files, (), 300)
    assert torch.equal(loaded.times.weight, model.times.weight)
    tower = TwoTower.of(loaded, catalogue, length, "exact")
    places = judge(tower, found.split.test, timed).places
    loaded.times.weight.requires_grad_(False).zero_()
    assert (judge(tower, found.split.test, timed).places != places).any()
    # A blend's parts are told the times, too.
    alone = judge(tower, found.split.test, timed).places
    for both in (Blend({"a": tower, "b": tower}, [1, 1]), end_to_end([tower] * 2, [1, 1], False, "exact")):
        assert (np.abs(judge(both, found.split.test, timed).places - alone) <= 1).all()  # neighbours may swap
    history = [found.split.test.history(0)]
    with pytest.raises(InputError, match="come without times"):
        tower.recommend(history, history, 5)


def test_the_plan_says_when_it_all_happened(timed, inputs, model):
    plan = "\n".join(describe_model(timed, model, inputs))
    assert "times: calendar of, and gap before, each item of the history; 2023-" in plan


def test_without_times_it_is_refused_in_one_sentence(config_with, inputs, tmp_path):
    interactions = tmp_path / "no_times.csv"
    rows = [line.rsplit(",", 1)[0] for line in open(config_with().interaction_data)]
    interactions.write_text("\n".join(rows) + "\n")
    with pytest.raises(InputError, match="no_times.csv has no column timestamp. Name it with --time_column"):
        inputs_of(config_with(time_features=True, interaction_data=str(interactions)))
    ids = inputs.interactions.item_ids
    parts = enumerate(("train", "valid", "test"))
    rows = [f"{part},u{n},{ids[n]},{ids[n + 1]} {ids[n + 2]}" for n, part in parts]
    (tmp_path / "rows.csv").write_text("\n".join(["split,user_id,item_id,history", *rows]) + "\n")
    with pytest.raises(InputError, match="rows of --split_data name the items of a history without"):
        inputs_of(config_with(time_features=True, split_data=str(tmp_path / "rows.csv")))


def test_init_from_keeps_times_or_says_that_they_would_be_lost(timed, inputs, model, tmp_path, config_with):
    checkpoint = exported(model, timed, tmp_path / "first")
    flags = dict(init_from=checkpoint, item_model_dir=None, user_model_dir=None, item_emb_token_n=0)
    again = start(config_with(time_features=True, **flags), inputs)
    assert torch.equal(again.times.weight, model.times.weight)
    with pytest.raises(InputError, match="learned when items are taken; add --time_features"):
        start(config_with(**flags), inputs)
