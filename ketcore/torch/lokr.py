"""LoKr, the Kronecker adapter: a linear layer whose weight is fine-tuned by a scaled Kronecker product.

    y = W_0 x + b + scale (w1 (x) w2) x,   w1 = w1_a w1_b and w2 = w2_a w2_b where they are of low rank

The product is never formed: with both of low rank it is (w1_a (x) w2_a)(w1_b (x) w2_b) x, and a pair that
would cost more than its product is multiplied out first.

Letters: a, b rows and columns of w1, c, d those of w2, r the rank of a pair (not of a sum of terms).

Source: Yeh et al., "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation",
ICLR 2024 (arXiv 2309.14859), section 4.
"""

from collections.abc import Sequence
from math import isfinite, isqrt, sqrt
from numbers import Real
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.shapes import check_int
from ketcore.torch.functional import kron_matmul
from ketcore.torch.inputs import check_agree

# The tensors of an adapter, under the names that PEFT and LyCORIS store them by.
TENSORS = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")


class LoKrWeights(NamedTuple):
    """The tensors of one LoKr adapter, as PEFT and LyCORIS name them, and its scale.

    Attributes
    ----------
    scale : float
        What the product is multiplied by: alpha / r.
    lokr_w1 : tensor (a, b), or None
    lokr_w1_a, lokr_w1_b : tensors (a, r) and (r, b), or None
        In the place of `lokr_w1`.
    lokr_w2 : tensor (c, d), or None
        (c, d, height, width) for a convolution.
    lokr_w2_a, lokr_w2_b : tensors (c, r) and (r, d), or None
        In the place of `lokr_w2`; (c, r) and (r, d height width) for a convolution, and (r, c), (r, d) beside
        `lokr_t2`.
    lokr_t2 : tensor (r, r, height, width), or None
        The core of a convolution.

    Examples
    --------
    >>> weights = LoKrWeights(0.5, lokr_w1=torch.eye(2), lokr_w2=torch.ones(1, 2))
    >>> weights.delta().to_dense().tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """

    scale: float
    lokr_w1: Tensor | None = None
    lokr_w1_a: Tensor | None = None
    lokr_w1_b: Tensor | None = None
    lokr_w2: Tensor | None = None
    lokr_w2_a: Tensor | None = None
    lokr_w2_b: Tensor | None = None
    lokr_t2: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the product of matrices: (a c, b d)."""
        w1, w2 = _sizes(*self[1:4]), _sizes(*self[4:7])
        return w1[0] * w2[0], w1[1] * w2[1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the tensors."""
        return next(tensor.dtype for tensor in self[1:] if tensor is not None)

    def delta(self) -> KroneckerMatrix[Tensor]:
        """What is added to the weight, scale (w1 (x) w2), as a Kronecker matrix.

        Returns
        -------
        KroneckerMatrix
        """
        w1, w2 = _multiplied(*self[1:4]), _multiplied(*self[4:7])
        return KroneckerMatrix([(self.scale * w1)[None], w2[None]])


def lokr_linear(x: Tensor, weights: LoKrWeights) -> Tensor:
    """The product scale (w1 (x) w2) x along the last axis of `x`.

    Parameters
    ----------
    x : tensor, (..., b d)
        In the dtype and on the device of the weights.
    weights : LoKrWeights
        Of a linear layer.

    Returns
    -------
    tensor, (..., a c)
        In the dtype of the weights.

    Raises
    ------
    ValueError
        Where the last axis of `x` is not b d, and on the weights of a convolution.

    Notes
    -----
    Time `O(|x| (a + c))` for square w1 and w2, with c replaced by about 2 r where w2 is of low rank r; memory
    that of the result and of products between.

    Examples
    --------
    >>> weights = LoKrWeights(0.5, lokr_w1=torch.eye(2), lokr_w2=torch.ones(1, 2))
    >>> lokr_linear(torch.tensor([1.0, 2.0, 3.0, 4.0]), weights).tolist()
    [1.5, 3.5]
    """
    first1, second1 = _parts(*weights[1:4])
    first2, second2 = _parts(*weights[4:7])
    # On the smaller side, where it costs least.
    first1 = first1 if weights.scale == 1 else first1 * weights.scale
    y = kron_matmul((first1.T[None], first2.T[None]), x)
    if second1 is not None and second2 is not None:
        return kron_matmul((second1.T[None], second2.T[None]), y)
    if second2 is not None:
        y = y.unflatten(-1, (first1.shape[0], first2.shape[0]))
        return kron_matmul((second2.T[None],), y).flatten(-2)
    if second1 is not None:
        y = y.unflatten(-1, (first1.shape[0], first2.shape[0]))
        return kron_matmul((second1.T[None],), y, axis=-2).flatten(-2)
    return y


def lokr_conv2d(
    x: Tensor,
    weights: LoKrWeights,
    kernel_size: Sequence[int],
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
) -> Tensor:
    """The convolution of images with scale (w1 (x) w2), whose channels alone are a Kronecker product.

    Parameters
    ----------
    x : tensor, (..., b d, height, width)
        One image, or a batch of them.
    weights : LoKrWeights
        Of a convolution.
    kernel_size : (int, int)
        Height and width of the kernel.
    stride : int or (int, int), default 1
        As in `torch.nn.functional.conv2d`, and so the next two.
    padding : int or (int, int), default 0
        Zeros around the image.
    dilation : int or (int, int), default 1
        The distance of the entries of the kernel.

    Returns
    -------
    tensor, (..., a c, height, width)
        The sizes of images are those of that convolution.

    Notes
    -----
    w2 convolves b times as many images of d channels, then w1 mixes them.

    Examples
    --------
    >>> weights = LoKrWeights(1.0, lokr_w1=torch.ones(2, 1), lokr_w2=torch.ones(1, 1, 2, 2))
    >>> lokr_conv2d(torch.ones(1, 2, 2), weights, (2, 2)).tolist()
    [[[4.0]], [[4.0]]]
    """
    conv2d, options = nn.functional.conv2d, (None, stride, padding, dilation)
    w1 = _multiplied(*weights[1:4])
    w1 = w1 if weights.scale == 1 else w1 * weights.scale
    w2, w2_a, w2_b, t2 = weights[4:]
    lead, images = x.shape[:-3], x.shape[-2:]
    parts = x.reshape(-1, x.shape[-3] // w1.shape[1], *images)
    if w2 is not None:
        parts = conv2d(parts, w2, *options)
    else:
        assert w2_a is not None
        assert w2_b is not None
        if t2 is None:
            parts = conv2d(parts, w2_b.unflatten(1, (-1, *kernel_size)), *options)
            w2_a = w2_a.T
        else:
            parts = conv2d(conv2d(parts, w2_b[:, :, None, None]), t2, *options)
        parts = conv2d(parts, w2_a.T[:, :, None, None])
    # Sizes in full: of an empty batch nothing could be told.
    channels, images = parts.shape[1], parts.shape[-2:]
    parts = parts.reshape(*lead, w1.shape[1], channels * images.numel())
    mixed = kron_matmul((w1.T[None],), parts, axis=-2)
    return mixed.reshape(*lead, w1.shape[0] * channels, *images)


class LoKrLinear(nn.Module):
    """A linear layer with a LoKr adapter, which trains a scaled Kronecker product on top of it.

    Parameters
    ----------
    base : nn.Linear
        It stays as it is; freeze it by `base.requires_grad_(False)`.
    rank : int, default 8
        The r of the pair in whose place w2 is stored; where r is not below half the longer side of w2, w2 is
        stored whole.
    alpha : float, optional
        The product is scaled by alpha / rank. None: by 1.
    decompose_both : bool, default False
        Store w1 as a pair too, where that is smaller by the same rule.
    decompose_factor : int, optional
        The sizes of w1 are the largest divisors of out_features and in_features up to this, and to the
        square root. None: the square root alone.

    Attributes
    ----------
    base : nn.Linear
        As given.
    lokr_w1, lokr_w1_a, lokr_w1_b, lokr_w2, lokr_w2_a, lokr_w2_b : Parameter, or None
        As in `LoKrWeights`, in the dtype and on the device of `base.weight`.
    scale : float
        What the product is multiplied by.

    Raises
    ------
    TypeError, ValueError
        On kinds and sizes. `forward` raises TypeError where the input has another dtype or device than the
        adapter.

    Notes
    -----
    It starts at zero, and so at the output of `base`, as in LyCORIS: w2, or w2_b, is zero and the others are
    drawn. `load_lokr` makes such layers of files of PEFT and LyCORIS.

    References
    ----------
    Yeh et al., "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model Evaluation", ICLR
    2024 (arXiv 2309.14859), section 4.

    Examples
    --------
    >>> layer = LoKrLinear(nn.Linear(768, 3072), rank=8, alpha=16)
    >>> layer.extra_repr(), layer(torch.ones(2, 768)).shape
    ('w1=(48, 24), w2=(64, 8)(8, 32), scale=2.0', torch.Size([2, 3072]))
    """

    def __init__(
        self,
        base: nn.Linear,
        rank: int = 8,
        alpha: float | None = None,
        *,
        decompose_both: bool = False,
        decompose_factor: int | None = None,
    ) -> None:
        super().__init__()
        self._set_base(base)
        rank = check_int("rank", rank, 1)
        most = None if decompose_factor is None else check_int("decompose_factor", decompose_factor, 1)
        a, b = (_divisor(size, most) for size in (base.out_features, base.in_features))
        self.scale = 1.0 if alpha is None else as_finite("alpha", alpha) / rank
        kind = {"device": base.weight.device, "dtype": base.weight.dtype}
        self._set_pair("lokr_w1", (a, b), rank if decompose_both else None, kind)
        self._set_pair("lokr_w2", (base.out_features // a, base.in_features // b), rank, kind)
        self.reset_parameters()

    @classmethod
    def from_weights(cls, base: nn.Linear, weights: LoKrWeights) -> Self:
        """The layer of an adapter that is there already.

        Parameters
        ----------
        base : nn.Linear
            The layer that the adapter is for; it stays as it is.
        weights : LoKrWeights
            Copied as parameters, in their dtype, on the device of `base`.

        Returns
        -------
        LoKrLinear

        Raises
        ------
        TypeError, ValueError
            Where the weights are not those of a linear layer of these sizes.

        Examples
        --------
        >>> weights = LoKrWeights(0.5, lokr_w1=torch.eye(2), lokr_w2=torch.ones(1, 2))
        >>> LoKrLinear.from_weights(nn.Linear(4, 2), weights)
        LoKrLinear(
          w1=(2, 2), w2=(1, 2), scale=0.5
          (base): Linear(in_features=4, out_features=2, bias=True)
        )
        """
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made._set_base(base)
        check_weights("weights", weights, (base.out_features, base.in_features))
        made.scale = weights.scale
        for name, tensor in zip(TENSORS[:6], weights[1:7], strict=True):
            copied = None if tensor is None else tensor.detach().clone().to(base.weight.device)
            made.register_parameter(name, None if copied is None else nn.Parameter(copied))
        return made.train(base.training)

    def _set_base(self, base: nn.Linear) -> None:
        if not isinstance(base, nn.Linear):
            raise TypeError(f"base must be a torch.nn.Linear, got {type(base).__name__}")
        if is_lazy(base.weight):
            raise ValueError("base must have a shape, got a lazy layer that was not called")
        self.base = base

    def _set_pair(self, name: str, sizes: tuple[int, int], rank: int | None, kind: dict[str, Any]) -> None:
        """A matrix of these sizes, or a pair of this rank where it is below half the longer side."""
        shapes = {name: sizes}
        if rank is not None and rank < max(sizes) / 2:
            shapes = {f"{name}_a": (sizes[0], rank), f"{name}_b": (rank, sizes[1])}
        for key in (name, f"{name}_a", f"{name}_b"):
            made = nn.Parameter(torch.empty(shapes[key], **kind)) if key in shapes else None
            self.register_parameter(key, made)

    def reset_parameters(self) -> None:
        """Draw the adapter anew, with a product of zero."""
        for name in TENSORS[:6]:
            tensor = getattr(self, name)
            if tensor is not None and name in ("lokr_w2", "lokr_w2_b"):
                nn.init.zeros_(tensor)
            elif tensor is not None:
                nn.init.kaiming_uniform_(tensor, a=sqrt(5))

    @property
    def weights(self) -> LoKrWeights:
        """The tensors of the adapter, which are the parameters, and its scale."""
        return LoKrWeights(self.scale, *(getattr(self, name) for name in TENSORS[:6]))

    def forward(self, x: Tensor) -> Tensor:
        """The output of `base` and of the adapter: W_0 x + b + scale (w1 (x) w2) x on the last axis.

        Parameters
        ----------
        x : tensor, (..., in_features)
            In the dtype and on the device of the adapter.

        Returns
        -------
        tensor, (..., out_features)

        Raises
        ------
        TypeError
            Where `x` has another dtype or device than the adapter.
        """
        weights = self.weights
        first = next(tensor for tensor in weights[1:] if tensor is not None)
        check_agree("x", x, "the adapter", first)
        y = self.base(x)
        return y + lokr_linear(x, weights).to(y.dtype)

    def delta(self) -> KroneckerMatrix[Tensor]:
        """What the adapter adds to the weight: scale (w1 (x) w2).

        Returns
        -------
        KroneckerMatrix, (out_features, in_features)
        """
        return self.weights.delta()

    def to_linear(self) -> nn.Linear:
        """A plain linear layer of the sum of both, which leaves this one alone.

        Returns
        -------
        nn.Linear

        Examples
        --------
        >>> layer = LoKrLinear(nn.Linear(6, 4))
        >>> bool((layer.to_linear().weight == layer.base.weight).all())
        True
        """
        base, weight = self.base, self.base.weight.detach()
        made = nn.Linear(base.in_features, base.out_features, base.bias is not None, device="meta")
        delta = self.delta().to_dense(max_bytes=2**62).detach()
        made.weight = nn.Parameter(weight + delta.to(weight.dtype), base.weight.requires_grad)
        if base.bias is not None:
            made.bias = nn.Parameter(base.bias.detach().clone(), base.bias.requires_grad)
        return made.train(self.training)

    def extra_repr(self) -> str:
        """What stands between the parentheses of the repr.

        Returns
        -------
        str
        """
        shapes = {}
        for name in ("w1", "w2"):
            parts = (getattr(self, f"lokr_{name}{end}") for end in ("", "_a", "_b"))
            shapes[name] = "".join(str(tuple(part.shape)) for part in parts if part is not None)
        return f"w1={shapes['w1']}, w2={shapes['w2']}, scale={self.scale}"


def check_weights(name: str, weights: LoKrWeights, shape: tuple[int, int]) -> None:
    """Raise TypeError or ValueError unless these are the weights of a linear layer of `shape`, (out, in)."""
    if not isinstance(weights, LoKrWeights):
        raise TypeError(f"{name} must be LoKrWeights, got {type(weights).__name__}")
    kinds = {str(getattr(t, "dtype", type(t).__name__)) for t in weights[1:] if t is not None}
    wrong = [t for t in weights[1:] if not (t is None or (isinstance(t, Tensor) and t.is_floating_point()))]
    if wrong or len(kinds) > 1:
        raise TypeError(f"{name} must be floating tensors of one dtype, got {', '.join(sorted(kinds))}")
    if weights.lokr_t2 is not None or any(t is not None and t.ndim != 2 for t in weights[1:]):
        shapes = {key: tuple(t.shape) for key, t in zip(TENSORS, weights[1:], strict=True) if t is not None}
        raise ValueError(f"{name} must be those of a linear layer, of matrices alone, got {shapes}")
    for key, (whole, a, b) in (("lokr_w1", weights[1:4]), ("lokr_w2", weights[4:7])):
        is_pair = a is not None and b is not None and a.shape[1] == b.shape[0]
        if (whole is not None) == is_pair or (whole is not None and (a is not None or b is not None)):
            given = [None if tensor is None else tuple(tensor.shape) for tensor in (whole, a, b)]
            what = f"{key}, or {key}_a and {key}_b of one rank"
            raise ValueError(f"{name} must hold {what}, got shapes {given}")
    if weights.shape != shape:
        raise ValueError(f"{name} must make a product of shape {shape}, got {weights.shape}")


def as_finite(name: str, value: Any) -> float:
    """A number as a finite float, of either sign; TypeError or ValueError that names it otherwise.

    Examples
    --------
    >>> as_finite("alpha", 2)
    2.0
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    if not isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return float(value)


def _divisor(size, most):
    """The largest divisor of `size` up to its square root, and to `most`."""
    last = isqrt(size) if most is None else min(isqrt(size), most)
    return next(d for d in range(last, 0, -1) if size % d == 0)


def _sizes(whole, a, b):
    return tuple(whole.shape) if whole is not None else (a.shape[0], b.shape[1])


def _multiplied(whole: Tensor | None, a: Tensor | None, b: Tensor | None) -> Tensor:
    """A matrix that is stored whole, or as a pair."""
    if whole is not None:
        return whole
    assert a is not None
    assert b is not None
    return a @ b


def _parts(whole: Tensor | None, a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What x is multiplied by first, and second: a pair as it is where that is cheaper than its product."""
    if whole is None and a is not None and b is not None:
        rows, rank = a.shape
        if rank * (rows + b.shape[1]) < rows * b.shape[1]:
            return b, a
    return _multiplied(whole, a, b), None
