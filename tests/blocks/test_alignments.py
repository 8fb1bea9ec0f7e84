"""Phonemes beside a clip: written, read back, and refused by file and line."""

import pytest

from autotrain.blocks.alignments import Phone, alignment_path, alignment_text, read_alignment
from autotrain.errors import AutotrainError


def beside(tmp_path, text):
    clip = tmp_path / "one.wav"
    alignment_path(clip).write_text(text, encoding="utf-8")
    return clip


def test_what_is_written_is_read_back(tmp_path):
    phones = [Phone("_", 0.025, 0.0), Phone("ɑː", 0.1234567, 110.04), Phone("t", 0.5, None)]
    clip = beside(tmp_path, alignment_text(phones))
    assert read_alignment(clip) == [
        Phone("_", 0.025, 0.0), Phone("ɑː", 0.123457, 110.0), Phone("t", 0.5, None),
    ]  # fmt: skip


def test_an_aligner_of_ones_own_needs_no_pitch_and_may_order_columns_its_way(tmp_path):
    clip = beside(tmp_path, "seconds\tphoneme\n0.1\tAH0\n0.2\tK\n")
    assert read_alignment(clip, 0.33) == [Phone("AH0", 0.1), Phone("K", 0.2)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("phoneme\tseconds\na\t0.1\nb\tlong\n", r"one\.tsv:3: seconds 'long' is no number"),
        ("phoneme\tseconds\na\t-0.1\n", r"one\.tsv:2: seconds '-0.1'"),
        ("phoneme\tseconds\na\tnan\n", r"one\.tsv:2: seconds 'nan'"),
        ("phoneme\tseconds\thertz\na\t0.1\thigh\n", r"one\.tsv:2: hertz 'high'"),
        ("phoneme\tseconds\na b\t0.1\n", r"one\.tsv:2: 'a b' is no phoneme"),
        ("phoneme\tseconds\n\t0.1\n", r"one\.tsv:2: '' is no phoneme"),
        ("phoneme\tseconds\na\n", r"one\.tsv:2: 1 columns where the header has 2"),
        ("a\t0.1\n", r"one\.tsv:1: no columns `phoneme` and `seconds`"),
        ("phoneme\tseconds\n", r"one\.tsv: no phonemes"),
        ("phoneme\tseconds\na\t0\n", r"one\.tsv: no phonemes"),
        ("phoneme\tseconds\na\t0.8\n", r"one\.tsv: its phonemes last 0.800 s, one\.wav 1.000 s"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path, text, says):
    with pytest.raises(AutotrainError, match=says):
        read_alignment(beside(tmp_path, text), 1.0)


def test_a_clip_without_a_table_says_what_to_write(tmp_path):
    with pytest.raises(AutotrainError, match=r"one\.wav: no phonemes beside it \(one\.tsv\)"):
        read_alignment(tmp_path / "one.wav")
