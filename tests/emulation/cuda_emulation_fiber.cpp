#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#include "asan.h"
#include "fiber.h"

#ifndef CCFAST_FIBER_UCONTEXT
// Saves the stack pointer to *save and continues at `load`. swapcontext would need two system calls per switch.
// Saves only the callee-saved registers, on the stack: the compiler saves the rest.
extern "C" void ccfast_switch_stack(void** save, void* load);
asm(R"(
  .text
  .p2align 4
  .globl ccfast_switch_stack
  .hidden ccfast_switch_stack
  .type ccfast_switch_stack, @function
ccfast_switch_stack:
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
  .size ccfast_switch_stack, . - ccfast_switch_stack
)");
#endif

namespace ccfast::emulation {
namespace {

#ifdef CCFAST_ASAN
constexpr size_t kStackBytes = 256 * 1024;  // red zones make frames larger
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif
constexpr size_t kOffsets = 16, kOffsetBytes = 256;

// The fiber that made the latest switch.
Fiber* previous = nullptr;

}  // namespace

// Stacks are created once and reused: a launch needs one per waiting thread. The page below a stack cannot be
// touched, so that an overflow stops at once.
Fiber::Fiber(int number) : size_(kStackBytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  void* memory = mmap(nullptr, page + size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) throw std::bad_alloc();
  bottom_ = static_cast<char*>(memory) + page;
  top_ = bottom_ + size_ - static_cast<size_t>(number) % kOffsets * kOffsetBytes;
}

#ifdef CCFAST_FIBER_UCONTEXT

void Fiber::prepare(void (*entry)()) {
  getcontext(&context_);
  context_.uc_stack.ss_sp = bottom_;
  context_.uc_stack.ss_size = static_cast<size_t>(top_ - bottom_);
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
  fake_stack_ = nullptr;
}

#else

void Fiber::prepare(void (*entry)()) {
  // What ccfast_switch_stack pops: six registers and the address to go on at. Above them a return address of 0, where a
  // debugger ends its walk. At its first instruction, entry then finds the stack as after a call: 8 beyond 16 bytes.
  void** frame = reinterpret_cast<void**>(top_) - 8;
  for (int i = 0; i < 8; ++i) frame[i] = nullptr;
  frame[6] = reinterpret_cast<void*>(entry);
  stack_pointer_ = frame;
  fake_stack_ = nullptr;
}

#endif

void Fiber::switch_to(Fiber& to, bool for_good) {
  previous = this;
#ifdef CCFAST_ASAN
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack_, to.bottom_, to.size_);
#endif
  (void)for_good;
#ifdef CCFAST_FIBER_UCONTEXT
  swapcontext(&context_, &to.context_);
#else
  ccfast_switch_stack(&stack_pointer_, to.stack_pointer_);
#endif
  arrived();
}

void Fiber::arrived() {
#ifdef CCFAST_ASAN
  // The bounds of the caller's stack become known here, after the switch away from it.
  const void* bottom = nullptr;
  size_t size = 0;
  __sanitizer_finish_switch_fiber(fake_stack_, &bottom, &size);
  previous->bottom_ = static_cast<char*>(const_cast<void*>(bottom));
  previous->size_ = size;
#endif
}

void Fiber::forget_frames() {
#ifdef CCFAST_ASAN
  __asan_unpoison_memory_region(bottom_, size_);
#endif
}

}  // namespace ccfast::emulation
