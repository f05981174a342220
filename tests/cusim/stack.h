// Switching from one stack to another on the same CPU thread.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <ucontext.h>

#if defined(__x86_64__)

// Saves what a called function must preserve on the running stack, its top in *save, and takes up the
// stack `load`. swapcontext does the same with two system calls, and the sanitizers have wrapped it in
// guesses of their own.
extern "C" void cusim_switch(void** save, void* load);
asm(R"(
  .text
  .hidden cusim_switch
  .globl cusim_switch
  .type cusim_switch, @function
cusim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size cusim_switch, .-cusim_switch
)");

namespace cusim {

struct Context {
  void* top;
};

inline void make_context(Context* context, char* stack, size_t bytes, void (*main)()) {
  // Six registers, the address to return to, and a word so that the stack is aligned as after a call.
  void** top = reinterpret_cast<void**>(stack + bytes) - 8;
  for (int i = 0; i < 8; ++i) top[i] = nullptr;
  top[6] = reinterpret_cast<void*>(main);
  context->top = top;
}

inline void switch_context(Context* from, Context* to) { cusim_switch(&from->top, to->top); }

#else

namespace cusim {

struct Context {
  ucontext_t ucontext;
};

inline void make_context(Context* context, char* stack, size_t bytes, void (*main)()) {
  getcontext(&context->ucontext);
  context->ucontext.uc_stack.ss_sp = stack;
  context->ucontext.uc_stack.ss_size = bytes;
  context->ucontext.uc_link = nullptr;
  makecontext(&context->ucontext, main, 0);
  // AddressSanitizer would forget what it knows about this stack at every switch if it saw its size.
  context->ucontext.uc_stack.ss_size = 0;
}

inline void switch_context(Context* from, Context* to) { swapcontext(&from->ucontext, &to->ucontext); }

#endif

}  // namespace cusim
