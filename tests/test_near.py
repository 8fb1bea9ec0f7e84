"""Names that are suggested for one that there is not."""

import pytest

from autotrain.near import near_key, near_name
from autotrain.schema import setting_types


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("train.patience", "'schedule.patience' or 'early_stop.patience'"),
        ("train.patiense", "'early_stop.patience'"),
        ("schedule.patienc", "'schedule.patience'"),
        ("train.lr", "'optimizer.lr'"),
        ("batch.epochs", "'train.epochs'"),
        ("train.epoch", "'train.epochs'"),
        ("loader.dtype", "'precision.dtype'"),
        ("batch.micro_bach", "'batch.micro_batch'"),
        ("micro_bach", "'batch.micro_batch'"),
    ],
)
def test_the_same_word_of_another_section_comes_before_another_word_of_the_same(wrong, meant):
    assert near_key(wrong, setting_types()) == f" (did you mean {meant}?)"


def test_what_is_like_nothing_gets_no_suggestion():
    assert near_key("zzz.qq", setting_types()) == ""
    assert near_name("zzz", ["head", "body"]) == ""
    assert near_name("hed", ["head", "body"]) == " (did you mean 'head'?)"
