// exp on the CPU, in operations that compilers turn into vector code.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace ccfast {

// exp(x), x <= 0, within 1e-7 of it: 2^n times the Taylor series of the remainder, |r| <= ln(2) / 2. Below -87 it
// is exp(-87). x: not NaN.
inline float exp_of_negative(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  x = x < -87.0f ? -87.0f : x;
  const float n = (x * 1.44269504f + kRound) - kRound;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float series = 1.0f / 5040;
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  return series * power;
}
inline double exp_of_negative(double x) { return std::exp(x); }

// The same for any x; above 88.3 it is infinity.
inline float fast_exp(float x) { return exp_of_negative(x > 89.0f ? 89.0f : x); }
inline double fast_exp(double x) { return std::exp(x); }

}  // namespace ccfast
