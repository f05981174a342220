// A stand-in for the CUDA runtime on the memory of the host, linked into CuPy's own binding of it.
//
// What is not here is made from the names that the binding asks for, and refuses.  Every call is done when it
// returns.  While streams say that a graph is being captured, what CUDA forbids then fails as it does there.
#include "notes.h"

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>

#define RUNTIME extern "C" cudaError_t

namespace {

constexpr int kVersion = 12090;
constexpr size_t kMemory = size_t(8) << 30;
// What cudaMalloc aligns to.
constexpr size_t kAlignment = 512;
constexpr int kMostShared = 48 << 10, kMostSharedOptedIn = 227 << 10;

size_t next_handle = 0x1000;
std::map<cudaEvent_t, std::chrono::steady_clock::time_point> recorded;
// Whether what is captured may give memory to arrays.
bool is_relaxed = false;

template <class T>
cudaError_t new_handle(T* handle) {
  *handle = reinterpret_cast<T>(next_handle += 16);
  return cudaSuccess;
}

// Notes a call that CUDA forbids during a capture, and says whether there is one.
cudaError_t forbidden_in_a_capture(const char* function, size_t bytes = 0, void* stream = nullptr) {
  stand_in_note(function, "", bytes, stream);
  if (!stand_in_capturing()) return cudaSuccess;
  stand_in_complain("operation not permitted when stream is capturing");
  return cudaErrorStreamCaptureUnsupported;
}

const char* direction(cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToDevice:
      return "from the host";
    case cudaMemcpyDeviceToHost:
      return "to the host";
    case cudaMemcpyDeviceToDevice:
      return "on the device";
    default:
      return "unknown";
  }
}

cudaError_t attribute(int* value, cudaDeviceAttr which) {
  switch (which) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
      return *value = 1024, cudaSuccess;
    case cudaDevAttrMaxBlockDimZ:
      return *value = 64, cudaSuccess;
    case cudaDevAttrMaxGridDimX:
      return *value = 0x7fffffff, cudaSuccess;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      return *value = 0xffff, cudaSuccess;
    case cudaDevAttrWarpSize:
      return *value = 32, cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      return *value = 132, cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      return *value = 9, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return *value = kMostShared, cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return *value = kMostSharedOptedIn, cudaSuccess;
    default:
      return *value = 0, cudaSuccess;
  }
}

}  // namespace

// ---- errors and the device ----

RUNTIME cudaGetLastError() { return cudaSuccess; }
extern "C" const char* cudaGetErrorName(cudaError_t) { return "cudaErrorOfTheStandIn"; }
extern "C" const char* cudaGetErrorString(cudaError_t) { return stand_in_complaint(); }
RUNTIME cudaDriverGetVersion(int* version) { return *version = kVersion, cudaSuccess; }
RUNTIME cudaRuntimeGetVersion(int* version) { return *version = kVersion, cudaSuccess; }
RUNTIME cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
RUNTIME cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
RUNTIME cudaSetDevice(int device) { return device ? cudaErrorInvalidDevice : cudaSuccess; }
RUNTIME cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) { return attribute(value, which); }
RUNTIME cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 0, cudaSuccess; }
RUNTIME cudaDeviceSynchronize() { return forbidden_in_a_capture("cudaDeviceSynchronize"); }
RUNTIME cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  strcpy(properties->name, "no GPU, stand-ins on the host");
  properties->major = 9;
  properties->warpSize = 32;
  properties->multiProcessorCount = 132;
  properties->maxThreadsPerBlock = 1024;
  properties->totalGlobalMem = kMemory;
  properties->sharedMemPerBlock = kMostShared;
  properties->sharedMemPerBlockOptin = kMostSharedOptedIn;
  return cudaSuccess;
}

// ---- memory: new memory is full of NaN, and exact in size ----

RUNTIME cudaMalloc(void** pointer, size_t bytes) {
  cudaError_t error = forbidden_in_a_capture("cudaMalloc", bytes);
  if (error && !is_relaxed) return error;
  if (posix_memalign(pointer, kAlignment, bytes ? bytes : 1)) return cudaErrorMemoryAllocation;
  memset(*pointer, 0xff, bytes);
  return cudaSuccess;
}
RUNTIME cudaFree(void* pointer) {
  stand_in_note("cudaFree", "", 0, nullptr);
  free(pointer);
  return cudaSuccess;
}
RUNTIME cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  *pointer = malloc(bytes ? bytes : 1);
  return *pointer ? cudaSuccess : cudaErrorMemoryAllocation;
}
RUNTIME cudaFreeHost(void* pointer) { return free(pointer), cudaSuccess; }
RUNTIME cudaMemGetInfo(size_t* free_bytes, size_t* bytes) {
  *free_bytes = *bytes = kMemory;
  return cudaSuccess;
}
RUNTIME cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  *attributes = {};
  attributes->type = cudaMemoryTypeDevice;
  attributes->devicePointer = const_cast<void*>(pointer);
  return cudaSuccess;
}
RUNTIME cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (cudaError_t error = forbidden_in_a_capture("cudaMemcpy", bytes)) return error;
  memmove(to, from, bytes);
  return cudaSuccess;
}
RUNTIME cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  stand_in_note("cudaMemcpyAsync", direction(kind), bytes, stream);
  if (kind == cudaMemcpyDeviceToDevice && stand_in_does_nothing()) return cudaSuccess;
  if (stand_in_capturing())
    stand_in_graph(kCopy, to, from, bytes);
  else
    memmove(to, from, bytes);
  return cudaSuccess;
}
RUNTIME cudaMemset(void* to, int value, size_t bytes) {
  if (cudaError_t error = forbidden_in_a_capture("cudaMemset", bytes)) return error;
  memset(to, value, bytes);
  return cudaSuccess;
}
RUNTIME cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  stand_in_note("cudaMemsetAsync", "", bytes, stream);
  if (stand_in_does_nothing()) return cudaSuccess;
  if (stand_in_capturing())
    stand_in_graph(kFill, to, reinterpret_cast<void*>(size_t(value)), bytes);
  else
    memset(to, value, bytes);
  return cudaSuccess;
}

// ---- streams and events ----

RUNTIME cudaStreamCreate(cudaStream_t* stream) { return new_handle(stream); }
RUNTIME cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return new_handle(stream); }
RUNTIME cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) { return new_handle(stream); }
RUNTIME cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
RUNTIME cudaStreamQuery(cudaStream_t stream) { return forbidden_in_a_capture("cudaStreamQuery", 0, stream); }
RUNTIME cudaStreamSynchronize(cudaStream_t stream) {
  return forbidden_in_a_capture("cudaStreamSynchronize", 0, stream);
}
RUNTIME cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = stand_in_capturing() ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
RUNTIME cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
RUNTIME cudaEventCreate(cudaEvent_t* event) { return new_handle(event); }
RUNTIME cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return new_handle(event); }
RUNTIME cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
RUNTIME cudaEventQuery(cudaEvent_t) { return forbidden_in_a_capture("cudaEventQuery"); }
RUNTIME cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  recorded[event] = std::chrono::steady_clock::now();
  return cudaSuccess;
}
RUNTIME cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(recorded[end] - recorded[start]).count();
  return cudaSuccess;
}
RUNTIME cudaEventSynchronize(cudaEvent_t) { return forbidden_in_a_capture("cudaEventSynchronize"); }

// ---- graphs: what is captured is done when the graph is launched ----

RUNTIME cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode mode) {
  is_relaxed = mode == cudaStreamCaptureModeRelaxed;
  stand_in_set_capturing(true);
  stand_in_graph(kBeginGraph, nullptr, nullptr, 0);
  return cudaSuccess;
}
RUNTIME cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  is_relaxed = false;
  stand_in_set_capturing(false);
  *graph = reinterpret_cast<cudaGraph_t>(stand_in_graph(kEndGraph, nullptr, nullptr, 0));
  return cudaSuccess;
}
RUNTIME cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  return *made = reinterpret_cast<cudaGraphExec_t>(graph), cudaSuccess;
}
RUNTIME cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  stand_in_note("cudaGraphLaunch", "", 0, stream);
  // 0 where all of it went well, as the launch of a kernel.
  return stand_in_graph(kLaunchGraph, graph, nullptr, 0) ? cudaErrorLaunchFailure : cudaSuccess;
}
RUNTIME cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; }
RUNTIME cudaGraphExecDestroy(cudaGraphExec_t) { return cudaSuccess; }
