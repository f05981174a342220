"""The table of features in docs/torch.md: each cell is what the layer of its column does when it is tried.

FBTT-Embedding needs CUDA and is not tried: its cells are those that its source gives.
"""

import re
from pathlib import Path

import pytest

from tests.feature_problems import PROBES, contestants, missing, probe
from tests.require import imported, require

torch = imported("torch")

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "torch.md").read_text(encoding="utf-8")
PACKAGES = ("ketcore.torch", "word2ket", "tensorly-torch", "nn.Embedding")
# Where the question has no meaning for a dense table.
DASH = "\N{EN DASH}"

# What commit b95947c of FBTT-Embedding (May 2022, its last) says in README.md, tt_embeddings_ops.py and
# tt_embeddings_cuda.cu; where that does not tell, there is a question mark.
READ = {
    "runs on a CPU": "no",  # the constructor asserts torch.cuda.is_available()
    "no array of the size of the table": "yes",  # rows are products of cores, in batches of 1,000
    "scores of all words without such an array": "no",  # full_weight() is all there is
    "any order N": "no",  # 2 to 4 cores
    "any number of words and columns": "no",  # prod(tt_q_shapes) == embedding_dim, D % 4 == 0
    "tensor trains": "yes",
    "LayerNorm between the products": "no",
    "several tables in one layer": "yes",  # TableBatchedTTEmbeddingBag
    "cache of frequent rows": "yes",  # use_cache=True, cache_populate()
    "ids out of range are errors": "no",  # no check of indices, on the host or in the kernels
    "`padding_idx`": "no",
    "`max_norm`": "no",
    "`scale_grad_by_freq`": "no",
    "sparse gradients": "no",  # sparse=True updates the cores within the backward and returns no gradient
    "bags: sums": "yes",
    "bags: means, maxima, weights": "no",  # forward(indices, offsets)
    "starts from a dense table": "no",
    "second derivatives": "no",  # backward calls an extension that autograd does not record
    "forward mode": "no",  # no jvp
    "`torch.func.vmap` of `grad`": "no",  # no setup_context
    "`torch.compile(fullgraph=True)`": "?",
    "`torch.export`": "?",
    "bfloat16 and float16": "no",  # data_ptr<float> throughout
    "meta device and `to_empty`": "no",  # parameters are made on torch.cuda.current_device()
    "copies, pickles, state dicts": "?",
    "checkpoints of word2ket": "no",
    "puts itself into a model": "no",
    "and keeps ties, padding, dtype": "no",
}


def table():
    """The cells, by the row and the first word of the column."""
    lines = PAGE[PAGE.index("| | ketcore.torch") :].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[: lines.index("")]]
    columns = [cell.split()[0] for cell in rows[0][1:]]
    return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in rows[2:]}


def measured(row, package):
    """yes, no, or which of the two layers of a package has the feature."""
    layers = contestants(package)
    having = [one.name for one in layers if probe(row, one)]
    return "yes" if len(having) == len(layers) else ", ".join(having) or "no"


def test_the_table_has_every_row_and_column():
    found = table()
    assert list(found) == list(PROBES)
    for cells in found.values():
        assert list(cells) == [
            "ketcore.torch",
            "word2ket",
            "tensorly-torch",
            "FBTT-Embedding",
            "nn.Embedding",
        ]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("row", PROBES)
def test_a_cell_is_what_the_layer_does(row, package):
    require(package, not missing(package), missing(package))
    cell = table()[row][package]
    assert measured(row, package) == ("no" if cell == DASH and package == "nn.Embedding" else cell)


def test_the_cells_of_fbtt_are_what_its_source_says():
    assert {row: cells["FBTT-Embedding"] for row, cells in table().items()} == READ


def test_the_code_of_the_readme_runs():
    (code,) = re.findall(r"^```py\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    model = torch.nn.Sequential(torch.nn.Embedding(300, 16), torch.nn.Linear(16, 300))
    names = {"torch": torch, "model": model}
    exec(code, names)
    count = sum(parameter.numel() for parameter in names["embed"].parameters())
    assert f": {count:,} parameters for {30522 * 768:,}\n" in code
    assert names["scores"].shape == (1, 3, 30522)
    assert [each.names for each in names["report"].replaced] == [("0",)]
