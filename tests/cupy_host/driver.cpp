// A stand-in for libcuda.so.1: the modules, functions and launches of CuPy's kernels.
//
// A module keeps its PTX.  A launch calls what Python has set, which gets the addresses of the arguments as
// cuLaunchKernel does.  What is not here CuPy does not find, and says so.
#include "notes.h"

#include <cxxabi.h>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

#define DRIVER STAND_IN int

namespace {

// Codes of the driver.
enum { kSuccess = 0, kInvalidValue = 1, kInvalidImage = 200, kNotFound = 500, kLaunchFailed = 719 };
constexpr int kVersion = 12090;
constexpr int kMostSharedOfAFunction = 8;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

struct Module {
  std::string ptx;
};

struct Function {
  Module* module;
  std::string symbol, name;
  int most_shared = 48 << 10;
};

struct Launch {
  const char *symbol, *name, *ptx;
  unsigned grid[3], block[3], shared;
  void* stream;
  void** arguments;
};

struct Note {
  const char *function, *detail;
  size_t bytes;
  void* stream;
};

int context;
void* current_context;
int (*launcher)(const Launch*);
size_t (*graphs)(int, void*, const void*, size_t);
bool does_nothing, is_capturing, is_noting;
std::string complaint;
std::vector<Note> notes;
// Functions live as long as the process: notes have their names.
std::deque<Function> functions;

std::string demangled(const char* symbol) {
  int status;
  char* text = abi::__cxa_demangle(symbol, nullptr, nullptr, &status);
  std::string name = text ? text : symbol;
  free(text);
  return name;
}

}  // namespace

// ---- what Python and the other stand-ins call ----

void stand_in_note(const char* function, const char* detail, size_t bytes, void* stream) {
  if (is_noting) notes.push_back({function, detail, bytes, stream});
}
void stand_in_complain(const char* text) { complaint = text; }
const char* stand_in_complaint() { return complaint.c_str(); }
void stand_in_refuse(const char* function) {
  stand_in_note(function, "refused", 0, nullptr);
  stand_in_complain((std::string(function) + " is not provided by the stand-in").c_str());
}
bool stand_in_capturing() { return is_capturing; }
bool stand_in_does_nothing() { return does_nothing; }

STAND_IN void stand_in_launcher(int (*function)(const Launch*)) { launcher = function; }
STAND_IN void stand_in_graphs(size_t (*function)(int, void*, const void*, size_t)) { graphs = function; }
size_t stand_in_graph(int what, void* to, const void* from, size_t bytes) { return graphs(what, to, from, bytes); }
STAND_IN void stand_in_do_nothing(bool value) { does_nothing = value; }
STAND_IN void stand_in_set_capturing(bool value) { is_capturing = value; }
STAND_IN void stand_in_set_noting(bool value) {
  is_noting = value;
  notes.clear();
}
STAND_IN size_t stand_in_count() { return notes.size(); }
STAND_IN const Note* stand_in_notes() { return notes.data(); }

// ---- the driver ----

DRIVER cuInit(unsigned) { return kSuccess; }
DRIVER cuDriverGetVersion(int* version) { return *version = kVersion, kSuccess; }
DRIVER cuDeviceGet(int* device, int ordinal) { return *device = ordinal, kSuccess; }
DRIVER cuDeviceGetCount(int* count) { return *count = 1, kSuccess; }
DRIVER cuDeviceGetAttribute(int* value, int, int) { return *value = 0, kSuccess; }
DRIVER cuDevicePrimaryCtxRetain(void** found, int) { return *found = &context, kSuccess; }
DRIVER cuCtxGetCurrent(void** found) { return *found = current_context, kSuccess; }
DRIVER cuCtxSetCurrent(void* wanted) { return current_context = wanted, kSuccess; }
DRIVER cuCtxGetDevice(int* device) { return *device = 0, kSuccess; }
DRIVER cuGetErrorName(int, const char** name) { return *name = "CUDA_ERROR_OF_THE_STAND_IN", kSuccess; }
DRIVER cuGetErrorString(int, const char** text) { return *text = complaint.c_str(), kSuccess; }

// NVRTC and the runtime that is linked into CuPy's thrust and CUB ask for these, and take no for an answer.
DRIVER cuGetExportTable(const void** table, const void*) { return *table = nullptr, kNotFound; }
DRIVER cuGetProcAddress(const char*, void** found, int, unsigned long long) { return *found = nullptr, kNotFound; }
DRIVER cuGetProcAddress_v2(const char*, void** found, int, unsigned long long, int*) {
  return *found = nullptr, kNotFound;
}

DRIVER cuModuleLoadData(void** module, const void* image) {
  if (!memcmp(image, "\177ELF", 4)) {
    stand_in_complain("the stand-in takes PTX and no machine code: CUPY_COMPILE_WITH_PTX must be 1");
    return kInvalidImage;
  }
  return *module = new Module{static_cast<const char*>(image)}, kSuccess;
}
// Functions of a module may be launched until the process ends, and say what its PTX was.
DRIVER cuModuleUnload(void*) { return kSuccess; }

DRIVER cuModuleGetFunction(void** function, void* of, const char* symbol) {
  Module* module = static_cast<Module*>(of);
  if (module->ptx.find(std::string(".entry ") + symbol + "(") == std::string::npos) return kNotFound;
  functions.push_back({module, symbol, demangled(symbol)});
  return *function = &functions.back(), kSuccess;
}

DRIVER cuFuncGetAttribute(int* value, int attribute, void* function) {
  *value = attribute == kMostSharedOfAFunction ? static_cast<Function*>(function)->most_shared : 0;
  return kSuccess;
}
DRIVER cuFuncSetAttribute(void* function, int attribute, int value) {
  if (attribute == kMostSharedOfAFunction) static_cast<Function*>(function)->most_shared = value;
  return kSuccess;
}

DRIVER cuLaunchKernel(void* of, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** arguments, void**) {
  const Function* function = static_cast<Function*>(of);
  stand_in_note("cuLaunchKernel", function->name.c_str(), 0, stream);
  if (int(shared) > function->most_shared || !grid_x || block_x * block_y * block_z > 1024) {
    stand_in_complain("a launch of no blocks, of too many threads, or of more shared memory than was asked for");
    return kInvalidValue;
  }
  if (does_nothing) return kSuccess;
  const Launch launch = {function->symbol.c_str(),        function->name.c_str(),
                         function->module->ptx.c_str(),   {grid_x, grid_y, grid_z},
                         {block_x, block_y, block_z},     shared,
                         stream,                          arguments};
  if (launcher) return launcher(&launch);
  stand_in_complain("nothing runs kernels");
  return kLaunchFailed;
}
