// Rows from the leaves they pick (expand), and cotangents of rows back to their leaves (contract).
//
// A row is the sum over terms k of A[k] (x) C[k]: A, of qa entries, is the product of the leaves of the first
// modes and C, of qb entries, that of the others.  One warp has one row at a time, builds A and C in its
// scratch (kernel.cuh), and strides over the rows with all warps of the grid, so that any grid is right. With
// LayerNorm the root is not formed: it is a scale on A and a bias.

// Outputs that a lane holds in registers while it sums over the terms: with 16-byte stores, and without.
constexpr int TILE = 8, NARROW_TILE = 4;

// ---- expand ----

// Multiply A by the root's scale; returns the bias, the same in every lane.
template <class A>
__device__ inline A normalise_root(const Plan& plan, const Scratch<A>& own) {
  const Node& left = plan.nodes[plan.nodes[plan.root].left];
  const Moments<A>* root = own.moments + plan.root * plan.rank;
#pragma unroll 1
  for (int e = own.lane; e < plan.rank * left.size; e += 32) {
    const int k = quotient(e, left.per_size);
    own.value[left.offset + k * left.pitch + e - k * left.size] *= root[k].scale;
  }
  A bias = 0;
#pragma unroll 1
  for (int k = 0; k < plan.rank; ++k) bias -= root[k].shift * root[k].scale;
  __syncwarp();
  return bias;
}

// V neighbours, aligned for one load where they take 16 bytes.
template <class A, int V>
struct alignas(sizeof(A) * V < 16 ? sizeof(A) * V : 16) Vector {
  A item[V];
};

template <class T>
__device__ inline unsigned pair(float low, float high) {
  T first, second;
  narrow(low, first);
  narrow(high, second);
  return first.bits | unsigned(second.bits) << 16;
}

__device__ inline void store(const float (&x)[4], float* target) {
  store_quad(target, {to_bits(x[0]), to_bits(x[1]), to_bits(x[2]), to_bits(x[3])});
}

__device__ inline void store(const double (&x)[2], double* target) {
  DoubleWord first, second;
  first.real = x[0];
  second.real = x[1];
  store_quad(target, {first.bits[0], first.bits[1], second.bits[0], second.bits[1]});
}

template <class T>
__device__ inline void store(const float (&x)[8], T* target) {
  store_quad(target, {pair<T>(x[0], x[1]), pair<T>(x[2], x[3]), pair<T>(x[4], x[5]), pair<T>(x[6], x[7])});
}

template <class A, class T>
__device__ inline void store(const A (&x)[1], T* target) {
  narrow(x[0], *target);
}

// row[a, b] = bias + sum_k A[k, a] C[k, b].  A lane takes tiles of TALL entries of A by V neighbours of C;
// tiles of neighbouring lanes are neighbours in the row.  V > 1 needs qb and the columns to be multiples of
// V, and an aligned row.
template <class T, int V, class A>
__device__ inline void write_row(const Plan& plan, const Scratch<A>& own, A bias, T* row) {
  constexpr int TALL = (V == 1 ? NARROW_TILE : TILE) / V;
  const Node &root = plan.nodes[plan.root], &left = plan.nodes[root.left], &right = plan.nodes[root.right];
  const int strips = right.size / V, groups = (plan.kept + TALL - 1) / TALL;
  for (int tile = own.lane; tile < groups * strips; tile += 32) {
    const int group = tile / strips, b = (tile - group * strips) * V;
    A sum[TALL][V];
#pragma unroll
    for (int i = 0; i < TALL * V; ++i) sum[i / V][i % V] = bias;
#pragma unroll 2
    for (int k = 0; k < plan.rank; ++k) {
      const A* a = own.value + left.offset + k * left.pitch;
      const Vector<A, V> c =
          *reinterpret_cast<const Vector<A, V>*>(own.value + right.offset + k * right.pitch + b);
#pragma unroll
      for (int i = 0; i < TALL; ++i) {
        const A x = a[min(group + i * groups, plan.kept - 1)];
#pragma unroll
        for (int v = 0; v < V; ++v) sum[i][v] += x * c.item[v];
      }
    }
#pragma unroll
    for (int i = 0; i < TALL; ++i) {
      const int a = group + i * groups, column = a * right.size + b;
      if (a < plan.kept && column < plan.columns) store(sum[i], row + column);
    }
  }
}

template <class T>
__device__ inline void write_nan(const Plan& plan, int lane, T* row) {
  T stored;
  narrow(typename Accumulation<T>::type(nan("")), stored);
#pragma unroll 1
  for (i64 column = lane; column < plan.columns; column += 32) row[column] = stored;
}

// out[row] = sum_k tree of the leaves that `row` picks; NaN where an index is bad.
template <class T, class I>
__global__ void __launch_bounds__(MAX_THREADS, MIN_BLOCKS)
    expand(const Plan plan, const I* __restrict__ index, T* out) {
  typedef typename Accumulation<T>::type A;
  KET_DYN_SHARED(shared);
  const Scratch<A> own = open_block<T, A>(plan, shared);
  for (i64 row = first_row(); row < plan.rows; row += row_step()) {
    T* target = out + row * plan.columns;
    if (find_leaves(plan, own, index, row)) {
      fetch_leaves<T>(plan, own);
      grow_tree(plan, own);
      const A bias = plan.layernorm ? normalise_root(plan, own) : A(0);
      if (plan.vector)
        write_row<T, 16 / sizeof(T)>(plan, own, bias, target);
      else
        write_row<T, 1>(plan, own, bias, target);
    } else {
      write_nan(plan, own.lane, target);
    }
    __syncwarp();
  }
}

// ---- contract ----

// out[k, i] = sum_j M[k, i, j] x[k, j], or +=, with
//     M[k, i, j] = matrix[k * per_term + i * per_row + j * per_column].
// A lane takes tiles of TALL terms by two i; TALL > 1 only if M is the same for all terms (per_term = 0).
template <int TALL, class A>
__device__ inline void project(int lane, int rank, const A* matrix, int per_term, int per_row, int per_column,
                               int rows, int columns, const A* x, int x_pitch, A* out, int out_pitch,
                               bool add) {
  const int pairs = (rows + 1) / 2, groups = (rank + TALL - 1) / TALL;
  for (int tile = lane; tile < groups * pairs; tile += 32) {
    const int group = tile / pairs, i = tile - group * pairs, last = min(i + pairs, rows - 1);
    const A *first_row = matrix + group * per_term + i * per_row,
            *last_row = matrix + group * per_term + last * per_row;
    A sum[TALL][2];
#pragma unroll
    for (int t = 0; t < TALL; ++t) sum[t][0] = sum[t][1] = 0;
#pragma unroll 2
    for (int j = 0; j < columns; ++j) {
      const A m0 = first_row[j * per_column], m1 = last_row[j * per_column];
#pragma unroll
      for (int t = 0; t < TALL; ++t) {
        const A xj = x[min(group + t * groups, rank - 1) * x_pitch + j];
        sum[t][0] += m0 * xj;
        sum[t][1] += m1 * xj;
      }
    }
#pragma unroll
    for (int t = 0; t < TALL; ++t) {
      const int k = group + t * groups;
      if (k >= rank) continue;
      A* target = out + k * out_pitch;
      target[i] = sum[t][0] + (add ? target[i] : A(0));
      if (i + pairs < rows) target[i + pairs] = sum[t][1] + (add ? target[i + pairs] : A(0));
    }
  }
}

// A half of a matrix's product: vectors, and room for their cotangents.
template <class A>
struct Half {
  const A* value;
  A* slope;
  int pitch, size;
};

template <class A>
__device__ inline Half<A> half_of(const Scratch<A>& own, const Node& node) {
  return {own.value + node.offset, own.slope + node.offset, node.pitch, node.size};
}

// The cotangent G of left (x) right, (left.size, right.size) a term: G right to the left half, G^T left to
// the right, or += there.  A loop over the two, since the code of `project` is large.
template <int TALL, class A>
__device__ inline void contract_halves(int lane, int rank, const A* matrix, int per_term, int pitch,
                                       Half<A> left, Half<A> right, bool add_right) {
#pragma unroll 1
  for (int side = 0; side < 2; ++side) {
    const Half<A> to = side ? right : left, from = side ? left : right;
    project<TALL>(lane, rank, matrix, per_term, side ? 1 : pitch, side ? pitch : 1, to.size, from.size,
                  from.value, from.pitch, to.slope, to.pitch, side && add_right);
  }
  __syncwarp();
}

template <class A>
__device__ inline A warp_sum(A x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
  return x;
}

// The row's cotangent G (qa, qb), read once, panel by panel: G C^T to the left half, A^T G to the right;
// returns sum(G).
template <int TALL, class G, class A>
__device__ inline A contract_root(const Plan& plan, const Scratch<A>& own, const G* __restrict__ cotangent) {
  const Node &root = plan.nodes[plan.root], &left = plan.nodes[root.left], &right = plan.nodes[root.right];
  const int pitch = plan.panel_pitch;
  A total = 0;
  for (int first = 0; first < left.size; first += plan.panel_rows) {
    const int rows = min(plan.panel_rows, left.size - first);
    for (int e = own.lane; e < rows * right.size; e += 32) {
      const int a = quotient(e, right.per_size), column = first * right.size + e;
      const A g = column < plan.columns ? widen(cotangent[column]) : A(0);
      own.panel[a * pitch + e - a * right.size] = g;
      total += g;
    }
    __syncwarp();
    Half<A> rows_of_left = half_of(own, left);
    rows_of_left.value += first;
    rows_of_left.slope += first;
    rows_of_left.size = rows;
    contract_halves<TALL>(own.lane, plan.rank, own.panel, 0, pitch, rows_of_left, half_of(own, right),
                          first > 0);
  }
  return warp_sum(total);
}

// The same for an inner node i, whose cotangent differs from term to term.
template <class A>
__device__ inline void contract_node(const Plan& plan, const Scratch<A>& own, int i) {
  const Node &node = plan.nodes[i], &left = plan.nodes[node.left], &right = plan.nodes[node.right];
  contract_halves<1>(own.lane, plan.rank, own.slope + node.offset, node.pitch, right.size, half_of(own, left),
                     half_of(own, right), false);
}

// Coefficients of LayerNorm's backward at node i with children a, b, whose cotangent G sums to g0:
//     da = s (u - h sum(b) - c a (b.b)),  u = G b,  t = a.u,  c = s^2 (t - m g0) / Q,  h = g0 / Q - c m,
// and db likewise.
template <class A>
__device__ inline Backward<A> backward_of(const Plan& plan, const Scratch<A>& own, int i, int k, A g0) {
  const Node &node = plan.nodes[i], &left = plan.nodes[node.left], &right = plan.nodes[node.right];
  const Moments<A> z = own.moments[i * plan.rank + k];
  const Moments<A> a = own.moments[node.left * plan.rank + k], b = own.moments[node.right * plan.rank + k];
  A t = 0;
#pragma unroll 1
  for (int j = 0; j < left.size; ++j)
    t += own.value[left.offset + k * left.pitch + j] * own.slope[left.offset + k * left.pitch + j];
  const A c = z.scale * z.scale * (t - z.shift * g0) / node.size, h = g0 / node.size - c * z.shift;
  const A a_square = left.size * (a.variance + a.mean * a.mean),
          b_square = right.size * (b.variance + b.mean * b.mean);
  return {z.scale, z.scale * c * b_square, z.scale * h * right.size * b.mean, z.scale * c * a_square,
          z.scale * h * left.size * a.mean};
}

template <class A>
__device__ inline void apply_backward(const Plan& plan, const Scratch<A>& own, const Node& child,
                                      bool is_left) {
#pragma unroll 1
  for (int e = own.lane; e < plan.rank * child.size; e += 32) {
    const int k = quotient(e, child.per_size), at = child.offset + k * child.pitch + e - k * child.size;
    const Backward<A> by = own.backward[k];
    own.slope[at] = by.scale * own.slope[at] - (is_left ? by.left_gain : by.right_gain) * own.value[at]
                    - (is_left ? by.left_bias : by.right_bias);
  }
}

// Pull the products u = G b and w = G^T a, which the children of node i hold, back through its LayerNorm.
// The root's cotangent, of sum `total`, is that of every term; an inner node's lies in its slope.
template <class A>
__device__ inline void normalise_backward(const Plan& plan, const Scratch<A>& own, int i, A total) {
  const Node& node = plan.nodes[i];
#pragma unroll 1
  for (int k = own.lane; k < plan.rank; k += 32) {
    A g0 = total;
    if (i != plan.root) {
      g0 = 0;
#pragma unroll 1
      for (int j = 0; j < node.size; ++j) g0 += own.slope[node.offset + k * node.pitch + j];
    }
    own.backward[k] = backward_of(plan, own, i, k, g0);
  }
  __syncwarp();
  apply_backward(plan, own, plan.nodes[node.left], true);
  apply_backward(plan, own, plan.nodes[node.right], false);
  __syncwarp();
}

// From the cotangent of a row to the cotangents of its leaves, in the slopes of the leaves.
template <class G, class A>
__device__ inline void shrink_tree(const Plan& plan, const Scratch<A>& own, const G* cotangent) {
  const A total =
      plan.rank == 1 ? contract_root<1>(plan, own, cotangent) : contract_root<4>(plan, own, cotangent);
  if (plan.layernorm) normalise_backward(plan, own, plan.root, total);
#pragma unroll 1
  for (int i = plan.root - 1; i >= plan.order; --i) {
    if (plan.nodes[i].left < 0) continue;
    contract_node(plan, own, i);
    if (plan.layernorm) normalise_backward(plan, own, i, A(0));
  }
}

// records[row] (R, width) = the cotangents of the leaves, or with `atomic` add them to the gradients of the
// tables.
template <class A>
__device__ inline void emit(const Plan& plan, const Scratch<A>& own, A* record) {
#pragma unroll 1
  for (int e = own.lane; e < plan.rank * plan.width; e += 32) {
    const int k = quotient(e, plan.per_width), column = e - k * plan.width, n = own.owner[column];
    const Mode& mode = own.modes[n];
    const A slope = own.slope[k * plan.nodes[0].pitch + column + mode.shift];
    if (plan.atomic)
      atomicAdd(gradient_at<A>(mode, k, leaf_index(plan, own, n, k), column - mode.first_column), slope);
    else
      record[e] = slope;
  }
}

// A row with a bad index has no gradient: its record is zero, and nothing is added for it.  The cotangent comes
// in the storage type T or in the type that sums run in: rounding it to 16 bits first would lose digits.
template <class T, class G, class I>
__global__ void __launch_bounds__(MAX_THREADS, MIN_BLOCKS)
    contract(const Plan plan, const I* __restrict__ index, const G* __restrict__ cotangent,
             typename Accumulation<T>::type* records) {
  typedef typename Accumulation<T>::type A;
  KET_DYN_SHARED(shared);
  const Scratch<A> own = open_block<T, A>(plan, shared);
  const int length = plan.rank * plan.width;
  for (i64 row = first_row(); row < plan.rows; row += row_step()) {
    if (plan.keys && own.lane == 0) reinterpret_cast<I*>(plan.keys)[row] = index[row];
    if (find_leaves(plan, own, index, row)) {
      fetch_leaves<T>(plan, own);
      grow_tree(plan, own);
      shrink_tree(plan, own, cotangent + row * plan.columns);
      emit(plan, own, records + row * length);
    } else if (!plan.atomic) {
      for (int e = own.lane; e < length; e += 32) records[row * length + e] = 0;
    }
    __syncwarp();
  }
}
