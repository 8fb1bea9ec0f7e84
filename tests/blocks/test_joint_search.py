"""Attention and CTC write together: exact scores, and texts that are not stuck."""

import itertools
import math

import pytest
import torch

from autotrain.blocks.conformer import Conformer
from autotrain.blocks.decoder import AttentionDecoder, taught
from autotrain.blocks.joint_search import Search, _empty, extended, joint_search
from autotrain.blocks.losses import sequence_cross_entropy
from autotrain.blocks.units import END
from autotrain.errors import AutotrainError

COUNT, FRAMES = 5, 5


def collapsed(path):
    return tuple(k for k, _ in itertools.groupby(path) if k != 0)


def texts_of(scores):
    """Every text and its probability, by all paths through the frames."""
    texts = {}
    for path in itertools.product(range(scores.shape[1]), repeat=len(scores)):
        chance = math.exp(sum(float(scores[t, unit]) for t, unit in enumerate(path)))
        texts[collapsed(path)] = texts.get(collapsed(path), 0.0) + chance
    return texts


@pytest.mark.parametrize("seed", range(3))
def test_a_prefix_is_as_likely_as_all_texts_that_begin_so(seed):
    scores = torch.randn(FRAMES, COUNT, generator=torch.Generator().manual_seed(seed)).double()
    scores = (2 * scores).log_softmax(-1)
    texts = texts_of(scores)
    written, forward = torch.tensor([[END]]), _empty(scores)
    for unit in (2, 2, 3):
        every = torch.arange(1, COUNT)[None]
        forwards, prefix = extended(scores, forward, written, every)
        for column, following in enumerate(every[0].tolist()):
            begun = (*written[0, 1:].tolist(), following)
            wanted = sum(p for text, p in texts.items() if text[: len(begun)] == begun)
            assert float(prefix[0, column].exp()) == pytest.approx(wanted, abs=1e-9)
            whole = float(forwards[0, column, -1].logsumexp(-1).exp())
            assert whole == pytest.approx(texts.get(begun, 0.0), abs=1e-9)
        forward = forwards[:, unit - 1]
        written = torch.cat([written, torch.tensor([[unit]])], dim=1)


def test_with_ctc_alone_and_a_wide_beam_the_likeliest_text_is_found():
    for seed in range(5):
        scores = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)).double()
        scores[:, END] = -50  # CTC never emits the end
        scores = scores.log_softmax(-1)
        wide = Search(beam=200, ctc_weight=1.0, length_power=0.0, candidates=4)
        found = joint_search(scores, lambda written: torch.zeros(len(written), 4), wide)
        likely = max(texts_of(scores).items(), key=lambda pair: pair[1])
        assert tuple(found[0].units) == likely[0]
        assert math.exp(found[0].score) == pytest.approx(likely[1], abs=1e-9)


def certain(*units, count=6, sure=0.9):
    """[frames, count]: one unit a frame."""
    scores = torch.full((len(units), count), math.log((1 - sure) / (count - 1)))
    for frame, unit in enumerate(units):
        scores[frame, unit] = math.log(sure)
    return scores


def stuck(written):
    """An attention that says 2 for ever."""
    return certain(*[2] * len(written), sure=0.97)


def test_ctc_frees_an_attention_that_is_stuck():
    ctc = certain(0, 2, 0, 3, 0, 4, 0, 0)
    alone = joint_search(ctc, stuck, Search(beam=1, ctc_weight=0.0, repetition=1.0))
    assert alone[0].units == [2] * 8
    assert joint_search(ctc, stuck, Search(ctc_weight=0.7, repetition=1.0))[0].units == [2, 3, 4]


def test_repetition_is_penalised_only_where_attention_is_not_sure():
    def ahead(written):
        """After a 2, another one is a little likelier than a 3; a 3 ends it."""
        chances = torch.full((len(written), 6), 0.02)
        for row, text in zip(chances, written.tolist(), strict=True):
            row[{END: 2, 2: 2, 3: END}[text[-1]]] = 0.5
            row[3 if text[-1] == 2 else 4] = 0.4
        return chances.log()

    quiet = certain(*[0] * 8)
    plain = Search(beam=1, ctc_weight=0.0, repetition=1.0)
    assert joint_search(quiet, ahead, plain)[0].units == [2] * 8
    careful = Search(beam=1, ctc_weight=0.0, repetition=1.4)
    assert joint_search(quiet, ahead, careful)[0].units == [2, 3]


def test_what_loops_is_not_the_answer_where_anything_else_ended():
    def ahead(written):
        """Ends at once, or says 2 twelve times, which scores better per unit."""
        length = written.shape[1]
        chances = torch.full((len(written), 6), 1e-4)
        chances[:, 2] = 0.9 if length <= 12 else 1e-4
        chances[:, END] = 0.3 if length in (2, 13) else 1e-4
        return chances.log()

    found = joint_search(certain(*[0] * 20), ahead, Search(beam=4, ctc_weight=0.0, repetition=1.0))
    assert found[0].units == [2]


def test_length_counts_by_its_power():
    def ahead(written):
        """Ends after one unit, or a little likelier after four."""
        chances = torch.full((len(written), 7), 1e-6)
        chances[:, min(written.shape[1] + 1, 6)] = 0.7
        chances[:, END] = {2: 0.35, 5: 0.9}.get(written.shape[1], 1e-6)
        return chances.log()

    quiet, more = certain(*[0] * 9, count=7), {"ctc_weight": 0.0, "beam": 4}
    assert joint_search(quiet, ahead, Search(length_power=0.0, **more))[0].units == [2]
    assert joint_search(quiet, ahead, Search(length_power=1.0, **more))[0].units == [2, 3, 4, 5]


def test_there_is_always_an_answer_and_none_longer_than_the_frames():
    for frames in (1, 2, 7):
        noise = torch.randn(frames, 6).log_softmax(-1)
        for weight in (0.0, 0.3, 1.0):
            found = joint_search(noise, stuck, Search(beam=3, ctc_weight=weight))
            assert found
            assert all(len(one.units) <= frames for one in found)
            assert all(0 not in one.units and END not in one.units for one in found)
            scores = [one.score for one in found]
            assert scores == sorted(scores, reverse=True)
            assert not any(math.isnan(score) for score in scores)


@pytest.mark.parametrize("wrong", [{"beam": 0}, {"ctc_weight": 1.5}, {"repetition": 0.5}])
def test_a_search_that_cannot_be_is_refused(wrong):
    with pytest.raises(AutotrainError, match="search: beam"):
        Search(**wrong)


# --- the decoder ----------------------------------------------------------------------------


@torch.no_grad()
def test_nothing_written_depends_on_what_follows_or_on_padding():
    torch.manual_seed(0)
    decoder = AttentionDecoder(7, width=16, layers=2, heads=2).eval()
    heard, lengths = torch.randn(2, 9, 16), torch.tensor([9, 4])
    given, _ = taught([[2, 3, 4, 5], [6]])
    together = decoder(given, heard, lengths)
    assert together.shape == (2, 5, 7)
    alone = decoder(given[1:, :2], heard[1:, :4], lengths[1:])
    assert torch.allclose(together[1:, :2], alone, atol=1e-5)
    changed = given.clone()
    changed[:, 3:] = 2
    assert torch.allclose(decoder(changed, heard, lengths)[:, :3], together[:, :3], atol=1e-5)


def test_what_is_taught_begins_and_ends_with_the_end():
    given, aims = taught([[2, 3], []])
    assert given.tolist() == [[1, 2, 3], [1, 1, 1]]
    assert aims.tolist() == [[2, 3, 1], [1, -100, -100]]
    given, aims = taught([[2, 3], []], 4)
    assert given.tolist() == [[1, 2, 3, 1], [1, 1, 1, 1]]
    assert aims.tolist() == [[2, 3, 1, -100], [1, -100, -100, -100]]


def test_encoder_and_decoder_learn_three_texts_and_the_search_reads_them_back():
    torch.manual_seed(0)
    texts = [[2, 3, 3, 4], [5], [4, 2]]
    encoder = Conformer(8, width=16, blocks=1, heads=2, kernel=3, dropout=0.0)
    decoder = AttentionDecoder(6, width=16, layers=1, heads=2, dropout=0.0)
    head = torch.nn.Linear(16, 6)
    features, lengths = torch.randn(3, 40, 8), torch.tensor([40, 25, 36])
    weights = [*encoder.parameters(), *decoder.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(weights, lr=5e-3)
    given, aims = taught(texts)
    flat, counts = torch.tensor([2, 3, 3, 4, 5, 4, 2]), torch.tensor([len(text) for text in texts])
    for _ in range(150):
        heard, frames = encoder(features, lengths)
        ctc = head(heard).log_softmax(-1)
        spelled = torch.nn.functional.ctc_loss(ctc.transpose(0, 1), flat, frames, counts)
        total = sequence_cross_entropy(decoder(given, heard, frames), aims).total + spelled
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    for row, text in enumerate(texts):
        own, many = heard[row : row + 1, : frames[row]].detach(), frames[row : row + 1]

        def ahead(written, own=own, many=many):
            shape = (len(written), -1, -1)
            logits = decoder(written, own.expand(shape), many.expand(len(written)))
            return logits[:, -1].log_softmax(-1)

        found = joint_search(ctc[row, : frames[row]], ahead, Search(beam=3))
        assert found[0].units == text
