"""`python -m bench.overhead`: what a call of `ketcore.torch.functional.rows` takes beyond the work itself.

Without gradients, beyond the same operation on the same NumPy arrays; `conversions` is that operation on
tensors, made arrays by torch's own functions, and nothing else.  Forward and backward, over the least that
torch lets one write with transforms that work: an operator by `define` and `impl`, and around it a Function
with `setup_context`, with nothing checked.  One thread, CPU time, single calls by turns: medians and
quartiles of calls, and of the differences and ratios within a turn.
"""

import argparse
import json
import statistics
import sys
from itertools import product
from operator import sub, truediv
from pathlib import Path

from bench.machine import THREAD_VARIABLES, describe, run_again
from bench.measure import single_calls
from bench.records import seconds
from bench.workloads import Workload, make_case

WORKLOADS = (
    Workload("rows", 30428, 256, 4, 1),
    Workload("rows", 32011, 256, 2, 10),
    Workload("rows", 30522, 768, 2, 10),
)
BATCHES = (32, 1024)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, action="append", help="these numbers of ids alone")
    parser.add_argument("--seconds", type=float, default=3.0, help="timing of one case, all together")
    parser.add_argument("--json", metavar="FILE", help="save every number")
    options = parser.parse_args()
    alone = dict.fromkeys(THREAD_VARIABLES, "1")
    status = run_again("bench.overhead", alone)
    if status is not None:
        return status
    records = []
    for workload, batch in product(WORKLOADS, options.batch or BATCHES):
        records.append(_record(workload, batch, options.seconds))
        print(_text(records[-1]), flush=True)
    if options.json:
        saved = {"machine": describe(), "records": records}
        Path(options.json).write_text(json.dumps(saved, indent=1), encoding="utf-8")
    return 0


def _record(workload, batch, duration):
    library, calls = _calls(make_case(workload, batch, "float32", "backward"))
    samples = single_calls(calls, duration)
    # Takes its operators out of torch, for the next case to define its own.
    library._destroy()
    times = {name: statistics.median(found) for name, found in samples.items()}
    return {
        "workload": workload.name,
        "batch": batch,
        "times": times,
        "quartiles": {name: statistics.quantiles(found, n=4)[::2] for name, found in samples.items()},
        "overhead": _summary(sub, samples["function"], samples["NumPy"]),
        "added": _summary(sub, samples["function"], samples["conversions"]),
        "ratio": _summary(truediv, samples["function, gradients"], samples["bare scheme, gradients"]),
    }


def _summary(operation, left, right):
    """The quartiles of what is found in each turn: low, median, high."""
    return statistics.quantiles(map(operation, left, right), n=4)


def _calls(case):
    """The same rows by everyone, and the same gradients."""
    import torch

    import ketcore as kc
    from ketcore.torch import functional

    torch.set_num_threads(1)
    shape = case.workload.vocab, case.workload.dim
    factors = [torch.from_numpy(table) for table in case.tables]
    trained = [factor.clone().requires_grad_() for factor in factors]
    ids, cotangent = torch.from_numpy(case.ids), torch.from_numpy(case.cotangent)
    library, bare = _bare_scheme(torch, kc)

    def conversions():
        arrays = [factor.numpy() for factor in factors]
        return torch.from_numpy(kc.rows(arrays, ids.numpy(), shape))

    return library, {
        "NumPy": lambda: kc.rows(case.tables, case.ids, shape),
        "conversions": conversions,
        "function": lambda: functional.rows(factors, ids, shape),
        "NumPy, gradients": lambda: (
            kc.rows(case.tables, case.ids, shape),
            kc.rows_vjp(case.tables, case.ids, case.cotangent, shape),
        ),
        "bare scheme, gradients": lambda: torch.autograd.grad(bare(shape, ids, *trained), trained, cotangent),
        "function, gradients": lambda: torch.autograd.grad(
            functional.rows(trained, ids, shape), trained, cotangent
        ),
    }


def _bare_scheme(torch, kc):
    """(shape, ids, *factors) -> rows, through operators of torch and a Function around them.

    The library that defines them lives as long as the caller keeps it.
    """
    library = torch.library.Library("ketcore_bench", "FRAGMENT")
    sizes = "Tensor[] factors, Tensor ids, int[] shape"
    library.define(f"rows({sizes}) -> Tensor")
    library.define(f"rows_vjp({sizes}, Tensor cotangent) -> Tensor[]")

    def forward(factors, ids, shape):
        arrays = [factor.detach().numpy() for factor in factors]
        return torch.from_numpy(kc.rows(arrays, ids.numpy(), tuple(shape)))

    def pull(factors, ids, shape, cotangent):
        arrays = [factor.detach().numpy() for factor in factors]
        found = kc.rows_vjp(arrays, ids.numpy(), cotangent.numpy(), tuple(shape))
        return [torch.from_numpy(gradient) for gradient in found]

    library.impl("rows", forward, "CPU")
    library.impl("rows_vjp", pull, "CPU")
    rows, rows_vjp = torch.ops.ketcore_bench.rows.default, torch.ops.ketcore_bench.rows_vjp.default

    class Bare(torch.autograd.Function):
        @staticmethod
        def forward(shape, ids, *factors):
            return rows(factors, ids, shape)

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.shape, *tensors = inputs
            ctx.save_for_backward(*tensors)

        @staticmethod
        def backward(ctx, cotangent):
            ids, *factors = ctx.saved_tensors
            return None, None, *rows_vjp(factors, ids, ctx.shape, cotangent)

    return library, Bare.apply


def _text(record):
    lines = [f"{record['workload']}, {record['batch']} ids"]
    for key, words in (("overhead", "over NumPy"), ("added", "over conversions")):
        low, middle, high = (f"{1e6 * time:.1f}us" for time in record[key])
        lines.append(f"    {middle} {words}, quartiles {low}..{high}")
    low, middle, high = record["ratio"]
    lines.append(f"    {middle:.2f} times the bare scheme with gradients, quartiles {low:.2f}..{high:.2f}")
    for name, time in record["times"].items():
        low, high = record["quartiles"][name]
        lines.append(f"    {name:<24} {seconds(time):>7}   {seconds(low)}..{seconds(high)}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
