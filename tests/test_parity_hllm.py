"""Numbers of the original HLLM, reproduced through our public path (benchmarks/parity_hllm.py)."""

import shutil
import sys

import forks
import numpy as np
import pytest
from conftest import ROOT, run_command

sys.path.insert(0, str(ROOT / "benchmarks"))
import parity_hllm  # noqa: E402

NUMBERS = ROOT / "tests/fixtures/parity_hllm"
COMMAND = "benchmarks/parity_hllm.py tests/fixtures/parity_hllm"  # as docs/differences.md has it


@pytest.mark.launch
def test_every_quantity_of_the_original_is_reproduced():
    assert f"```bash\npython {COMMAND}\n" in (ROOT / "docs/differences.md").read_text(encoding="utf-8")
    result = run_command([forks.folder() / "python", *COMMAND.split()])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "108 of 108 quantities agree" in result.stdout


@pytest.mark.parametrize(
    "file, key, broken",
    [
        ("expected_train", "loss", "step: loss"),
        ("expected_train", "user_hidden", "step: user hidden states"),
        ("expected_train", "grad_item_emb_tokens", "step: grad_item_emb_tokens"),
        ("expected_train", "false_negative_mask", "step: false-negative mask (0 = equal)"),
    ],
)
def test_a_number_that_is_off_is_noticed_and_named(tmp_path, file, key, broken):
    shutil.copytree(NUMBERS, tmp_path / "numbers")
    numbers = dict(np.load(NUMBERS / f"{file}.npz"))
    numbers[key] = ~numbers[key] if numbers[key].dtype == bool else numbers[key] * 1.001
    np.savez(tmp_path / f"numbers/{file}.npz", **numbers)
    case = parity_hllm.Case(tmp_path / "numbers", tmp_path / "cache")
    assert [c.name for c in parity_hllm.check_step(case, "") if not c.holds] == [broken]
