"""A save is whole or has not happened, and what cannot be saved costs nothing that was."""

import json
import sys

import pytest
from conftest import ROOT, as_flags, run_command


@pytest.fixture(scope="module")
def findings(demo_config, tmp_path_factory):
    """tests/launched/saving.py: a save killed at every file operation, and saves onto full disks."""
    folder = tmp_path_factory.mktemp("saving")
    flags = as_flags(
        demo_config, output_dir=folder / "run", save_total_limit=2, resume="auto", dry_run="None"
    )
    result = run_command([sys.executable, ROOT / "tests/launched/saving.py", *flags, folder / "out.json"])
    assert result.returncode == 0, result.stdout + result.stderr
    return json.loads((folder / "out.json").read_text())


LAYOUTS = {
    "plain": ("checkpoint-step-3", ["checkpoint-step-2", "checkpoint-step-3"]),
    "global_step": ("step3/global_step3", ["step2", "step3"]),
}


@pytest.mark.launch
@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_at_any_file_operation_a_save_leaves_whole_checkpoints_and_auto_finds_one(findings, layout):
    assert findings[layout]["wrong"] == []
    assert findings[layout]["deaths"] > 30


@pytest.mark.launch
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_full_disk_fails_the_save_alone(findings, layout):
    full, (saved, kept) = findings[layout]["full"], LAYOUTS[layout]
    assert full["returned"] == [None, None, saved]
    assert "large" in full["problems"][0] and "GB are needed" in full["problems"][1]
    assert full["unchanged"] and full["kept"] == kept
