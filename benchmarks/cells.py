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


def same_picture(model, batch):
    x, _ = batch
    return Loss(total=(model(x) - x).square().sum(), weight=x.numel())


def each_pixel(model, batch):
    x, targets = batch
    return Loss(
        total=functional.cross_entropy(model(x), targets, reduction="sum"), weight=targets.numel()
    )


def pictures(build, **options):
    return Task.classification(
        model=lambda: build(num_classes=10, **options), train=Random(image, label)
    )


class UNet(nn.Module):
    """[batch, 3, side, side] -> [batch, classes, side, side]; two levels down and up again."""

    def __init__(self, width=16, classes=5):
        super().__init__()
        sizes = [width, 2 * width, 4 * width]
        self.down = nn.ModuleList(
            self.block(i, o) for i, o in zip([3, *sizes[:-1]], sizes, strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(sizes[i], sizes[i - 1], 2, stride=2) for i in (2, 1)
        )
        self.merge = nn.ModuleList(self.block(2 * sizes[i - 1], sizes[i - 1]) for i in (2, 1))
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def block(inner, outer):
        return nn.Sequential(
            nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU(),
            nn.Conv2d(outer, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x):
        kept = []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else functional.max_pool2d(x, 2))
            kept.append(x)
        for up, merge, beside in zip(self.up, self.merge, kept[-2::-1], strict=True):
            x = merge(torch.cat([up(x), beside], 1))
        return self.head(x)


class Mixer(nn.Module):
    """One MLP-Mixer block on [batch, patches, width]."""

    def __init__(self, patches, width):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.tokens, self.channels = self.mlp(patches), self.mlp(width)

    @staticmethod
    def mlp(width):
        return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.tokens(self.norms[0](x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norms[1](x))


class Attention(nn.Module):
    """A causal block of GPT-2's kind on [batch, time, width], by scaled_dot_product_attention."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x):
        rows, time, width = x.shape
        split = self.qkv(self.norms[0](x)).view(rows, time, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, time, width))
        return x + self.mlp(self.norms[1](x))


class Gpt(nn.Module):
    """[batch, time] of words -> [batch, time, WORDS]; one matrix in and out."""

    def __init__(self, width=192, heads=6, layers=4):
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, width), nn.Embedding(96, width)
        self.blocks = nn.Sequential(*(Attention(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x):
        places = self.places(torch.arange(x.shape[1]))
        return self.head(self.norm(self.blocks(self.words(x) + places)))


class ConformerCtc(nn.Module):
    """[batch, time, 80] -> [batch, time, 30], by torchaudio's Conformer."""

    def __init__(self, width=80):
        super().__init__()
        from torchaudio.models import Conformer

        self.layers, self.head = Conformer(width, 4, 256, 3, 31), nn.Linear(width, 30)

    def forward(self, x):
        lengths = torch.full((len(x),), x.shape[1])
        return self.head(self.layers(x, lengths)[0])


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


def text(build=Transformer, **options):
    return Task(model=lambda: build(**options), train=Random(words, words), loss=next_word)


def sound():
    return torch.randn(1, 4000)


def clip():
    return torch.randn(3, 8, 32, 32)


def row():
    return torch.randn(256)


def pixels():
    return torch.randint(0, 5, (SIDE, SIDE))


def sound_net(width=32):
    return nn.Sequential(
        nn.Conv1d(1, width, 80, stride=4), nn.BatchNorm1d(width), nn.ReLU(), nn.MaxPool1d(4),
        nn.Conv1d(width, width, 3), nn.BatchNorm1d(width), nn.ReLU(), nn.MaxPool1d(4),
        nn.Conv1d(width, 2 * width, 3), nn.BatchNorm1d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    )  # fmt: skip


def separable_net(width=64):
    """Depthwise and pointwise convolutions over time."""
    blocks = [
        layer
        for _ in range(3)
        for layer in (
            nn.Conv1d(width, width, 15, padding=7, groups=width), nn.Conv1d(width, width, 1),
            nn.GroupNorm(8, width), nn.SiLU(),
        )
    ]  # fmt: skip
    return nn.Sequential(
        nn.Conv1d(1, width, 16, stride=8), *blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(width, 10),
    )  # fmt: skip


def clip_net(width=16):
    return nn.Sequential(
        nn.Conv3d(3, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU(), nn.MaxPool3d(2),
        nn.Conv3d(width, 2 * width, 3, padding=1), nn.BatchNorm3d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    )  # fmt: skip


def group_norm_net(width=32):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.GroupNorm(8, 2 * width), nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1, bias=False),
        nn.InstanceNorm2d(2 * width, affine=True), nn.ELU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    )  # fmt: skip


def autoencoder(width=24):
    return nn.Sequential(
        nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.LeakyReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1), nn.LeakyReLU(),
        nn.ConvTranspose2d(width, 3, 4, stride=2, padding=1), nn.Sigmoid(),
    )  # fmt: skip


def mixer(patch=8, width=128, depth=3):
    return nn.Sequential(
        nn.Conv2d(3, width, patch, stride=patch), nn.Flatten(2), Transposed(),
        *(Mixer((SIDE // patch) ** 2, width) for _ in range(depth)),
        nn.LayerNorm(width), Mean(), nn.Linear(width, 10),
    )  # fmt: skip


def table_net(width=1024):
    return nn.Sequential(
        nn.Linear(256, width), nn.BatchNorm1d(width), nn.GELU(), nn.Dropout(0.1),
        nn.Linear(width, width), nn.PReLU(), nn.Linear(width, 10),
    )  # fmt: skip


class Transposed(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


class Mean(nn.Module):
    """Over time or place: [batch, many, width] -> [batch, width]."""

    def forward(self, x):
        return x.mean(1)


def classifier(draw, build, **options):
    return Task.classification(model=lambda: build(**options), train=Random(draw, label))


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
    "gru": lambda: speech(kind=nn.GRU, width=192),
    "unet": lambda: Task(model=UNet, train=Random(image, pixels), loss=each_pixel),
    "sound_net": lambda: classifier(sound, sound_net),
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
    "gpt2_like": lambda: text(Gpt),
    "conformer_ctc": lambda: Task(
        model=ConformerCtc, train=Random(frames, glosses), loss=ctc
    ),
    "mixer": lambda: classifier(image, mixer),
    "efficientnet_v2_s": lambda: pictures(vision.efficientnet_v2_s),
    "mobilenet_v2": lambda: pictures(vision.mobilenet_v2),
    "convnext_narrow": lambda: pictures(
        vision.ConvNeXt,
        block_setting=[
            vision.convnext.CNBlockConfig(48, 96, 2), vision.convnext.CNBlockConfig(96, None, 2),
        ],
    ),
    "swin": lambda: pictures(
        vision.SwinTransformer, patch_size=[4, 4], embed_dim=48, depths=[2, 2],
        num_heads=[3, 6], window_size=[4, 4],
    ),
    "group_norm_net": lambda: classifier(image, group_norm_net),
    "separable_net": lambda: classifier(sound, separable_net),
    "clip_net": lambda: classifier(clip, clip_net),
    "autoencoder": lambda: Task(
        model=autoencoder, train=Random(image, label), loss=same_picture
    ),
    "table_net": lambda: classifier(row, table_net),
    "lstm_wide": lambda: speech(kind=nn.LSTM, width=200, both=True),
    "wide_resnet": lambda: pictures(vision.resnext50_32x4d),
}  # fmt: skip


def task(data, model="mlp"):
    return {**FITTED, **HELD_OUT}[model]()
