// Half-precision storage types: bits, and exact conversion to float. Kernels compute in float.
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

inline float __bfloat162float(__nv_bfloat16 value) {
  return ccfast::emulation::float_of_bits(static_cast<uint32_t>(value.bits) << 16);
}
