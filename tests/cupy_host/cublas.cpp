// A stand-in for libcublas.so.12: products of matrices in the memory of the host, by their definition.
//
// Called by CuPy's own binding.  Matrices lie by columns; scalars are read on the host, the only mode that
// this has.  What is not here is made from the names that the binding asks for, and refuses.
#include "notes.h"

#include <complex>

#define CUBLAS STAND_IN int

namespace {

enum { kSuccess = 0, kInvalidValue = 7, kNotSupported = 15 };
constexpr int kVersion = 120900;

struct Handle {
  void* stream;
};

template <class T>
T conjugate(T value) {
  return value;
}
template <class T>
std::complex<T> conjugate(std::complex<T> value) {
  return std::conj(value);
}

// A matrix as it is (0), transposed (1) or conjugated and transposed (2).
template <class T>
struct Operand {
  const T* values;
  int operation;
  long long pitch;

  T operator()(int row, int column) const {
    if (operation == 0) return values[row + column * pitch];
    const T value = values[column + row * pitch];
    return operation == 1 ? value : conjugate(value);
  }
};

// C = alpha A B + beta C, and C is not read where beta is 0.
template <class T>
void product(int m, int n, int k, T alpha, Operand<T> a, Operand<T> b, T beta, T* c, int pitch) {
  for (int column = 0; column < n; ++column)
    for (int row = 0; row < m; ++row) {
      T sum = 0;
      for (int i = 0; i < k; ++i) sum += a(row, i) * b(i, column);
      T* to = c + row + (long long)column * pitch;
      *to = beta == T(0) ? alpha * sum : alpha * sum + beta * *to;
    }
}

// Products of which `a_of(i)`, `b_of(i)` and `c_of(i)` say where the matrices lie.
template <class T, class A, class B, class C>
int products(void* handle, const char* name, int trans_a, int trans_b, int m, int n, int k, const T* alpha, A a_of,
             int lda, B b_of, int ldb, const T* beta, C c_of, int ldc, int count) {
  stand_in_note(name, "", 0, static_cast<Handle*>(handle)->stream);
  if (lda < (trans_a ? k : m) || ldb < (trans_b ? n : k) || ldc < m || lda < 1 || ldb < 1 || ldc < 1 || m < 0 ||
      n < 0 || k < 0 || count < 0)
    return kInvalidValue;
  if (stand_in_does_nothing()) return kSuccess;
  for (int i = 0; i < count; ++i)
    product<T>(m, n, k, *alpha, {a_of(i), trans_a, lda}, {b_of(i), trans_b, ldb}, *beta, c_of(i), ldc);
  return kSuccess;
}

template <class T>
int strided(void* handle, const char* name, int trans_a, int trans_b, int m, int n, int k, const T* alpha, const T* a,
            int lda, long long step_a, const T* b, int ldb, long long step_b, const T* beta, T* c, int ldc,
            long long step_c, int count) {
  const auto steps = [](auto* first, long long step) { return [=](int i) { return first + i * step; }; };
  return products<T>(handle, name, trans_a, trans_b, m, n, k, alpha, steps(a, step_a), lda, steps(b, step_b), ldb,
                     beta, steps(c, step_c), ldc, count);
}

// The same for types that are told as cudaDataType: all of one, and sums in it.
int strided_of(int type_a, int type_b, int type_c, void* handle, const char* name, int trans_a, int trans_b, int m,
               int n, int k, const void* alpha, const void* a, int lda, long long step_a, const void* b, int ldb,
               long long step_b, const void* beta, void* c, int ldc, long long step_c, int count) {
  if (type_a != type_b || type_a != type_c) return stand_in_refuse(name), kNotSupported;
  const auto run = [&](auto zero) {
    using T = decltype(zero);
    const auto typed = [](const void* pointer) { return static_cast<const T*>(pointer); };
    return strided<T>(handle, name, trans_a, trans_b, m, n, k, typed(alpha), typed(a), lda, step_a, typed(b), ldb,
                      step_b, typed(beta), static_cast<T*>(c), ldc, step_c, count);
  };
  switch (type_a) {
    case 0:
      return run(float());
    case 1:
      return run(double());
    case 4:
      return run(std::complex<float>());
    case 5:
      return run(std::complex<double>());
  }
  return stand_in_refuse(name), kNotSupported;
}

}  // namespace

CUBLAS cublasCreate_v2(Handle** handle) { return *handle = new Handle{nullptr}, kSuccess; }
CUBLAS cublasDestroy_v2(Handle* handle) { return delete handle, kSuccess; }
CUBLAS cublasGetVersion_v2(Handle*, int* version) { return *version = kVersion, kSuccess; }
CUBLAS cublasSetStream_v2(Handle* handle, void* stream) { return handle->stream = stream, kSuccess; }
CUBLAS cublasGetStream_v2(Handle* handle, void** stream) { return *stream = handle->stream, kSuccess; }
CUBLAS cublasGetMathMode(Handle*, int* mode) { return *mode = 0, kSuccess; }
CUBLAS cublasSetMathMode(Handle*, int) { return kSuccess; }
CUBLAS cublasGetPointerMode_v2(Handle*, int* mode) { return *mode = 0, kSuccess; }
CUBLAS cublasSetPointerMode_v2(Handle*, int mode) { return mode ? kNotSupported : kSuccess; }

#define PRODUCTS(letter, T)                                                                                         \
  CUBLAS cublas##letter##gemm_v2(void* handle, int trans_a, int trans_b, int m, int n, int k, const T* alpha,       \
                                 const T* a, int lda, const T* b, int ldb, const T* beta, T* c, int ldc) {          \
    return strided<T>(handle, "cublas" #letter "gemm", trans_a, trans_b, m, n, k, alpha, a, lda, 0, b, ldb, 0,      \
                      beta, c, ldc, 0, 1);                                                                          \
  }                                                                                                                 \
  CUBLAS cublas##letter##gemmStridedBatched(void* handle, int trans_a, int trans_b, int m, int n, int k,            \
                                            const T* alpha, const T* a, int lda, long long step_a, const T* b,      \
                                            int ldb, long long step_b, const T* beta, T* c, int ldc,                \
                                            long long step_c, int count) {                                          \
    return strided<T>(handle, "cublas" #letter "gemmStridedBatched", trans_a, trans_b, m, n, k, alpha, a, lda,      \
                      step_a, b, ldb, step_b, beta, c, ldc, step_c, count);                                         \
  }                                                                                                                 \
  CUBLAS cublas##letter##gemmBatched(void* handle, int trans_a, int trans_b, int m, int n, int k, const T* alpha,   \
                                     const T* const* a, int lda, const T* const* b, int ldb, const T* beta,         \
                                     T* const* c, int ldc, int count) {                                             \
    const auto listed = [](auto* list) { return [=](int i) { return list[i]; }; };                                  \
    return products<T>(handle, "cublas" #letter "gemmBatched", trans_a, trans_b, m, n, k, alpha, listed(a), lda,    \
                       listed(b), ldb, beta, listed(c), ldc, count);                                                \
  }
PRODUCTS(S, float)
PRODUCTS(D, double)
PRODUCTS(C, std::complex<float>)
PRODUCTS(Z, std::complex<double>)

CUBLAS cublasGemmEx(void* handle, int trans_a, int trans_b, int m, int n, int k, const void* alpha, const void* a,
                    int type_a, int lda, const void* b, int type_b, int ldb, const void* beta, void* c, int type_c,
                    int ldc, int, int) {
  return strided_of(type_a, type_b, type_c, handle, "cublasGemmEx", trans_a, trans_b, m, n, k, alpha, a, lda, 0, b,
                    ldb, 0, beta, c, ldc, 0, 1);
}
CUBLAS cublasGemmStridedBatchedEx(void* handle, int trans_a, int trans_b, int m, int n, int k, const void* alpha,
                                  const void* a, int type_a, int lda, long long step_a, const void* b, int type_b,
                                  int ldb, long long step_b, const void* beta, void* c, int type_c, int ldc,
                                  long long step_c, int count, int, int) {
  return strided_of(type_a, type_b, type_c, handle, "cublasGemmStridedBatchedEx", trans_a, trans_b, m, n, k, alpha,
                    a, lda, step_a, b, ldb, step_b, beta, c, ldc, step_c, count);
}
