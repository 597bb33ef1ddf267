// The part of CUDA C++ that ccfast's kernels use, for the host compiler. Kernels must not use anything else.
// Only CUDA's overloads exist, so that a call that compiles here also compiles with nvcc.
#pragma once

#include <math.h>  // not <cmath>: CUDA has exp(float), isnan and so on in the global namespace

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "half.h"
#include "runtime.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

using std::max;
using std::min;

// One-dimensional: y and z are 0, or 1 for the sizes.
extern ccfast::emulation::Index threadIdx, blockIdx, blockDim, gridDim;

// --- waiting ---

// Where a call is: as default arguments, file and line are those of the caller.
#define CCFAST_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CCFAST_SITE) { ccfast::emulation::wait_for_block({file, line}); }

inline void __syncwarp(unsigned mask = 0xffffffffu, CCFAST_SITE) {
  ccfast::emulation::wait_for_warp({ccfast::emulation::Wait::kWarp, mask, 0, 0, {file, line}});
}

namespace ccfast::emulation {

inline int lane() { return static_cast<int>(threadIdx.x % kLanes); }

// A shuffle of values of up to 8 bytes. source: the lane whose value is taken.
template <class T>
T shuffle(unsigned mask, T value, int source, Site site) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "what CUDA shuffles");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = wait_for_warp({Wait::kShuffle, mask, bits, source, site});
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline unsigned vote(unsigned mask, bool value, Site site) {
  return static_cast<unsigned>(wait_for_warp({Wait::kVote, mask, value, 0, site}));
}

// First lane of the segment of `width` lanes that this one is in.
inline int segment(int width) { return lane() & ~(width - 1); }

}  // namespace ccfast::emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CCFAST_SITE) {
  using namespace ccfast::emulation;
  return shuffle(mask, value, segment(width) + (source & (width - 1)), {file, line});
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, CCFAST_SITE) {
  using namespace ccfast::emulation;
  const int source = lane() ^ lane_mask;
  return shuffle(mask, value, source < segment(width) + width ? source : lane(), {file, line});
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CCFAST_SITE) {
  using namespace ccfast::emulation;
  const int source = lane() + static_cast<int>(delta);
  return shuffle(mask, value, source < segment(width) + width ? source : lane(), {file, line});
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CCFAST_SITE) {
  using namespace ccfast::emulation;
  const int source = lane() - static_cast<int>(delta);
  return shuffle(mask, value, source >= segment(width) ? source : lane(), {file, line});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CCFAST_SITE) {
  return ccfast::emulation::vote(mask, predicate != 0, {file, line});
}
inline int __any_sync(unsigned mask, int predicate, CCFAST_SITE) {
  return ccfast::emulation::vote(mask, predicate != 0, {file, line}) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CCFAST_SITE) {
  return ccfast::emulation::vote(mask, predicate == 0, {file, line}) == 0;
}

#undef CCFAST_SITE

// --- atomics: fibers switch only when they wait, so plain reads and writes are atomic ---

namespace ccfast::emulation {

template <class T, class Change>
T atomic(T* address, Change change) {
  may_yield();
  const T old = *address;
  *address = change(old);
  return old;
}

// Two's complement addition that wraps, as on the GPU.
template <class T>
T wrapping_sum(T a, T b) {
  using Unsigned = std::make_unsigned_t<T>;
  return static_cast<T>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b));
}

}  // namespace ccfast::emulation

#define CCFAST_ATOMIC(name, type, change)                                                                     \
  inline type name(type* address, type value) {                                                               \
    return ccfast::emulation::atomic(address, [value]([[maybe_unused]] type old) -> type { return change; }); \
  }
#define CCFAST_ATOMICS(type)                                     \
  CCFAST_ATOMIC(atomicMin, type, value < old ? value : old)      \
  CCFAST_ATOMIC(atomicMax, type, value > old ? value : old)      \
  CCFAST_ATOMIC(atomicAnd, type, static_cast<type>(old & value)) \
  CCFAST_ATOMIC(atomicOr, type, static_cast<type>(old | value))
#define CCFAST_ATOMIC_CAS(type)                                                                                 \
  inline type atomicCAS(type* address, type expected, type value) {                                             \
    return ccfast::emulation::atomic(address, [=](type old) -> type { return old == expected ? value : old; }); \
  }                                                                                                             \
  CCFAST_ATOMIC(atomicAdd, type, ccfast::emulation::wrapping_sum(old, value))                                   \
  CCFAST_ATOMIC(atomicExch, type, value)

CCFAST_ATOMICS(int)
CCFAST_ATOMICS(unsigned)
CCFAST_ATOMICS(long long)
CCFAST_ATOMICS(unsigned long long)
CCFAST_ATOMIC_CAS(int)
CCFAST_ATOMIC_CAS(unsigned)
CCFAST_ATOMIC_CAS(unsigned long long)  // CUDA has no such overloads for long long

#undef CCFAST_ATOMIC_CAS
#undef CCFAST_ATOMICS
#undef CCFAST_ATOMIC

// --- bits and arithmetic ---

template <class T>
T __ldg(const T* address) {
  return *address;
}

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __popcll(unsigned long long value) { return __builtin_popcountll(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __ffsll(long long value) { return __builtin_ffsll(value); }
inline int __clz(int value) { return value ? __builtin_clz(static_cast<unsigned>(value)) : 32; }
inline int __clzll(long long value) { return value ? __builtin_clzll(static_cast<unsigned long long>(value)) : 64; }

namespace ccfast::emulation {

template <class To, class From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace ccfast::emulation

inline int __float_as_int(float value) { return ccfast::emulation::same_bits<int>(value); }
inline unsigned __float_as_uint(float value) { return ccfast::emulation::same_bits<unsigned>(value); }
inline float __int_as_float(int value) { return ccfast::emulation::same_bits<float>(value); }
inline float __uint_as_float(unsigned value) { return ccfast::emulation::same_bits<float>(value); }
inline long long __double_as_longlong(double value) { return ccfast::emulation::same_bits<long long>(value); }
inline double __longlong_as_double(long long value) { return ccfast::emulation::same_bits<double>(value); }

// Each is rounded once, never contracted into a fused multiply-add (compile with -ffp-contract=off).
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }

inline float rsqrtf(float a) { return 1.0f / sqrtf(a); }
inline float rsqrt(float a) { return rsqrtf(a); }
inline double rsqrt(double a) { return 1.0 / sqrt(a); }

[[noreturn]] inline void __trap() { ccfast::emulation::fail("__trap"); }
