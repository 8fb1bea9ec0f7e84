"""What the tests of several templates ask of a task."""

import torch


def seen(dataset, seed):
    """The input of its fourth sample, drawn from that seed."""
    torch.manual_seed(seed)
    return dataset[3][0]


def losses(task, kind, *, samples, steps, lr):
    """The loss of an item at each of some steps on one batch, by an optimizer of that kind."""
    torch.manual_seed(0)
    model = task.model()
    batch = task.collate([task.train[i] for i in range(samples)])
    optimizer, found = kind(model.parameters(), lr=lr), []
    for _ in range(steps):
        made = task.loss(model, batch)
        found.append(float(made.total.detach() / made.weight))
        optimizer.zero_grad()
        (made.total / made.weight).backward()
        optimizer.step()
    return found
