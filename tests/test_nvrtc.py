"""Every instantiation of every kernel compiles for every architecture, without spills and without a stack.

In the thorough profile the first, a middle and the last architecture get the whole table; the others, which
differ from these little, get every kernel and type with one of the two types of index.  In the normal profile
that is what the first three get.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from ketcore.cuda import launcher, table
from tests import nvrtc
from tests.cusim import selftest, source_text
from tests.profiles import is_thorough, only_thorough
from tests.require import require

WHOLE_TABLE = (70, 90, 120)
SOURCES = sorted({source for _, _, source in table.TABLE})


@pytest.fixture(params=(12, 13))
def compiler(request):
    """NVRTC of CUDA 12 and of CUDA 13, where pip has installed them; one of the two is enough."""
    found = nvrtc.path(request.param)
    if found is None and request.param == 13:
        pytest.skip("the wheel nvidia-cuda-nvrtc is not installed")
    require("nvrtc", found is not None, "the wheel nvidia-cuda-nvrtc-cu12 is not installed")
    return nvrtc.load(request.param)


def name_of(kernel, types):
    return f"{kernel}<{','.join(types)}>"


def chosen(architecture, source):
    """Names to compile: one list for each type, so that they can be compiled side by side."""
    groups = {}
    for kernel, types, file in table.TABLE:
        whole = architecture in WHOLE_TABLE and is_thorough()
        if file == source and (whole or "int" not in types):
            groups.setdefault(types[0], []).append(name_of(kernel, types))
    return list(groups.values())


@pytest.mark.parametrize("architecture", nvrtc.ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES)
def test_kernels_fit_in_registers(compiler, architecture, source, record_property):
    if architecture not in compiler.architectures:
        pytest.skip(f"NVRTC {compiler.version} does not know sm_{architecture}")
    if architecture not in WHOLE_TABLE:
        only_thorough("architectures between others")
    text = launcher.kernel_source(source)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        groups = chosen(architecture, source)
        jobs = [pool.submit(compiler.compile, text, architecture, names) for names in groups]
        usages = [usage for job in jobs for usage in job.result()]
    for usage in usages:
        record_property(f"registers of {usage.kernel} on sm_{architecture}", usage.registers)
    assert not [usage for usage in usages if not usage.clean]


@pytest.mark.parametrize("architecture", WHOLE_TABLE)
def test_spills_and_stacks_are_noticed(compiler, architecture):
    if architecture not in compiler.architectures:
        pytest.skip(f"NVRTC {compiler.version} does not know sm_{architecture}")
    names = ["spills", "keeps_an_array_in_memory"]
    usages = {usage.kernel: usage for usage in compiler.compile(text("spill"), architecture, names)}
    assert usages["spills"].spills > 0
    assert usages["keeps_an_array_in_memory"].stack >= 256
    assert not any(usage.clean for usage in usages.values())


def test_clean_kernels_pass(compiler):
    names = [name_of(kernel, types) for kernel, types, _ in selftest.TABLE]
    usages = compiler.compile(text("selftest"), 90, names)
    assert len(usages) == len(selftest.TABLE)
    assert all(usage.clean and 0 < usage.registers <= 255 for usage in usages)


def test_an_error_in_the_source_is_reported(compiler):
    with pytest.raises(RuntimeError, match=r"spill\.cu\(4\): error"):
        compiler.compile(text("spill").replace("float* y, int n", "real* y, int n"), 90, ["spills"])


def test_an_instantiation_that_does_not_exist_is_reported(compiler):
    with pytest.raises(RuntimeError, match="NVRTC_ERROR"):
        compiler.compile(text("selftest"), 90, ["block_sum<no_such_type>"])


def text(source):
    return source_text(selftest.HERE, source)
