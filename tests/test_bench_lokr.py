"""The benchmark of LoKr adapters: a case of a size that takes no time."""

from importlib.util import find_spec

import pytest

from tests.require import imported, require

torch = imported("torch")

from bench import lokr  # noqa: E402


@pytest.mark.parametrize("adapter", ["r=8 both"])
def test_a_case(adapter):
    require("peft", find_spec("peft") is not None, "peft is not installed")
    threads = torch.get_num_threads()
    try:
        record = lokr._record(24, 3, adapter, 0.01)
    finally:
        torch.set_num_threads(threads)
    assert set(record["times"]) == set(record["memory"]) == {"ketcore", "PEFT", "frozen layer"}
    assert all(time > 0 for time in record["times"].values())
    # A product of 24 x 24 in float32, and its gradient, at the least.
    assert record["memory"]["PEFT"] >= 2 * 4 * 24**2
    assert lokr._line(record).startswith(f"24 features, 3 tokens, {adapter}  ")
