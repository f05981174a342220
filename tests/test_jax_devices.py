"""JAX on two devices and in two processes: as on one, and of gradients the factors' alone travel."""

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.processes import ROOT
from tests.require import require

TWO = "--xla_force_host_platform_device_count=2"


def started(*arguments, flags=""):
    given = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    # Text of blanks alone would be the name of a file.
    given["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    command = [sys.executable, "-m", "tests.jax_devices", *arguments]
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    return subprocess.Popen(command, env=given, cwd=ROOT, **kept)


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@pytest.mark.parametrize("processes", [1, 2])
def test_two_devices_are_as_one(processes):
    require("jax", find_spec("jax") is not None, "jax is not installed")
    if processes == 1:
        running = [started(flags=TWO)]
    else:
        address = f"localhost:{free_port()}"
        running = [started(address, str(number)) for number in range(2)]
    try:
        said = [process.communicate(timeout=240) for process in running]
    finally:
        for process in running:
            process.kill()
    for process, (out, problems) in zip(running, said, strict=True):
        assert process.returncode == 0, problems[-3000:]
        check(json.loads(out.splitlines()[-1]), processes)


def check(found, processes):
    assert (found["devices"], found["here"]) == (2, 2 // processes)
    table, kets = found["kronecker"], found["kets"]
    assert max(table["rows"], table["shardings"], table["shard_map"], kets["rows"], kets["gradient"]) < 1e-6
    # The gradients of the factors and the loss, a number of 4 bytes, once.
    assert table["bytes"] == [table["factors"] + 4] * 2
    assert table["dense"] > 10 * table["factors"]
    # Each process holds its share of the kets, and leaves travel: 16 ids of 2 terms of 12 numbers.
    assert kets["held"] == kets["table"] // processes
    assert kets["bytes"] == 16 * 2 * 12 * 4
    assert "the dimension size is 63" in found["refused"]
    assert "should evenly divide the shape" in found["refused"]
