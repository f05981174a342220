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


def wrong() -> None:
    _ = K @ np.ones(4)  # wrong: operator, reportOperatorIssue
    _ = kc.KroneckerMatrix([np.eye(2)]) @ x  # wrong: operator, reportOperatorIssue
    _ = K + kc.eye((2, 2))  # wrong: operator, reportOperatorIssue
    linalg.solve(K, np.ones(4))  # wrong: arg-type, reportArgumentType
