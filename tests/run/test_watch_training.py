"""Real, short trainings: healthy ones are told nothing, sick ones what is wrong with them."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from autotrain.run.keeping import checkpoint
from autotrain.run.loop import train
from autotrain.task import Loss, Task

from .plans import make_plan

PLATEAU = {"name": "plateau", "warmup_steps": 0, "min_lr": None, "factor": 0.5, "patience": 3}
CONSTANT = {"name": "constant", "warmup_steps": 0, "min_lr": None}


def planned(epochs, micro, lr, schedule=None, patience=None, every=5):
    return make_plan(
        batch={"micro_batch": micro, "accum_steps": 1, "global_batch": micro},
        run={"log_every_steps": every},
        optimizer={"lr": lr},
        schedule=schedule or {"warmup_steps": 20},
        train={"epochs": epochs},
        early_stop={"patience": patience},
        checkpoint={"every_epochs": 1000, "keep": 1},
    )


def told(plan, task, directory, **more):
    seen = [*train(plan, task, directory, task_file=directory / "task.py", **more)]
    return [event.message for event in seen if event.name == "warned"]


def digits(count=1437):
    found = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(found.images, dtype=torch.float32)[order] / 16, found.target[order]
    y = torch.tensor(y)
    return Task.classification(
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
        train=TensorDataset(x[:count], y[:count]),
        valid=TensorDataset(x[1437:], y[1437:]),
    )


class Spoken(torch.utils.data.Dataset):
    """Words of 2 to 5 letters; each letter is a few noisy frames [*, 8] and one of silence."""

    def __init__(self, count, seed):
        letters = torch.randn(6, 8, generator=torch.Generator().manual_seed(99))
        draw = torch.Generator().manual_seed(seed)
        self.samples = []
        for _ in range(count):
            word = torch.randint(1, 6, (int(torch.randint(2, 6, (1,), generator=draw)),),
                                 generator=draw)  # fmt: skip
            frames = torch.cat([letters[[w, w, w, 0]] for w in word.tolist()])
            noise = 0.5 * torch.randn(frames.shape, generator=draw)
            self.samples.append((frames + noise, word))

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def together(samples):
    frames, words = zip(*samples, strict=True)
    padded = nn.utils.rnn.pad_sequence(list(frames), batch_first=True)
    sizes = [torch.tensor([len(each) for each in part]) for part in (frames, words)]
    return padded, sizes[0], torch.cat(words), sizes[1]


class Listener(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.LSTM(8, 32, batch_first=True, bidirectional=True)
        self.out = nn.Linear(64, 6)

    def forward(self, frames):
        return self.out(self.layers(frames)[0]).log_softmax(-1)


def ctc(model, batch):
    frames, sizes, words, letters = batch
    total = nn.functional.ctc_loss(
        model(frames).transpose(0, 1), words, sizes, letters, reduction="sum", zero_infinity=True
    )
    return Loss(total=total, weight=len(frames))


def share_of_words(model, batch):
    """Letters said against letters to be said: what an empty model gets 100 % of wrong."""
    frames, sizes, _, letters = batch
    best = model(frames).argmax(-1)
    said = sum(
        int((torch.unique_consecutive(row[:n]) > 0).sum())
        for row, n in zip(best, sizes, strict=True)
    )
    return {"wer": (abs(said - int(letters.sum())), letters.sum())}


def speech():
    return Task(
        model=Listener, train=Spoken(200, 1), valid=Spoken(50, 2), collate=together, loss=ctc,
        measure=share_of_words,
    )  # fmt: skip


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = (
            nn.LSTM(12, 32, batch_first=True),
            nn.LSTM(32, 32, batch_first=True),
        )
        self.out = nn.Linear(32, 12)

    def forward(self, x):
        code = self.down(x)[1][0][-1]
        return self.out(self.up(code.unsqueeze(1).expand(-1, x.shape[1], -1))[0])


def clips(count, seed):
    draw = torch.Generator().manual_seed(seed)
    pitch, phase = (torch.rand(count, 1, 1, generator=draw) for _ in range(2))
    time, band = torch.linspace(0, 6.28, 25).view(1, -1, 1), torch.arange(12).view(1, 1, 12)
    return TensorDataset(torch.sin((1 + 2 * pitch) * time + 6.28 * phase + band / 4))


def error(model, batch):
    return Loss(total=(model(batch[0]) - batch[0]).square().sum(), weight=batch[0].numel())


def test_a_classifier_that_learns_is_told_nothing(tmp_path):
    assert told(planned(12, 32, 3e-3), digits(), tmp_path) == []


def test_a_ctc_model_that_learns_is_told_nothing(tmp_path):
    assert told(planned(16, 16, 5e-3), speech(), tmp_path) == []


def test_an_autoencoder_of_a_few_clips_is_told_nothing(tmp_path):
    """Under a plateau's schedule, until its patience runs out."""
    task = Task(model=Autoencoder, train=clips(16, 1), valid=clips(8, 2), loss=error)
    plan = planned(60, 4, 3e-3, PLATEAU, patience=10, every=4)
    assert told(plan, task, tmp_path) == []


def guessing():
    """40 samples of 5 numbers, with targets that nothing explains."""
    draw = torch.Generator().manual_seed(1)
    x, y = torch.randn(80, 5, generator=draw), torch.randn(80, 1, generator=draw)

    def loss(model, batch):
        return Loss(total=(model(batch[0]) - batch[1]).square().sum(), weight=len(batch[0]))

    return Task(
        model=lambda: nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 1)),
        train=TensorDataset(x[:40], y[:40]),
        valid=TensorDataset(x[40:], y[40:]),
        loss=loss,
    )


def test_a_model_that_learns_by_heart_is_told_so_once_and_the_same_after_a_resume(tmp_path):
    """Interrupted in the middle of it: the history is in the checkpoint."""
    plan = planned(120, 8, 1e-2, CONSTANT)
    whole = told(plan, guessing(), tmp_path / "whole")
    assert len(whole) == 1
    assert "overfitting since epoch" in whole[0]
    first = told(plan, guessing(), tmp_path / "parts", max_steps=160)
    path, _ = checkpoint.newest_good(tmp_path / "parts")
    assert checkpoint.load(path).state["history"]["evaluated"]
    rest = told(plan, guessing(), tmp_path / "parts", resume=True)
    assert first + rest == whole


def test_a_rate_at_which_nothing_is_learned_is_told(tmp_path):
    messages = told(planned(6, 32, 1e-9), digits(), tmp_path)
    assert len(messages) == 1
    assert "the training loss is 2.3" in messages[0]


def test_weights_that_no_gradient_reaches_are_told(tmp_path):
    """The output is multiplied by nothing."""

    class Deaf(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, 1)

        def forward(self, x):
            return self.layer(x) * 0.0

    task = guessing()
    deaf = Task(model=Deaf, train=task.train, valid=task.valid, loss=task.loss)
    messages = told(planned(4, 8, 1e-2), deaf, tmp_path)
    assert messages == ["the gradient norm is 0: nothing reaches the weights"]
