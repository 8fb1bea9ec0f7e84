"""Feature arrays: read with care, gaps filled in time, the same whoever stood wherever."""

import numpy as np
import pytest
import torch

from autotrain.blocks.features import filled, load_features, look_at, normalised_landmarks
from autotrain.errors import AutotrainError


def saved(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def test_the_array_of_a_usual_name_is_read_as_fp32(tmp_path):
    points = np.arange(12, dtype=np.float16).reshape(3, 2, 2)
    path = saved(tmp_path / "a.npz", other=np.zeros((90, 9)), landmarks=points)
    assert (look_at(path).frames, look_at(path).width) == (3, 4)
    found = load_features(path, (2, 2))
    assert found.dtype == torch.float32
    assert found.tolist() == points.tolist()


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"x": np.full((3, 4), np.nan)}, "not finite"),
        ({"x": np.full((3, 4), 1e200)}, "beyond float32"),
        ({"x": np.zeros((3, 5))}, "frames of 5 features, where most have 4"),
        ({"x": np.zeros((3, 2, 2))}, "frames of 2 x 2 features"),
        ({"x": np.array([[{}]], dtype=object)}, "pickled objects"),
        ({"x": np.zeros(3)}, "no array with frames"),
        ({"x": np.zeros((0, 4))}, "is empty"),
    ],
)
def test_what_cannot_be_trained_on_is_named(tmp_path, arrays, problem):
    path = saved(tmp_path / "bad.npz", **arrays)
    with pytest.raises(AutotrainError, match=rf"bad\.npz: .*{problem}"):
        load_features(path, (4,))


def test_torn_and_missing_files_are_named(tmp_path):
    path = saved(tmp_path / "torn.npz", x=np.random.default_rng(0).random((50, 4)))
    path.write_bytes(path.read_bytes()[:300])
    for look in (look_at, load_features):
        with pytest.raises(AutotrainError, match=r"torn\.npz: "):
            look(path)
        with pytest.raises(AutotrainError, match=r"gone\.npz: "):
            look(tmp_path / "gone.npz")


def test_what_was_not_seen_lies_on_the_way():
    points = torch.tensor([[0.0], [2.0], [0.0], [0.0], [5.0], [0.0]])[..., None]
    seen = (points != 0)[..., 0]
    assert filled(points, seen).flatten().tolist() == [2, 2, 3, 4, 5, 5]
    assert torch.equal(filled(points, torch.zeros_like(seen)), points)


def test_landmarks_are_the_same_nearer_and_elsewhere():
    torch.manual_seed(0)
    points = torch.rand(20, 6, 2) + 0.1
    moved = 0.5 * points + torch.tensor([0.2, 0.3])
    for each in (points, moved):
        each[5:9, 2] = 0
        each[:, 4] = 0
    first, second = normalised_landmarks(points), normalised_landmarks(moved)
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)
    assert float(first[:, 4].abs().sum()) == 0
    others = [0, 1, 3, 5]
    assert float(first[:, others].square().mean()) == pytest.approx(1, rel=0.1)
    gap = first[4, 2] + (first[9, 2] - first[4, 2]) / 5
    torch.testing.assert_close(first[5, 2], gap)


def test_nothing_seen_is_nothing():
    assert float(normalised_landmarks(torch.zeros(4, 3, 2)).abs().sum()) == 0
