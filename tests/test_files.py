"""`kc.save` and `kc.load`: what comes back, what others read of it, and files that are broken."""

import errno
import json
import os
import stat
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import testing
from ketcore.testing.strategies import half_dtypes
from tests.conftest import awkward
from tests.file_problems import FILE, OBJECTS, A, contents, header_of, same, sparse_parts
from tests.processes import run_python
from tests.require import require


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "object.safetensors")


@pytest.mark.parametrize("mode", [None, "r", "c"])
@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_saved_comes_back(path, name, mode):
    kc.save(path, OBJECTS[name])
    found = kc.load(path, mmap_mode=mode)
    same(found, OBJECTS[name])
    for array in contents(found):
        if isinstance(array, np.ndarray):
            assert array.flags.aligned
            assert array.flags.writeable == (mode != "r")


@given(
    st.one_of(testing.kets(), testing.kronecker_matrices()),
    st.sampled_from([np.array, awkward, lambda values: values.astype(values.dtype.newbyteorder())]),
)
def test_drawn_objects_come_back(path, obj, layout):
    made = type(obj)([layout(factor) for factor in obj.factors])
    kc.save(path, made)
    same(kc.load(path, "r"), made)


@pytest.mark.parametrize("dtype", half_dtypes(), ids=str)
def test_half_precision_comes_back(path, dtype):
    expected = kc.KroneckerMatrix([A.astype(dtype), np.eye(2, dtype=dtype)])
    kc.save(path, expected)
    same(kc.load(path), expected)
    assert kc.load(path, "r").to_dense().dtype == dtype


def test_arrays_of_every_library_are_saved_as_their_values(path, xp):
    expected = kc.KroneckerMatrix([A, 1j * A])
    kc.save(path, kc.KroneckerMatrix([xp.asarray(factor) for factor in expected.factors]))
    same(kc.load(path), expected)
    found = kc.load(path, "r", like=xp.asarray(A))
    assert type(found.factors[0]) is type(xp.asarray(A))
    assert found.dtype == xp.asarray(1j * A).dtype
    same(kc.KroneckerMatrix([xp.to_numpy(factor) for factor in found.factors]), expected)


def test_tensors_are_saved_without_what_torch_records(path):
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(A + 0j, requires_grad=True)
    tensors = {
        "trained": (leaf * 1j, leaf.detach().numpy() * 1j),
        "conjugated": ((leaf * 1j).conj(), leaf.detach().numpy() * -1j),
        "negative": ((leaf * 1j).conj().imag, -leaf.detach().numpy().real),
        "expanded": (torch.ones(1, 1).expand(2, 3), np.ones((2, 3), np.float32)),
        "parameter": (torch.nn.Parameter(torch.ones(2, 3)), np.ones((2, 3), np.float32)),
    }
    for tensor, values in tensors.values():
        kc.save(path, kc.KroneckerMatrix([tensor]))
        same(kc.load(path), kc.KroneckerMatrix([values]))
        found = kc.load(path, like=tensor)
        assert not found.factors[0].requires_grad


def test_bfloat16_of_torch_needs_no_ml_dtypes(path, monkeypatch):
    torch = pytest.importorskip("torch")
    expected = torch.tensor([[1.0, float("nan"), -3.0]], dtype=torch.bfloat16)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    kc.save(path, kc.KroneckerMatrix([expected.T]))
    found = kc.load(path, "r", like=expected).factors[0]
    assert found.dtype == torch.bfloat16
    assert found[0].T.view(torch.int16).tolist() == expected.view(torch.int16).tolist()
    with pytest.raises(ImportError, match="bfloat16 in NumPy needs ml_dtypes: pip install ml_dtypes"):
        kc.load(path)


def test_arrays_of_jax(path):
    jax = pytest.importorskip("jax")
    numbers = jax.numpy
    kc.save(path, kc.Ket([numbers.ones((3, 1, 2), numbers.bfloat16)]))
    found = kc.load(path, like=numbers.ones(1))
    assert found.dtype == numbers.bfloat16
    assert isinstance(found.packed, jax.Array)
    with pytest.raises(TypeError, match="obj must be known by its values for save, got a Ket that is traced"):
        jax.jit(lambda x: kc.save(path, kc.ket(x)))(numbers.ones(2))
    kc.save(path, kc.ket([1.0, 2.0]))
    with jax.enable_x64(False), pytest.raises(TypeError) as caught:
        kc.load(path, like=numbers.ones(1))
    rule = "like must be an array of a library that has float64, got one of jaxlib, which makes it float32"
    assert str(caught.value) == rule


def test_operations_work_on_files(tmp_path):
    for name in ("kets", "matrix", "cropped", "chain", "sum", "sparse", "product"):
        path = tmp_path / name
        expected = OBJECTS[name]
        kc.save(path, expected)
        found = kc.load(path, "r")
        if name == "kets":
            np.testing.assert_array_equal(found.to_dense(), expected.to_dense())
            continue
        shape = expected.shape
        if max(shape) < 10_000:
            np.testing.assert_array_equal(found.to_dense(), expected.to_dense())
            np.testing.assert_array_equal(found.T @ np.ones(shape[0]), expected.T @ np.ones(shape[0]))
            np.testing.assert_array_equal(
                found.conj() * 2 @ np.ones(shape[1]), expected.conj() * 2 @ np.ones(shape[1])
            )
        if hasattr(found, "rows"):
            np.testing.assert_array_equal(found.rows([1, 0]), expected.rows([1, 0]))


@pytest.mark.skipif(os.name == "nt", reason="Windows does not replace a file that is mapped")
def test_a_map_is_of_the_file_and_survives_its_replacement(path):
    kc.save(path, kc.ket([1.0, 2.0]))
    shared, private = kc.load(path, "r"), kc.load(path, "c")
    private.packed[...] = 5
    assert kc.load(path).to_dense().tolist() == shared.to_dense().tolist() == [1, 2]
    with open(path, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(np.float64(7).tobytes())
    assert shared.to_dense().tolist() == [1, 7]
    kc.save(path, kc.ket([3.0, 4.0, 5.0]))
    assert shared.to_dense().tolist() == [1, 7]
    assert kc.load(path, "r").to_dense().tolist() == [3, 4, 5]


def test_a_map_of_much_takes_no_memory(tmp_path):
    """A file of 2 GiB, nearly all of it a hole, of which one row is read: within 16 MiB."""
    header = header_of({"factors.0": ("F64", [1, 2**18, 2**10]), "factors.1": ("F64", [1, 1, 1])}, 2**31 + 8)
    code = """
import resource, sys, ketcore as kc
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
matrix = kc.load(sys.argv[1], mmap_mode="r")
assert matrix.factors[0][0, -1].tolist() == [0] * 2**10
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**14
"""
    path = tmp_path / "long"
    require("resource", sys.platform == "linux", "memory is counted in other units")
    path.write_bytes(header)
    os.truncate(path, len(header) + 2**31 + 8)
    done = run_python(code, path)
    assert not done.returncode, done.stderr


def test_the_library_of_the_format_reads_what_is_saved(path):
    require("safetensors", find_spec("safetensors") is not None, "safetensors is not installed")
    from safetensors import safe_open
    from safetensors.numpy import load_file

    expected = kc.KroneckerProduct([A, kc.Diagonal([1j, 2.0]), sparse_parts()[0]])
    kc.save(path, expected)
    found = load_file(path)
    assert sorted(found) == ["parts.0", "parts.1", "parts.2.data", "parts.2.indices", "parts.2.indptr"]
    assert found["parts.0"].tobytes() == A.tobytes()
    assert found["parts.1"].tolist() == [[0, 1], [2, 0]]
    assert found["parts.2.indices"].tolist() == expected.parts[2].indices.tolist()
    with safe_open(path, "numpy") as file:
        assert file.metadata() == {
            "ketcore_format": "1",
            "kind": "KroneckerProduct",
            "shape": "[12, 24]",
            "row_dims": "[2, 2, 3]",
            "col_dims": "[3, 2, 4]",
            "parts": '["dense", "diagonal", "csr_array"]',
            "complex": '["parts.1"]',
        }


@pytest.mark.parametrize(
    "name", [name for name, obj in OBJECTS.items() if getattr(obj, "dtype", "") != "float16"]
)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_what_the_library_of_the_format_writes_is_loaded(path, name, library):
    require("safetensors", find_spec("safetensors") is not None, "safetensors is not installed")
    safetensors = pytest.importorskip(f"safetensors.{library}")
    from safetensors import safe_open

    kc.save(path, OBJECTS[name])
    tensors = safetensors.load_file(path)
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
    safetensors.save_file(tensors, path, metadata | {"format": "pt"})
    for mode in (None, "r"):
        same(kc.load(path, mode), OBJECTS[name])


def test_numbers_lie_where_they_can_be_mapped(path):
    for name in ("chain", "product", "sparse"):
        kc.save(path, OBJECTS[name])
        data = Path(path).read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        assert start % 64 == 0
        entries = json.loads(data[8:start])
        del entries["__metadata__"]
        sizes = {"F64": 8, "F32": 4, "I64": 8, "I32": 4, "BOOL": 1}
        assert not [e for e in entries.values() if e["data_offsets"][0] % sizes[e["dtype"]]]


def test_numbers_that_lie_anywhere_are_copied(path):
    header = header_of({"factors.0": ("F64", [1, 1, 2])}, 16)
    text = header[8:] + b" " * (3 - len(header) % 8)
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + np.array([1.0, 2.0]).tobytes())
    for mode in (None, "r", "c"):
        factor = kc.load(path, mode).factors[0]
        assert factor.flags.aligned
        assert factor.flags.writeable == (mode != "r")
        assert factor.tolist() == [[[1, 2]]]


def test_a_crash_leaves_the_old_file(path, monkeypatch):
    kc.save(path, OBJECTS["ket"])
    for function in ("fsync", "replace"):

        def fail(*args):
            raise OSError(errno.ENOSPC, "no space")

        with monkeypatch.context() as patched:
            patched.setattr(os, function, fail)
            with pytest.raises(OSError, match="no space"):
                kc.save(path, OBJECTS["matrix"])
        same(kc.load(path), OBJECTS["ket"])
        assert os.listdir(os.path.dirname(path)) == ["object.safetensors"]


def test_a_process_that_ends_leaves_the_old_file(path):
    code = """
import os, sys, ketcore as kc
os.replace = lambda *paths: os._exit(3)
kc.save(sys.argv[1], kc.Identity(4))
"""
    kc.save(path, OBJECTS["ket"])
    assert run_python(code, path).returncode == 3
    same(kc.load(path), OBJECTS["ket"])


def test_it_is_written_before_it_takes_the_place(path, monkeypatch):
    order, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append(os.fstat(fd).st_size), sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(os.path.dirname(a)), replace(a, b)))
    kc.save(path, OBJECTS["ket"])
    assert order == [os.path.getsize(path), os.path.dirname(path)]


@pytest.mark.skipif(os.name != "posix", reason="permissions and links are those of POSIX")
def test_permissions_and_links_are_those_of_an_open(tmp_path):
    real, link, plain = tmp_path / "real", tmp_path / "link", tmp_path / "plain"
    plain.write_bytes(b"")
    kc.save(real, OBJECTS["ket"])
    assert real.stat().st_mode == plain.stat().st_mode
    real.chmod(0o640)
    link.symlink_to("real")
    kc.save(link, OBJECTS["matrix"])
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    same(kc.load(real), OBJECTS["matrix"])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(
        ValueError, match=r"path must be a file or new, got '.*pipe', which is a device or a pipe"
    ):
        kc.save(tmp_path / "pipe", OBJECTS["ket"])


@pytest.mark.parametrize(
    "function", [lambda path: kc.save(path, OBJECTS["ket"]), kc.load], ids=["save", "load"]
)
@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        (3, TypeError, r"path must be a str or an os\.PathLike of one, got int"),
        (b"a", TypeError, r"path must be a str or an os\.PathLike of one, got bytes"),
        (None, TypeError, r"path must be a str or an os\.PathLike of one, got NoneType"),
        (SimpleNamespace(read=1), TypeError, "path must be a str .* got SimpleNamespace"),
        ("", ValueError, "path must be the name of a file, got ''"),
        ("a\0b", ValueError, r"path must be the name of a file, got 'a\\x00b'"),
        # Windows says of a folder that access is denied.
        ("..", PermissionError if os.name == "nt" else IsADirectoryError, r"'\.\.'"),
        ("no/such/file", FileNotFoundError, "'no/such/file'"),
    ],
)
def test_paths(function, name, error, text):
    with pytest.raises(error, match=text):
        function(name)


class Derived(kc.Ket):
    """A class of somebody."""


def test_arguments(path):
    for obj in (A, 3, None, [OBJECTS["ket"]], kc.Ket, scipy.sparse.eye_array(2)):
        with pytest.raises(TypeError, match=r"obj must be one of Ket, .* Identity, CodebookTable, got "):
            kc.save(path, obj)
    assert not os.path.exists(path)
    kc.save(Path(path), Derived([[[1.0]]]))
    assert type(kc.load(Path(path))) is kc.Ket
    for mode in ("r+", "w+", "", 0, A):
        with pytest.raises(ValueError, match="mmap_mode must be None, 'r' or 'c', got "):
            kc.load(path, mode)
    for like in ("torch", np.float64, [1.0], OBJECTS["ket"]):
        with pytest.raises(TypeError, match="like must be an array, got "):
            kc.load(path, like=like)


def test_sparse_parts_are_for_numpy(path):
    torch = pytest.importorskip("torch")
    kc.save(path, OBJECTS["sparse"])
    text = "like must be None or an array of NumPy for a file with sparse parts, got one of torch"
    with pytest.raises(TypeError, match=text):
        kc.load(path, like=torch.ones(1))
    same(kc.load(path, like=np.ones(1)), OBJECTS["sparse"])


def test_dtypes_and_arrays_without_values(path):
    torch = pytest.importorskip("torch")
    with pytest.raises(
        TypeError, match="obj must be known by its values for save, got a KroneckerMatrix that"
    ):
        kc.save(path, kc.KroneckerMatrix([torch.ones(2, 2, device="meta")]))
    with pytest.raises(TypeError, match=r"obj must have a dtype among float64, .*, got torch\.float8_e5m2"):
        kc.save(path, kc.Diagonal(torch.ones(2).to(torch.float8_e5m2)))


def test_the_room_behind_sparse_numbers_is_not_saved(path):
    csr = scipy.sparse.csr_array(np.eye(2, 3))
    csr.data, csr.indices = np.ones(5), np.array([0, 1, 2, 2, 2], csr.indices.dtype)
    kc.save(path, kc.KroneckerProduct([csr]))
    found = kc.load(path).parts[0]
    assert found.data.tolist() == [1, 1]
    assert found.toarray().tolist() == csr.toarray().tolist()


def test_many_modes(path, monkeypatch):
    """So many that Python would not write the number of rows in decimal digits."""
    kc.save(path, kc.Permutation([2] * 15_000, range(15_000)))
    assert kc.load(path).shape == (2**15_000, 2**15_000)
    monkeypatch.setattr("ketcore.io.tensor_header.LONGEST", 2**10)
    with pytest.raises(ValueError, match=r"obj must have a header of at most 1024 bytes, got \d+"):
        kc.save(path, kc.KroneckerProduct([[[1.0]]] * 20))
    with pytest.raises(ValueError, match=FILE + "the header must have at most 1024 bytes, got "):
        kc.load(path)
