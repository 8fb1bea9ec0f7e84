"""Landmarks of a signer: 51 points, 9 of the body and 21 of each hand, as `make_signs.py` of the
template sign-ctc numbers them. Other landmarks are read too, without what knows where hands are."""

from __future__ import annotations

import torch

# Each point's place in a mirror: body, left hand, right hand.
MIRROR = (0, 1, 3, 2, 5, 4, 7, 6, 8, *range(30, 51), *range(9, 30))
# Of each hand the wrist, and the points seen from it.
WRISTS = {9: range(10, 30), 30: range(31, 51)}
ARMS = (6, 7)  # the wrists among the points of the body: right, left
TURN, STRETCH = 0.2, 0.15


def are_landmarks(shape: tuple[int, ...]) -> bool:
    """Whether frames of that shape are points in two or three dimensions."""
    return len(shape) == 2 and shape[1] in (2, 3)


def are_numbered(shape: tuple[int, ...]) -> bool:
    """Whether they are as many as ours, and so numbered like them."""
    return are_landmarks(shape) and shape[0] == len(MIRROR)


def mirrored(points: torch.Tensor) -> torch.Tensor:
    """[frames, 51, axes] with the sides exchanged: left hands stay left hands."""
    return points[:, MIRROR] * torch.tensor([-1.0, 1.0, 1.0])[: points.shape[-1]]


def by_the_right(points: torch.Tensor) -> torch.Tensor:
    """[frames, 51, axes], seen in a mirror where the left hand moves most."""
    right, left = points[:, ARMS].var(dim=0, correction=0).sum(dim=-1)
    return mirrored(points) if left > right else points


def hand_places(shape: tuple[int, ...]) -> torch.Tensor:
    """[2, n]: coordinates of fingers, and of their wrist beside each; none of other landmarks."""
    if not are_numbered(shape):
        return torch.zeros(2, 0, dtype=torch.long)
    axes = shape[1]
    pairs = [(f, wrist) for wrist, fingers in WRISTS.items() for f in fingers]
    return torch.tensor([(axes * f + a, axes * w + a) for f, w in pairs for a in range(axes)]).T


def with_hands(features: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """[..., size] -> [..., size + n]: behind them, where the fingers are as seen from the wrist."""
    return torch.cat([features, features[..., places[0]] - features[..., places[1]]], dim=-1)


def moved(points: torch.Tensor) -> torch.Tensor:
    """[frames, points, axes] as another camera may have seen it: turned by up to TURN radians,
    stretched by up to STRETCH a way."""
    turn = TURN * (2 * torch.rand(()) - 1)
    x = points[..., 0] * turn.cos() - points[..., 1] * turn.sin()
    y = points[..., 0] * turn.sin() + points[..., 1] * turn.cos()
    turned = torch.stack([x, y, *points[..., 2:].unbind(-1)], dim=-1)
    return turned * (1 + STRETCH * (2 * torch.rand(points.shape[-1]) - 1))
