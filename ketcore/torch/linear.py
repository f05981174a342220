"""A linear layer whose weight is a sum of Kronecker products.

    y = x W^T + b,   W = sum_k W_0[k] (x) W_1[k] (x) ... (x) W_{N-1}[k]

Letters: N order, R rank, out_n and in_n rows and columns of W_n.  The layer stores W_n^T, (R, in_n, out_n),
since x W^T is then `kron_matmul(factors, x)` as it stands.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Any, Self

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.shapes import check_int
from ketcore.torch.functional import kron_matmul
from ketcore.torch.inputs import check_agree, mode_dims, order_of, table_dtype
from ketcore.torch.nearest_tables import near_factors


class KroneckerLinear(nn.Module):
    """`torch.nn.Linear` with a weight that is a sum of R Kronecker products, and never formed.

    Parameters
    ----------
    in_features, out_features : int
        The sizes of the last axis of the input and of the output, at least 1.
    bias : bool, default True
        Whether the layer adds a learned bias.
    order : int, default 2
        The number N of factors of a term, where no dims are given.
    rank : int, default 1
        The number R of terms, at least 1.
    in_dims, out_dims : sequence of N ints, optional
        The in_n and out_n, of a product of at least `in_features` and `out_features`; a larger product is
        cropped to its leading block. None: `ketcore.suggest_dims`.
    device : torch.device, optional
        That of the parameters.
    dtype : torch.dtype, optional
        That of the parameters.

    Attributes
    ----------
    factors : ParameterList of N tensors, (R, in_n, out_n)
        The transposed factors of W.
    bias : Parameter, (out_features,), or None
        What is added to the output.

    Raises
    ------
    TypeError, ValueError
        On sizes. `forward` raises TypeError where the input has another dtype or device than the factors,
        ValueError where its last axis is not `in_features`.

    Notes
    -----
    The factors are drawn uniformly, such that an entry of W has the variance that it has in `nn.Linear`,
    1 / (3 in_features); with `order=1` and `rank=1` the distributions are the same. The parameters are
    R sum in_n out_n and the bias. A call costs what `ketcore.kron_matmul` does, O(R in_features sum out_n) an
    input for square factors.

    Examples
    --------
    >>> layer = KroneckerLinear(768, 3072, rank=2)
    >>> layer.in_dims, layer.out_dims, layer(torch.ones(5, 768)).shape
    ((24, 32), (48, 64), torch.Size([5, 3072]))
    >>> sum(parameter.numel() for parameter in layer.parameters()) == 2 * (24 * 48 + 32 * 64) + 3072
    True
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        order: int = 2,
        rank: int = 1,
        in_dims: Sequence[int] | None = None,
        out_dims: Sequence[int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = check_int("in_features", in_features, 1)
        self.out_features = check_int("out_features", out_features, 1)
        order, self.rank = order_of(order, in_dims=in_dims, out_dims=out_dims), check_int("rank", rank, 1)
        self.in_dims = mode_dims("in_dims", in_dims, self.in_features, order)
        self.out_dims = mode_dims("out_dims", out_dims, self.out_features, order)
        dtype, sizes = table_dtype(dtype), zip(self.in_dims, self.out_dims, strict=True)
        empty = [torch.empty(self.rank, p, q, device=device, dtype=dtype) for p, q in sizes]
        self.factors = nn.ParameterList(empty)
        given = nn.Parameter(torch.empty(self.out_features, device=device, dtype=dtype)) if bias else None
        self.register_parameter("bias", given)
        self.reset_parameters()

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        *,
        order: int = 2,
        rank: int = 1,
        in_dims: Sequence[int] | None = None,
        out_dims: Sequence[int] | None = None,
    ) -> Self:
        """The layer whose weight is nearest to that of `linear`, in the Frobenius norm.

        Parameters
        ----------
        linear : nn.Linear
            Its weight is looked at, and not changed. The bias is copied.
        order : int, default 2
            As of `KroneckerLinear`.
        rank : int, default 1
            As of `KroneckerLinear`.
        in_dims, out_dims : sequence of N ints, optional
            As of `KroneckerLinear`. With order 2 the nearest sum is found, above that a near one.

        Returns
        -------
        KroneckerLinear
            In the dtype, on the device and in the training mode of `linear`; its parameters require
            gradients where those of `linear` do.

        Raises
        ------
        TypeError, ValueError
            Where `linear` is no nn.Linear, has no values (it is on the meta device), or one that is not
            finite.

        Notes
        -----
        The nearest sum to a weight that was trained dense is mostly far away: compare `to_dense()`. Weights
        in 16-bit types are factorised in float32. Where fewer than `rank` terms are exact, the rest are zero,
        and train. Of a weight of more than a million entries the error is near the least one in three digits.

        Examples
        --------
        >>> linear = torch.nn.Linear(4, 6)
        >>> layer = KroneckerLinear.from_linear(linear, rank=4)
        >>> bool(torch.allclose(layer.to_dense(), linear.weight, atol=1e-5))
        True
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"linear must be a torch.nn.Linear, got {type(linear).__name__}")
        if is_lazy(linear.weight) or linear.weight.is_meta:
            where = "of a lazy layer" if is_lazy(linear.weight) else "on the meta device"
            raise ValueError(f"linear must have values, got a weight {where}")
        weight = linear.weight.detach()
        table_dtype(weight.dtype, "linear.weight")
        if not bool(weight.isfinite().all()):
            raise ValueError("linear must have a finite weight, got NaN or infinity")
        # On the meta device nothing is drawn: making a layer of a layer leaves the random state alone.
        made = cls(
            linear.in_features, linear.out_features, linear.bias is not None, order=order, rank=rank,
            in_dims=in_dims, out_dims=out_dims, device="meta", dtype=weight.dtype,
        ).to_empty(device=weight.device)  # fmt: skip
        found, _ = near_factors(weight, made.out_dims, made.in_dims, rank, 0)
        with torch.no_grad():
            for factor, nearest in zip(made.factors, found, strict=True):
                factor.copy_(nearest.transpose(1, 2))
            if made.bias is not None:
                made.bias.copy_(linear.bias)
                made.bias.requires_grad_(linear.bias.requires_grad)
        made.factors.requires_grad_(linear.weight.requires_grad)
        return made.train(linear.training)

    @property
    def order(self) -> int:
        """The number N of factors of a term."""
        return len(self.in_dims)

    def __getattr__(self, name: str) -> Any:
        """What modules hold; an AttributeError for `weight` names what there is in its place."""
        if name == "weight":
            raise AttributeError(
                f"{type(self).__name__} has no weight: to_dense() forms it, factors are its parameters"
            )
        return super().__getattr__(name)

    def reset_parameters(self) -> None:
        """Draw factors and bias anew."""
        # An entry of W sums R products of N independent numbers, whose variance is bound^2 / 3 for each of
        # their one or two real parts.
        parts = 2 if self.factors[0].is_complex() else 1
        variance = parts / (3 * self.in_features * self.rank)
        bound = sqrt(3 / parts * variance ** (1 / self.order))
        for factor in self.factors:
            nn.init.uniform_(factor, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -1 / sqrt(self.in_features), 1 / sqrt(self.in_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output: `x` W^T + b.

        Parameters
        ----------
        x : tensor, (..., in_features)
            In the dtype and on the device of the parameters.

        Returns
        -------
        tensor, (..., out_features)
            In the dtype of the parameters.

        Raises
        ------
        TypeError
            Where `x` has another dtype or device than the factors.
        ValueError
            Where its last axis is not `in_features`.

        Examples
        --------
        >>> layer = KroneckerLinear(6, 4, bias=False)
        >>> x = torch.ones(2, 6)
        >>> bool(torch.allclose(layer(x), x @ layer.to_dense().T))
        True
        """
        check_agree("x", x, "factors", self.factors[0])
        y = kron_matmul(tuple(self.factors), x, (self.in_features, self.out_features))
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def matrix(self) -> KroneckerMatrix[torch.Tensor]:
        """The weight W; its factors are views of the parameters.

        Returns
        -------
        KroneckerMatrix, (out_features, in_features)
        """
        shape = self.out_features, self.in_features
        return KroneckerMatrix([factor.transpose(1, 2) for factor in self.factors], shape)

    def to_dense(self, max_bytes: int = 2**30) -> torch.Tensor:
        """The weight W as a tensor, differentiable in the factors.

        Parameters
        ----------
        max_bytes : int, default 2**30
            What the result may take.

        Returns
        -------
        tensor, (out_features, in_features)
            In the dtype of the parameters.

        Raises
        ------
        MemoryError
            Where it would take more than `max_bytes`; the message has the size.

        Examples
        --------
        >>> KroneckerLinear(6, 4).to_dense().shape
        torch.Size([4, 6])
        """
        return self.matrix().to_dense(max_bytes)

    def extra_repr(self) -> str:
        """What stands between the parentheses of the repr.

        Returns
        -------
        str
        """
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, in_dims={self.in_dims}, "
            f"out_dims={self.out_dims}, rank={self.rank}, bias={self.bias is not None}"
        )
