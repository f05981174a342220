"""`python -m bench.lokr`: LoKr adapters by PEFT, which forms the product, and as `patch_peft` runs them.

A linear layer with an adapter, forward and backward, float32, one thread, CPU time, by turns: the median, the
quartiles, and the ratio of the medians.  The frozen layer alone is a yardstick: what is above it is the
adapter.  Memory is the largest that tensors took during a call beyond what was there before, by torch's
profiler, plus the largest that NumPy took, which need not be at the same time.  Exit status 1 where PEFT is
faster or smaller in a case: those are named.
"""

import argparse
import copy
import json
import statistics
import sys
from itertools import product
from pathlib import Path

from bench.machine import THREAD_VARIABLES, run_again
from bench.measure import clock, rounds
from bench.memory import peak_tensor_memory
from bench.records import seconds

FEATURES = (1024, 2048, 4096)
TOKENS = (1, 128, 1024)
# As PEFT names them: w2 of low rank, both of low rank, both whole, and a small w1 beside a large w2.
ADAPTERS = {
    "r=8": {"r": 8},
    "r=8 both": {"r": 8, "decompose_both": True},
    "whole": {"r": 10_000},
    "r=16 factor 8": {"r": 16, "decompose_factor": 8},
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.lokr", description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, action="append", help="these sizes alone")
    parser.add_argument("--tokens", type=int, action="append", help="these batches alone")
    parser.add_argument("--seconds", type=float, default=2.0, help="timing of one case, all together")
    parser.add_argument("--json", metavar="FILE", help="save every number")
    options = parser.parse_args()
    # Else torch's profiler writes a line for every start and stop.
    alone = dict.fromkeys(THREAD_VARIABLES, "1") | {"KINETO_LOG_LEVEL": "99"}
    status = run_again("bench.lokr", alone)
    if status is not None:
        return status
    records = []
    for features, tokens, name in product(options.features or FEATURES, options.tokens or TOKENS, ADAPTERS):
        records.append(_record(features, tokens, name, options.seconds))
        print(_line(records[-1]), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(records, indent=1), encoding="utf-8")
    lost = [record for record in records if record["time ratio"] < 1 or record["memory ratio"] < 1]
    print(f"PEFT is faster or smaller in {len(lost)} of {len(records)} cases", *map(_line, lost), sep="\n")
    return int(bool(lost))


def _record(features, tokens, name, duration):
    calls = _calls(features, tokens, ADAPTERS[name])
    now, probes = clock(1), {}
    for key, call in calls.items():
        call()
        start = now()
        call()
        probes[key] = now() - start
    samples = rounds(calls, probes, 1, duration, duration)
    times = {key: statistics.median(found) for key, found in samples.items()}
    spread = {key: statistics.quantiles(found, n=4)[::2] for key, found in samples.items() if len(found) > 1}
    memory = {key: peak_tensor_memory(call) for key, call in calls.items()}
    return {
        "features": features, "tokens": tokens, "adapter": name, "times": times, "quartiles": spread,
        "memory": memory, "time ratio": times["PEFT"] / times["ketcore"],
        "memory ratio": memory["PEFT"] / memory["ketcore"],
    }  # fmt: skip


def _calls(features, tokens, adapter):
    """A forward and backward pass by each contestant, on the same weights."""
    import torch
    from peft import LoKrConfig, get_peft_model
    from torch import nn

    from ketcore.torch import patch_peft

    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(features, features))
    base = model[0]
    config = LoKrConfig(alpha=8, target_modules=["0"], init_weights=False, **adapter)
    model = get_peft_model(model, config)
    base.requires_grad_(False)
    x = torch.randn(tokens, features, requires_grad=True)
    cotangent = torch.randn(tokens, features)
    patched = copy.deepcopy(model)
    patch_peft(patched)

    def step(module):
        trained = [x, *(parameter for parameter in module.parameters() if parameter.requires_grad)]
        return lambda: torch.autograd.grad(module(x), trained, cotangent)

    calls = {"ketcore": step(patched), "PEFT": step(model), "frozen layer": step(base)}
    for mine, theirs in zip(calls["ketcore"](), calls["PEFT"](), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item())
    return calls


def _line(record):
    times, memory = record["times"], record["memory"]
    shown = ", ".join(f"{key} {seconds(time)}" for key, time in times.items())
    held = ", ".join(f"{key} {size / 2**20:.1f} MB" for key, size in memory.items() if key != "frozen layer")
    case = f"{record['features']} features, {record['tokens']} tokens, {record['adapter']}"
    return (
        f"{case:<48} {record['time ratio']:5.2f} times as fast: {shown}; "
        f"{record['memory ratio']:5.2f} times smaller: {held}"
    )


if __name__ == "__main__":
    sys.exit(main())
