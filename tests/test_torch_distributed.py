"""Several processes agree with one: factors under DDP, FSDP and DTensor, and a table divided by words.

The processes are started once, and do what tests/torch_world.py has; the tests read what failed there.
"""

import json
import sys

import pytest

from tests.processes import run_python
from tests.require import imported

torch = imported("torch")

import ketcore.torch as kt  # noqa: E402

# On Windows and macOS no process is forked from one with PyTorch.
pytestmark = [
    pytest.mark.xdist_group("torch_distributed"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are forked"),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed"),
]

OF_TWO_AND_THREE = (
    "sharded_equals_whole",
    "a_process_may_have_no_ids",
    "sharded_refuses",
    "checkpoints_between_worlds",
)
OF_TWO = (
    "ddp_equals_one_process",
    "only_gradients_of_factors_travel",
    "fully_shard_equals_one_process",
    "recipe_of_dtensors",
    "records_that_are_assigned_are_divided",
    "sharded_trains_beside_ddp",
    "bytes_of_sharded_rows",
    "processes_draw_other_records",
)


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    """What failed in each process, by the size of its world and its place in it."""
    folder = tmp_path_factory.mktemp("worlds")
    ran = run_python("import runpy; runpy.run_module('tests.torch_world', run_name='__main__')", folder)
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
    assert set(found) == {"2-0", "2-1", "3-0", "3-1", "3-2"}, ran.stderr
    return found


@pytest.mark.parametrize("name", [*OF_TWO_AND_THREE, *OF_TWO])
def test_processes_agree(failures, name):
    processes = {
        key: each[name] for key, each in failures.items() if key[0] == "2" or name in OF_TWO_AND_THREE
    }
    assert not any(processes.values()), "\n".join(processes.values())


def test_every_check_has_run(failures):
    assert set(failures["2-0"]) == {*OF_TWO, *OF_TWO_AND_THREE}


def test_without_processes_a_mesh_is_missing():
    with pytest.raises(
        ValueError, match="mesh must be a DeviceMesh where there is no process group, got None"
    ):
        kt.ShardedEmbeddingKet(7, 16)
