"""Speech autoencoder: LSTMs squeeze every 20 ms of a spectrum into 100 numbers and back.

autotrain plan templates/speech-autoencoder/clips --template speech-autoencoder
autotrain run plan.toml       # 20 clips, 30 epochs: about 15 s on two idle cores, loss down by 88 %
"""

import functools
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from autotrain import Kept, Loss, Task
from autotrain.blocks.audio import (
    clip_seconds,
    load_clip,
    log_spectrum,
    pad_frames,
    sound_of,
    write_clip,
)
from autotrain.blocks.invented import Invented
from autotrain.blocks.layouts import Clip, speech_clips
from autotrain.blocks.losses import inside
from autotrain.blocks.options import all_between
from autotrain.blocks.samples import FEW, Loaded, keep_readable
from autotrain.blocks.transcripts import Sides, side, sides

RATE = 16_000  # hertz; clips of another rate are resampled
HOP = 320  # samples between frames: 20 ms
WINDOW = 640  # samples a frame sees: 40 ms
N_FFT = 880  # gives the origin's 441 features, 18 Hz apart
FEATURES = N_FFT // 2 + 1
FLOOR_DB = -90.0  # re a sine of full scale; below it everything is silence

STATISTICS_CLIPS = 200  # of the training clips, evenly spread, for the level and its spread
CHECKED_SECONDS = 600.0  # a corpus up to here is decoded at once, a larger one checked by header
# Of `draw`: title, unit upwards, and of a picture its lowest and highest value and its colours.
PANELS = (
    ("sound", ""),
    ("spectrum, dB", "kHz", FLOOR_DB, 0, "magma"),
    ("what is kept of each frame", "number", None, None, "coolwarm"),
    ("rebuilt sound, its phases guessed", ""),
    ("rebuilt spectrum, dB", "kHz", FLOOR_DB, 0, "magma"),
    ("error, dB", "kHz", 0, 20, "viridis"),
)


class Frames(NamedTuple):
    """A batch: spectra in dB [batch, longest, 441], each clip's frames [batch], and their sum."""

    spectra: torch.Tensor
    lengths: torch.Tensor
    frames: int


class Parts(NamedTuple):
    """The clips by what they are for, and the seconds of each that are used."""

    sides: Sides
    seconds: dict[Clip, float]


class Autoencoder(nn.Module):
    """Spectra in dB [batch, frames, 441] -> (normalised, rebuilt), both of that shape.

    Both LSTMs run forwards only, so that padding at a clip's end cannot reach its frames. Each
    has a straight path beside it: what is linear is learned at once, memory adds the rest.
    `level` and `spread` of the training clips in dB are kept in every checkpoint.
    """

    def __init__(self, level: float, spread: float, latent: int, width: int, dropout: float):
        super().__init__()
        self.register_buffer("level", torch.tensor(level))
        self.register_buffer("spread", torch.tensor(spread))
        lstm = functools.partial(nn.LSTM, num_layers=2, batch_first=True, dropout=dropout)
        self.encoder = lstm(FEATURES, width)
        self.squeeze = nn.Linear(FEATURES + width, latent)
        self.decoder = lstm(latent, width)
        self.rebuild = nn.Linear(latent + width, FEATURES)

    def encode(self, normalised: torch.Tensor) -> torch.Tensor:
        """[batch, frames, 441] -> [batch, frames, latent]."""
        remembered, _ = self.encoder(normalised)
        return self.squeeze(torch.cat([normalised.to(remembered.dtype), remembered], dim=-1))

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """[batch, frames, latent] -> [batch, frames, 441]."""
        remembered, _ = self.decoder(latent)
        return self.rebuild(torch.cat([latent.to(remembered.dtype), remembered], dim=-1))

    def forward(self, spectra: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        normalised = (spectra - self.level) / self.spread
        return normalised, self.decode(self.encode(normalised)).float()


class Spectra(torch.utils.data.Dataset):
    """Index -> the clip's spectrum in dB [frames, 441], computed once where memory allows."""

    def __init__(self, clips: list[Clip], max_seconds: float):
        self.loaded = Loaded(clips, functools.partial(spectrum, max_seconds=max_seconds), "clips")

    def __len__(self) -> int:
        return len(self.loaded)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.loaded[index][1]


def spectrum(clip: Clip, max_seconds: float) -> torch.Tensor:
    """The log-magnitude spectrum of a clip in dB [frames, 441]."""
    return spectrum_of(load_clip(clip.path, RATE, max_seconds))


def spectrum_of(samples: torch.Tensor) -> torch.Tensor:
    """[samples] -> [frames, 441] in dB."""
    return log_spectrum(samples, n_fft=N_FFT, window=WINDOW, hop=HOP, floor_db=FLOOR_DB)


def readable_clips(clips: list[Clip], max_seconds: float, **leeway) -> dict[Clip, float]:
    """The clips that can be read, and the seconds of each that are used. `leeway`: of
    `keep_readable`."""
    seconds: dict[Clip, float] = {}

    def header(clip: Clip) -> None:
        seconds[clip] = min(clip_seconds(clip.path), max_seconds)

    clips = keep_readable(clips, header, "clips", **leeway)
    if sum(seconds.values()) <= CHECKED_SECONDS:
        clips = keep_readable(
            clips, lambda c: load_clip(c.path, RATE, max_seconds), "clips", **leeway
        )
    return {clip: seconds[clip] for clip in clips}


def name_of(clip: Clip, folder: Path) -> str:
    """What a clip is held out by: its name and its folder's, whatever the corpus is called."""
    return "/".join(["clips", *clip.path.relative_to(folder).parts][-2:])


def shared_out(folder: Path, valid_share: float, max_seconds: float) -> Parts:
    """The clips of a folder, by what they are for."""
    seconds = readable_clips(speech_clips(folder), max_seconds)
    alike = functools.partial(name_of, folder=folder)
    return Parts(sides([*seconds], valid_share, alike), seconds)


def asked_for(folder: Path, split: str | None, valid_share: float, max_seconds: float) -> Parts:
    """The clips of one split, or none at all; the others need not be there."""
    parts = Sides([], [], [])
    if split is None:
        return Parts(parts, {})
    look = functools.partial(readable_clips, max_seconds=max_seconds, **FEW)
    alike = functools.partial(name_of, folder=folder)
    seconds = side(speech_clips(folder, split), split, valid_share, look, alike)
    return Parts(parts._replace(**{split: [*seconds]}), seconds)


def level_and_spread(spectra: Spectra) -> dict:
    """Mean and standard deviation in dB over all elements of the clips looked at."""
    stride = -(-len(spectra) // STATISTICS_CLIPS)
    count, total, squares = 0, 0.0, 0.0
    for index in range(0, len(spectra), stride):
        values = spectra[index].double()
        count += values.numel()
        total += float(values.sum())
        squares += float(values.square().sum())
    level = total / count
    return {"level": level, "spread": max(squares / count - level**2, 1.0) ** 0.5}


def invented(level: float, spread: float) -> Invented:
    """Spectra of nothing, as loud as those that a model learned from."""
    return Invented(lambda index: level + spread * torch.randn(40 + 9 * index, FEATURES))


def pad(clips: list[torch.Tensor]) -> Frames:
    """Spectra of several clips as one batch, padded to the longest."""
    spectra, lengths = pad_frames(clips)
    return Frames(spectra, lengths, sum(len(clip) for clip in clips))


def rebuilt(model: nn.Module, batch: Frames) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(normalised spectra, error of the rebuilt, mask): [batch, longest, 441], mask [.., 1]."""
    normalised, output = model(batch.spectra)
    mask = inside(batch.lengths, batch.spectra.shape[1])[..., None]
    return normalised, output - normalised, mask


def loss(model: nn.Module, batch: Frames) -> Loss:
    """Squared error, summed over the elements of valid frames. A mean of 1.0 is what a constant
    scores on the training clips; 0.2 means that 80 % of the variance is rebuilt."""
    _, error, mask = rebuilt(model, batch)
    return Loss(total=(error.square() * mask).sum(), weight=batch.frames * FEATURES)


def measure(model: nn.Module, batch: Frames) -> dict:
    """`explained`: share of the variance that is rebuilt. `error_db`: mean absolute error in dB."""
    normalised, error, mask = rebuilt(model, batch)
    energy = (normalised.square() * mask).sum()
    decibels = (error.abs() * mask).sum() * model.spread
    return {
        "explained": (energy - (error.square() * mask).sum(), energy),
        "error_db": (decibels, batch.frames * FEATURES),
    }


def answer(model: nn.Module, given: str, out: Path, max_seconds: float) -> dict:
    """What is left of a clip: as a WAV, as a picture, and in figures. One that is longer than those
    of the training goes through the model in pieces of their length."""
    samples = load_clip(Path(given), RATE)
    seen = spectrum_of(samples)
    pieces = seen.to(model.level.device).split(max(int(max_seconds * RATE / HOP), 1))
    each = [model(piece[None]) for piece in pieces]
    normalised, output = (torch.cat(those, dim=1) for those in zip(*each, strict=True))
    latent = torch.cat([model.encode(known)[0] for known, _ in each]).float().cpu()
    found = (output[0] * model.spread + model.level).cpu()
    sound = sound_of(found, n_fft=N_FFT, window=WINDOW, hop=HOP)
    wav, picture = (out / f"{Path(given).stem}{suffix}" for suffix in (".wav", ".png"))
    write_clip(wav, sound, RATE)
    draw(picture, [samples, seen, latent, sound, found, (found - seen).abs()])
    energy = normalised.square().sum()
    return {
        "wav": str(wav),
        "picture": str(picture),
        "explained": float(1 - (output - normalised).square().sum() / energy),
        "error_db": float((found - seen).abs().mean()),
    }


def draw(path: Path, shown: list[torch.Tensor]) -> None:
    """Six panels: a sound, its spectrum, what is kept of it; the same rebuilt, and its error."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 8), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(path.stem, parse_math=False)
    axes, seconds = figure.subplots(2, 3).flat, len(shown[1]) * HOP / RATE
    for ax, values, (title, unit, *colours) in zip(axes, shown, PANELS, strict=True):
        ax.set(title=title, xlabel="seconds", ylabel=unit)
        if values.dim() == 1:
            ax.plot(torch.linspace(0, seconds, len(values)).numpy(), values.numpy(), linewidth=0.5)
            ax.set(xlim=(0, seconds), ylim=(-1, 1))
            continue
        top = RATE / 2000 if unit == "kHz" else values.shape[1]
        low, high, cmap = colours
        image = ax.imshow(
            values.T.numpy(), cmap, vmin=low, vmax=high, aspect="auto", origin="lower",
            extent=(0, seconds, 0, top),
        )  # fmt: skip
        figure.colorbar(image, ax=ax)
    figure.savefig(path)


def task(
    data: Path | None,
    *,
    latent: int = 100,
    width: int = 434,
    dropout: float = 0.0,
    valid_share: float = 0.2,
    max_seconds: float = 20.0,
    kept: Kept | None = None,
) -> Task:
    """`data`: a folder of clips in any layout of autotrain.blocks.layouts (None: those shipped).

    `latent`: numbers per frame. `width` of the LSTMs: 434 gives 5.8 M parameters. `dropout`
    between LSTM layers. `valid_share` of the clips is held out where the layout names no
    validation. Of each clip the first `max_seconds` are learned from.
    """
    all_between([
        ("latent", latent, 1, 4096), ("width", width, 1, 8192), ("dropout", dropout, 0, 0.95),
        ("valid_share", valid_share, 0.01, 0.9), ("max_seconds", max_seconds, 0.1, 3600),
    ])  # fmt: skip
    folder = data or Path(__file__).parent / "clips"
    if kept is None:
        parts = shared_out(folder, valid_share, max_seconds)
    else:
        parts = asked_for(folder, kept.split, valid_share, max_seconds)
    frames = [[parts.seconds[clip] * RATE / HOP for clip in part] for part in parts.sides[:2]]
    train, valid, test = (Spectra(clips, max_seconds) for clips in parts.sides)
    facts = level_and_spread(train) if kept is None else kept.facts
    if kept is not None and kept.split is None:
        train = invented(**facts)
    return Task(
        model=lambda: Autoencoder(facts["level"], facts["spread"], latent, width, dropout),
        train=train,
        valid=valid,
        test=test if len(test) else None,
        collate=pad,
        loss=loss,
        measure=measure,
        length=frames[0].__getitem__,
        valid_length=frames[1].__getitem__,
        predict=functools.partial(answer, max_seconds=max_seconds),
        facts=facts,
    )
