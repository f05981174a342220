// The functions that Python calls, of one library of kernels.  Included last, after the table `kernels`.
#pragma once

#define CUSIM_EXPORT extern "C" __attribute__((visibility("default")))

CUSIM_EXPORT const char* cusim_launch(int kernel, const cusim::Launch* configuration, void** arguments) {
  return cusim::launch(kernels[kernel], *configuration, arguments);
}
CUSIM_EXPORT const char* cusim_name(int kernel) { return kernels[kernel].name; }
CUSIM_EXPORT int cusim_count(int kernel) { return kernels[kernel].count; }
CUSIM_EXPORT const cusim::Parameter* cusim_parameters(int kernel) { return kernels[kernel].parameters; }
