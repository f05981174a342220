"""The benchmark of small numbers, on a table that takes no time."""

import numpy as np

from bench import quantized


def test_fewer_bits_take_fewer_bytes_and_lose_more(tmp_path, capsys):
    table = np.random.default_rng(0).standard_normal((400, 20)).astype("float16")
    np.save(tmp_path / "table.npy", table)
    sizes = ("--rank", "2", "--codes", "2", "--size", "8", "--width", "6")
    quantized.main([str(tmp_path / "table.npy"), *sizes])
    title, head, *lines = capsys.readouterr().out.splitlines()
    assert title == "400 words, 20 columns"
    assert head.split() == ["form", "bits", "bytes", "ratio", "error", "lost"]
    for form, of_form in (("Kronecker", lines[:4]), ("codes", lines[4:])):
        assert all(line.startswith(form) for line in of_form)
        bits, nbytes, _, _, lost = zip(*(line.replace(",", "").split()[-5:] for line in of_form), strict=True)
        assert bits == ("32", "16", "8", "4")
        assert [*map(int, nbytes)] == sorted(map(int, nbytes), reverse=True)
        assert [*map(float, lost)] == sorted(map(float, lost))
        assert float(lost[0]) == 0 < float(lost[1])
