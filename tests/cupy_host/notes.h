// What the stand-ins write down of every call that would concern a GPU, and what they are told.
#pragma once
#include <cstddef>

#define STAND_IN extern "C" __attribute__((visibility("default")))

// Notes a call.  `detail` is the name of a kernel or what else tells calls of one function apart; both texts
// must live as long as the process.
STAND_IN void stand_in_note(const char* function, const char* detail, size_t bytes, void* stream);

// Notes a call of what no stand-in provides, and makes it the text of errors to come.
STAND_IN void stand_in_refuse(const char* function);

// Makes a text that of errors to come; the texts of CUDA's own codes are not told apart.
STAND_IN void stand_in_complain(const char* text);
STAND_IN const char* stand_in_complaint();

// Whether streams are to say that a graph is being captured.
STAND_IN bool stand_in_capturing();
STAND_IN void stand_in_set_capturing(bool value);

// Graphs are kept by Python: that a capture begins, that it ends (gives the graph), that a graph (`to`) is to be
// done, and that a fill with a byte (`from`) or a copy is to be done whenever the graph is.
enum { kBeginGraph, kEndGraph, kLaunchGraph, kFill, kCopy };
STAND_IN size_t stand_in_graph(int what, void* to, const void* from, size_t bytes);

// Whether what a GPU would do is to be left out: what is left is the time of the host.
STAND_IN bool stand_in_does_nothing();
