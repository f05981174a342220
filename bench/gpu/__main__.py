"""Steps of `bench/gpu.sh` that are Python: `python -m bench.gpu {facts,compile,bench} OUTDIR`."""

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter

from bench.gpu import facts, products
from bench.gpu.cases import cases, contestants, make_problem
from bench.gpu.compiled import Compiler
from bench.gpu.device import Cuda, has_torch
from bench.gpu.race import ROUNDS, race, spread
from bench.gpu.report import markdown

# Exit statuses that gpu.sh knows: of a step that cannot run here, and where there is no GPU.
NOT_RUN, NO_GPU = 77, 78
NO_TORCH = "torch is not installed, or not for CUDA"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("step", choices=("facts", "compile", "bench"))
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--seconds", type=float, default=180.0, help="bench: start no case after these")
    parser.add_argument("--batch", type=int, help="compile: the cases of this batch alone")
    parser.add_argument("--small", action="store_true", help="a few small cases, to try the steps")
    arguments = parser.parse_args()
    arguments.outdir.mkdir(parents=True, exist_ok=True)
    small = arguments.small
    try:
        about = facts.about(small)
    # ImportError without CuPy, its own errors without a driver or a device.
    except Exception as error:
        print(f"no GPU: {type(error).__name__}: {error}")
        return NO_GPU
    if arguments.step == "facts":
        return _facts(about, arguments.outdir)
    if arguments.step == "compile":
        return _compile(Cuda(small), cases(small), arguments.batch)
    todo = (*cases(small), *products.cases(small))
    rounds = 2 if small else ROUNDS
    results = measure(Cuda(small), todo, about, arguments.seconds, arguments.outdir, rounds)
    print(_place(results, arguments.outdir, "md").read_text(encoding="utf-8"))
    return int(failed(results))


def _facts(about, outdir):
    about["kernels"] = facts.kernel_facts(about["small"])
    (outdir / "env.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    for kernel in about["kernels"]:
        print(kernel)
    print({name: value for name, value in about.items() if name != "kernels"})
    return int(any("failed" in kernel for kernel in about["kernels"]))


def _compile(device, todo, batch):
    """Call what torch compiles once, so that the benchmark finds it in torch's cache on disk."""
    compiler = Compiler("" if has_torch(device.torch_device) else NO_TORCH)
    if compiler.reason:
        print(compiler.reason)
        return NOT_RUN
    with device.active():
        for case in todo:
            if compiler.reason or case.batch != batch or case.dtype != "float32":
                continue
            start, last = perf_counter(), contestants(make_problem(case, device), device, compiler)[-1]
            try:
                with compiler.patient():
                    last.call()
                device.stream.synchronize()
                print(f"{case.name}: {perf_counter() - start:.1f} s", flush=True)
            # The benchmark meets the same error and reports it.
            except Exception as error:
                print(f"{case.name}: {type(error).__name__}: {error}", flush=True)
    return 0


def measure(device, todo, about, seconds, outdir, rounds=ROUNDS, compiler=None) -> dict:
    """Time the cases while there are seconds left; gpu.json and gpu.md in `outdir` are kept up to date.

    Where `about` says that they are small, the files are small.json and small.md: those are no results.
    """
    start, compiler = perf_counter(), compiler or Compiler()
    results = {"about": about, "copy": {}, "cases": [], "notes": []}
    with device.active():
        results["copy"] = copy = _copied(device)
        for done, case in enumerate(todo):
            left = seconds - (perf_counter() - start)
            if left <= 0:
                results["notes"] += [f"not run, no time left: {case.name}" for case in todo[done:]]
                break
            # A second a case without compiling, and as much again with it.
            if left < 2 * (len(todo) - done) and not compiler.reason and done:
                compiler.reason = f"no time left for torch.compile after {done} of {len(todo)} cases"
            records = [timing.record(copy["rate"]) for timing in race(case, device, compiler, rounds)]
            device.clean()
            results["cases"].append({"name": case.name, "kind": case.kind, "contestants": records})
            _write(results, outdir)
    if compiler.reason:
        results["notes"].append(compiler.reason)
    if not has_torch(device.torch_device):
        results["notes"].append(f"{NO_TORCH}: ketcore alone")
    _write(results, outdir)
    return results


def failed(results: dict) -> bool:
    """Whether ketcore itself failed or disagreed anywhere, or nothing was timed."""
    everyone = [contestant for record in results["cases"] for contestant in record["contestants"]]
    ours = [contestant for contestant in everyone if contestant["name"].startswith("ketcore")]
    return not ours or any(contestant["status"] != "ok" for contestant in ours)


def _copied(device):
    seconds = spread(device.copy_seconds(device.copy_bytes))
    return seconds | {"bytes": device.copy_bytes, "rate": 2 * device.copy_bytes / seconds["median"]}


def _place(results, outdir, suffix):
    return outdir / f"{'small' if results['about'].get('small') else 'gpu'}.{suffix}"


def _write(results, outdir):
    _place(results, outdir, "json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    _place(results, outdir, "md").write_text(markdown(results), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
