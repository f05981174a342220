"""The operations of `ketcore.ops` as functions of torch tensors."""

from ketcore.ops import gather_kron, ket_rows, kron_matmul, row_kets, rows

__all__ = ["gather_kron", "ket_rows", "kron_matmul", "row_kets", "rows"]
