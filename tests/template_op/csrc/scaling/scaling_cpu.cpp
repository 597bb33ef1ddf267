#include <algorithm>

#include "../common/parallel.h"
#include "scaling.h"

namespace ccfast::scaling {
namespace {

constexpr int64_t kSerialWork = 1 << 15;  // too few values for a second thread

}  // namespace

template <class T>
void scale_rows(const Params<T>& params) {
  const int64_t dim = params.dim, grain = std::max<int64_t>(1, kSerialWork / dim);
  parallel_for(params.rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T factor = params.factors[row];
      const T* from = params.features + row * dim;
      T* to = params.out + row * dim;
      for (int64_t d = 0; d < dim; ++d) to[d] = factor * from[d];
    }
  });
}

template void scale_rows(const Params<float>&);
template void scale_rows(const Params<double>&);

}  // namespace ccfast::scaling
