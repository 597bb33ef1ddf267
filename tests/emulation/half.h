// Half-precision storage types: bits, and their conversion from and to float. Kernels compute in float.
#pragma once

#include <cstdint>
#include <cstring>

struct __half {
  uint16_t bits;
};

struct __nv_bfloat16 {
  uint16_t bits;
};

namespace ccfast::emulation {

inline float float_of_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace ccfast::emulation

inline float __half2float(__half value) {
  const uint32_t sign = (value.bits & 0x8000u) << 16;
  const uint32_t exponent = (value.bits >> 10) & 0x1fu, fraction = value.bits & 0x3ffu;
  if (exponent == 0) {  // zero and subnormal: fraction * 2^-24 is exact in float
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t float_exponent = exponent == 0x1fu ? 0xffu : exponent + (127 - 15);
  return ccfast::emulation::float_of_bits(sign | float_exponent << 23 | fraction << 13);
}

// Rounds to the nearest, ties to even; beyond the largest number to infinity.
inline __half __float2half_rn(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const auto sign = static_cast<uint16_t>((bits & 0x80000000u) >> 16);
  bits &= 0x7fffffffu;
  const auto with_sign = [sign](uint32_t magnitude) { return __half{static_cast<uint16_t>(sign | magnitude)}; };
  if (bits > 0x7f800000u) return with_sign(0x7e00u);
  if (bits >= 0x477ff000u) return with_sign(0x7c00u);  // 65520, half way between the largest number and the next
  if (bits >= 0x38800000u) {                           // 2^-14: normal
    bits += 0xfffu + (bits >> 13 & 1);
    return with_sign((bits - 0x38000000u) >> 13);
  }
  const float shifted = ccfast::emulation::float_of_bits(bits) + 0.5f;  // the last bit of 0.5 is 2^-24
  std::memcpy(&bits, &shifted, sizeof bits);
  return with_sign(bits - 0x3f000000u);
}

struct alignas(4) __half2 {
  __half x, y;
};

inline __half2 __halves2half2(__half low, __half high) { return {low, high}; }

// 1 or 0 for each half.
inline __half2 __hge2(__half2 a, __half2 b) {
  const auto as_half = [](bool is) { return __half{static_cast<uint16_t>(is ? 0x3c00u : 0u)}; };
  return {as_half(__half2float(a.x) >= __half2float(b.x)), as_half(__half2float(a.y) >= __half2float(b.y))};
}

inline float __bfloat162float(__nv_bfloat16 value) {
  return ccfast::emulation::float_of_bits(static_cast<uint32_t>(value.bits) << 16);
}
