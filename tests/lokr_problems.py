"""What tests of LoKr adapters share."""

from tests.require import imported

torch = imported("torch")

from torch import nn  # noqa: E402


def assert_same(found, expected, rtol=1e-9, atol=1e-9):
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=rtol, atol=atol)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 48), nn.ReLU(), nn.ModuleDict({"up_proj": nn.Linear(48, 90)})["up_proj"]
    )
