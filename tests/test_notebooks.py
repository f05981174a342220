"""The notebooks of examples/: they run from top to bottom, and are committed as they ran."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.require import require

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))

# A process of its own, since warnings of Jupyter's own code are not this package's.  The seconds are for one
# cell on a slow machine.
RUN = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, resources={"metadata": {"path": sys.argv[2]}}).execute()
"""


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    missing = [name for name in ("nbclient", "ipykernel", "matplotlib") if find_spec(name) is None]
    require("notebooks", not missing, f"{', '.join(missing)} not installed")
    for framework in ("torch", "jax"):
        if path.stem.startswith(framework):
            require(framework, find_spec(framework) is not None, f"{framework} is not installed")
    command = [sys.executable, "-c", RUN, str(path), str(tmp_path)]
    # One thread, since threads of BLAS that wait for one another take very long on a busy machine.
    one = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=one, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_ran(path):
    counts = [cell["execution_count"] for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < 300_000
