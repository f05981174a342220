"""The command line where its output goes astray: closed pipes, full disks, ASCII, none at all."""

import json
import os
import subprocess
import sys

import pytest

from tests.processes import ROOT, run_python

MAIN = "import sys; from ketcore.cli import main; sys.exit(main(sys.argv[1:]))"
# A demo that takes seconds.
DEMO = ("demo", "--epochs", "1", "--only", "XS 4/1")
WITHOUT_TQDM = "import sys; sys.modules['tqdm'] = None; " + MAIN
unix = pytest.mark.skipif(os.name != "posix", reason="the shell of Unix")


def shell(line, *words, code=MAIN, **environment):
    """Run `line` in a shell, where "$@" is the command line of ketcore."""
    given = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = ["sh", "-c", line, "sh", sys.executable, "-c", code, *words]
    return subprocess.run(
        command, env=given, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False
    )


@unix
@pytest.mark.parametrize("code", [MAIN, WITHOUT_TQDM], ids=["bar", "lines"])
@pytest.mark.parametrize(
    ("words", "reader"), [(("--help",), "true"), (DEMO, "head -c 5"), (DEMO, "head -n 3")]
)
def test_a_closed_pipe_ends_it_quietly(words, reader, code):
    line = f'(("$@"; echo $? >&3) | {reader} >/dev/null) 3>&1'
    done = shell(line, *words, code=code, PYTHONUNBUFFERED="1")
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    # What a shell says of a command that ended so; a reader that is slow to go sees it through.
    assert done.stdout in ("141\n", "0\n")


@unix
@pytest.mark.parametrize("words", [("--version",), ("--help",), ("demo", "--help"), (), ("info",), DEMO])
def test_a_closed_pipe_has_a_status(words):
    """The reader is gone before the first line is written."""
    reader, writer = os.pipe()
    os.close(reader)
    # Unbuffered, argparse passes over what it cannot write.
    done = run_python(MAIN, *words, stdout=writer, PYTHONUNBUFFERED="")
    os.close(writer)
    assert (done.returncode, done.stderr.count("Traceback"), done.stderr.count("Exception")) == (141, 0, 0)


@unix
@pytest.mark.parametrize("where", ["2>&-", ">&- 2>&- <&-", "2>/dev/full"])
def test_streams_may_be_closed(tmp_path, where):
    saved = tmp_path / "results.json"
    words = (*DEMO, "--json", str(saved), "--ask", "play music")
    done = shell(f'exec "$@" {where}', *words, PYTHONUNBUFFERED="")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert len(json.loads(saved.read_text(encoding="utf-8"))) == 1


@unix
def test_a_reader_of_progress_may_go(tmp_path):
    """What goes to the standard error is for company alone."""
    saved = tmp_path / "results.json"
    done = shell('("$@" 2>&1 >&3 | true) 3>&1', *DEMO, "--json", str(saved))
    assert "XS 4/1            136    544  9,517.2x" in done.stdout
    assert len(json.loads(saved.read_text(encoding="utf-8"))) == 1


@unix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is full")
def test_a_full_disk_is_said(tmp_path):
    done = shell('"$@" >/dev/full', "--version", PYTHONUNBUFFERED="")
    assert (done.returncode, done.stderr) == (
        1,
        "ketcore: error: the standard output must be writable, got No space left on device\n",
    )
    done = shell('"$@"', *DEMO, "--json", "/dev/full")
    assert done.returncode == 1
    # The results are not lost with the file.
    assert "XS 4/1            136    544  9,517.2x" in done.stdout
    assert "--json must be a writable file, got '/dev/full': No space left on device\n" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_cannot_print_a_sentence(tmp_path, encoding):
    saved, question = tmp_path / "results.json", "what is my b\u00e4lance \u4f59 \U0001f600"
    words = (*DEMO, "--json", saved, "--ask", question)
    done = run_python(MAIN, *words, encoding=encoding, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    shown = question.encode(encoding, "backslashreplace").decode(encoding)
    assert f"\n{shown} (unknown: " in done.stdout
    assert len(json.loads(saved.read_text(encoding="utf-8"))) == 1


def test_an_error_on_such_a_terminal_is_said():
    done = run_python(MAIN, *DEMO, "--ask", "\u4f59\u989d", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert r"--ask must have a word of the training split, got '\u4f59\u989d'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("columns", ["0", "1", "many"])
def test_any_width_of_a_terminal(columns):
    for words in (("demo", "--help"), DEMO):
        done = run_python(MAIN, *words, COLUMNS=columns, LINES=columns)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_results_are_saved_before_they_are_shown(tmp_path):
    """Whatever becomes of the output."""
    saved, picture = tmp_path / "results.json", tmp_path / "picture.png"
    code = """
import sys
from ketcore.demo import report
def fail(*_):
    raise RuntimeError("no table")
report.format_table = fail
from ketcore.cli import main
main(sys.argv[1:])
"""
    done = run_python(code, *DEMO, "--json", saved, "--plot", picture)
    assert "RuntimeError: no table" in done.stderr
    assert len(json.loads(saved.read_text(encoding="utf-8"))) == 1
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_one_file_cannot_hold_both(tmp_path):
    both = tmp_path / "results.png"
    done = run_python(MAIN, *DEMO, "--json", both, "--plot", tmp_path / "." / "results.png")
    assert done.returncode == 2
    assert "--plot must be another file than --json, got" in done.stderr


@unix
def test_a_pipe_can_take_the_results(tmp_path):
    done = shell(f'cd {tmp_path}; mkfifo pipe; cat pipe & "$@" --json pipe >/dev/null; wait', *DEMO)
    assert [record["name"] for record in json.loads(done.stdout)] == ["XS 4/1"]


@unix
@pytest.mark.parametrize("buffered", ["", "1"])
def test_results_are_saved_where_nobody_reads(tmp_path, buffered):
    """The first line fails at once where Python does not buffer."""
    saved = tmp_path / "results.json"
    reader, writer = os.pipe()
    os.close(reader)
    done = run_python(MAIN, *DEMO, "--json", str(saved), stdout=writer, PYTHONUNBUFFERED=buffered)
    os.close(writer)
    assert (done.returncode, done.stderr.count("Traceback")) == (141, 0)
    assert len(json.loads(saved.read_text(encoding="utf-8"))) == 1
