"""Two network namespaces stand for two hosts; what takes minutes is in benchmarks/two_hosts.py."""

import pytest
from conftest import ROOT, as_flags, events

from benchmarks import two_hosts


@pytest.mark.launch
def test_hosts_that_are_cut_off_from_each_other_both_end_with_a_sentence_that_names_the_other(
    demo_config, tmp_path
):
    """They meet although each takes its own name for 127.0.1.1. Then the cable is pulled."""
    if reason := two_hosts.why_not():
        pytest.skip(reason)
    flags = as_flags(
        demo_config, num_train_epochs=99, logging_steps=1, output_dir=tmp_path / "run",
        logging_dir=tmp_path / "logs/run", dry_run="None",
    )  # fmt: skip
    script = [ROOT / "tests/launched/impatient.py", *flags]
    seconds, statuses, said = two_hosts.cut_off(tmp_path, tmp_path / "run", script)
    assert statuses == [1, 1] and seconds < 60, said
    for text, other, ending in (
        (said[0], "rank 1 (process", "on host-b) is gone without a word"),
        (said[1], "rank 0 (process", "on host-a) at host-a:29500 has not answered for 8 s"),
    ):
        (sentence,) = (line for line in text.splitlines() if line.startswith("error:"))
        assert other in sentence and ending in sentence
        assert "Traceback" not in text
    assert len(events(tmp_path / "run", "step")) >= 5
