"""Names of what is hidden: the same ones always, and only hidden ones are guessed."""

import shutil

import pytest
import torch

from autotrain.blocks.corpus import SHIPPED
from autotrain.blocks.layouts import speech_clips
from autotrain.blocks.mels import SPEEDS, Mels, moments
from autotrain.blocks.pretraining import Guesses, Names, hidden_spans, pad_guesses
from autotrain.blocks.spoken import Spectra

MELS = Mels()


@pytest.fixture(scope="module")
def spectra():
    return Spectra(speech_clips(SHIPPED)[:4], MELS)


@pytest.fixture(scope="module")
def names(spectra):
    return Names(*moments(spectra[i][1] for i in range(4)))


def test_names_follow_from_the_frames_and_the_seed_alone(spectra, names):
    bands = spectra[0][1]
    again = Names(names.mean, names.deviation)
    assert torch.equal(names(bands), again(bands))
    assert not torch.equal(names(bands), Names(names.mean, names.deviation, seed=1)(bands))
    assert len(names(bands)) == -(-len(bands) // 4)
    assert int(names(bands).max()) < 256
    assert torch.equal(names(bands[:40]), names(bands)[:10])


def test_names_are_many_and_follow_what_is_heard(spectra, names):
    """A name for everything would leave nothing to learn."""
    said = torch.cat([names(spectra[i][1]) for i in range(4)])
    counts = torch.bincount(said, minlength=256)
    assert int((counts > 0).sum()) > 60
    assert int(counts.max()) < 0.4 * len(said)
    quiet = names.mean.expand(8, -1)
    assert len(set(names(quiet + 0.5 * names.deviation).tolist())) == 1


def test_spans_hide_about_their_share_and_never_nothing():
    torch.manual_seed(0)
    hidden = torch.stack([hidden_spans(400) for _ in range(50)])
    assert 0.27 < float(hidden.float().mean()) < 0.34
    runs = hidden[0].int().diff()
    assert int((runs == 1).sum()) > 4
    for count in (1, 3, 9):
        assert all(hidden_spans(count, 1e-6).any() for _ in range(20))


def test_what_is_hidden_is_the_mean_and_the_rest_is_not_asked(spectra, names):
    guesses = Guesses(spectra, names)
    torch.manual_seed(3)
    bands, asked = guesses[1]
    whole = spectra[1][1]
    hidden = asked != -100
    assert 0 < int(hidden.sum()) < len(asked)
    assert torch.equal(asked[hidden], names(whole)[hidden])
    frames = hidden.repeat_interleave(4)[: len(bands)]
    assert bool((bands[frames] == names.mean).all())
    assert torch.equal(bands[~frames], whole[~frames])
    torch.manual_seed(3)
    assert torch.equal(guesses[1][1], asked)


def test_padding_is_not_asked_either(spectra, names):
    guesses = Guesses(spectra, names)
    samples = [guesses[i] for i in range(4)]
    batch = pad_guesses(samples)
    assert batch.features.shape == (4, int(batch.frames.max()), 80)
    assert batch.names.shape == (4, -(-int(batch.frames.max()) // 4))
    for row, (bands, asked) in enumerate(samples):
        assert int(batch.frames[row]) == len(bands)
        assert torch.equal(batch.names[row, : len(asked)], asked)
        assert bool((batch.names[row, len(asked) :] == -100).all())


def test_spectra_come_at_speeds_that_the_generator_draws_kept_or_not(tmp_path):
    corpus = shutil.copytree(SHIPPED, tmp_path / "corpus")
    clips = speech_clips(corpus)[:3]
    fast, plain = Spectra(clips, MELS, SPEEDS), Spectra(clips, MELS)
    torch.manual_seed(0)
    lengths = [len(fast[2][1]) for _ in range(30)]
    torch.manual_seed(0)
    assert [len(fast[2][1]) for _ in range(30)] == lengths  # from memory now
    whole = len(plain[2][1])
    assert sorted({round(whole / n, 1) for n in lengths}) == [0.9, 1.0, 1.1]
    assert len(fast) == len(plain) == 3
    assert plain[2][0] == clips[2]
    with pytest.raises(IndexError):
        plain[3]


def test_a_clip_that_cannot_be_read_at_any_speed_is_named_once(tmp_path, caplog):
    corpus = shutil.copytree(SHIPPED, tmp_path / "corpus")
    clips = speech_clips(corpus)
    clips[5].path.write_bytes(b"no sound")
    fast = Spectra(clips, MELS, SPEEDS)
    torch.manual_seed(0)
    assert {fast[5][0] for _ in range(20)} == {clips[6]}
    assert sum("000005" in record.getMessage() for record in caplog.records) == 1
