"""The image classifier: its models, its split and augmentation, and what it does with bad files."""

import logging
import pickle
import random

import pytest
import torch
from PIL import Image

from autotrain.errors import AutotrainError
from autotrain.files import shipped
from autotrain.task import load_module, load_task

from .house import seen

FOLDER = shipped("templates") / "image-classifier"
CODE = FOLDER / "task.py"


def load(data, **options):
    return load_task(CODE, str(data), options)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def write(folder, classes="abc", each=10, size=(40, 32)):
    for shade, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            colour = (40 * shade + number, 100, 200)
            Image.new("RGB", size, colour).save(folder / name / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "pictures")


def test_the_cnn_has_4_7_million_parameters_for_10_to_29_classes():
    cnn = load_module(CODE).cnn
    for classes in (10, 29):
        assert parameters(cnn(classes, 32, 3, 0.0)) == pytest.approx(4.7e6, rel=0.02)


@pytest.mark.parametrize("size", [32, 48, 64, 112, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_cnn_trains_on_a_single_picture_of_any_size(size, channels):
    model = load_module(CODE).cnn(5, size, channels, 0.2)
    assert model(torch.zeros(1, channels, size, size)).shape == (1, 5)
    maps = model[:-4](torch.zeros(1, channels, size, size))
    assert 2 <= maps.shape[-1] <= 4


def test_efficientnet_has_4_million_parameters_without_its_head(pictures):
    task = load(pictures, arch="efficientnet_b0", size=32)
    model = task.model()
    assert parameters(model.features) == pytest.approx(4.0e6, rel=0.01)
    assert task.train[0][0].shape == (3, 64, 64)
    assert model(task.train[0][0][None]).shape == (1, 3)


def test_weights_from_a_file_start_the_model(pictures, tmp_path):
    first = load(pictures).model()
    torch.save(first.state_dict(), tmp_path / "first.pt")
    second = load(pictures, weights=str(tmp_path / "first.pt")).model()
    assert all(
        torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )
    with pytest.raises(AutotrainError, match=r"missing.pt"):
        load(pictures, weights="missing.pt")


def test_a_fifth_of_every_class_is_held_out_the_same_every_time(pictures):
    first, again = load(pictures), load(pictures)
    for part in ("train", "valid"):
        items = getattr(first, part).pictures.items
        assert items == getattr(again, part).pictures.items
        labels = [label for _, label in items]
        assert [labels.count(c) for c in range(3)] == [8 if part == "train" else 2] * 3
    assert not set(first.train.pictures.items) & set(first.valid.pictures.items)


def test_a_validation_folder_is_used_where_there_is_one(tmp_path):
    write(tmp_path / "train", each=4)
    write(tmp_path / "valid", classes="bc", each=3)
    task = load(tmp_path)
    assert len(task.train) == 12
    assert sorted(label for _, label in task.valid.pictures.items) == [1, 1, 1, 2, 2, 2]


def test_training_pictures_vary_with_the_seed_alone_and_validation_ones_never(pictures):
    task = load(pictures)
    assert torch.equal(seen(task.train, 1), seen(task.train, 1))
    assert not torch.equal(seen(task.train, 1), seen(task.train, 2))
    assert torch.equal(seen(task.valid, 1), seen(task.valid, 2))


def test_nothing_is_mirrored_unless_asked():
    chance = load_module(CODE).chance
    assert "RandomHorizontalFlip" not in str(chance(False))
    assert "RandomHorizontalFlip" in str(chance(True))


def test_the_input_size_comes_from_the_data_or_the_option(pictures):
    assert load(pictures).train[0][0].shape == (3, 32, 32)
    assert load(pictures, size=48, channels=1).train[0][0].shape == (1, 48, 48)


def test_loss_is_the_same_for_any_cut_and_smoothing_is_for_training_only(pictures):
    task = load(pictures, label_smoothing=0.1)
    torch.manual_seed(0)
    model = task.model().eval()
    batch = torch.utils.data.default_collate([task.valid[i] for i in range(6)])
    whole = task.loss(model, batch)
    cuts = [task.loss(model, [part[i : i + 2] for part in batch]) for i in (0, 2, 4)]
    assert whole.weight == sum(cut.weight for cut in cuts) == 6
    assert whole.total.item() == pytest.approx(sum(cut.total.item() for cut in cuts), rel=1e-4)
    plain = load(pictures).loss(model, batch)
    assert whole.total.item() == pytest.approx(plain.total.item())
    assert (task.monitor, task.better) == ("accuracy", "higher")


def cut_and_whole(task, batch):
    """The loss of a batch, and the sums of those of its pairs."""
    torch.manual_seed(0)
    model = task.model().eval()
    with torch.no_grad():
        whole = task.loss(model, batch)
        cuts = [task.loss(model, [part[i : i + 2] for part in batch]) for i in range(0, 6, 2)]
    return whole, sum(cut.total for cut in cuts), sum(cut.weight for cut in cuts)


@pytest.mark.parametrize("weighted", ["none", "balanced"])
def test_mixed_pictures_count_as_much_as_their_classes_do_for_any_cut(tmp_path, weighted):
    write(tmp_path, classes="a", each=30)
    write(tmp_path, classes="b", each=10)
    task = load(tmp_path, mixup=0.4, class_weights=weighted, label_smoothing=0.1)
    random.seed(3)  # mixing draws partners by it: of others none may be of another class
    torch.manual_seed(3)
    batch = torch.utils.data.default_collate([task.train[i * 6 + 1] for i in range(6)])
    probabilities = batch[1]
    assert ((probabilities > 0.01).sum(dim=1) == 2).any()
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(6))
    whole, total, weight = cut_and_whole(task, batch)
    each = torch.tensor([1.0, 1.0] if weighted == "none" else [32 / (2 * 24), 32 / (2 * 8)])
    assert float(whole.weight) == pytest.approx(float((probabilities @ each).sum()))
    assert float(weight) == pytest.approx(float(whole.weight))
    assert float(total) == pytest.approx(float(whole.total), rel=1e-4)


def test_mixup_blends_two_pictures_and_their_classes_in_training_only(pictures):
    task, plain = load(pictures, mixup=0.4, augment=False), load(pictures, augment=False)
    own, label = plain.train[3]
    random.seed(1)
    drawn = [task.train[3] for _ in range(10)]
    pixels, probabilities = next(each for each in drawn if each[1][label] < 0.9)
    share, others = float(probabilities[label]), [p for p, other in plain.train if other != label]
    assert any(torch.allclose(pixels, share * own + (1 - share) * p, atol=1e-5) for p in others)
    assert isinstance(task.valid[0][1], int)


def test_by_heart_and_without_variation_the_same_pictures_are_learned_and_asked_for(pictures):
    task = load(pictures, augment=False, flip=True, by_heart=True)
    assert task.train.pictures.items == task.valid.pictures.items
    assert len(task.train) == 30
    assert torch.equal(seen(task.train, 1), seen(task.train, 2))
    assert torch.equal(seen(task.train, 1), seen(task.valid, 1))


def test_datasets_can_be_sent_to_a_worker(pictures):
    task = load(pictures)
    assert torch.equal(pickle.loads(pickle.dumps(task.valid))[1][0], task.valid[1][0])


def test_a_damaged_image_is_named_and_skipped_and_many_are_refused(tmp_path, caplog):
    folder = write(tmp_path / "data")
    (folder / "a" / "03.png").write_bytes((folder / "a" / "03.png").read_bytes()[:60])
    with caplog.at_level(logging.WARNING):
        task = load(folder)
    assert len(task.train) + len(task.valid) == 29
    assert "03.png" in caplog.text
    for number in range(4):
        (folder / "b" / f"{number:02d}.png").write_text("no image")
    with pytest.raises(AutotrainError, match=r"4 of 30 images are damaged: .*00\.png: not an"):
        load(folder)


def test_one_class_no_data_and_wrong_options_are_refused(tmp_path, pictures):
    with pytest.raises(AutotrainError, match="one class only: a"):
        load(write(tmp_path / "one", classes="a"))
    with pytest.raises(AutotrainError, match="no data"):
        load_task(CODE, None, {})
    for name, value in {"arch": "vgg", "channels": 2, "size": -1, "dropout": 2.0}.items():
        with pytest.raises(AutotrainError, match=f"task.options.{name}"):
            load(pictures, **{name: value})


def test_the_digits_are_written_as_png_folders_and_learned(tmp_path):
    load_module(FOLDER / "make_digits.py").main(tmp_path / "digits")
    task = load(tmp_path / "digits")
    assert (len(task.train), len(task.valid)) == (1438, 359)
    torch.manual_seed(0)
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for step in range(12):
        batch = [task.train[(step * 32 + i) * 37 % 1438] for i in range(32)]
        loss = task.loss(model, torch.utils.data.default_collate(batch))
        losses.append(loss.total.item() / loss.weight)
        optimizer.zero_grad()
        (loss.total / loss.weight).backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_rare_classes_count_more_where_that_is_asked_for(tmp_path):
    write(tmp_path, classes="a", each=30)
    write(tmp_path, classes="b", each=10)
    batch = torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])
    torch.manual_seed(0)
    task = load(tmp_path, class_weights="balanced")
    whole = task.loss(task.model().eval(), batch)
    assert float(whole.weight) == pytest.approx(32 / (2 * 24) + 32 / (2 * 8))
    assert load(tmp_path).loss(task.model().eval(), batch).weight == 2


def test_a_test_folder_is_kept_for_the_test(tmp_path):
    for split, each in (("train", 4), ("valid", 3), ("test", 2)):
        write(tmp_path / split, each=each)
    task = load(tmp_path)
    assert (len(task.train), len(task.valid), len(task.test)) == (12, 9, 6)
    assert torch.equal(task.test[0][0], task.test[0][0])
    assert task.classes == ["a", "b", "c"]
    write(tmp_path / "none", each=4)
    assert load(tmp_path / "none").test is None


def test_a_folder_without_images_and_a_class_that_is_damaged_are_named(tmp_path, caplog):
    folder = write(tmp_path / "data", each=20)
    (folder / "empty").mkdir()
    with caplog.at_level(logging.WARNING):
        assert load(folder).classes == ["a", "b", "c"]
    assert f"{folder}: no image in empty: not a class" in caplog.text
    (folder / "d").mkdir()
    (folder / "d" / "only.png").write_text("no image")
    with pytest.raises(AutotrainError, match="no image that can be read in d"):
        load(folder)


@pytest.mark.parametrize("how", ["usual", "strong", "none"])
def test_each_augmentation_keeps_shape_and_type_and_mirrors_nothing(pictures, how):
    augment = torch.nn.Sequential(*load_module(CODE).chance(False, how))
    half = torch.zeros(3, 32, 32, dtype=torch.uint8)
    half[:, :, :16] = 200
    for seed in range(20):
        torch.manual_seed(seed)
        changed = augment(half)
        assert (changed.shape, changed.dtype) == (half.shape, half.dtype)
        assert changed[:, :, :10].float().mean() != changed[:, :, 22:].float().mean()
    task = load(pictures, augmentation=how, channels=1)
    assert torch.equal(seen(task.train, 1), seen(task.train, 1))


def test_a_picture_is_answered_with_its_class(pictures, tmp_path):
    task = load(pictures)
    torch.manual_seed(0)
    model = task.model().eval()
    path, _ = task.valid.pictures.items[0]
    with torch.no_grad():
        found = task.predict(model, str(path), tmp_path)
        chances = model(task.valid[0][0][None]).softmax(-1)[0]
    assert found["class"] == "abc"[int(chances.argmax())]
    assert found["probability"] == pytest.approx(float(chances.max()), rel=1e-5)
    assert found["else"] != found["class"]
    with pytest.raises(AutotrainError, match=r"gone\.png"):
        task.predict(model, "gone.png", tmp_path)


def test_the_glyphs_are_29_classes_the_same_each_time_with_fonts_apart(tmp_path):
    make = load_module(FOLDER / "make_glyphs.py")
    told = make.write(tmp_path / "one", each=4)
    make.write(tmp_path / "two", each=4)
    assert "29 classes" in told
    assert not {*make.FONTS} & {*make.NEW_FONTS}
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.jpg"))
    assert len(files) == 29 * (4 + 1 + 1)
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    task = load(tmp_path / "one")
    assert (len(task.train), len(task.valid), len(task.test)) == (116, 29, 29)
    assert task.classes == sorted(make.LETTERS)
    assert task.train[0][0].shape == (3, 64, 64)


def test_pictures_to_test_on_choose_nothing(tmp_path):
    """What is validated on is held out of `train/` where there is no folder for it."""
    for split, each in (("train", 10), ("test", 3)):
        write(tmp_path / split, each=each)
    task = load(tmp_path)
    assert (len(task.train), len(task.valid), len(task.test)) == (24, 6, 9)


def test_a_test_of_one_picture_is_a_test(tmp_path):
    for split, each in (("train", 6), ("valid", 3)):
        write(tmp_path / split, each=each)
    write(tmp_path / "test", classes="a", each=1)
    assert len(load(tmp_path).test) == 1
    (tmp_path / "test/a/00.png").write_text("no image")
    assert load(tmp_path).test is None


def test_what_may_be_damaged_is_a_share_of_all_the_data(tmp_path, caplog):
    for split, each in (("train", 6), ("valid", 3), ("test", 2)):
        write(tmp_path / split, each=each)
    (tmp_path / "test/a/00.png").write_text("no image")
    with caplog.at_level(logging.WARNING):
        assert len(load(tmp_path).test) == 5
    assert "test/a/00.png" in caplog.text


def test_where_each_class_has_one_picture_there_is_none_to_validate_on(tmp_path):
    with pytest.raises(AutotrainError, match="no image is left to validate on"):
        load(write(tmp_path / "single", each=1))
    write(tmp_path / "train", each=12)
    write(tmp_path / "valid", classes="a", each=1)
    (tmp_path / "valid/a/00.png").write_text("no image")
    with pytest.raises(AutotrainError, match="no image is left to validate on"):
        load(tmp_path)
