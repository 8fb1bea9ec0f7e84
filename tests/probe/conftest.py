"""What every test of the probe shares."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def autograd_begun():
    """As before a trace (see `probe.trace.quiet`): later tests in this process fork."""
    torch.ones((), requires_grad=True).backward()
