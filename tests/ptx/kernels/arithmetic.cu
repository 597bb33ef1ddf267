// The results of the instructions, one expression per kernel: out[i] = expression of a = a_[i], b = b_[i] and c =
// c_[i].
#include <cuda_fp16.h>

#include <cstdint>

using u32 = uint32_t;
using i32 = int32_t;
using u64 = unsigned long long;
using i64 = long long;

static __device__ __half2 halves_of(u32 bits) { return *reinterpret_cast<const __half2*>(&bits); }
static __device__ u32 bits_of(__half2 halves) { return *reinterpret_cast<const u32*>(&halves); }

#define EACH(name, result, type, expression)                                                     \
  extern "C" __global__ void name(const type* a_, const type* b_, const type* c_, result* out) { \
    const type a = a_[threadIdx.x], b = b_[threadIdx.x], c = c_[threadIdx.x];                    \
    (void)a, (void)b, (void)c;                                                                   \
    out[threadIdx.x] = expression;                                                               \
  }

EACH(fma_f32, float, float, fmaf(a, b, c))
EACH(fma_down_f32, float, float, __fmaf_rd(a, b, c))
EACH(fma_f64, double, double, fma(a, b, c))
EACH(divide_f32, float, float, a / b)
EACH(root_f32, float, float, sqrtf(a))
EACH(least_f32, float, float, fminf(a, b))
EACH(greatest_f32, float, float, fmaxf(a, b))
EACH(less_f32, i32, float, (a < b) + 2 * (a <= b) + 4 * (a == b) + 8 * (a != b) + 16 * !(a > b))
EACH(inverse_root_f64, double, double, rsqrt(a))
EACH(exponential_f32, float, float, expf(a))
EACH(exponential_f64, double, double, exp(a))
EACH(logarithm_f32, float, float, logf(a))
EACH(to_half, u32, float, __half_as_ushort(__float2half_rn(a)))
EACH(halves_at_least, u32, u32, bits_of(__hge2(halves_of(a), halves_of(b))))
EACH(from_half, float, u32, __half2float(__ushort_as_half(static_cast<unsigned short>(a))))
EACH(to_i32, i32, float, __float2int_rz(a))
EACH(to_nearest_i32, i32, float, __float2int_rn(a))
EACH(to_u32, u32, float, __float2uint_rz(a))
EACH(to_i64, i64, double, __double2ll_rz(a))
EACH(from_i64, float, i64, static_cast<float>(a))
EACH(from_u64, float, u64, static_cast<float>(a))
EACH(f64_to_f32, float, double, static_cast<float>(a))

EACH(divide_i32, i32, i32, a / b)
EACH(remainder_i32, i32, i32, a % b)
EACH(divide_u64, u64, u64, a / b)
EACH(remainder_i64, i64, i64, a % b)
EACH(high_u32, u32, u32, __umulhi(a, b))
EACH(high_i32, i32, i32, __mulhi(a, b))
EACH(high_u64, u64, u64, __umul64hi(a, b))
EACH(high_i64, i64, i64, __mul64hi(a, b))
EACH(wide_i32, i64, i32, static_cast<i64>(a) * b + c)
EACH(shift_left_u32, u32, u32, b < 32 ? a << b : 0)
EACH(shift_right_i64, i64, i64, a >> (b & 63))
EACH(funnel_left, u32, u32, __funnelshift_l(a, b, c))
EACH(funnel_right_clamped, u32, u32, __funnelshift_rc(a, b, c))
EACH(permute_bytes, u32, u32, __byte_perm(a, b, c))
EACH(mixed_bits, u32, u32, (a & b) ^ (~b | c))
EACH(ones_u64, i32, u64, __popcll(a))
EACH(zeros_u32, i32, u32, __clz(static_cast<i32>(a)))
EACH(zeros_u64, i32, u64, __clzll(static_cast<i64>(a)))
EACH(first_u64, i32, u64, __ffsll(static_cast<i64>(a)))
EACH(reversed_u32, u32, u32, __brev(a))
EACH(reversed_u64, u64, u64, __brevll(a))

// --- lanes of a warp ---

EACH(shuffled, u32, u32, __shfl_sync(~0u, a, b))
EACH(shuffled_by_8, u32, u32, __shfl_sync(~0u, a, b, 8))
EACH(shuffled_up, u32, u32, __shfl_up_sync(~0u, a, 3))
EACH(shuffled_down_by_16, u32, u32, __shfl_down_sync(~0u, a, 5, 16))
EACH(shuffled_across, u64, u64, __shfl_xor_sync(~0u, a, 9))
EACH(ballot, u32, u32, __ballot_sync(~0u, a & 1))
EACH(any_and_all, i32, u32, __any_sync(~0u, a == 7) + 2 * __all_sync(~0u, a != 7))
EACH(matching, u32, u32, __match_any_sync(~0u, a % 5))

extern "C" __global__ void diverged(const u32* a_, const u32* b_, const u32*, u32* out) {
  const u32 a = a_[threadIdx.x], b = b_[threadIdx.x];
  const u32 threes = __ballot_sync(~0u, a % 3 == 0);
  if (a % 3 == 0)
    out[threadIdx.x] = __ballot_sync(threes, a & 1);
  else
    out[threadIdx.x] = __ballot_sync(~threes, b & 1);
}

// --- atomics, all on out[0] or out[1] ---

#define ATOMIC(name, type, ...)                                                          \
  extern "C" __global__ void name(const type* a_, const type*, const type*, type* out) { \
    const type a = a_[threadIdx.x];                                                      \
    __VA_ARGS__;                                                                         \
  }

ATOMIC(atomic_sum_u64, u64, atomicAdd(out, a))
ATOMIC(atomic_sum_f32, float, atomicAdd(out, a))
ATOMIC(atomic_sum_f64, double, atomicAdd(out, a))
ATOMIC(atomic_least_i64, i64, atomicMin(out, a))
ATOMIC(atomic_greatest_u64, u64, atomicMax(out, a))
ATOMIC(atomic_bits, u32, (atomicOr(out, a), atomicAnd(out + 1, a), atomicXor(out + 2, a)))
ATOMIC(atomic_turns, u32, (atomicInc(out, 12), atomicDec(out + 1, 12)))
ATOMIC(atomic_product_u64, u64, {
  u64 old = atomicAdd(out + 1, 0ull), seen;
  do {
    seen = old;
    old = atomicCAS(out + 1, seen, seen * (a | 1));
  } while (old != seen);
})

// --- memory ---

extern "C" __global__ void static_memory(const u32* a_, const u32* b_, const u32*, u32* out) {
  __shared__ u32 shared_values[32];
  __shared__ uint16_t more_shared_values[32];
  shared_values[threadIdx.x] = a_[threadIdx.x];
  more_shared_values[threadIdx.x] = static_cast<uint16_t>(b_[threadIdx.x]);
  __syncthreads();
  u32 mine[8];  // in local memory: the index is not known at compile time
  for (u32 n = 0; n < 8; ++n) mine[(n + b_[n]) % 8] = shared_values[(threadIdx.x + n) % 32];
  out[threadIdx.x] = mine[a_[threadIdx.x] % 8] + more_shared_values[31 - threadIdx.x];
}
