"""Mixup and its like: partners that depend on seed, epoch and index, and on nothing else."""

import random
import statistics

import pytest
import torch
from torch import nn

from autotrain import Task
from autotrain.blocks.augment import Augmented, held_out
from autotrain.blocks.losses import mixed_ctc
from autotrain.blocks.mixing import Mixed, MixedSequences, pad_utterances, stretched
from autotrain.errors import AutotrainError

from .loops import events_of, weights_after

CLASSES = 4


class Pictures(torch.utils.data.Dataset):
    """Float64 pictures of noise; sample i is of class i % 4."""

    def __init__(self, count=70, shape=(1, 6, 6)):
        draw = torch.Generator().manual_seed(2)
        self.pictures = torch.randn(count, *shape, generator=draw).double()

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        return self.pictures[index], index % CLASSES


class Texts(torch.utils.data.Dataset):
    """Float64 features of 12 to 19 frames, two to four tokens."""

    def __init__(self, count=40):
        draw = torch.Generator().manual_seed(4)
        frames = torch.randint(12, 20, (count,), generator=draw).tolist()
        self.items = [
            (
                torch.randn(n, 3, generator=draw).double(),
                torch.randint(1, CLASSES, (2 + n % 3,), generator=draw),
            )
            for n in frames
        ]

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def picture_net():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()


def picture_task(how):
    train = Mixed(Pictures(), CLASSES, alpha=0.4, how=how)
    return Task.classification(model=picture_net, train=train, valid=Pictures(13))


def text_task():
    def loss(model, batch):
        logits = model(batch.features)
        return mixed_ctc(logits, batch.frames, batch.readings, smoothing=0.1 * model.training)

    def net():
        return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()

    train, valid = MixedSequences(Texts(), alpha=0.4), Texts(9)
    return Task(model=net, train=train, valid=valid, collate=pad_utterances, loss=loss)


TASKS = {
    "mixup": lambda: picture_task("mixup"),
    "cutmix": lambda: picture_task("cutmix"),
    "sequences": text_task,
}


@pytest.mark.parametrize("name", TASKS)
def test_one_batch_of_32_and_four_of_8_give_the_same_weights(tmp_path, name):
    """To 1e-12 in float64, and with workers to the bit: three steps, two epochs, ragged windows."""
    whole = weights_after(TASKS[name](), tmp_path, 32, 32)
    cut = weights_after(TASKS[name](), tmp_path, 8, 32)
    torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-12)
    loader = {"workers": 2}
    assert torch.equal(weights_after(TASKS[name](), tmp_path, 8, 32, loader=loader), cut)


def test_validation_stays_hard_and_learning_works(tmp_path):
    seen = events_of(picture_task("mixup"), tmp_path, optimizer={"lr": 3e-3})
    evaluated = [event for event in seen if event.name == "evaluated"]
    assert all(event.metrics["accuracy"] * 13 % 1 < 1e-9 for event in evaluated)
    assert evaluated[-1].loss < 2


def seeded(dataset, index, seed=0):
    random.seed(seed)
    torch.manual_seed(seed)
    return dataset[index]


def test_a_mixture_is_of_itself_and_another_by_the_share_its_target_says():
    plain = Pictures(12)
    shares = []
    for seed in range(200):
        mixed, target = seeded(Mixed(plain, CLASSES, 0.4), 5, seed)
        assert float(target.sum()) == pytest.approx(1)
        assert target.dtype == torch.float32
        part = _share_of(mixed, plain.pictures[5], [plain.pictures[i] for i in range(12) if i != 5])
        assert part is not None, "no other sample explains it"
        same = target.max() == 1
        shares.append(part)
        assert same or float(target[5 % CLASSES]) == pytest.approx(part, abs=1e-6)
    assert statistics.mean(shares) == pytest.approx(0.5, abs=0.1)
    # The variance of Beta(a, a) is 1 / (4 (2a + 1)).
    assert statistics.variance(shares) == pytest.approx(1 / (4 * 1.8), rel=0.25)


def _share_of(mixed, own, others):
    for other in others:
        along = own - other
        part = float(((mixed - other) * along).sum() / along.square().sum())
        if float((part * own + (1 - part) * other - mixed).abs().max()) < 1e-9:
            return part
    return None


def test_a_sample_is_never_its_own_partner():
    """Of two samples, each is mixed with the other."""
    plain = Pictures(2)
    for seed in range(20):
        for index in (0, 1):
            mixed, target = seeded(Mixed(plain, CLASSES, 1.0), index, seed)
            part = float(target[index])
            expected = part * plain.pictures[index] + (1 - part) * plain.pictures[1 - index]
            assert torch.allclose(mixed, expected, atol=1e-5)
            assert part < 1


def test_soft_targets_of_any_precision_train_and_are_measured_by_the_likeliest():
    task = Task.classification(model=picture_net, train=Pictures(), valid=Pictures())
    net = nn.Linear(3, CLASSES)
    soft = torch.tensor([[0.1, 0.7, 0.1, 0.1], [0.0, 0.0, 0.4, 0.6]], dtype=torch.float64)
    x = torch.randn(2, 3)
    made = task.loss(net, (x, soft))
    torch.testing.assert_close(made.total, -(soft.float() * net(x).log_softmax(-1)).sum())
    assert made.weight == 2
    right, count = task.measure(lambda x: torch.eye(CLASSES)[[1, 2]], (x, soft))["accuracy"]
    assert (int(right), count) == (1, 2)


def test_cutmix_pastes_the_area_that_the_target_says():
    plain = Pictures(9, (2, 8, 10))
    told = 0
    for seed in range(100):
        mixed, target = seeded(Mixed(plain, CLASSES, 1.0, how="cutmix"), 1, seed)
        pasted = (mixed != plain.pictures[1]).any(dim=0)
        assert int(pasted.sum()) == int(pasted.any(1).sum()) * int(pasted.any(0).sum()), "a box"
        others = [plain.pictures[i][:, pasted] for i in range(9) if i != 1]
        assert any(torch.equal(mixed[:, pasted], other) for other in others)
        if target.max() < 1:  # else the partner is of the same class, or nothing was pasted
            told += 1
            assert float(target[1]) == pytest.approx(1 - float(pasted.float().mean()), abs=1e-6)
    assert told > 50
    assert torch.equal(plain.pictures, Pictures(9, (2, 8, 10)).pictures), "the source is as it was"


def test_share_says_how_many_are_mixed():
    plain = Pictures(50)
    mixed = Mixed(plain, CLASSES, share=0.3)
    random.seed(1)
    changed = sum(not torch.equal(mixed[i][0], plain[i][0]) for _ in range(20) for i in range(50))
    assert changed / 1000 == pytest.approx(0.3, abs=0.05)
    assert torch.equal(Mixed(plain, CLASSES, alpha=0)[3][0], plain[3][0])


def test_inputs_that_cannot_be_mixed_are_refused():
    class Ints(Pictures):
        def __getitem__(self, index):
            return self.pictures[index].to(torch.uint8), 0

    class Sizes(Pictures):
        def __getitem__(self, index):
            return torch.zeros(1, 2 + index, 2), 0

    with pytest.raises(AutotrainError, match=r"uint8"):
        Mixed(Ints(), CLASSES)[0]
    assert Mixed(Ints(), CLASSES, how="cutmix")[0][0].dtype == torch.uint8
    with pytest.raises(AutotrainError, match=r"shape \(1, 2, 2\) and"):
        Mixed(Sizes(), CLASSES)[0]
    with pytest.raises(AutotrainError, match="'blend' is not known"):
        Mixed(Pictures(), CLASSES, how="blend")
    with pytest.raises(AutotrainError, match="class 3 of 3"):
        Mixed(Pictures(), 3)[3]
    with pytest.raises(AutotrainError, match="alpha -1"):
        Mixed(Pictures(), CLASSES, -1)


def test_a_damaged_partner_leaves_the_sample_as_it_is():
    """Its own turn will name it; the healthy sample is not to be blamed."""

    class Damaged(Pictures):
        def __getitem__(self, index):
            if index != 3:
                raise OSError("torn")
            return super().__getitem__(index)

    assert torch.equal(Mixed(Damaged(), CLASSES)[3][0], Pictures()[3][0])
    with pytest.raises(OSError, match="torn"):
        Mixed(Damaged(), CLASSES)[4]


@pytest.mark.parametrize(
    "train", [Mixed(Pictures(), CLASSES), Augmented(Pictures(), lambda x: x)], ids=["mixed", "aug"]
)
def test_none_of_what_is_for_training_is_held_out(train):
    with pytest.raises(AutotrainError, match="none can be held out") as caught:
        Task.classification(model=picture_net, train=train)
    assert "held_out" in caught.value.hint


def test_what_is_held_out_is_of_neither_side_twice():
    train, valid = held_out(Pictures(50), 0.2)
    assert (len(train), len(valid)) == (40, 10)
    assert sorted([*train.indices, *valid.indices]) == list(range(50))
    again = held_out(Pictures(50), 0.2)
    assert again[1].indices == valid.indices


def test_a_mixed_sequence_keeps_its_length_and_both_texts():
    plain = Texts(20)
    texts = {tuple(tokens.tolist()) for _, tokens in plain.items}
    for seed in range(30):
        made = seeded(MixedSequences(plain, 0.4), 7, seed)
        assert len(made.features) == len(plain[7][0])
        assert torch.equal(made.tokens, plain[7][1])
        assert tuple(made.other.tolist()) in texts
        assert 0 <= made.share <= 1
        blends = [
            made.share * plain[7][0] + (1 - made.share) * stretched(features, len(made.features))
            for features, tokens in plain.items
            if torch.equal(tokens, made.other)
        ]
        assert any(torch.equal(made.features, blend) for blend in blends)


def test_each_text_of_a_mixed_batch_has_its_share():
    made = [seeded(MixedSequences(Texts(), 0.4), index, index) for index in range(5)]
    batch = pad_utterances(made)
    (tokens, lengths, share), (other, other_lengths, rest) = batch.readings
    assert share.tolist() == [one.share for one in made]
    assert torch.equal(share + rest, torch.ones(5, dtype=share.dtype))
    for row, one in enumerate(made):
        assert tokens[row, : lengths[row]].tolist() == one.tokens.tolist()
        assert other[row, : other_lengths[row]].tolist() == one.other.tolist()


def test_a_partner_that_does_not_fit_is_passed_over():
    plain = Texts(20)
    for unfit in (
        MixedSequences(plain, 0.4, frames_per_token=50),
        MixedSequences(plain, 0.4, stretch=0.5),
    ):
        made = unfit[7]
        assert torch.equal(made.features, plain[7][0])
        assert (len(made.other), made.share) == (0, 1.0)


def test_samples_that_were_not_mixed_make_an_ordinary_batch():
    plain = Texts(6)
    batch = pad_utterances([plain[i] for i in range(6)])
    assert batch.other is None
    assert len(batch.readings) == 1
    whole = pad_utterances([MixedSequences(plain, 0)[i] for i in range(6)])
    assert torch.equal(whole.features, batch.features)
    assert whole.frames.tolist() == [len(plain[i][0]) for i in range(6)]


def test_stretching_keeps_a_straight_line_straight():
    line = torch.arange(10.0)[:, None].repeat(1, 2)
    longer = stretched(line, 20)
    assert longer.shape == (20, 2)
    assert torch.allclose(longer[2:-2].diff(dim=0), torch.tensor(0.5))
    assert torch.equal(stretched(line, 10), line)
