"""Tables beside clips that have none: the path, the sums, and the command."""

import shutil

import pytest
import torch

from autotrain.blocks import aligning
from autotrain.blocks.alignments import alignment_path, read_alignment
from autotrain.blocks.corpus import SHIPPED, espeak
from autotrain.blocks.layouts import speech_clips

needs_espeak = pytest.mark.skipif(not espeak.is_here(), reason="espeak-ng is not installed")


def heard(tokens, units=5):
    """Log-probabilities of a model that is sure of these."""
    return torch.full((len(tokens), units), -9.0).scatter(1, torch.tensor(tokens)[:, None], 0.0)


def test_what_is_left_blank_is_shared_by_its_neighbours():
    log_probs = heard([0, 2, 0, 0, 3, 3, 0, 0, 0, 2, 0])
    assert aligning.aligned(log_probs, torch.tensor([2, 3, 2])) == [3, 5, 3]


def test_a_phoneme_that_follows_itself_is_two():
    assert aligning.aligned(heard([2, 2, 0, 2, 2, 4]), torch.tensor([2, 2, 4])) == [3, 2, 1]
    assert aligning.aligned(heard([2, 2, 2, 2]), torch.tensor([2, 2])) in ([2, 2], [1, 3], [3, 1])


@pytest.mark.filterwarnings("ignore:.*forced_align.*:UserWarning")
@needs_espeak
def test_the_command_writes_a_table_beside_each_clip_that_has_none(tmp_path, capsys):
    corpus = shutil.copytree(SHIPPED, tmp_path / "corpus")
    clips = speech_clips(corpus)
    known = read_alignment(clips[7].path)
    for clip in clips[:7]:
        alignment_path(clip.path).unlink()
    table = (corpus / "metadata.csv").read_text().splitlines()
    table[3] = "000003|||en-us+m3|train"
    (corpus / "metadata.csv").write_text("\n".join(table) + "\n")
    assert aligning.main([str(corpus), "--epochs", "1"]) == 1  # 1 of 7 is over a tenth
    assert "000003.flac: an empty transcript" in capsys.readouterr().err
    shutil.copy(SHIPPED / "metadata.csv", corpus)
    assert aligning.main([str(corpus), "--epochs", "1"]) == 0
    assert capsys.readouterr().out.endswith("7 tables written\n")
    for clip in clips[:7]:
        truth = read_alignment(SHIPPED / "wavs" / clip.path.name)
        found = read_alignment(clip.path, sum(phone.seconds for phone in truth))
        assert [phone.phoneme for phone in found] == [phone.phoneme for phone in truth]
        assert all(phone.hertz is None and phone.seconds > 0 for phone in found)
    assert read_alignment(clips[7].path) == known
    assert aligning.main([str(corpus)]) == 0
    assert "already" in capsys.readouterr().out
