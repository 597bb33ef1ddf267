// Stacks that run alternately on one thread of the CPU.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || defined(CCFAST_EMULATE_UCONTEXT)
#define CCFAST_FIBER_UCONTEXT
#include <ucontext.h>
#endif

namespace ccfast::emulation {

class Fiber {
 public:
  // The stack of the caller.
  Fiber() = default;
  // A new stack. number: fibers of different numbers start at different offsets in a page, so that their
  // innermost frames do not all fall into one set of the cache.
  explicit Fiber(int number);
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next switch_to(*this) calls `entry`, which must call arrived() first and never return.
  void prepare(void (*entry)());
  // Continues in `to`; returns when another fiber switches here. With `for_good` this fiber ends.
  void switch_to(Fiber& to, bool for_good = false);
  void arrived();
  // Tells AddressSanitizer that the frames on this stack are gone, although they did not return.
  void forget_frames();

 private:
  char* bottom_ = nullptr;
  size_t size_ = 0;
  char* top_ = nullptr;
  void* fake_stack_ = nullptr;  // owned by AddressSanitizer
#ifdef CCFAST_FIBER_UCONTEXT
  ucontext_t context_ = {};
#else
  void* stack_pointer_ = nullptr;
#endif
};

}  // namespace ccfast::emulation
