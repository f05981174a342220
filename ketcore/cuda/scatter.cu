// Gradients of the tables from records: the cotangents of the leaves that each row picked, (B, R, width).
//
// Entry (k, d, j) of a table's gradient is the sum of records[row, k, j] over the rows whose leaf is d.  Both
// ways to it add in an order that sizes alone decide, so that results are equal bit for bit from run to run,
// and sum in double:
//     accumulate, reduce   private sums over fixed chunks of rows, for every table but those of
//     pieces, segments     large tables of which every mode takes the same leaf (kets): rows sorted by leaf

// ---- accumulate, reduce ----

// Rows whose entries a lane asks for before it adds them.
constexpr int AHEAD = 8;

// The `column` of a table's leaves, as (k, j) in one number, and a range of its leaves.
struct Slot {
  int mode, column;
  int first_leaf, leaves;
};

// Slots cover each table by 32 columns, one per lane, times `digit_tile` leaves.
__device__ inline Slot slot_of(const Plan& plan, int slot, int lane) {
  int n = plan.order - 1;
  while (plan.modes[n].first_slot > slot) --n;
  const Mode& mode = plan.modes[n];
  const int count = int(mode.count), tiles = (count + plan.digit_tile - 1) / plan.digit_tile;
  const int group = (slot - mode.first_slot) / tiles, tile = slot - mode.first_slot - group * tiles;
  const int first = tile * plan.digit_tile;
  return {n, group * 32 + lane, first, min(plan.digit_tile, count - first)};
}

// Add the rows [begin, end) of one column to its private sums, in order.
template <class A, class I>
__device__ inline void add_rows(const Plan& plan, const Slot& slot, int lane, const I* index,
                                const A* records, i64 begin, i64 end, double* sums) {
  const Mode& mode = plan.modes[slot.mode];
  const int length = plan.rank * plan.width, k = slot.column / mode.size, j = slot.column - k * mode.size;
  const bool live = k < plan.rank, terms = plan.kind == TERMS;
  const A* entries = records + k * plan.width + mode.first_column + j;
  for (i64 base = begin; base < end; base += 32) {
    // Without terms the leaf is the same for all columns: a lane looks up that of one row for the others.
    const int mine = !terms && base + lane < end ? leaf_of(plan, mode, slot.mode, index, base + lane) : -1;
    for (int i = 0; i < 32 && base + i < end; i += AHEAD) {
      int leaf[AHEAD];
      A entry[AHEAD];
#pragma unroll
      for (int u = 0; u < AHEAD; ++u) {
        const i64 row = base + i + u;
        leaf[u] = __shfl_sync(ALL_LANES, mine, i + u);
        if (terms && live && row < end) leaf[u] = leaf_of_term(plan, mode, slot.mode, k, index, row);
        leaf[u] -= slot.first_leaf;
        if (!live || leaf[u] >= slot.leaves) leaf[u] = -1;
        entry[u] = leaf[u] >= 0 ? entries[row * length] : A(0);
      }
#pragma unroll
      for (int u = 0; u < AHEAD; ++u)
        if (leaf[u] >= 0) sums[leaf[u] * 32 + lane] += entry[u];
    }
  }
}

// partials[c, first_sum + d * (R q) + column] = sum of records[row, column] over the rows of chunk c that
// have leaf d.  A block is one warp; it takes one slot of one chunk at a time, and every lane owns a column.
template <class A, class I>
__global__ void __launch_bounds__(32, 16)
    accumulate(const Plan plan, const I* __restrict__ index, const A* __restrict__ records, A* partials) {
  KET_DYN_SHARED(shared);
  double* sums = reinterpret_cast<double*>(shared);
  const int lane = threadIdx.x;
  for (i64 item = blockIdx.x; item < plan.chunks * plan.slots; item += gridDim.x) {
    const i64 chunk = item / plan.slots;
    const Slot slot = slot_of(plan, int(item - chunk * plan.slots), lane);
    const Mode& mode = plan.modes[slot.mode];
    const int columns = plan.rank * mode.size;
    for (int d = 0; d < slot.leaves; ++d) sums[d * 32 + lane] = 0;
    add_rows(plan, slot, lane, index, records, chunk * plan.chunk, min((chunk + 1) * plan.chunk, plan.rows),
             sums);
    if (slot.column < columns) {
      A* target =
          partials + chunk * plan.sums + mode.first_sum + i64(slot.first_leaf) * columns + slot.column;
      for (int d = 0; d < slot.leaves; ++d) target[i64(d) * columns] = A(sums[d * 32 + lane]);
    }
  }
}

// gradient of a table = sum over the chunks of its partial sums, in order.  A thread takes one entry of all
// tables.
template <class A>
__global__ void __launch_bounds__(MAX_THREADS, MIN_BLOCKS)
    reduce(const Plan plan, const A* __restrict__ partials) {
  for (i64 e = i64(blockIdx.x) * blockDim.x + threadIdx.x; e < plan.sums; e += i64(gridDim.x) * blockDim.x) {
    double sum = 0;
    for (i64 chunk = 0; chunk < plan.chunks; ++chunk) sum += partials[chunk * plan.sums + e];
    int n = plan.order - 1;
    while (plan.modes[n].first_sum > e) --n;
    const Mode& mode = plan.modes[n];
    const i64 local = e - mode.first_sum, d = local / (plan.rank * mode.size);
    const int column = int(local - d * plan.rank * mode.size), k = column / mode.size;
    *gradient_at<A>(mode, k, int(d), column - k * mode.size) = A(sum);
  }
}

// ---- pieces, segments ----

// A segment is a run of equal ids in sorted order.  Its pieces begin at its head and at every multiple of
// PIECE.
constexpr int PIECE = 256;

template <class I>
__device__ inline bool is_head(const I* ids, i64 position) {
  return position == 0 || ids[position] != ids[position - 1];
}

// Replace the record of the first row of each piece by the sum of the piece; ids are sorted, ids[p] =
// index[order[p]]. A warp takes one position at a time, a lane every 32nd entry of the record.  No two pieces
// share a row.
template <class A, class I>
__global__ void __launch_bounds__(MAX_THREADS, MIN_BLOCKS)
    pieces(const Plan plan, const I* __restrict__ ids, const i64* __restrict__ order, A* records) {
  const int lane = threadIdx.x % 32, length = plan.rank * plan.width;
  const i64 step = i64(gridDim.x) * (blockDim.x / 32);
  for (i64 p = i64(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; p < plan.rows; p += step) {
    if (p % PIECE != 0 && !is_head(ids, p)) continue;
    i64 end = p + 1;
    while (end < plan.rows && end % PIECE != 0 && ids[end] == ids[p]) ++end;
    if (end == p + 1) continue;
    for (int e = lane; e < length; e += 32) {
      double sum = 0;
#pragma unroll 8
      for (i64 q = p; q < end; ++q) sum += records[order[q] * length + e];
      records[order[p] * length + e] = A(sum);
    }
  }
}

// gradients[:, id] = sum of the pieces of the segment of id, in order; bad ids are passed over.
// A warp takes one position at a time, and works where a segment begins; a lane takes every 32nd entry of the
// record.
template <class A, class I>
__global__ void __launch_bounds__(MAX_THREADS, MIN_BLOCKS)
    segments(const Plan plan, const I* __restrict__ ids, const i64* __restrict__ order,
             const A* __restrict__ records) {
  const int lane = threadIdx.x % 32, length = plan.rank * plan.width;
  const i64 step = i64(gridDim.x) * (blockDim.x / 32);
  for (i64 p = i64(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; p < plan.rows; p += step) {
    const int id = int(valid_or_minus_one(ids[p], plan.bound));
    if (id < 0 || !is_head(ids, p)) continue;
    for (int e = lane; e < length; e += 32) {
      double sum = records[order[p] * length + e];
      for (i64 q = p - p % PIECE + PIECE; q < plan.rows && ids[q] == ids[p]; q += PIECE)
        sum += records[order[q] * length + e];
      const int k = e / plan.width, column = e - k * plan.width;
      int n = plan.order - 1;
      while (plan.modes[n].first_column > column) --n;
      const Mode& mode = plan.modes[n];
      *gradient_at<A>(mode, k, id, column - mode.first_column) = A(sum);
    }
  }
}
