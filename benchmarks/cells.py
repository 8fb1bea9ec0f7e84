"""A task of many models, on random data: `--set task.model=NAME`. For measurements only."""

import torch
import torchvision
from torch import nn
from torch.nn import functional

from autotrain import Loss, Task

WORDS, SIDE = 5000, 64


class Random(torch.utils.data.Dataset):
    """512 samples of (input, target), drawn anew each time."""

    def __init__(self, draw_input, draw_target):
        self.draw = draw_input, draw_target

    def __len__(self):
        return 512

    def __getitem__(self, index):
        return self.draw[0](), self.draw[1]()


def label():
    return torch.randint(0, 10, ())


def image():
    return torch.randn(3, SIDE, SIDE)


def frames():
    return torch.randn(100, 80)


def glosses():
    return torch.randint(1, 30, (10,))


def words():
    return torch.randint(0, WORDS, (96,))


class Recurrent(nn.Module):
    """[batch, time, 80] -> [batch, time, classes], or of the last frame [batch, classes]."""

    def __init__(self, kind, width, classes, both=False, last=False):
        super().__init__()
        self.layers = kind(80, width, 2, batch_first=True, bidirectional=both)
        self.head, self.last = nn.Linear(width * (2 if both else 1), classes), last

    def forward(self, x):
        out = self.head(self.layers(x)[0])
        return out[:, -1] if self.last else out


class Transformer(nn.Module):
    """[batch, time] of words -> [batch, time, WORDS]; `tied`: one matrix in and out."""

    def __init__(self, tied=False):
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 8, 1024, batch_first=True)
        self.words, self.layers = nn.Embedding(WORDS, 256), nn.TransformerEncoder(layer, 4)
        self.head = nn.Linear(256, WORDS, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, x):
        return self.head(self.layers(self.words(x)))


def ctc(model, batch):
    x, targets = batch
    rows = model(x).log_softmax(-1).transpose(0, 1)
    lengths = torch.full((len(x),), x.shape[1]), torch.full((len(x),), targets.shape[1])
    total = functional.ctc_loss(rows, targets, *lengths, reduction="sum")
    return Loss(total=total, weight=len(x))


def next_word(model, batch):
    x, targets = batch
    logits = model(x).flatten(0, 1)
    total = functional.cross_entropy(logits, targets.flatten(), reduction="sum")
    return Loss(total=total, weight=targets.numel())


def pictures(build, **options):
    return Task.classification(
        model=lambda: build(num_classes=10, **options), train=Random(image, label)
    )


def mlp(num_classes):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 512), nn.ReLU(), nn.Linear(512, num_classes)
    )


def speech(loss=None, **options):
    if loss is None:
        return Task.classification(
            model=lambda: Recurrent(classes=10, last=True, **options), train=Random(frames, label)
        )
    return Task(
        model=lambda: Recurrent(classes=30, **options), train=Random(frames, glosses), loss=loss
    )


def text(**options):
    return Task(model=lambda: Transformer(**options), train=Random(words, words), loss=next_word)


vision = torchvision.models
# Those that constants were fitted on, and those held out to check them.
FITTED = {
    "mlp": lambda: pictures(mlp),
    "resnet18": lambda: pictures(vision.resnet18),
    "efficientnet_b0": lambda: pictures(vision.efficientnet_b0),
    "mobilenet_v3_small": lambda: pictures(vision.mobilenet_v3_small),
    "convnext_tiny": lambda: pictures(vision.convnext_tiny),
    "lstm": lambda: speech(kind=nn.LSTM, width=320),
    "bilstm_ctc": lambda: speech(kind=nn.LSTM, width=128, both=True, loss=ctc),
    "transformer": text,
}
HELD_OUT = {
    "shufflenet": lambda: pictures(vision.shufflenet_v2_x1_0),
    "regnet": lambda: pictures(vision.regnet_y_400mf),
    "densenet": lambda: pictures(vision.densenet121),
    "vit": lambda: pictures(
        vision.VisionTransformer, image_size=SIDE, patch_size=8, num_layers=6, num_heads=6,
        hidden_dim=384, mlp_dim=1536,
    ),
    "gru_ctc": lambda: speech(kind=nn.GRU, width=256, loss=ctc),
    "tied_transformer": lambda: text(tied=True),
}  # fmt: skip


def task(data, model="mlp"):
    return {**FITTED, **HELD_OUT}[model]()
