"""SpecAugment (Park 2019): stretches of time and bands of features hidden while training."""

from __future__ import annotations

import torch
from torch import nn
from torchaudio.transforms import FrequencyMasking, TimeMasking

from autotrain.blocks.losses import inside
from autotrain.blocks.mixing import stretched
from autotrain.errors import AutotrainError


class SpecAugment(nn.Module):
    """Masks `bands` bands of up to `band` features and `gaps` gaps of up to `gap` frames.

    No gap is longer than `gap_share` of the sequence. What is hidden becomes `fill`: the mean of
    normalised features, say. `warp` moves a moment in the middle by up to so many frames and
    stretches what is before and behind it; the length stays (0: off). Nothing happens in eval
    mode. The defaults are the paper's LibriSpeech policies with its p = 0.2, without the warp.

    In `Augmented(train, SpecAugment())` each sample is masked for itself, as a function of the
    seed, the epoch and its index. Inside a model, [batch, time, features], each sample is masked
    for itself as well, but as a function of its place in the micro-batch: like dropout, the same
    masks on average, others when the batch is cut otherwise.
    """

    def __init__(
        self, band: int = 27, bands: int = 2, gap: int = 100, gaps: int = 2,
        gap_share: float = 0.2, *, warp: int = 0, fill: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if min(band, bands, gap, gaps, warp) < 0 or not 0 <= gap_share <= 1:
            raise AutotrainError(
                f"SpecAugment: band {band}, bands {bands}, gap {gap}, gaps {gaps}, gap_share "
                f"{gap_share:g}, warp {warp}",
                "none below 0, and gap_share at most 1",
            )
        self.bands, self.gap, self.gaps, self.gap_share = bands, gap, gaps, gap_share
        self.warp, self.fill = warp, fill
        self.hide_band = FrequencyMasking(band, iid_masks=True)
        self.hide_gap = TimeMasking(gap, p=gap_share)

    def forward(self, features: torch.Tensor, frames: torch.Tensor | None = None) -> torch.Tensor:
        """[time, features], or [batch, time, features] with each sample's frames [batch]."""
        if not self.training:
            return features
        if features.dim() == 2:
            return self._one(features)
        if features.dim() != 3:
            raise AutotrainError(
                f"SpecAugment: features of shape {tuple(features.shape)}",
                "[time, features] or [batch, time, features]",
            )
        return self._several(features, frames)

    def _one(self, features: torch.Tensor) -> torch.Tensor:
        if self.warp and len(features) > 2 * self.warp + 1:
            features = _warped(features, self.warp)
        spectrum = self._banded(features[None])[0].T
        for _ in range(self.gaps):
            spectrum = self.hide_gap(spectrum, self.fill)
        return spectrum.T

    def _several(self, features: torch.Tensor, frames: torch.Tensor | None) -> torch.Tensor:
        if self.warp:
            raise AutotrainError(
                "SpecAugment: warp stretches one sample at a time",
                "Augmented(train, SpecAugment(warp=...)) in place of a layer of the model",
            )
        batch, time, _ = features.shape
        ends = torch.full((batch,), time) if frames is None else frames
        hidden = self._gaps(ends.to(features.device), time)
        return self._banded(features).masked_fill(hidden[..., None], self.fill)

    def _banded(self, features: torch.Tensor) -> torch.Tensor:
        """[batch, time, features] with each sample's own bands hidden."""
        spectra = features.transpose(1, 2)
        for _ in range(self.bands):
            spectra = self.hide_band(spectra, self.fill)
        return spectra.transpose(1, 2)

    def _gaps(self, frames: torch.Tensor, time: int) -> torch.Tensor:
        """[batch, time], True in the gaps. torchaudio's own would reach into the padding."""
        draws = torch.rand(2, len(frames), self.gaps, device=frames.device)
        widest = (frames * self.gap_share).floor().clamp(max=self.gap)[:, None]
        width = (draws[0] * widest).floor()
        start = (draws[1] * (frames[:, None] - width)).floor()
        at = torch.arange(time, device=frames.device)[:, None]
        hidden = (at >= start[:, None]) & (at < (start + width)[:, None])
        return hidden.any(dim=-1) & inside(frames, time)


def _warped(features: torch.Tensor, most: int) -> torch.Tensor:
    """[time, features] with a moment moved by up to `most` frames; as long as before."""
    frames = len(features)
    moment = most + 1 + int(torch.randint(frames - 2 * most - 1, ()))
    to = moment + int(torch.randint(-most, most + 1, ()))
    parts = stretched(features[:moment], to), stretched(features[moment:], frames - to)
    return torch.cat(parts)
