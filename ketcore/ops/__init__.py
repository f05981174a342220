"""Operations on factors: pure functions with their gradients, one file each.

`OPS` is the one table of them; tests, adapters and benchmarks read it.
"""

from ketcore.lookups.digits import digits
from ketcore.ops.codebook_rows import (
    codebook_rows,
    codebook_rows_dense,
    codebook_rows_jvp,
    codebook_rows_shapes,
    codebook_rows_vjp,
)
from ketcore.ops.gather_kron import (
    gather_kron,
    gather_kron_dense,
    gather_kron_jvp,
    gather_kron_shapes,
    gather_kron_vjp,
)
from ketcore.ops.ket_inner import (
    ket_gram,
    ket_gram_dense,
    ket_gram_jvp,
    ket_gram_shapes,
    ket_gram_vjp,
    ket_inner,
    ket_inner_dense,
    ket_inner_jvp,
    ket_inner_shapes,
    ket_inner_vjp,
)
from ketcore.ops.ket_rows import ket_rows, ket_rows_dense, ket_rows_jvp, ket_rows_shapes, ket_rows_vjp
from ketcore.ops.ket_sandwich import (
    ket_sandwich,
    ket_sandwich_dense,
    ket_sandwich_jvp,
    ket_sandwich_shapes,
    ket_sandwich_vjp,
)
from ketcore.ops.kron_inner import (
    kron_inner,
    kron_inner_dense,
    kron_inner_jvp,
    kron_inner_shapes,
    kron_inner_vjp,
)
from ketcore.ops.kron_log_likelihood import (
    kron_log_likelihood,
    kron_log_likelihood_dense,
    kron_log_likelihood_jvp,
    kron_log_likelihood_shapes,
    kron_log_likelihood_vjp,
)
from ketcore.ops.kron_matmul import (
    kron_matmul,
    kron_matmul_dense,
    kron_matmul_jvp,
    kron_matmul_shapes,
    kron_matmul_vjp,
)
from ketcore.ops.kron_norm import kron_norm, kron_norm_dense, kron_norm_jvp, kron_norm_shapes, kron_norm_vjp
from ketcore.ops.kron_sandwich import (
    kron_sandwich,
    kron_sandwich_dense,
    kron_sandwich_jvp,
    kron_sandwich_shapes,
    kron_sandwich_vjp,
)
from ketcore.ops.kron_slogdet import (
    kron_slogdet,
    kron_slogdet_dense,
    kron_slogdet_jvp,
    kron_slogdet_shapes,
    kron_slogdet_vjp,
)
from ketcore.ops.kron_solve import (
    kron_solve,
    kron_solve_dense,
    kron_solve_jvp,
    kron_solve_shapes,
    kron_solve_vjp,
)
from ketcore.ops.kron_trace import (
    kron_trace,
    kron_trace_dense,
    kron_trace_jvp,
    kron_trace_shapes,
    kron_trace_vjp,
)
from ketcore.ops.op import Op, keyword, one, several
from ketcore.ops.row_kets import row_kets, row_kets_dense, row_kets_jvp, row_kets_shapes, row_kets_vjp
from ketcore.ops.rows import rows, rows_dense, rows_jvp, rows_shapes, rows_vjp

OPS = (
    Op(
        "gather_kron", gather_kron, gather_kron_vjp, gather_kron_jvp, gather_kron_dense, gather_kron_shapes,
        primals=(several("tables"), keyword("row_scale")), constants=("index",),
        options=("columns", "per_term", "check"), forward_options=("out",), vjp_options=("deterministic",),
    ),
    Op(
        "codebook_rows", codebook_rows, codebook_rows_vjp, codebook_rows_jvp, codebook_rows_dense,
        codebook_rows_shapes,
        primals=(several("codebooks"), one("row_scale", optional=True), one("decoder", optional=True)),
        constants=("codes",), options=("check",), forward_options=("out",), vjp_options=("deterministic",),
    ),
    Op(
        "rows", rows, rows_vjp, rows_jvp, rows_dense, rows_shapes,
        primals=(several("factors"), keyword("row_scale")), constants=("ids",), options=("shape", "check"),
        forward_options=("out",), vjp_options=("deterministic",),
    ),
    Op(
        "row_kets", row_kets, row_kets_vjp, row_kets_jvp, row_kets_dense, row_kets_shapes,
        primals=(several("factors"),), constants=("ids",), options=("shape", "check"),
        outputs=(several("kets"),),
    ),
    Op(
        "ket_rows", ket_rows, ket_rows_vjp, ket_rows_jvp, ket_rows_dense, ket_rows_shapes,
        primals=(one("leaves"), keyword("row_scale")), constants=("ids",),
        options=("dims", "layernorm", "columns", "eps", "check"), forward_options=("out",),
        vjp_options=("deterministic", "sparse"),
    ),
    Op(
        "ket_inner", ket_inner, ket_inner_vjp, ket_inner_jvp, ket_inner_dense, ket_inner_shapes,
        primals=(several("v"), several("w")),
    ),
    Op(
        "ket_gram", ket_gram, ket_gram_vjp, ket_gram_jvp, ket_gram_dense, ket_gram_shapes,
        primals=(several("v"), several("w")),
    ),
    Op(
        "kron_matmul", kron_matmul, kron_matmul_vjp, kron_matmul_jvp, kron_matmul_dense, kron_matmul_shapes,
        primals=(several("factors"), one("x")), options=("shape", "axis", "identities", "path"),
        forward_options=("out",),
    ),
    Op(
        "kron_solve", kron_solve, kron_solve_vjp, kron_solve_jvp, kron_solve_dense, kron_solve_shapes,
        primals=(several("factors"), one("b"), one("shift", optional=True)), options=("axis", "assume_a"),
    ),
    Op(
        "kron_slogdet", kron_slogdet, kron_slogdet_vjp, kron_slogdet_jvp, kron_slogdet_dense,
        kron_slogdet_shapes,
        primals=(several("factors"), one("shift", optional=True)), options=("assume_a", "max_bytes"),
        outputs=(one("sign"), one("logabsdet", real=True)),
    ),
    Op(
        "kron_trace", kron_trace, kron_trace_vjp, kron_trace_jvp, kron_trace_dense, kron_trace_shapes,
        primals=(several("factors"),), options=("shape",),
    ),
    Op(
        "kron_norm", kron_norm, kron_norm_vjp, kron_norm_jvp, kron_norm_dense, kron_norm_shapes,
        primals=(several("factors"),), options=("shape",), outputs=(one("norm", real=True),),
    ),
    Op(
        "kron_inner", kron_inner, kron_inner_vjp, kron_inner_jvp, kron_inner_dense, kron_inner_shapes,
        primals=(several("a"), several("b")), options=("shape",),
    ),
    Op(
        "ket_sandwich", ket_sandwich, ket_sandwich_vjp, ket_sandwich_jvp, ket_sandwich_dense,
        ket_sandwich_shapes,
        primals=(several("v"), several("factors"), several("w")),
    ),
    Op(
        "kron_sandwich", kron_sandwich, kron_sandwich_vjp, kron_sandwich_jvp, kron_sandwich_dense,
        kron_sandwich_shapes,
        primals=(one("x"), several("factors"), one("y")), options=("shape",),
    ),
    Op(
        "kron_log_likelihood", kron_log_likelihood, kron_log_likelihood_vjp, kron_log_likelihood_jvp,
        kron_log_likelihood_dense, kron_log_likelihood_shapes,
        primals=(several("factors"), one("y"), one("shift", real=True)), options=("assume_a",),
        outputs=(one("log_likelihood", real=True),),
    ),
)  # fmt: skip

__all__ = [
    "OPS",
    "Op",
    "codebook_rows",
    "codebook_rows_dense",
    "codebook_rows_jvp",
    "codebook_rows_vjp",
    "digits",
    "gather_kron",
    "gather_kron_dense",
    "gather_kron_jvp",
    "gather_kron_vjp",
    "ket_gram",
    "ket_gram_dense",
    "ket_gram_jvp",
    "ket_gram_vjp",
    "ket_inner",
    "ket_inner_dense",
    "ket_inner_jvp",
    "ket_inner_vjp",
    "ket_rows",
    "ket_rows_dense",
    "ket_rows_jvp",
    "ket_rows_vjp",
    "ket_sandwich",
    "ket_sandwich_dense",
    "ket_sandwich_jvp",
    "ket_sandwich_vjp",
    "kron_inner",
    "kron_inner_dense",
    "kron_inner_jvp",
    "kron_inner_vjp",
    "kron_log_likelihood",
    "kron_log_likelihood_dense",
    "kron_log_likelihood_jvp",
    "kron_log_likelihood_vjp",
    "kron_matmul",
    "kron_matmul_dense",
    "kron_matmul_jvp",
    "kron_matmul_vjp",
    "kron_norm",
    "kron_norm_dense",
    "kron_norm_jvp",
    "kron_norm_vjp",
    "kron_sandwich",
    "kron_sandwich_dense",
    "kron_sandwich_jvp",
    "kron_sandwich_vjp",
    "kron_slogdet",
    "kron_slogdet_dense",
    "kron_slogdet_jvp",
    "kron_slogdet_vjp",
    "kron_solve",
    "kron_solve_dense",
    "kron_solve_jvp",
    "kron_solve_vjp",
    "kron_trace",
    "kron_trace_dense",
    "kron_trace_jvp",
    "kron_trace_vjp",
    "row_kets",
    "row_kets_dense",
    "row_kets_jvp",
    "row_kets_vjp",
    "rows",
    "rows_dense",
    "rows_jvp",
    "rows_vjp",
]
