"""Who trains and who validates: the table's word first, then whole persons."""

import logging
from pathlib import Path

import pytest

from autotrain.blocks.layouts import Features
from autotrain.blocks.splitting import split_samples
from autotrain.errors import AutotrainError


def rows(signers, each=5, split=""):
    return [
        Features(Path(f"{signer}-{n}.npz"), ("A",), signer, split)
        for signer in signers
        for n in range(each)
    ]


def parts(given, share=0.2):
    return split_samples(given, share, lambda row: row.signer, "signer")


def test_the_table_decides_and_its_test_samples_are_in_neither_part():
    train, valid, test = rows("ab", split="train"), rows("c", split="dev"), rows("d", split="test")
    assert parts(train + test + valid) == (train, valid)


def test_persons_are_held_out_whole_the_same_every_time():
    train, valid = parts(rows("abcdefghij"))
    people = [{row.signer for row in part} for part in (train, valid)]
    assert not people[0] & people[1]
    assert [len(p) for p in people] == [8, 2]
    again = parts(rows("jihgfedcba"))
    assert {row.signer for row in again[1]} == people[1]


def test_training_rows_alone_are_split_by_person_too():
    train, valid = parts(rows("abc", split="train") + rows("d", split="test"))
    assert len(train) == 10
    assert len(valid) == 5


def test_of_one_person_samples_are_held_out_and_that_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        train, valid = parts(rows("a", each=10))
    assert (len(train), len(valid)) == (8, 2)
    assert "one signer only" in caplog.text


def test_a_split_nobody_knows_and_one_without_training_are_refused():
    with pytest.raises(AutotrainError, match=r"a-0\.npz: split 'trian'"):
        parts(rows("a", split="trian"))
    with pytest.raises(AutotrainError, match="no sample is for training"):
        parts(rows("a", split="test"))
    with pytest.raises(AutotrainError, match=r"a-0\.npz: one sample"):
        parts(rows("a", each=1))
