"""Landmarks of a signer: seen in a mirror, from the wrist, from elsewhere."""

from __future__ import annotations

import pytest
import torch

from autotrain.blocks.landmarks import (
    ARMS,
    MIRROR,
    STRETCH,
    WRISTS,
    are_landmarks,
    are_numbered,
    by_the_right,
    hand_places,
    mirrored,
    moved,
    with_hands,
)


def test_a_mirror_exchanges_the_sides_and_twice_is_the_same():
    assert sorted(MIRROR) == [*range(51)]
    assert [MIRROR[place] for place in MIRROR] == [*range(51)]
    points = torch.randn(5, 51, 3)
    assert torch.equal(mirrored(mirrored(points)), points)
    assert torch.equal(mirrored(points)[:, 9, 0], -points[:, 30, 0])
    assert torch.equal(mirrored(points)[:, 9, 1:], points[:, 30, 1:])


@pytest.mark.parametrize("axes", [2, 3])
def test_fingers_are_seen_from_their_own_wrist(axes):
    points = torch.randn(4, 51, axes)
    places = hand_places((51, axes))
    assert places.shape == (2, 40 * axes)
    behind = with_hands(points.flatten(1), places)[:, 51 * axes :].unflatten(1, (40, axes))
    meant = [points[:, f] - points[:, w] for w, fingers in WRISTS.items() for f in fingers]
    assert torch.equal(behind, torch.stack(meant, dim=1))


@pytest.mark.parametrize(
    ("shape", "landmarks", "numbered"),
    [((51, 2), True, True), ((51, 3), True, True), ((68, 2), True, False), ((51, 4), False, False),
     ((512,), False, False)],
)  # fmt: skip
def test_what_is_no_landmark_of_ours_has_no_hands(shape, landmarks, numbered):
    assert (are_landmarks(shape), are_numbered(shape)) == (landmarks, numbered)
    assert (hand_places(shape).shape[1] > 0) is numbered


def test_whose_left_hand_moves_most_is_seen_in_a_mirror():
    points = torch.zeros(9, 51, 2)
    points[:, ARMS[0], 1] = torch.arange(9.0)
    assert torch.equal(by_the_right(points), points)
    assert torch.equal(by_the_right(mirrored(points)), points)


def test_another_camera_turns_and_stretches_and_leaves_the_middle():
    torch.manual_seed(0)
    points = torch.randn(6, 20, 3)
    for _ in range(20):
        seen = moved(points)
        assert seen.shape == points.shape
        lengths = seen[..., :2].norm(dim=-1) / points[..., :2].norm(dim=-1)
        assert lengths.min() >= 1 - STRETCH - 1e-5
        assert lengths.max() <= 1 + STRETCH + 1e-5
    assert torch.equal(moved(torch.zeros(2, 3, 2)), torch.zeros(2, 3, 2))
