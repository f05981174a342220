// What NVRTC's report must not pass: too many live values for the registers, and an array that must lie in
// memory.

__global__ void __launch_bounds__(1024, 2) spills(const float* x, float* y, int n) {
  float kept[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) kept[i] = x[i * 1024 + threadIdx.x];
  for (int k = 0; k < n; ++k) {
    const float weight = x[k];
#pragma unroll
    for (int i = 0; i < 64; ++i) kept[i] = kept[i] * weight + kept[(i + 17) % 64];
  }
#pragma unroll
  for (int i = 0; i < 64; ++i) y[i * 1024 + threadIdx.x] = kept[i];
}

__global__ void keeps_an_array_in_memory(float* y, int n) {
  float kept[64];
  for (int i = 0; i < 64; ++i) kept[i] = y[i];
  for (int i = 0; i < n; ++i) kept[(i * 7 + n) & 63] += kept[(i * 3) & 63];
  y[0] = kept[n & 63];
}
