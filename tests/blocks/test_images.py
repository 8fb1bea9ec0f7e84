"""Pictures as tensors: modes, shapes, damaged files."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from autotrain.blocks import images
from autotrain.errors import AutotrainError

from .strange import make_strange


def save(path, mode="RGB", size=(20, 10), colour=0):
    Image.new(mode, size, colour).save(path)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
def test_every_mode_becomes_a_square_of_eight_bit_channels(tmp_path, mode, channels):
    loaded = images.load_image(save(tmp_path / "a.png", mode), 16, channels)
    assert loaded.shape == (channels, 16, 16)
    assert loaded.dtype == torch.uint8


def test_the_middle_is_kept_when_a_picture_is_not_square(tmp_path):
    pixels = np.zeros((10, 30), dtype="uint8")
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert images.load_image(tmp_path / "a.png", 10).min() == 255


def test_transparent_pixels_become_white(tmp_path):
    path = save(tmp_path / "a.png", "RGBA", colour=(0, 0, 0, 0))
    assert images.load_image(path, 8).min() == 255


def test_sixteen_bit_grey_keeps_its_brightness(tmp_path):
    Image.fromarray(np.full((8, 8), 0x8000, dtype="uint16")).save(tmp_path / "a.png")
    assert images.load_image(tmp_path / "a.png", 8).unique().tolist() == [0x80]


@pytest.mark.parametrize("keep", [0, 10, 40, -500])
def test_a_file_that_is_no_whole_image_is_refused_by_name(tmp_path, keep):
    noise = torch.randint(0, 255, (64, 64, 3), dtype=torch.uint8).numpy()
    Image.fromarray(noise).save(tmp_path / "whole.png")
    path = tmp_path / "torn.png"
    path.write_bytes((tmp_path / "whole.png").read_bytes()[:keep])
    with pytest.raises(AutotrainError, match=r"torn\.png: "):
        images.load_image(path, 32)


@pytest.mark.parametrize("read", [images.image_size, lambda path: images.load_image(path, 32)])
def test_text_or_a_missing_file_is_refused_by_name(tmp_path, read):
    with pytest.raises(AutotrainError, match=r"a\.jpg: .*No such file"):
        read(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_text("no image")
    with pytest.raises(AutotrainError, match=r"a\.jpg: not an image"):
        read(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("sizes", "common"),
    [([(8, 8)], 32), ([(60, 70), (66, 64)], 64), ([(4000, 3000)], 224), ([(100, 101)], 96)],
)
def test_the_common_size_is_the_median_shorter_side_within_bounds(sizes, common):
    assert images.common_size(sizes, 32, 224) == common


def test_one_class_only_is_refused(tmp_path):
    assert images.several_classes({"b": [tmp_path], "a": [tmp_path], "c": []}) == ["a", "b"]
    with pytest.raises(AutotrainError, match="one class only: b"):
        images.several_classes({"b": [tmp_path], "a": []})


def test_a_labelled_set_travels_to_a_worker_without_its_cache(tmp_path):
    items = [(save(tmp_path / f"{i}.png", colour=(i, i, i)), i) for i in range(4)]
    pictures = images.ImageSet(items, 16, 3, torch.nn.Identity())
    pixels, label = pictures[2]
    assert (label, pixels.unique().tolist()) == (2, [2])
    copy = pickle.loads(pickle.dumps(pictures))
    assert copy.pictures.kept == {}
    assert torch.equal(copy[2][0], pixels)


@pytest.mark.parametrize("read", [images.image_size, lambda path: images.load_image(path, 32)])
def test_what_is_no_picture_is_refused_and_holds_nothing_up(tmp_path, read):
    says = make_strange(tmp_path, ".png") | {"program": "not an image"}
    (tmp_path / "program.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name, problem in says.items():
        with pytest.raises(AutotrainError, match=rf"{name}\.png: {problem}"):
            read(tmp_path / f"{name}.png")


@pytest.mark.parametrize("size", [(9_000, 9_000), (50_000, 1_000)])
def test_a_bomb_is_refused_by_its_header(tmp_path, size):
    path = save(tmp_path / "bomb.png", "1", size)
    with pytest.raises(AutotrainError, match=rf"bomb\.png: an image bomb: {size[0]} x {size[1]}"):
        images.load_image(path, 32)
