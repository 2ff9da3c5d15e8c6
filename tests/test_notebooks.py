"""Every notebook runs from top to bottom as it is stored, in a process of its own.

Its code is run as a script, without Jupyter: there are no magics in it, and IPython's displays print their names.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_they_are_there():
    assert {path.stem for path in NOTEBOOKS} == {"quickstart", "tokens", "training"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where they run, one after the other as for a reader."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path, folder):
    script = folder / f"{path.stem}.py"
    script.write_text("\n\n".join(map(source, code_cells(path))))
    environment = os.environ | {"MPLBACKEND": "agg", "JAX_PLATFORMS": "cpu"}
    outcome = subprocess.run([sys.executable, script], cwd=folder, env=environment, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs(path):
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code_cells(path))
