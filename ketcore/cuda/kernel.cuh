// What the kernels share: number types, the plan that the host passes by value, and the leaves of a row.
//
// Letters as in the Python files: N order, R rank, B rows, n mode, k term; table n is (R, t_n, q_n) and a
// leaf of it (R, q_n).  A record is the N leaves of one row, or their cotangents, side by side: (R, width),
// width = sum q_n.
typedef long long i64;
typedef unsigned long long u64;

struct alignas(16) Quad {
  unsigned x, y, z, w;
};

// Sixteen aligned bytes in one store, which by itself the compiler makes of a Quad only now and then.
// Streaming: what is written is not read again.
#ifdef CUSIM
inline void store_quad(void* target, Quad quad) { *static_cast<Quad*>(target) = quad; }
#else
#define KET_DYN_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
__device__ inline void store_quad(void* target, Quad quad) {
  __stcs(static_cast<uint4*>(target), make_uint4(quad.x, quad.y, quad.z, quad.w));
}
#endif

constexpr unsigned ALL_LANES = 0xffffffffu;
// Three blocks of 256 threads on a multiprocessor leave 80 registers a thread, with which nothing spills;
// without a number of blocks the compiler aims at fewer registers and spills a few.
constexpr int MAX_THREADS = 256, MIN_BLOCKS = 3;

// ---- numbers: storage types, and the type that sums run in ----

struct float16 {
  unsigned short bits;
};

struct bfloat16 {
  unsigned short bits;
};

template <class T>
struct Accumulation {
  typedef T type;
};

template <>
struct Accumulation<float16> {
  typedef float type;
};

template <>
struct Accumulation<bfloat16> {
  typedef float type;
};

union Word {
  unsigned bits;
  float real;
};

union DoubleWord {
  unsigned bits[2];
  double real;
};

__device__ inline float to_float(unsigned bits) {
  Word word;
  word.bits = bits;
  return word.real;
}

__device__ inline unsigned to_bits(float real) {
  Word word;
  word.real = real;
  return word.bits;
}

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(bfloat16 x) { return to_float(unsigned(x.bits) << 16); }

// The exponent moves by 127 - 15.  A subnormal gets the exponent of the least normal, which is then
// subtracted: no step makes a subnormal float, which -ftz=true would flush.
__device__ inline float widen(float16 x) {
  const unsigned sign = unsigned(x.bits & 0x8000) << 16, magnitude = unsigned(x.bits & 0x7fff) << 13;
  if (magnitude >= 0x7c00u << 13) return to_float(sign | (magnitude + 0x70000000u));
  if (magnitude >= 0x0400u << 13) return to_float(sign | (magnitude + 0x38000000u));
  return to_float(sign | to_bits(to_float(magnitude + 0x38800000u) - to_float(0x38800000u)));
}

__device__ inline void narrow(float x, float& stored) { stored = x; }
__device__ inline void narrow(double x, double& stored) { stored = x; }

// Both round to nearest, ties to even, and keep NaN.
__device__ inline void narrow(float x, bfloat16& stored) {
  const unsigned bits = to_bits(x);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  stored.bits = (unsigned short)(nan ? (bits >> 16) | 0x40u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

__device__ inline void narrow(float x, float16& stored) {
  const unsigned bits = to_bits(x), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  unsigned half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x47800000u) {  // 2**16 and above
    half = 0x7c00u;
  } else if (magnitude
             < 0x38800000u) {  // below 2**-14: adding 0.5 puts the last bit of a subnormal half at 2**-24
    half = to_bits(to_float(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  stored.bits = (unsigned short)(sign | half);
}

__device__ inline float square_root(float x) { return sqrtf(x); }
__device__ inline double square_root(double x) { return sqrt(x); }

// ---- the plan: sizes, strides and addresses; structs.py has the same fields in the same order ----

constexpr int MAX_ORDER = 16;
constexpr int MAX_NODES = 2 * MAX_ORDER;

enum Kind { DIGITS, SAME, MODES, TERMS };

struct Mode {
  u64 table, gradient;    // addresses of element (0, 0, 0)
  i64 rank, row, column;  // strides of the table in elements
  i64 gradient_rank, gradient_row, gradient_column;
  i64 count, radix_weight;  // t_n; kind DIGITS: the product of the later t_n
  i64 first_sum;            // where the sums of this table begin among all sums
  int size, first_column;   // q_n; where its leaves begin in a record
  int shift, first_slot;    // column in the scratch less column in the record; first slot of `accumulate`
};

// Nodes of the tree: the N leaves, then the products with children before parents, last the root.
struct Node {
  u64 per_size;             // `inverse` of the size
  int offset, pitch, size;  // entry j of term k lies at value[offset + k * pitch + j]
  int left, right;          // children; -1 in a leaf, and in the constant 1 of an empty half
  int unused;
};

struct Plan {
  i64 rows, columns, bound;  // B, length of an output row, valid ids are below `bound`
  i64 chunk, chunks, sums;   // rows a chunk, number of chunks, entries of all tables
  double eps;
  u64 per_width;
  u64 keys;  // where `contract` copies the index for a sort, or 0
  int order, rank, width, kind;
  int root, layernorm, kept, vector;  // kept: entries of the left half within the columns; 16-byte stores
  int staged, atomic;                 // tables are copied to shared memory; gradients are added with atomics
  int panel_rows, panel_pitch;
  int digit_tile, slots;                               // of `accumulate`
  int owner, scratch, scratch_size, staging;           // byte offsets in shared memory; scratch is per warp
  int slope, panel, moments, backward, digit;          // byte offsets in a warp's scratch
  float single_eps;                                    // eps for sums in float
  Mode modes[MAX_ORDER];
  Node nodes[MAX_NODES];
};

// structs.py asserts the same number, so that the two descriptions cannot drift apart unnoticed.
static_assert(sizeof(Plan) == 2856, "the layout of Plan");

// e / d for inverse = 2**32 / d + 1, exact while e * d < 2**32, which the host sees to.
__device__ inline unsigned quotient(unsigned e, u64 inverse) { return unsigned((e * inverse) >> 32); }

// ---- which leaf.  Tables have less than 2**31 rows, ids may be larger ----

template <class I>
__device__ inline I valid_or_minus_one(I index, i64 bound) {
  return index >= 0 && index < bound ? index : I(-1);
}

// The leaf that `row` takes from mode n in every term, or -1 where its index is bad; not for kind TERMS.
template <class I>
__device__ inline int leaf_of(const Plan& plan, const Mode& mode, int n, const I* index, i64 row) {
  if (plan.kind == MODES) return int(valid_or_minus_one(index[n * plan.rows + row], mode.count));
  const i64 id = valid_or_minus_one(index[row], plan.bound);
  return int(id < 0 || plan.kind == SAME ? id : id / mode.radix_weight % mode.count);
}

// Kind TERMS: the leaf that `row` takes from mode n in term k, or -1.
template <class I>
__device__ inline int leaf_of_term(const Plan& plan, const Mode& mode, int n, int k, const I* index,
                                   i64 row) {
  return int(valid_or_minus_one(index[(i64(n) * plan.rank + k) * plan.rows + row], mode.count));
}

// Entry (k, leaf, j) of the gradient of a table.
template <class A>
__device__ inline A* gradient_at(const Mode& mode, int k, int leaf, int j) {
  return reinterpret_cast<A*>(mode.gradient) + k * mode.gradient_rank + leaf * mode.gradient_row
         + j * mode.gradient_column;
}

// ---- a warp and its row: the nodes of the tree over its leaves, in the warp's part of shared memory ----
//
// Loops run over flat numbers e, lane by lane, with a barrier of the warp after each.  `unroll 1` stands at
// loops that run once or twice: unrolled they cost registers and compile time.
//
// With LayerNorm a node over children a and b is z = (a (x) b - m) s, with
//     m = m_a m_b,  v = v_a v_b + v_a m_b^2 + v_b m_a^2,  s = (v + eps)^-1/2,
// so z has mean 0 and variance v s^2.

template <class A>
struct Moments {
  A mean, variance;  // of the vector in the node
  A shift, scale;    // m and s with which it was normalised; unused in leaves
};

// LayerNorm backward is affine: cotangent = scale * cotangent - gain * value - bias, for either child.
template <class A>
struct Backward {
  A scale, left_gain, left_bias, right_gain, right_bias;
};

// Nodes, their cotangents, a panel of the row's cotangent, what LayerNorm needs, and the index of each leaf.
template <class A>
struct Scratch {
  A *value, *slope, *panel;
  Moments<A>* moments;
  Backward<A>* backward;
  int* digit;
  const Mode* modes;  // of the whole block, with the tables' copies in shared memory if they were staged
  const unsigned char* owner;  // of the whole block: the mode that a column of a record belongs to
  int lane;
};

__device__ inline i64 first_row() { return i64(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; }
__device__ inline i64 row_step() { return i64(gridDim.x) * (blockDim.x / 32); }

// ---- what a block does once ----

// Copy table n to `target` as (t_n, R, q_n), and let `mode` describe the copy.
template <class T>
__device__ inline void stage_table(const Mode& source, int rank, T* target, Mode& mode) {
  const T* table = reinterpret_cast<const T*>(source.table);
  const unsigned leaf = rank * source.size, total = unsigned(source.count) * leaf;
#pragma unroll 1
  for (unsigned e = threadIdx.x; e < total; e += blockDim.x) {
    const unsigned d = e / leaf, k = (e - d * leaf) / source.size, j = e % source.size;
    target[e] = table[k * source.rank + d * source.row + j * source.column];
  }
  if (threadIdx.x == 0) {
    mode.table = reinterpret_cast<u64>(target);
    mode.rank = source.size;
    mode.row = leaf;
    mode.column = 1;
  }
}

// Fill what the warps of the block share, and return this warp's scratch.  All threads must call it.
template <class T, class A>
__device__ inline Scratch<A> open_block(const Plan& plan, unsigned char* shared) {
  Mode* modes = reinterpret_cast<Mode*>(shared);
#pragma unroll 1
  for (int n = threadIdx.x; n < plan.order; n += blockDim.x) modes[n] = plan.modes[n];
#pragma unroll 1
  for (int n = 0; n < plan.order; ++n)
#pragma unroll 1
    for (int j = threadIdx.x; j < plan.modes[n].size; j += blockDim.x)
      shared[plan.owner + plan.modes[n].first_column + j] = (unsigned char)n;
  if (plan.staged) {
    __syncthreads();
    T* target = reinterpret_cast<T*>(shared + plan.staging);
#pragma unroll 1
    for (int n = 0; n < plan.order; ++n) {
      stage_table(plan.modes[n], plan.rank, target, modes[n]);
      target += plan.modes[n].count * plan.rank * plan.modes[n].size;
    }
  }
  __syncthreads();
  unsigned char* own = shared + plan.scratch + threadIdx.x / 32 * plan.scratch_size;
  return {reinterpret_cast<A*>(own),
          reinterpret_cast<A*>(own + plan.slope),
          reinterpret_cast<A*>(own + plan.panel),
          reinterpret_cast<Moments<A>*>(own + plan.moments),
          reinterpret_cast<Backward<A>*>(own + plan.backward),
          reinterpret_cast<int*>(own + plan.digit),
          modes,
          shared + plan.owner,
          int(threadIdx.x % 32)};
}

// ---- the tree, forward ----

// Find the leaves of `row`; false, in every lane, if an index is bad.
template <class A, class I>
__device__ inline bool find_leaves(const Plan& plan, const Scratch<A>& own, const I* index, i64 row) {
  const int terms = plan.kind == TERMS ? plan.rank : 1;
  bool bad = false;
#pragma unroll 1
  for (int e = own.lane; e < plan.order * terms; e += 32) {
    const int n = e / terms;
    const int leaf = plan.kind == TERMS ? leaf_of_term(plan, own.modes[n], n, e - n * terms, index, row)
                                        : leaf_of(plan, own.modes[n], n, index, row);
    own.digit[e] = leaf;
    bad |= leaf < 0;
  }
  bad = __any_sync(ALL_LANES, bad);
  __syncwarp();
  return !bad;
}

template <class A>
__device__ inline int leaf_index(const Plan& plan, const Scratch<A>& own, int n, int k) {
  return own.digit[plan.kind == TERMS ? n * plan.rank + k : n];
}

// Copy the leaves of a row to the scratch: lane by lane along the record.
template <class T, class A>
__device__ inline void fetch_leaves(const Plan& plan, const Scratch<A>& own) {
#pragma unroll 1
  for (int e = own.lane; e < plan.rank * plan.width; e += 32) {
    const int k = quotient(e, plan.per_width), column = e - k * plan.width, n = own.owner[column];
    const Mode& mode = own.modes[n];
    const i64 at =
        k * mode.rank + leaf_index(plan, own, n, k) * mode.row + (column - mode.first_column) * mode.column;
    own.value[k * plan.nodes[0].pitch + column + mode.shift] =
        widen(reinterpret_cast<const T*>(mode.table)[at]);
  }
  __syncwarp();
}

// Mean and variance of every leaf in two passes; a lane takes one leaf of one term.
template <class A>
__device__ inline void leaf_moments(const Plan& plan, const Scratch<A>& own) {
#pragma unroll 1
  for (int e = own.lane; e < plan.order * plan.rank; e += 32) {
    const int n = e / plan.rank, k = e - n * plan.rank, size = own.modes[n].size;
    const A* leaf = own.value + k * plan.nodes[0].pitch + own.modes[n].first_column + own.modes[n].shift;
    A sum = 0, squares = 0;
#pragma unroll 1
    for (int j = 0; j < size; ++j) sum += leaf[j];
    const A mean = sum / size;
#pragma unroll 1
    for (int j = 0; j < size; ++j) squares += (leaf[j] - mean) * (leaf[j] - mean);
    own.moments[e] = {mean, squares / size, A(0), A(1)};
  }
  __syncwarp();
}

// A conversion from double would be the one thing that kernels of float ask of the units for double.
template <class A>
__device__ inline A eps_of(const Plan& plan) {
  return sizeof(A) == sizeof(float) ? plan.single_eps : A(plan.eps);
}

// Moments of node i from those of its children; a lane takes one term.
template <class A>
__device__ inline void node_moments(const Plan& plan, const Scratch<A>& own, int i) {
  const Node& node = plan.nodes[i];
#pragma unroll 1
  for (int k = own.lane; k < plan.rank; k += 32) {
    const Moments<A> a = own.moments[node.left * plan.rank + k], b = own.moments[node.right * plan.rank + k];
    const A variance = a.variance * b.variance + a.variance * b.mean * b.mean + b.variance * a.mean * a.mean;
    const A shifted = variance + eps_of<A>(plan);
    own.moments[i * plan.rank + k] = {A(0), variance / shifted, a.mean * b.mean, A(1) / square_root(shifted)};
  }
  __syncwarp();
}

// The vectors of node i: products of its children, normalised with LayerNorm; ones where it has no children.
template <class A>
__device__ inline void fill_node(const Plan& plan, const Scratch<A>& own, int i) {
  const Node &node = plan.nodes[i], &left = plan.nodes[max(node.left, 0)],
             &right = plan.nodes[max(node.right, 0)];
#pragma unroll 1
  for (int e = own.lane; e < plan.rank * node.size; e += 32) {
    const int k = quotient(e, node.per_size), j = e - k * node.size;
    A z = 1;
    if (node.left >= 0) {
      const int a = quotient(j, right.per_size), b = j - a * right.size;
      z = own.value[left.offset + k * left.pitch + a] * own.value[right.offset + k * right.pitch + b];
    }
    if (plan.layernorm) z = (z - own.moments[i * plan.rank + k].shift) * own.moments[i * plan.rank + k].scale;
    own.value[node.offset + k * node.pitch + j] = z;
  }
  __syncwarp();
}

// Every node but the root, whose vectors are not formed: of it only the moments.
template <class A>
__device__ inline void grow_tree(const Plan& plan, const Scratch<A>& own) {
  if (plan.layernorm) leaf_moments(plan, own);
#pragma unroll 1
  for (int i = plan.order; i < plan.root; ++i) {
    if (plan.layernorm) node_moments(plan, own, i);
    fill_node(plan, own, i);
  }
  if (plan.layernorm) node_moments(plan, own, plan.root);
}
