"""Text as numbers: characters, word pieces, symbols; kept inside a model."""

import json
import pickle
import random
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from autotrain.blocks import units as u
from autotrain.blocks.corpus import sentences as spoken
from autotrain.blocks.normalising import normalised
from autotrain.errors import AutotrainError

LETTERS = "abc dé'"


def texts(count=400, seed=0):
    said = spoken.sentences(seed)
    return [normalised(next(said).text) for _ in range(count)]


@pytest.fixture(scope="module")
def worded():
    pytest.importorskip("sentencepiece")
    return u.pieces(texts(), 120)


@given(st.text(alphabet=LETTERS))
def test_characters_come_back_as_they_went_in(text):
    units = u.characters([LETTERS])
    assert units.decode(units.encode(text)) == text
    assert units.count == len(set(LETTERS)) + 2
    assert all(2 <= number < units.count for number in units.encode(text))


def test_blank_end_and_what_is_no_unit_are_not_written():
    units = u.characters(["ab"])
    assert units.decode([0, 2, 0, 1, 3, 99, -1]) == "ab"


def test_letters_that_the_units_lack_are_named():
    with pytest.raises(AutotrainError, match=r"not among the 3 characters: '7', 'z'"):
        u.characters(["abc"]).encode("a7zz")
    with pytest.raises(AutotrainError, match=r"not among the 2 symbols: 'ZH'"):
        u.symbols([["AH", "K"]]).encode("AH ZH")


def test_symbols_are_whole_names():
    units = u.symbols([["k", "a:"], ["_", "a"]])
    assert units.names == ("_", "a", "a:", "k")
    assert units.decode(units.encode("k a: _ a")) == "k a: _ a"


@pytest.mark.parametrize("make", [u.characters, lambda t: u.symbols([]), lambda t: u.pieces(t, 50)])
def test_no_text_makes_no_units(make):
    with pytest.raises(AutotrainError, match="all texts are empty"):
        make(["", ""])


def test_pieces_come_back_as_they_went_in(worded):
    for text in texts(50, seed=3):
        assert worded.decode(worded.encode(text)) == text
    assert worded.count <= 120
    assert len(worded.encode("the old man")) < len("the old man")
    with pytest.raises(AutotrainError, match=r"pieces: '7', 'é'"):
        worded.encode("the 7 cafés")


def test_the_same_texts_give_the_same_pieces_in_another_process(worded):
    code = (
        "import json, sys; from autotrain.blocks import units;"
        "sys.stdout.buffer.write(units.pieces(json.load(sys.stdin), 120).table)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(texts()).encode(), capture_output=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == worded.table


def test_too_few_pieces_for_the_letters_say_how_many_it_takes():
    pytest.importorskip("sentencepiece")
    with pytest.raises(AutotrainError, match="10 word pieces cannot hold 26 diff") as caught:
        u.pieces(["the quick brown fox jumps over the lazy dog"] * 3, 10)
    least = int(caught.value.hint.split()[2].rstrip(","))
    made = u.pieces(["the quick brown fox jumps over the lazy dog"] * 3, least)
    assert made.count <= least


@pytest.mark.parametrize("kind", ["characters", "symbols", "pieces"])
def test_a_checkpoint_decodes_without_what_the_units_were_made_of(tmp_path, kind, request):
    units, text = {
        "pieces": lambda: (request.getfixturevalue("worded"), "the old man"),
        "characters": lambda: (u.characters(["a é"]), "é a"),
        "symbols": lambda: (u.symbols([["AH0", "_", "ʃ"]]), "ʃ AH0 _"),
    }[kind]()
    model = torch.nn.Sequential(torch.nn.Linear(1, 1), u.KeptUnits(units))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    read = u.read_units(load_file(tmp_path / "model.safetensors")["1.table"])
    assert read == units
    assert read.decode(units.encode(text)) == text


def test_weights_that_were_trained_on_other_units_are_refused():
    ours, theirs = (u.KeptUnits(u.characters([text])) for text in ("abc", "abd"))
    ours.load_state_dict(u.KeptUnits(u.characters(["cba"])).state_dict())
    with pytest.raises(RuntimeError, match="units that it was trained with are not these"):
        ours.load_state_dict(theirs.state_dict())


@pytest.mark.parametrize(
    "table",
    [torch.tensor([], dtype=torch.uint8), torch.tensor([9, 1], dtype=torch.uint8),
     torch.tensor([0, 123], dtype=torch.uint8), torch.tensor([1, 10, 3], dtype=torch.uint8),
     torch.ones(3)],
)  # fmt: skip
def test_bytes_that_are_no_table_are_refused(table):
    pytest.importorskip("sentencepiece")
    with pytest.raises(AutotrainError, match="not a table"):
        u.read_units(table).encode("a")


def test_changed_bytes_of_a_table_are_refused_or_read_never_a_crash(worded):
    dice, refused = random.Random(1), 0
    for _ in range(60):
        raw = bytearray(worded.table)
        for _ in range(dice.choice((1, 3, 20))):
            raw[dice.randrange(len(raw))] = dice.randrange(256)
        units = u.Units("pieces", bytes(raw[: dice.choice((len(raw), dice.randrange(len(raw))))]))
        try:
            units.decode(units.encode("the old man"))
            assert units.count > 2
        except AutotrainError:
            refused += 1
    assert 0 < refused < 60


def test_units_travel_to_a_loader_worker(worded):
    worded.encode("the")  # its processor is made, and stays here
    for units in (worded, u.characters(["abc"])):
        assert pickle.loads(pickle.dumps(units)) == units


def test_a_model_on_meta_holds_the_table_too():
    with torch.device("meta"):
        kept = u.KeptUnits(u.characters(["abc"]))
    assert kept.table.device.type == "meta"


def test_units_come_back_from_their_record(worded):
    for made in (u.characters(["ab c"]), u.symbols([["p", "t"]]), worded):
        assert u.Units.of(json.loads(json.dumps(made.record()))) == made


@pytest.mark.parametrize("record", [{}, {"kind": "pieces", "table": "?"}, {"kind": "symbols"}])
def test_what_is_no_record_of_units_is_refused(record):
    with pytest.raises(AutotrainError, match="record of units"):
        u.Units.of(record)


def test_a_letter_more_is_named_where_other_units_are_loaded():
    before, now = u.KeptUnits(u.characters(["abc"])), u.KeptUnits(u.characters(["abcd"]))
    with pytest.raises(RuntimeError, match="not these: 'd' is new"):
        now.load_state_dict(before.state_dict())
