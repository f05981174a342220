"""Uses with tensors, as tests/typing_uses.py; read where PyTorch is installed."""

from typing import reveal_type

import numpy as np
import torch

import ketcore as kc
import ketcore.torch as kt
from ketcore import linalg

t = torch.eye(2)
x = torch.ones(4)
K = kc.KroneckerMatrix([t, t])
v = kc.ket(torch.ones(2), torch.ones(2))


def right() -> None:
    reveal_type(K)  # KroneckerMatrix[Tensor]
    reveal_type(K @ x)  # Tensor
    reveal_type(x @ K)  # Tensor
    reveal_type(K @ v)  # Ket[Tensor]
    reveal_type((2 * K).T @ K)  # KroneckerMatrix[Tensor]
    reveal_type(K.rows([0, 1]))  # Tensor
    reveal_type(kc.rows(K.factors, torch.arange(4)))  # Tensor
    reveal_type(kc.rows_vjp(K.factors, [0], torch.ones(1, 4)))  # tuple[Tensor, ...]
    reveal_type(kc.KroneckerSum([t, t]) @ x)  # Tensor
    reveal_type(linalg.solve(K, x))  # Tensor
    reveal_type(linalg.svd(K).S)  # Ket[Tensor]
    reveal_type(K + K.astype("complex64"))  # KroneckerMatrix[Tensor]
    reveal_type(kc.digits(torch.arange(4), (2, 2)))  # tuple[Tensor, ...]
    reveal_type(kt.ketify(torch.nn.Sequential())[0])  # Sequential
    reveal_type(kt.ketify(torch.nn.Embedding(4, 2))[0])  # Module
    reveal_type(kt.ketify(torch.nn.Sequential())[1])  # KetifyReport
    reveal_type(kt.functional.rows(K.factors, torch.arange(4)))  # Tensor
    reveal_type(kt.functional.kron_matmul([t, t], x))  # Tensor
    reveal_type(kt.from_pretrained(t, 2.0))  # EmbeddingKetXS | EmbeddingCodebook
    reveal_type(kt.from_pretrained(t, 2, mode="sum"))  # EmbeddingBagKetXS | EmbeddingBagCodebook
    reveal_type(kt.EmbeddingKetXS(4, 2).matrix())  # KroneckerMatrix[Tensor]
    reveal_type(kt.EmbeddingKet(4, 2).ket())  # Ket[Tensor]
    reveal_type(kt.KroneckerLinear.from_linear(torch.nn.Linear(4, 2)))  # KroneckerLinear
    reveal_type(kt.TiedHead(kt.EmbeddingKetXS(4, 2)).top_k(x, 2).indices)  # Tensor


def wrong() -> None:
    _ = K @ np.ones(4)  # wrong: operator, reportOperatorIssue
    _ = kc.KroneckerMatrix([np.eye(2)]) @ x  # wrong: operator, reportOperatorIssue
    _ = K + kc.eye((2, 2))  # wrong: operator, reportOperatorIssue
    linalg.solve(K, np.ones(4))  # wrong: arg-type, reportArgumentType
    kt.KroneckerLinear("4", 2)  # wrong: arg-type, reportArgumentType
    kt.EmbeddingKetXS(4, 2, sizes=(2, 2))  # wrong: call-arg, reportCallIssue
