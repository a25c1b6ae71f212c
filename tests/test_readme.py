"""The README is a test: its commands run, its flags are the flags, its figures were printed by a run."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import forks
import pytest
from conftest import ROOT

from pixelrec_train.config import TrainConfig
from pixelrec_train.flags import as_text, fields_of

PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}


def commands(page):
    """The commands a reader is told to type, in order; a backslash at the end joins lines."""
    blocks = re.findall(r"```bash\n(.*?)```", TEXTS[page], re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


SHORT = {
    "DEMO_USERS": "500",
    "NUM_TRAIN_EPOCHS": "1",
    "STAGE2_EPOCHS": "1",
    "MAX_TEXT_LENGTH": "16",
    "MAX_STEPS": "3",  # of each of OpenOneRec's stages
    "USERS": "50",  # judged in the end
}  # the same commands, less of it
LONGER = {"bash scripts/run_train_pixelrec.sh": {"NUM_TRAIN_EPOCHS": "4"}}  # until it has learned something
ELSEWHERE = (
    "bash scripts/run_tests.sh",  # what is running right now
    "source .venv/bin/activate",  # the interpreter it runs with
    "python benchmarks/parity_hllm.py tests/fixtures/parity_hllm",  # test_parity_hllm.py types it
)


def is_ours(path):
    return not any(part.startswith(".") for part in path.relative_to(ROOT).parts)


def flags_table():
    rows = ["| flag | default | meaning |", "|---|---|---|"]
    for f in fields_of(TrainConfig):
        default = "required" if f.default is dataclasses.MISSING else f"`{as_text(f.default)}`"
        names = ", ".join(f"`--{name}`" for name in (f.name, *f.metadata["alias"]))
        rows.append(f"| {names} | {default} | {f.metadata['help']} |")
    return "\n".join(rows)


def test_the_flag_table_is_generated_from_the_config():
    """UPDATE_README=1 pytest tests/test_readme.py writes it."""
    (page,) = [page for page, text in TEXTS.items() if "<!-- flags -->\n" in text]
    before, rest = TEXTS[page].split("<!-- flags -->\n")
    old, after = rest.split("<!-- /flags -->")
    if os.environ.get("UPDATE_README"):
        (ROOT / page).write_text(f"{before}<!-- flags -->\n{flags_table()}\n<!-- /flags -->{after}")
        return
    assert old.strip() == flags_table(), "run: UPDATE_README=1 python -m pytest tests/test_readme.py"


def test_continuous_integration_is_the_readmes_test_command():
    assert "bash scripts/run_tests.sh" in commands("README.md")
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec bash scripts/run_tests.sh"


def anchors(page):
    """What a link may name behind a #, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [str(p.relative_to(ROOT)) for p in ROOT.glob("**/*.md") if is_ours(p)])
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith(("http://", "https://", "mailto:")):
            file, _, anchor = link.partition("#")
            target = (ROOT / page).parent / file if file else ROOT / page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The tree as git would hand it to a newcomer, uncommitted work included, in a folder with a space."""
    folder = tmp_path_factory.mktemp("new comer") / "pixelrec train"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def run(command, clone, timeout=400, **environment):
    """A line of a page as a newcomer would type it, with this interpreter first on the path.

    It is forked (see forks.py), but where a script runs for the first time, and where AFRESH names it.
    """
    once = clone.with_name("started")
    once.mkdir(exist_ok=True)
    path = os.pathsep.join(map(str, (forks.folder(), Path(sys.executable).parent, os.environ["PATH"])))
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "PYTHON")}
    clean |= {"PATH": path, "ONCE_AFRESH": str(once)}
    return subprocess.run(
        ["bash", "-c", command], cwd=clone, env=clean | environment,
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


def follow(page, clone):
    """Run the commands of a page in their order."""
    for command in commands(page):
        if command in ELSEWHERE:
            continue
        if command.startswith("tail -f"):
            result = run(f"timeout 2 {command} -n +1", clone)
            assert result.returncode == 124 and " note | done: " in result.stdout
        elif command.startswith("tensorboard"):
            # In the background, so that nobody waits for its end once it has said where it serves.
            seen = "for i in $(seq 250); do grep -m 1 http:// seen && break; sleep 0.1; done"
            result = run(f"{command} --port 0 > seen 2>&1 & {seen}; kill %1", clone)
            assert "http://" in result.stdout, result.stdout
        else:
            less = " --num_train_epochs 2" if "scripts/compare.py" in command else ""
            # One thread each: other tests run beside, and threads that wait for a core spin.
            result = run(command + less, clone, **SHORT | LONGER.get(command, {}), OMP_NUM_THREADS="1")
            assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
            assert "Traceback" not in result.stdout + result.stderr


@pytest.fixture(scope="module")
def newcomers(clone):
    """The clone of one who has typed every command of the README."""
    follow("README.md", clone)
    return clone


@pytest.mark.launch
def test_every_command_runs_in_the_order_of_the_readme(newcomers):
    clone = newcomers
    for produced in ("results/demo/table.json", "results/mine/table.md", "results/direct/best_model",
                     "results/demo/best_model/eval-test/index.faiss", "results/demo/curves.png"):  # fmt: skip
        assert (clone / produced).exists(), produced
    three = json.loads((clone / "results/demo_generative/table.json").read_text())
    assert list(three) == ["popularity", "two_tower", "generative"]
    table = json.loads((clone / "results/demo/table.json").read_text())
    assert three["two_tower"] == table["two_tower"]  # of the same checkpoint, by the same evaluation
    assert table["two_tower"]["recall@10"] >= 3 * table["popularity"]["recall@10"]  # after 60 steps already
    assert table["two_tower"]["cold_recall@10"] >= 5 * 10 / 999  # five times chance


@pytest.mark.launch
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if set(commands(page)) - set(ELSEWHERE)])
def test_every_command_of_a_page_runs_after_those_of_the_readme(newcomers, page):
    follow(page, newcomers)


@pytest.mark.launch
def test_a_detached_run_says_how_to_follow_it_and_a_second_start_is_refused_meanwhile(clone):
    where = "OUTPUT_DIR=results/detached LOGGING_DIR=logs/detached"
    start = f"BACKGROUND=1 {where} bash scripts/run_train_pixelrec.sh"
    real = {
        "AFRESH": "deepspeed.launcher.runner"
    }  # and so all that it starts: signals find ranks as children
    result = run(start, clone, **SHORT | {"NUM_TRAIN_EPOCHS": "500", "OMP_NUM_THREADS": "1"} | real)
    assert result.returncode == 0, result.stdout + result.stderr
    process = re.search(r"process (\d+)", result.stdout)[1]
    log = re.search(r"tail -f (\S+)", result.stdout)[1]
    assert log == "logs/detached_train.log"
    try:
        wait = f"for i in $(seq 300); do grep -qs ' step ' {log} && exit 0; sleep 0.5; done; exit 1"
        assert run(wait, clone).returncode == 0, (clone / "logs/detached_launch.log").read_text()
        second = run(f"{start} --overwrite", clone, **SHORT, OMP_NUM_THREADS="1")
        assert second.returncode != 0
        assert "another run" in second.stderr and "Traceback" not in second.stderr
    finally:
        subprocess.run(["kill", process], check=True)
        stopped = f"grep -qs 'stopped after step .*SIGTERM' {log}"
        wait = f"for i in $(seq 40); do {stopped} && exit 0; sleep 0.5; done; exit 1"
        assert run(wait, clone).returncode == 0, (clone / log).read_text()[-500:]
        gone = (
            "for i in $(seq 60); do pgrep -f [r]esults/detached >/dev/null || exit 0; sleep 0.5; done; exit 1"
        )
        assert run(gone, clone).returncode == 0, "ranks are left over"


@pytest.mark.parametrize(
    "environment, words",
    [
        ({"INTERACTION_DATA": "dataset/x.csv"}, "INTERACTION_DATA and TEXT_DATA belong together"),
        ({"NUM_GPUS": "two"}, "NUM_GPUS must be a number of ranks"),
        ({"ITEM_MODEL_DIR": "models/x"}, "ITEM_MODEL_DIR and USER_MODEL_DIR belong together"),
        ({"INTERACTION_DATA": "no.csv", "TEXT_DATA": "no.csv"}, "--text_data no.csv does not exist"),
        ({"PYTHON": "/nonexistent/python", "PATH": "/nonexistent"}, "no Python 3.10 or newer"),
    ],
)  # fmt: skip
def test_the_script_refuses_half_a_setting_in_words(clone, environment, words):
    command = "bash scripts/run_train_pixelrec.sh"
    if "PATH" in environment:  # bash itself and dirname are all there is
        command = f"source {'scripts/prepare_python.sh'}"
    result = run(command, clone, **environment) if "PATH" not in environment else subprocess.run(
        [shutil.which("bash"), "-c", command], cwd=clone, env=environment, capture_output=True, text=True
    )  # fmt: skip
    assert result.returncode != 0
    assert words in result.stderr and "Traceback" not in result.stderr


def test_the_scripts_are_sound_shell():
    scripts = sorted(map(str, (ROOT / "scripts").rglob("*.sh")))
    for script in scripts:
        assert subprocess.run(["bash", "-n", script]).returncode == 0
    if shutil.which("shellcheck"):
        command = ["shellcheck", "-x", "-P", "SCRIPTDIR", *scripts]
        found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert found.returncode == 0, found.stdout


def test_the_chinese_readme_has_the_same_commands_and_figures():
    chinese = (ROOT / "README.zh.md").read_text(encoding="utf-8")
    assert re.findall(r"```bash\n(.*?)```", chinese, re.S) == re.findall(
        r"```bash\n(.*?)```", TEXTS["README.md"], re.S
    )
    row = r"^\| (?:popularity|two_tower|generative) \|.*$"
    assert re.findall(row, chinese, re.M) == re.findall(row, TEXTS["README.md"], re.M)
