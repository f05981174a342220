"""Small models for the tests of ketify, and what they ask of it."""

from tests.require import imported

torch = imported("torch")

from torch import nn  # noqa: E402

from ketcore.torch.ketify import ketify  # noqa: E402

IDS = torch.tensor([[3, 0, 59], [7, 7, 12]])


class Tied(nn.Module):
    """A language model without the model: logits of the words are products with their vectors."""

    def __init__(self, padding_idx=None, bias=True, **options):
        super().__init__()
        self.words = nn.Embedding(60, 16, padding_idx, **options)
        self.hidden = nn.Linear(16, 16)
        self.head = nn.Linear(16, 60, bias=bias)
        self.head.weight = self.words.weight

    def forward(self, ids):
        return self.head(torch.tanh(self.hidden(self.words(ids))))


class Shared(nn.Module):
    """Two embeddings with one weight, and one embedding under two names."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Embedding(60, 16, padding_idx=0), nn.Embedding(60, 16)
        self.decoder.weight = self.encoder.weight
        self.tags = nn.Embedding(40, 16)
        self.inner = nn.ModuleList([self.tags])

    def forward(self, ids):
        return self.encoder(ids) + self.decoder(ids) + self.tags(ids % 40) + self.inner[0](ids % 40)


def drawn(model, **options):
    """A model with fresh factors."""
    return ketify(model, factorise=False, **{"rank": 2, **options})


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def reason(report, name):
    (found,) = [each.reason for each in report.skipped if each.name == name]
    return found
