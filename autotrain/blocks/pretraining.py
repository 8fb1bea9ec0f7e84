"""An encoder learns without transcripts: to name what it may not hear (BEST-RQ, Chiu 2022).

Every few frames have a name: which of some random directions is nearest to a random projection of
them. Neither ever learns, so there is nothing that could collapse. Spans of a clip are hidden, and
the encoder says what stands there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from autotrain.blocks.audio import pad_frames
from autotrain.blocks.spoken import Spectra
from autotrain.supervised import IGNORED

SIZE = 16  # of the projection, as in the paper
SHARE, SPAN = 0.3, 8  # of a clip that is hidden, in spans of so many names: 0.4 s at 20 a second


class Names:
    """[frames, bands] -> names [ceil(frames / stack)] from 0 to `count` - 1.

    `mean`, `deviation`: [bands], of the training clips. The same `seed` gives the same names.
    """

    def __init__(
        self, mean: torch.Tensor, deviation: torch.Tensor, count: int = 256, stack: int = 4,
        seed: int = 0,
    ) -> None:  # fmt: skip
        chance = torch.Generator().manual_seed(seed)
        self.mean, self.deviation, self.count, self.stack = mean, deviation, count, stack
        self.projection = torch.randn(stack * len(mean), SIZE, generator=chance)
        directions = torch.randn(SIZE, count, generator=chance)
        self.directions = functional.normalize(directions, dim=0)

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """What is missing in the last `stack` frames is taken for the mean."""
        seen = (features - self.mean) / self.deviation
        seen = functional.pad(seen, (0, 0, 0, -len(seen) % self.stack))
        stacked = seen.reshape(-1, self.stack * seen.shape[1])
        return torch.argmax(stacked @ self.projection @ self.directions, dim=1)


def hidden_spans(count: int, share: float = SHARE, span: int = SPAN) -> torch.Tensor:
    """bool [count]: True where one is hidden, in spans that begin anywhere, one at least.

    About `share` of a long clip is hidden; spans may overlap.
    """
    begins = torch.rand(count) < 1 - (1 - share) ** (1 / span)
    begins[torch.randint(count, ())] = True
    before = functional.pad(begins.float(), (span - 1, 0))
    return functional.max_pool1d(before[None, None], span, stride=1)[0, 0] > 0


class Guesses(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Index -> (spectrum [frames, bands] with spans at their mean, names [ceil(frames / stack)]).

    -100 stands where nothing is hidden. What is hidden is drawn at each reading.
    """

    def __init__(self, spectra: Spectra, names: Names) -> None:
        self.spectra, self.names = spectra, names

    def __len__(self) -> int:
        return len(self.spectra)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        _, bands = self.spectra[index]
        names = self.names(bands)
        hidden = hidden_spans(len(names))
        frames = hidden.repeat_interleave(self.names.stack)[: len(bands), None]
        return torch.where(frames, self.names.mean, bands), names.masked_fill(~hidden, IGNORED)


class Guessed(NamedTuple):
    """A batch: `features` [batch, longest, bands] of which `frames` [batch] count; `names` [batch,
    most], -100 where there is nothing to guess."""

    features: torch.Tensor
    frames: torch.Tensor
    names: torch.Tensor


def pad_guesses(samples: Sequence[tuple[torch.Tensor, torch.Tensor]], multiple: int = 1) -> Guessed:
    """A collate for Guesses' samples; `multiple`: as in `pad_frames`, of the features alone."""
    names = pad_sequence([each for _, each in samples], batch_first=True, padding_value=IGNORED)
    return Guessed(*pad_frames([features for features, _ in samples], multiple), names)
