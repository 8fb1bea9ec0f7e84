"""Models of many kinds become ONNX and TorchScript that answer alike, or are refused."""

import warnings

import pytest
import torch
from torch import nn

from autotrain.blocks.recurrent import BiLSTM
from autotrain.errors import AutotrainError
from autotrain.exporting import onnx, torchscript
from autotrain.exporting.calls import caught

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

FORMATS = {"onnx": onnx.write, "torchscript": torchscript.write}


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(8, 3)

    def forward(self, points):
        return self.head(self.layers(points))


class Recogniser(nn.Module):
    """Lengths that a mask is made of, and an LSTM over a turned copy: sign-ctc in small."""

    def __init__(self):
        super().__init__()
        self.look = nn.Conv1d(4, 8, 3, padding=1)
        self.remember = BiLSTM(8, 8)
        self.head = nn.Linear(16, 5)

    def forward(self, features, frames):
        time = torch.arange(features.shape[1])
        mask = (time < frames[:, None]).float()[..., None]
        seen = self.look((features * mask).transpose(1, 2)).transpose(1, 2).relu()
        return self.head(self.remember(seen, frames)), frames


class Attends(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, batch):
        return {"found": self.layers(batch["features"])}


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.remember = nn.GRU(4, 6, batch_first=True)

    def forward(self, features, frames):
        rnn = nn.utils.rnn
        packed = rnn.pack_padded_sequence(features, frames, batch_first=True, enforce_sorted=False)
        return rnn.pad_packed_sequence(self.remember(packed)[0], batch_first=True)[0]


class Branches(nn.Module):
    """Does another thing for short inputs: no trace can know."""

    def forward(self, features):
        if features.shape[1] > 6:
            return features * 2
        return features - 1


def sequence_calls(model, give):
    found = []
    for samples, time in ((3, 7), (5, 7), (2, 9), (1, 4)):
        torch.manual_seed(10 * samples + time)
        features = torch.randn(samples, time, 4)
        frames = torch.randint(1, time + 1, (samples,))
        frames[0] = time
        given = give(features, frames)
        found.append(caught(model, samples, lambda given=given: model(*given)))
    return found


def loaded(path, **more):
    """TorchScript has been declared old; it is what people's C++ reads all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(path, **more)


def both(features, frames):
    return features, frames


def alone(features, _frames):
    return (features,)


def wide(features, _frames):
    return ({"features": features.repeat(1, 1, 2)},)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(("kind", "give"), [(Recogniser, both), (Packed, both), (Attends, wide)])
def test_sequences_of_any_length_and_number(kind, give, to, tmp_path):
    torch.manual_seed(0)
    model = kind().eval()
    calls = sequence_calls(model, give)
    made = FORMATS[to](model, calls, tmp_path / "model", {"step": "7"})
    assert made.agreed.samples == (3, 5, 2, 1)
    assert made.agreed.share < 1e-4
    assert not made.narrowed
    assert made.inputs[0].shape[:2] == ["batch", "length"]


@pytest.mark.parametrize("to", FORMATS)
def test_points_in_batches_of_any_size(to, tmp_path):
    torch.manual_seed(0)
    model = Perceptron().eval()
    given = [torch.randn(samples, 4) for samples in (3, 5, 1)]
    calls = [caught(model, len(x), lambda x=x: model(x)) for x in given]
    made = FORMATS[to](model, calls, tmp_path / "model", {"step": "7"})
    assert [str(port) for port in made.inputs] == ["points [batch, 4] float32"]
    assert made.agreed.several


def test_what_a_trace_would_get_wrong_is_compiled_in_place_of_it(tmp_path):
    calls = sequence_calls(Branches(), alone)
    made = torchscript.write(Branches(), calls, tmp_path / "model", {})
    assert made.way == "scripting"
    assert loaded(tmp_path / "model")(torch.ones(1, 2, 4)).max() == 0


def test_sizes_that_onnx_cannot_vary_are_fixed_and_that_is_said(tmp_path):
    calls = sequence_calls(Branches(), alone)
    made = onnx.write(Branches(), calls, tmp_path / "model", {})
    assert made.narrowed
    assert made.inputs[0].shape == ["batch", 7, 4]
    assert made.agreed.samples == (3, 5)


def test_where_nothing_agrees_the_reasons_are_told(tmp_path):
    class Hidden(nn.Module):
        """Counts on the host what it is given: a trace keeps the count of one batch."""

        def forward(self, points):
            return points * float(points.numpy().sum())

    given = [torch.randn(samples, 4) for samples in (3, 5, 1)]
    model = Hidden()
    calls = [caught(model, len(x), lambda x=x: model(x)) for x in given]
    for to, write in FORMATS.items():
        with pytest.raises(AutotrainError, match="answers as") as error:
            write(model, calls, tmp_path / "model", {})
        assert "tracing: " in error.value.message, to


def test_the_notes_travel_with_the_file(tmp_path):
    torch.manual_seed(0)
    model = Perceptron().eval()
    calls = [caught(model, n, lambda n=n: model(torch.randn(n, 4))) for n in (3, 2)]
    onnx.write(model, calls, tmp_path / "model.onnx", {"step": "7"})
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert session.get_modelmeta().custom_metadata_map["step"] == "7"
    torchscript.write(model, calls, tmp_path / "model.ts", {"step": "7"})
    notes = {"step": ""}
    loaded(tmp_path / "model.ts", _extra_files=notes)
    assert notes["step"] == b"7"
