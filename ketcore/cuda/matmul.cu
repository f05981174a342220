// Dense arrays times Kronecker matrices, several small modes at a time (multiply).
//
// A pass takes an array seen as (terms, outer, P, inner), P = prod p_n over some neighbouring modes, to
//     out[o, j, i] = sum_p M[p, j] x[o, p, i],   M = the Kronecker product of the modes' factors,
// in every term, or summed over the terms.  No axis moves.  A block takes a tile of `tile_outer` o by all p by
// `tile_inner` i at a time, in shared memory, and strides over the tiles with all blocks of the grid, so that
// any grid is right.  Within the tile neighbouring modes are merged into links of at most 16 x 16, which are
// multiplied one after the other from buffer to buffer.

// What a thread holds in registers: TALL entries of WIDE outputs.
constexpr int TALL = 8, WIDE = 2;
constexpr int MAX_LINKS = 4, MAX_FACTORS = 16;

// ---- the plan; structs.py has the same fields in the same order ----

struct Factor {
  u64 table;              // address of element (0, 0, 0)
  i64 term, row, column;  // strides in elements
  int rows, columns;      // p_n, q_n
};

// One matrix, p x q, the Kronecker product of the factors of neighbouring modes.  With L what is left of them
// in the tile and U what is right of them, it takes a buffer (L, p, U) to a buffer (L, q, U):
//     source[source_left * l + inner * i + u],  target[target_left * l + target_column * j + u]
// The strides keep lanes that read or write together in different banks.
struct Link {
  u64 per_inner;                                 // `inverse` of U
  int first_factor, factors;                     // which modes it merges
  int rows, columns, pitch;                      // p, q, and q padded to a multiple of TALL
  int matrix;                                    // where it is among the matrices of a term
  int inner, fibres;                             // U, L * U
  int source, source_left;                       // offsets and strides in entries
  int target, target_left, target_column, unused;
};

// How an outer index of a tile lies in global memory and in the buffer that it is copied to or from.
struct Side {
  i64 term;                             // stride of a term in elements, 0 if there is one for all
  u64 per_size, per_row;                // `inverse` of size * tile_inner and of `row`
  int size;                             // P or Q
  int buffer, row, pitch;               // flat entry e lies at buffer + e / row * pitch + e % row
  int wide, unused;                     // the array is in the accumulation type
};

struct Pass {
  i64 outer, inner, tiles, inner_tiles;  // tiles: of one term
  u64 per_inner;                         // `inverse` of tile_inner
  int tile_outer, tile_inner;
  int terms, summed, held;  // summed: over the terms; held: terms whose matrices are in shared memory at once
  int links, matrices;      // matrices: entries of all matrices of a term
  int unused;
  Side source, target;
  Link chain[MAX_LINKS];
  Factor factors[MAX_FACTORS];
};

static_assert(sizeof(Pass) == 1064, "the layout of Pass");

// ---- the matrices ----

// Entry (i, j) of the Kronecker product that is the link's matrix in term k.
template <class T, class A>
__device__ inline A merged_entry(const Pass& pass, const Link& link, int k, int i, int j) {
  A product = 1;
#pragma unroll 1
  for (int n = link.first_factor + link.factors - 1; n >= link.first_factor; --n) {
    const Factor& factor = pass.factors[n];
    const int row = i % factor.rows, column = j % factor.columns;
    i /= factor.rows;
    j /= factor.columns;
    product *= widen(reinterpret_cast<const T*>(
        factor.table)[k * factor.term + row * factor.row + column * factor.column]);
  }
  return product;
}

// Write the matrices of terms [first, first + count), columns padded with zeros.
template <class T, class A>
__device__ inline void load_matrices(const Pass& pass, int first, int count, A* matrices) {
#pragma unroll 1
  for (int s = 0; s < pass.links; ++s) {
    const Link& link = pass.chain[s];
    const int size = link.rows * link.pitch;
#pragma unroll 1
    for (int e = threadIdx.x; e < count * size; e += blockDim.x) {
      const int k = e / size, at = e - k * size, i = at / link.pitch, j = at - i * link.pitch;
      matrices[k * pass.matrices + link.matrix + at] =
          j < link.columns ? merged_entry<T, A>(pass, link, first + k, i, j) : A(0);
    }
  }
}

template <class A>
struct alignas(16) Strip {
  A item[TALL];
};

// target = M^T source, or with `add` target += M^T source.  A thread takes TALL rows of M^T by WIDE fibres,
// half of all fibres apart; lanes take neighbouring fibres, which read the same entries of M.
template <class A>
__device__ inline void multiply_link(const Link& link, const A* matrix, A* values, bool add) {
  const int half = (link.fibres + 1) / 2, items = half * (link.pitch / TALL);
#pragma unroll 1
  for (int item = threadIdx.x; item < items; item += blockDim.x) {
    const int strip = item / half, first = item - strip * half;
    int from[WIDE], to[WIDE];
    A sum[WIDE][TALL];
#pragma unroll
    for (int w = 0; w < WIDE; ++w) {
      const int fibre = min(first + w * half, link.fibres - 1);
      const int l = quotient(fibre, link.per_inner), u = fibre - l * link.inner;
      from[w] = link.source + l * link.source_left + u;
      to[w] = link.target + l * link.target_left + strip * TALL * link.target_column + u;
#pragma unroll
      for (int j = 0; j < TALL; ++j) sum[w][j] = 0;
    }
    const A* row = matrix + strip * TALL;
#pragma unroll 2
    for (int i = 0; i < link.rows; ++i, row += link.pitch) {
      const Strip<A> m = *reinterpret_cast<const Strip<A>*>(row);
#pragma unroll
      for (int w = 0; w < WIDE; ++w) {
        const A x = values[from[w] + i * link.inner];
#pragma unroll
        for (int j = 0; j < TALL; ++j) sum[w][j] += x * m.item[j];
      }
    }
    const int columns = min(TALL, link.columns - strip * TALL);
#pragma unroll
    for (int w = 0; w < WIDE; ++w) {
      // An odd fibre has no partner.
      if (first + w * half >= link.fibres) continue;
#pragma unroll
      for (int j = 0; j < TALL; ++j) {
        if (j >= columns) continue;
        A* target = values + to[w] + j * link.target_column;
        *target = add ? *target + sum[w][j] : sum[w][j];
      }
    }
  }
}

// ---- tiles ----

struct Tile {
  i64 first_outer, first_inner;
  int outer, inner;  // how much of it is within the array
};

__device__ inline Tile tile_at(const Pass& pass, i64 tile) {
  const i64 o = tile / pass.inner_tiles * pass.tile_outer, i = tile % pass.inner_tiles * pass.tile_inner;
  return {o, i, int(min(i64(pass.tile_outer), pass.outer - o)), int(min(i64(pass.tile_inner), pass.inner - i))};
}

// Where flat entry e = (o, p, i) of a tile is in its array, or -1 where that has no such entry.
__device__ inline i64 place_in_array(const Pass& pass, const Side& side, const Tile& tile, int e) {
  const int o = quotient(e, side.per_size), rest = e - o * side.size * pass.tile_inner;
  const int p = quotient(rest, pass.per_inner), i = rest - p * pass.tile_inner;
  if (o >= tile.outer || i >= tile.inner) return -1;
  return ((tile.first_outer + o) * side.size + p) * pass.inner + tile.first_inner + i;
}

__device__ inline int place_in_buffer(const Side& side, int e) {
  const int row = quotient(e, side.per_row);
  return side.buffer + row * side.pitch + e - row * side.row;
}

// Copy a tile of term k to shared memory, zeros where the array has ended.
template <class T, class A>
__device__ inline void load_tile(const Pass& pass, const Tile& tile, int k, const T* x, const A* wide_x,
                                 A* values) {
  const int size = pass.tile_outer * pass.source.size * pass.tile_inner;
#pragma unroll 4
  for (int e = threadIdx.x; e < size; e += blockDim.x) {
    const i64 at = place_in_array(pass, pass.source, tile, e), from = k * pass.source.term + at;
    A value = 0;
    if (at >= 0) value = sizeof(T) < sizeof(A) && pass.source.wide ? wide_x[from] : widen(x[from]);
    values[place_in_buffer(pass.source, e)] = value;
  }
}

template <class T, class A>
__device__ inline void store_tile(const Pass& pass, const Tile& tile, int k, const A* values, T* out,
                                  A* wide_out) {
  const int size = pass.tile_outer * pass.target.size * pass.tile_inner;
#pragma unroll 2
  for (int e = threadIdx.x; e < size; e += blockDim.x) {
    const i64 at = place_in_array(pass, pass.target, tile, e), to = k * pass.target.term + at;
    if (at < 0) continue;
    const A value = values[place_in_buffer(pass.target, e)];
    if (sizeof(T) < sizeof(A) && pass.target.wide)
      wide_out[to] = value;
    else
      narrow(value, out[to]);
  }
}

// Arrays in the storage type T, or in the accumulation type where the plan says so; the other one of the two
// pointers is not used.  Sums in double need more registers than three blocks leave.
template <class T>
__global__ void __launch_bounds__(MAX_THREADS, sizeof(T) == 8 ? 2 : MIN_BLOCKS)
    multiply(const Pass pass, const T* __restrict__ x,
             const typename Accumulation<T>::type* __restrict__ wide_x, T* out,
             typename Accumulation<T>::type* wide_out) {
  typedef typename Accumulation<T>::type A;
  KET_DYN_SHARED(shared);
  A* matrices = reinterpret_cast<A*>(shared);
  A* values = matrices + pass.held * pass.matrices;
  const bool held = pass.held == pass.terms;
  if (held) load_matrices<T>(pass, 0, pass.terms, matrices);
  const i64 items = pass.tiles * (pass.summed ? 1 : pass.terms);
  for (i64 item = blockIdx.x; item < items; item += gridDim.x) {
    // Zero where the terms are summed: then there are no more items than tiles.
    const int term = int(item / pass.tiles), end = pass.summed ? pass.terms : term + 1;
    const Tile tile = tile_at(pass, item - term * pass.tiles);
#pragma unroll 1
    for (int k = term; k < end; ++k) {
      if (!held) load_matrices<T>(pass, k, 1, matrices);
      // Terms that share their source find it where the first one has left it.
      if (k == term || pass.source.term) load_tile(pass, tile, k, x, wide_x, values);
      __syncthreads();
#pragma unroll 1
      for (int s = 0; s < pass.links; ++s) {
        const Link& link = pass.chain[s];
        const A* matrix = matrices + (held ? k * pass.matrices : 0) + link.matrix;
        multiply_link(link, matrix, values, k > term && s == pass.links - 1);
        __syncthreads();
      }
    }
    store_tile(pass, tile, term, values, out, wide_out);
    // The next tile goes where this one may still be read.
    __syncthreads();
  }
}
