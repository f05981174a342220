"""A table of kets whose words are divided between processes: none holds it whole.

    process g holds the records of words g b to (g + 1) b - 1,      b = ceil(words / processes)

    ids  ->  owners of their words  ->  records  ->  rows, where the ids are

What travels are ids and records, R sum q_n numbers each, and on the way back the gradients of records; rows
of Q numbers are made where they are used.

Letters: N order, R rank, q_n dims, Q = prod q_n.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ketcore.shapes import check_int, check_size
from ketcore.torch.embedding_tables import (
    check_ids,
    described,
    leaf_std,
    own_precision,
    padding_row,
    table_size,
)
from ketcore.torch.functional import ket_rows
from ketcore.torch.inputs import mode_dims, order_of, table_dtype


class ShardedEmbeddingKet(nn.Module):
    """A table of kets (word2ket) whose rows are sharded: each process holds the records of some words.

    It is for tables that are too large for one process, and gives the rows and gradients of `EmbeddingKet`.
    Every process calls it with ids of its own.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows and columns of the whole table.
    padding_idx : int, optional
        As of `EmbeddingKet`.
    mesh : DeviceMesh of one dimension, optional
        The processes, and the kind of device that records lie on.  All processes on the CPU if left out.
    order : int, default 4
        As of `EmbeddingKet`.
    rank : int, default 1
        As of `EmbeddingKet`.
    dims : sequence of N ints, optional
        As of `EmbeddingKet`.
    layernorm : bool, default False
        As of `EmbeddingKet`.
    eps : float, default 1e-5
        As of `EmbeddingKet`.
    std : float, default 1.0
        As of `EmbeddingKet`.
    dtype : torch.dtype, optional
        As of `EmbeddingKet`.

    Attributes
    ----------
    leaves : Parameter, (num_embeddings, R, sum q_n)
        A DTensor with the placement ``Shard(0)``.  Its `to_local` gives the records of this process; the last
        processes may have fewer, or none.

    Raises
    ------
    TypeError, ValueError, IndexError
        On arguments, as of `EmbeddingKet`; where the mesh has several dimensions or lacks this process, or
        there is neither a mesh nor a process group.  A call raises IndexError on ids out of range on every
        process, whichever has them, on all devices.

    See Also
    --------
    EmbeddingKet : The same table in one process.

    Notes
    -----
    A call with U different ids sends 8 U bytes of ids and receives U records of R sum q_n numbers; `backward`
    sends as many numbers back.  `EmbeddingKet` under FSDP gathers the whole table instead.

    Gradients are the mean over processes, as those of DistributedDataParallel and fully_shard are.  Keep the
    layer out of both: wrap the rest of the model.

    All processes call it equally often, with as many ids as they like or none, and each runs `backward` on
    what it got; one that does not leaves the others waiting.

    Its parameter is a DTensor: in an optimizer let it be a group of its own, since some optimizers do not
    mix kinds of tensors.  ``torch.distributed.checkpoint`` saves and loads it between different numbers of
    processes; files of ``torch.save``, one a process, are of their number.  `load_state_dict` also takes the
    whole tensor `leaves` of an `EmbeddingKet`, of which each process copies its words; `full_tensor` of the
    parameter gives it.

    Processes that have the same seed draw different records.  It needs PyTorch 2.5 or later.

    Examples
    --------
    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> layer = ShardedEmbeddingKet(1000, 256)
    >>> layer(torch.tensor([3, 999])).shape, layer.leaves.to_local().shape
    (torch.Size([2, 256]), torch.Size([1000, 1, 16]))
    >>> dist.destroy_process_group()
    """

    leaves: nn.Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        mesh: Any = None,
        *,
        order: int = 4,
        rank: int = 1,
        dims: Sequence[int] | None = None,
        layernorm: bool = False,
        eps: float = 1e-5,
        std: float = 1.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = table_size(num_embeddings, embedding_dim)
        self.padding_idx = padding_row(padding_idx, self.num_embeddings)
        self.layernorm, self.eps = bool(layernorm), check_size("eps", eps)
        self.std = check_size("std", std)
        self.order = order_of(order, dims=dims)
        self.dims = mode_dims("dims", dims, self.embedding_dim, self.order)
        self.rank = check_int("rank", rank, 1)
        self.mesh = _checked_mesh(mesh)
        # As torch divides a dimension: the last processes may have fewer words, or none.
        self._block = -(-self.num_embeddings // self.mesh.size())
        start = self._first(self.mesh.get_local_rank())
        words = self._first(self.mesh.get_local_rank() + 1) - start
        shape = (words, self.rank, sum(self.dims))
        records = torch.empty(shape, dtype=table_dtype(dtype), device=self.mesh.device_type)
        self.leaves = nn.Parameter(self._sharded(records))
        self.reset_parameters()

    def _first(self, process):
        """The first word of a process; of one behind the last, the number of words."""
        return min(process * self._block, self.num_embeddings)

    def _sharded(self, records):
        """The table of which this process has these records."""
        from torch.distributed.tensor import DTensor, Shard

        lengths = self.rank, sum(self.dims)
        shape, strides = (self.num_embeddings, *lengths), (lengths[0] * lengths[1], lengths[1], 1)
        return DTensor.from_local(
            records, self.mesh, [Shard(0)], run_check=False, shape=torch.Size(shape), stride=strides
        )

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the leaves such that entries of the table have standard deviation `std`.

        The record of `padding_idx` is zero, and so is its row.
        """
        records, process = self._records(), self.mesh.get_local_rank()
        # From the seed that is set, which may be that of all processes, and the place among them.
        seed = int(torch.randint(2**62, (), device="cpu")) + process
        generator = torch.Generator(records.device).manual_seed(seed)
        nn.init.normal_(records, std=leaf_std(self.std, self.order, self.rank), generator=generator)
        start, stop = self._first(process), self._first(process + 1)
        if self.padding_idx is not None and start <= self.padding_idx < stop:
            records[self.padding_idx - start].fill_(0)

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the ids of this process.

        Parameters
        ----------
        input : tensor, (...) of any integer dtype
            Ids, 0 <= id < num_embeddings.

        Returns
        -------
        tensor, (..., embedding_dim)
            In the dtype of the parameters.

        Raises
        ------
        TypeError
            Unless `input` is a tensor of integers, and no DTensor.
        IndexError
            On every process, if any has an id out of range.
        """
        if hasattr(input, "to_local"):
            raise TypeError(f"input must be the ids of this process, got a {type(input).__name__}")
        records = self._records()
        ids = check_ids("input", input, records).long()
        # They ascend: what one process is asked for lies together, and each word is asked for once.
        wanted, places = torch.unique(ids, return_inverse=True)
        with own_precision(records):
            picked = self._asked(records, wanted)
            found = ket_rows(
                picked, places, self.dims, self.layernorm, columns=self.embedding_dim, eps=self.eps
            )
        if self.padding_idx is not None:
            found = torch.where((ids == self.padding_idx)[..., None], found.detach(), found)
        return found

    def _records(self) -> Tensor:
        """Those of this process."""
        leaves: Any = self.leaves
        return leaves.to_local()

    def _asked(self, records: Tensor, wanted: Tensor) -> Tensor:
        """The records of ascending ids, from the processes that hold them."""
        group, processes = self.mesh.get_group(), self.mesh.size()
        starts = [self._first(process) for process in range(processes + 1)]
        counts = torch.searchsorted(wanted, wanted.new_tensor(starts)).diff()
        outside = wanted[(wanted < 0) | (wanted >= self.num_embeddings)]
        if len(outside):
            # So that no process waits for one that has left.
            counts = torch.full_like(counts, -1)
        answers = torch.empty_like(counts)
        torch.distributed.all_to_all_single(answers, counts, group=group)
        sent, received = counts.tolist(), answers.tolist()
        if min(received) < 0:
            where = f"process {received.index(-1)}"
            got = int(outside[0]) if len(outside) else f"an id out of range on {where}"
            raise IndexError(f"input must lie in [0, {self.num_embeddings}), got {got}")
        asked = _Exchanged.apply(wanted, sent, received, group)
        picked = records.index_select(0, asked - self._first(self.mesh.get_local_rank()))
        if picked.requires_grad:
            picked.register_hook(lambda gradient: gradient / processes)
        return _Exchanged.apply(picked, received, sent, group)

    def extra_repr(self) -> str:
        """What the layer was made with.

        Returns
        -------
        str
        """
        return f"{described(self, 'order', 'rank', 'dims')}, processes={self.mesh.size()}"

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ):
        """Torch's, which also takes the records of all words, as an EmbeddingKet has them."""
        name, process, processes = f"{prefix}leaves", self.mesh.get_local_rank(), self.mesh.size()
        given: Any = state_dict.get(name)
        leaves: Any = self.leaves
        if hasattr(given, "to_local"):
            if (found := given.device_mesh.size()) != processes:
                error_msgs.append(f"{name} must be divided between {processes} processes, got {found}")
                state_dict[name] = self.leaves.detach()
            elif given.placements != leaves.placements:
                # With assign=True it becomes the parameter, of which each process has its words.
                state_dict[name] = given.redistribute(self.mesh, leaves.placements)
        elif isinstance(given, Tensor) and given.shape == self.leaves.shape:
            own = given[self._first(process) : self._first(process + 1)]
            state_dict[name] = self._sharded(own.to(self.mesh.device_type, copy=True))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


class _Exchanged(torch.autograd.Function):
    """Rows that others have sent, for those that are sent to them; gradients go the other way.

    The first `sent[0]` rows are for process 0, the next `sent[1]` for process 1, and so on.
    """

    @staticmethod
    def forward(ctx: Any, rows, sent, received, group):
        ctx.back = received, sent, group
        found = rows.new_empty(sum(received), *rows.shape[1:])
        torch.distributed.all_to_all_single(found, rows.contiguous(), received, sent, group=group)
        return found

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None, None, None]:
        return _Exchanged.apply(cotangents[0], *ctx.back), None, None, None


def _checked_mesh(mesh):
    """A mesh of one dimension; of all processes, on the CPU, where none is given."""
    from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

    if mesh is None:
        if not torch.distributed.is_initialized():
            raise ValueError("mesh must be a DeviceMesh where there is no process group, got None")
        return init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    if not isinstance(mesh, DeviceMesh):
        raise TypeError(f"mesh must be a DeviceMesh, got {type(mesh).__name__}")
    if mesh.ndim != 1:
        raise ValueError(f"mesh must have one dimension, got {mesh.ndim}")
    if mesh.get_coordinate() is None:
        got = f"process {torch.distributed.get_rank()} and those of {mesh.mesh.tolist()}"
        raise ValueError(f"mesh must have this process, got {got}")
    return mesh
