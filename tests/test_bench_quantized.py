"""The benchmark of small numbers, on a table that takes no time."""

import numpy as np

from bench import quantized


def test_fewer_bits_take_fewer_bytes_and_lose_more(tmp_path, capsys):
    table = np.random.default_rng(0).standard_normal((400, 20)).astype("float16")
    np.save(tmp_path / "table.npy", table)
    sizes = ("--rank", "2", "--codes", "2", "--size", "8", "--width", "6", "--words", "300")
    quantized.main([str(tmp_path / "table.npy"), *sizes])
    title, head, *lines = capsys.readouterr().out.splitlines()
    lines, timed = lines[:10], lines[10:]
    assert title == "400 words, 20 columns"
    assert head.split() == ["form", "bits", "bytes", "ratio", "error", "lost"]
    for form, of_form in (("Kronecker", lines[:5]), ("codes", lines[5:])):
        assert all(line.startswith(form) for line in of_form)
        bits, nbytes, _, _, lost = zip(*(line.replace(",", "").split()[-5:] for line in of_form), strict=True)
        assert bits == ("32", "16", "8", "4", "2")
        assert [*map(int, nbytes)] == sorted(map(int, nbytes), reverse=True)
        assert [*map(float, lost)] == sorted(map(float, lost))
        assert float(lost[0]) == 0 < float(lost[1])
    assert timed[0].split() == ["rows", "by", "ids", "bits", "bytes", "32", "1024"]
    of_bits = [line.replace(",", "").split() for line in timed[1:]]
    assert [int(each[2]) for each in of_bits] == [300 * n for n in (1024, 272, 144, 80)]
    assert all(float(ms) >= 0 for each in of_bits for ms in each[3:])
