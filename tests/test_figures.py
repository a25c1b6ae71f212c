"""What benchmarks/figures.py runs stands in docs/results.md, and what it says of a table."""

import json
import sys

import pytest
from conftest import ROOT

from benchmarks import figures

PAGE = (ROOT / "docs/results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", figures.known())
def test_every_figure_stands_in_the_page(name):
    for row, told in figures.known()[name]["rows"].items():
        texts = [f"{value:.2f}" for value in told.values()]
        lines = [line for line in PAGE.splitlines() if line.startswith("|") and all(t in line for t in texts)]
        assert lines, f"{name}: no line of docs/results.md has the figures of {row}: {texts}"


def test_a_command_is_run_and_its_figures_are_compared(tmp_path, monkeypatch, capsys):
    script = tmp_path / "run.py"
    script.write_text(
        "import json, os, pathlib\n"
        "out = pathlib.Path(os.environ['OUTPUT_DIR']); out.mkdir(parents=True)\n"
        "row = {'recall@10': 0.1234, 'recall@10_ci95': [0.11, 0.13]}\n"
        "row['ndcg@10'] = float(os.environ['NDCG'])\n"
        "(out / 'table.json').write_text(json.dumps({'ours': row}))\n"
    )
    rows = {"ours": {"recall@10": 12.9, "ndcg@10": 5.0}}
    entry = {"minutes": 1, "command": f"{sys.executable} {script}", "table": "table.json", "rows": rows}
    entries = [
        entry | {"name": name, "set": {"NDCG": value}} for name, value in (("good", "0.05"), ("bad", "0.06"))
    ]
    entries.append(entry | {"name": "far", "set": {"NDCG": "{data}/x"}})
    path = tmp_path / "figures.json"
    path.write_text(json.dumps(entries))
    monkeypatch.setattr(figures, "FIGURES", path)
    figures.main(["good", "--output_dir", str(tmp_path / "a")])
    out = capsys.readouterr().out
    assert (
        "| ours | recall@10 | 12.90 | 12.34 | close |" in out
        and "| ndcg@10 | 5.00 | 5.00 | the same |" in out
    )
    with pytest.raises(SystemExit, match="not reproduced: bad"):
        figures.main(["good", "bad", "--output_dir", str(tmp_path / "b")])
    assert "| ours | ndcg@10 | 5.00 | 6.00 | DIFFERS |" in capsys.readouterr().out
    for words, says in ((["nothing"], "no figures are called nothing"), (["far"], "far needs --data")):
        with pytest.raises(SystemExit, match=says):
            figures.main(words)
    figures.main([])
    assert "NDCG=0.05" in capsys.readouterr().out
