"""Sound from spectra: a vocoder of one's own, what is never opened, and the WAV."""

import math

import pytest
import soundfile
import torch

from autotrain.blocks.mels import Mels
from autotrain.blocks.vocoding import vocoder, write_wav
from autotrain.errors import AutotrainError

MELS = Mels(window=1024, hop=256)


def exported(path, module, inputs):
    """The module as an .onnx of so many inputs, any number of frames."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper

    shape = [1, 80, "frames"]
    given = [
        helper.make_tensor_value_info(f"in{i}", TensorProto.FLOAT, shape) for i in range(inputs)
    ]
    nodes = [helper.make_node("ReduceMean", ["in0"], ["mean"], axes=[1], keepdims=1)]
    if module == "long":  # one frame -> 256 samples
        nodes.append(helper.make_node("Resize", ["mean", "", "scales"], ["out"], mode="nearest"))
    else:
        nodes.append(helper.make_node("Identity", ["mean"], ["out"]))
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [3], [1.0, 1.0, 256.0])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "vocoder", given, [out], [scales])
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return str(path)


def test_a_vocoder_of_ones_own_is_given_the_spectra(tmp_path):
    sound = vocoder(exported(tmp_path / "mine.onnx", "long", 1), MELS)
    spectra = torch.arange(6.0)[:, None].expand(6, 80)
    torch.testing.assert_close(sound(spectra), torch.arange(6.0).repeat_interleave(256))


def test_without_one_griffin_and_lim_make_the_sound():
    wave = torch.sin(torch.arange(8000) * 2 * math.pi * 440 / 16_000)
    again = MELS(vocoder("", MELS)(MELS(wave)))
    assert float((again - MELS(wave)[: len(again)])[4:-4].abs().median()) < 1.5


def test_vocoders_that_do_not_fit_are_refused_by_name(tmp_path):
    with pytest.raises(AutotrainError, match=r"short.onnx: 6 samples for 6 frames of 256"):
        vocoder(exported(tmp_path / "short.onnx", "short", 1), MELS)(torch.zeros(6, 80))
    with pytest.raises(AutotrainError, match=r"two.onnx: 2 inputs"):
        vocoder(exported(tmp_path / "two.onnx", "long", 2), MELS)
    with pytest.raises(AutotrainError, match=r"two-bands|fails on"):
        vocoder(str(tmp_path / "short.onnx"), MELS)(torch.zeros(6, 40))
    (tmp_path / "torn.onnx").write_bytes(b"\x08nothing of use")
    with pytest.raises(AutotrainError, match=r"torn.onnx: no vocoder"):
        vocoder(str(tmp_path / "torn.onnx"), MELS)
    with pytest.raises(AutotrainError, match=r"none.onnx: No such file"):
        vocoder(str(tmp_path / "none.onnx"), MELS)


@pytest.mark.parametrize("name", ["mine.py", "mine.pt", "mine.pth", "os:system"])
def test_what_would_run_code_is_never_opened(tmp_path, name):
    path = tmp_path / name
    path.write_text("raise SystemExit('it was run')")
    with pytest.raises(AutotrainError, match=r"a vocoder is an .onnx file"):
        vocoder(str(path), MELS)


def test_a_wav_is_as_long_as_it_says_and_never_cut_off(tmp_path):
    wave = 3 * torch.sin(torch.arange(1600) / 5)
    assert write_wav(tmp_path / "a.wav", wave, 16_000) == 0.1
    found, rate = soundfile.read(tmp_path / "a.wav")
    assert (len(found), rate) == (1600, 16_000)
    torch.testing.assert_close(torch.tensor(found).float(), wave * 0.95 / 3, atol=2e-3, rtol=1e-2)
    assert write_wav(tmp_path / "b.wav", 0.1 * wave, 8000) == 0.2
    assert abs(soundfile.read(tmp_path / "b.wav")[0]).max() == pytest.approx(0.3, abs=1e-3)


def test_sound_that_is_not_finite_or_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(AutotrainError, match="not finite"):
        write_wav(tmp_path / "a.wav", torch.tensor([0.0, math.nan]), 16_000)
    with pytest.raises(AutotrainError, match=r"nowhere"):
        write_wav(tmp_path / "nowhere" / "a.wav", torch.zeros(9), 16_000)
