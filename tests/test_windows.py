"""What other systems lack or do otherwise: functions of Unix, encodings, ends of lines, paths."""

import ast
import lzma
import shutil
from functools import cache
from pathlib import Path

import pytest

from ketcore.cuda import launcher
from ketcore.demo import data
from tests.cusim import source_text
from tests.processes import run_python

ROOT = Path(__file__).parent.parent
FOLDERS = ("ketcore", "tests", "bench")

# What Python's documentation marks "Availability: Unix", or not Windows: names by their beginnings.
UNIX = {
    "os": (
        "chown", "chroot", "confstr", "copy_file_range", "ctermid", "environb", "eventfd", "fchdir",
        "fchown", "fdatasync", "fork", "fpathconf", "fstatvfs", "fwalk", "getegid", "getenvb", "geteuid",
        "getgid", "getgrouplist", "getgroups", "getloadavg", "getpgid", "getpgrp", "getpriority",
        "getrandom", "getresgid", "getresuid", "getsid", "getuid", "getxattr", "initgroups", "killpg",
        "lchown", "listxattr", "lockf", "major", "makedev", "memfd_create", "minor", "mkfifo", "mknod",
        "nice", "openpty", "pathconf", "pidfd_open", "pipe2", "posix_", "pread", "preadv", "pwrite",
        "pwritev", "readv", "register_at_fork", "removexattr", "sched_", "sendfile", "setegid", "seteuid",
        "setgid", "setgroups", "setns", "setpgid", "setpriority", "setregid", "setresgid", "setresuid",
        "setreuid", "setsid", "setuid", "setxattr", "splice", "statvfs", "sync", "sysconf", "tcgetpgrp",
        "tcsetpgrp", "ttyname", "uname", "unshare", "wait3", "wait4", "waitid", "writev", "WEXITED",
        "WNOHANG", "WIF", "WNOWAIT", "O_NONBLOCK", "O_CLOEXEC", "O_SYNC",
    ),
    "signal": (
        "SIGALRM", "SIGBUS", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGPROF", "SIGQUIT", "SIGSTOP",
        "SIGTSTP", "SIGUSR", "alarm", "getitimer", "setitimer", "pause", "pthread_", "siginterrupt",
        "sigpending", "sigtimedwait", "sigwait",
    ),
    "time": ("clock_gettime", "clock_getres", "clock_settime", "pthread_getcpuclockid", "tzset"),
    "socket": ("AF_UNIX",),
}  # fmt: skip
MODULES = ("crypt", "curses", "fcntl", "grp", "pty", "pwd", "readline", "resource", "spwd", "syslog")
MODULES += ("termios", "tty")

# What ketcore is built on works there, and is loaded first: only ketcore must do without.
STRIPPED = f"""
import argparse, concurrent.futures.thread, json, lzma, os, signal, socket, subprocess, sys, tempfile, time
import array_api_compat, hypothesis.extra.numpy, matplotlib.figure, numpy as np, threadpoolctl, tqdm
import scipy.linalg, scipy.optimize, scipy.sparse.linalg
for module, names in {UNIX!r}.items():
    for name in [name for name in vars(sys.modules[module]) if name.startswith(names)]:
        delattr(sys.modules[module], name)
for name in {MODULES!r}:
    sys.modules[name] = None
assert not hasattr(os, "register_at_fork") and not hasattr(os, "getuid") and not hasattr(signal, "SIGPIPE")
"""

CORE = """
import importlib, pkgutil
import ketcore as kc
from ketcore import linalg
from ketcore.arrays import threads
for module in pkgutil.walk_packages(kc.__path__, "ketcore.", onerror=lambda name: None):
    if not module.name.startswith(("ketcore.torch", "ketcore.jax")):  # which need PyTorch and JAX
        importlib.import_module(module.name)
threads.thread_count = lambda: 2
rng = np.random.default_rng(0)
factors = [rng.standard_normal((2, 12, 12)) for _ in range(2)]
table, ids = kc.KroneckerMatrix(factors), np.arange(144)
dense = table.to_dense()
assert np.allclose(table.rows(ids), dense)
assert np.allclose(kc.rows_vjp(factors, ids, dense)[0], kc.kron_matmul_vjp(factors, np.eye(144), dense)[0][0])
x = rng.standard_normal((500, 144))
assert np.allclose(x @ table, x @ dense)
one = kc.KroneckerMatrix([factor[:1] for factor in factors])
assert np.allclose(one @ linalg.solve(one, x.T), x.T)
assert kc.nearest_kronecker(dense, (12, 12), (12, 12), 2).error < 1e-6
from ketcore.cli import main
assert main(["demo", "--epochs", "1", "--only", "XS 4/1", "--json", sys.argv[1], "--plot", sys.argv[2]]) == 0
"""


def test_the_core_runs_without_what_only_unix_has(tmp_path):
    saved, picture = tmp_path / "results.json", tmp_path / "picture.png"
    # A default encoding, where one is meant, is an error: on Windows it is not UTF-8.
    options = ("-X", "warn_default_encoding", "-W", "error::EncodingWarning:ketcore")
    done = run_python(STRIPPED + CORE, saved, picture, options=options)
    assert done.returncode == 0, done.stderr
    assert b"\r" not in saved.read_bytes()
    assert picture.read_bytes().startswith(b"\x89PNG")


@cache
def calls():
    """(file, call) for every call in the code of every folder."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    trees = [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in paths]
    return [(path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]


def name_of(call):
    """The last part of the name of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def keywords_of(call):
    """The keywords of a call, None for `**`."""
    return {keyword.arg: keyword.value for keyword in call.keywords}


def reads_or_writes_text(call):
    """Whether a call opens a file or a process for text, and so needs an encoding."""
    name, keywords = name_of(call), keywords_of(call)
    if name in ("run", "Popen", "check_output"):
        return bool({"text", "universal_newlines"} & set(keywords))
    if name not in ("open", "read_text", "write_text", "fdopen", "NamedTemporaryFile"):
        return False
    if ast.unparse(call.func) == "os.open":  # a number, and bytes
        return False
    modes = [arg.value for arg in (*call.args, keywords.get("mode")) if isinstance(arg, ast.Constant)]
    return not any(isinstance(mode, str) and set(mode) <= set("rwaxb+") and "b" in mode for mode in modes)


def test_every_text_names_its_encoding():
    silent = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path, call in calls()
        if reads_or_writes_text(call) and "encoding" not in keywords_of(call)
    ]
    assert not silent


def test_an_encoding_that_is_missing_is_noticed():
    def needs(code):
        return reads_or_writes_text(ast.parse(code, mode="eval").body)

    assert needs("open(path)")
    assert needs("path.open('w')")
    assert needs("path.read_text()")
    assert needs("subprocess.run(command, text=True)")
    assert not needs("open(path, 'rb')")
    assert not needs("os.open(path, os.O_RDONLY)")
    assert not needs("path.open(mode='ab')")
    assert not needs("subprocess.run(command, capture_output=True)")


def test_no_path_is_put_together_with_slashes():
    """Of what ketcore reads and writes: the parts of a path are joined by pathlib."""
    files = ("Path", "PurePath", "open", "joinpath", "join", "files", "with_name")
    found = []
    for path in sorted((ROOT / "ketcore").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.args if isinstance(node, ast.Call) and name_of(node) in files else ()
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                parts = (node.left, node.right)
            texts = [part.value for part in parts if isinstance(part, ast.Constant)]
            found += [(path.name, text) for text in texts if isinstance(text, str) and {*"/\\"} & {*text}]
    assert not found


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_sources_with_other_ends_of_lines_are_the_same(tmp_path, monkeypatch, end):
    """A checkout on Windows may have them; the cache of compiled kernels goes by the text."""
    folder = Path(launcher.__file__).parent
    for path in folder.glob("*.cu*"):
        lines = path.read_bytes().replace(b"\r\n", b"\n")
        (tmp_path / path.name).write_bytes(lines.replace(b"\n", end))
    right = launcher.kernel_source("gather")
    edits = [("kernel.cuh", "  __syncthreads();\n  unsigned char* own", "")]
    assert source_text(tmp_path, "gather", edits).count("\r") == 0
    monkeypatch.setattr(launcher, "__file__", str(tmp_path / "launcher.py"))
    assert launcher.kernel_source("gather") == right


def test_a_simulator_that_cannot_be_here_is_skipped():
    code = STRIPPED + "import tests.conftest, tests.cusim; print(tests.cusim.available())"
    done = run_python(code)
    assert (done.returncode, done.stdout.strip()) == (0, "the simulator is for Unix"), done.stderr


def test_the_data_are_read_whatever_the_ends_of_lines(tmp_path, monkeypatch):
    right, packed = data.read_lines(), Path("clinc150", "clinc150.tsv.xz")
    (tmp_path / packed).parent.mkdir()
    shutil.copy(ROOT / "ketcore" / "data" / packed, tmp_path / packed)
    text = lzma.decompress((tmp_path / packed).read_bytes())
    (tmp_path / packed).write_bytes(lzma.compress(text.replace(b"\n", b"\r\n"), preset=0))
    monkeypatch.setattr(data, "files", lambda package: tmp_path)
    assert data.read_lines() == right
