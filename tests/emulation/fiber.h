// Stacks that take turns on one thread of the CPU.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || defined(CCFAST_EMULATE_UCONTEXT)
#define CCFAST_FIBER_UCONTEXT
#include <ucontext.h>
#endif

namespace ccfast::emulation {

class Fiber {
 public:
  // The stack that the caller is on.
  Fiber() = default;
  // A stack of its own. number: fibers of different numbers start at different offsets in a page, so that their
  // innermost frames do not all fall into one set of the cache.
  explicit Fiber(int number);
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Lets the next switch_to(*this) call `entry`, which must call arrived() first and never return.
  void prepare(void (*entry)());
  // Goes on in `to`, and comes back when another fiber switches here. Unless `for_good`: then this one is done.
  void switch_to(Fiber& to, bool for_good = false);
  void arrived();
  // Tells AddressSanitizer that the frames on this stack are gone, although nobody returned from them.
  void forget_frames();

 private:
  char* bottom_ = nullptr;
  size_t size_ = 0;
  char* top_ = nullptr;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
#ifdef CCFAST_FIBER_UCONTEXT
  ucontext_t context_ = {};
#else
  void* stack_pointer_ = nullptr;
#endif
};

}  // namespace ccfast::emulation
