#include <algorithm>
#include <vector>

#include "../common/parallel.h"
#include "similarity.h"

namespace ccfast::similarity {
namespace {

constexpr int64_t kSerialWork = 1 << 15;

int64_t row_grain(int64_t work) { return std::max<int64_t>(1, kSerialWork / std::max<int64_t>(work, 1)); }

inline bool counts(int64_t label, int64_t segments) {
  return static_cast<uint64_t>(label) < static_cast<uint64_t>(segments);
}

}  // namespace

template <class T>
void segment_mean(const MeanParams<T>& params) {
  parallel_for(params.rows, row_grain(params.columns + params.segments), [&](int64_t begin, int64_t end) {
    std::vector<double> sums(params.segments);
    for (int64_t i = begin; i < end; ++i) {
      std::fill(sums.begin(), sums.end(), 0.0);
      const T* row = params.similarities + i * params.columns;
      for (int64_t j = 0; j < params.columns; ++j)
        if (counts(params.labels[j], params.segments)) sums[params.labels[j]] += row[j];
      T* means = params.means + i * params.segments;
      for (int64_t s = 0; s < params.segments; ++s)
        means[s] = static_cast<T>(sums[s] / static_cast<double>(std::max<int64_t>(params.counts[s], 1)));
    }
  });
}

template <class T>
void segment_mean_backward(const BackwardParams<T>& params) {
  parallel_for(params.rows, row_grain(params.columns + params.segments), [&](int64_t begin, int64_t end) {
    std::vector<T> shares(params.segments);
    for (int64_t i = begin; i < end; ++i) {
      const T* upstream = params.upstream + i * params.segments;
      for (int64_t s = 0; s < params.segments; ++s)
        shares[s] = upstream[s] / static_cast<T>(std::max<int64_t>(params.counts[s], 1));
      T* gradient = params.gradient + i * params.columns;
      for (int64_t j = 0; j < params.columns; ++j)
        gradient[j] = counts(params.labels[j], params.segments) ? shares[params.labels[j]] : T{0};
    }
  });
}

template void segment_mean(const MeanParams<float>&);
template void segment_mean(const MeanParams<double>&);
template void segment_mean_backward(const BackwardParams<float>&);
template void segment_mean_backward(const BackwardParams<double>&);

}  // namespace ccfast::similarity
