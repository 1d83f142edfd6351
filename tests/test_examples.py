"""Every example runs from outside the repository and prints what is recorded beside it."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path for path in EXAMPLES.rglob("*.py") if not path.stem.startswith("measure_"))
MEASURING = {
    "bloom_batch_sweep/measure_bloom.py": ["--device", "cpu"],
    "model_optimisations/measure_model_optimisations.py": [
        "--device", "cpu", "--networks", "custom-cnn,bert-base", "--batch_size", "1,2"
    ],
}  # fmt: skip
"""Scripts that time this machine -> flags of a short run."""
NOTEBOOKS = sorted(EXAMPLES.rglob("*.ipynb"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_example_prints_its_recorded_output(script: Path, tmp_path: Path) -> None:
    recorded = script.with_suffix(".out")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout == recorded.read_text()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", MEASURING)
def test_a_measuring_example_writes_records_and_goes_on_where_it_ended(script: str, tmp_path: Path) -> None:
    """A second run finds all in the records: it prints the same times and adds none."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    command = [sys.executable, str(EXAMPLES / script), *MEASURING[script]]
    printed, records = [], []
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
        records.append((tmp_path / "records.csv").read_bytes())
    assert printed[0] == printed[1] and records[0] == records[1]
    assert max(map(len, printed[0].splitlines())) <= 80
    rows = [*csv.DictReader(records[0].decode().splitlines())]
    assert rows and {row["outcome"] for row in rows} == {"ok"}
    assert [path.name for path in tmp_path.iterdir()] == ["records.csv"]


def test_every_measuring_example_is_run() -> None:
    found = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("measure_*.py")}
    assert found >= set(MEASURING)


def test_every_example_has_a_page_and_an_output() -> None:
    assert SCRIPTS
    assert NOTEBOOKS
    for script in SCRIPTS:
        assert script.with_suffix(".out").is_file()
        assert (script.parent / "README.md").is_file()


RUN = """
import sys
import nbclient
import nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=120, record_timing=False).execute()
nbformat.write(notebook, sys.argv[2])
"""


def outputs(notebook: Any) -> Iterator[tuple[str, list[str]]]:
    """Each cell's code and what it prints and answers, without pictures."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = (each.get("text") or each.get("data", {}).get("text/plain", "") for each in cell.outputs)
            kinds = (f"{each.output_type} {sorted(each.get('data', {}))}" for each in cell.outputs)
            yield cell.source, ["".join(shown), *dict.fromkeys(kinds)]


@pytest.fixture
def jupyter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of its own, in which the kernel is this interpreter."""
    folder = tmp_path / "jupyter"
    kernel = folder / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    for variable in ("JUPYTER_PATH", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(folder))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")]))
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_prints_its_recorded_outputs(path: Path, tmp_path: Path, jupyter: Path) -> None:
    place, work = jupyter / "done.ipynb", tmp_path / "work"
    work.mkdir()
    command = [sys.executable, "-c", RUN, str(path), str(place)]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    recorded, current = (nbformat.read(each, as_version=4) for each in (path, place))
    assert list(outputs(current)) == list(outputs(recorded))
    assert list(work.iterdir()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_whole_and_names_no_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.:/-])/(work|tmp|home|root|Users|mnt|opt|var)/", text)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert "image/png" in text
    assert "stderr" not in {each.get("name") for cell in notebook.cells for each in cell.get("outputs", [])}
    assert (path.parent / "README.md").is_file()


@pytest.mark.parametrize(
    ("tp", "efficiencies", "table_ms"),
    [
        (1, (1.0, 1.0), (43.7, 17.07, 214.41)),
        (2, (1.0, 1.0), (23.7, 9.35, 117.2)),
        (1, (0.7, 0.9), (62.15, 18.97, 251.84)),
        (2, (0.7, 0.87), (32.98, 10.32, 136.15)),
    ],
)
def test_fastertransformer_table_columns_within_five_percent(
    tp: int, efficiencies: tuple[float, float], table_ms: tuple[float, ...]
) -> None:
    """The ideal and profiled columns of the table in examples/fastertransformer_13b."""
    import llm_perf_model as lpm

    e = lpm.estimate(
        model="test-13b",
        engine="ideal",
        tp=tp,
        input_len=512,
        output_len=11,
        flops_efficiency=efficiencies[0],
        hbm_memory_efficiency=efficiencies[1],
    )
    ours_ms = [1e3 * float(value) for value in (e.prefill_s, e.decode_step_s, e.total_s)]
    assert ours_ms == pytest.approx(table_ms, rel=0.05)
