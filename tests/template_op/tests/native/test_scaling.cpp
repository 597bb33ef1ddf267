// scaling: rows times factors compared with plain loops, on the CPU and in the CUDA kernel.
#include <vector>

#include "check.h"
#include "samples.h"
#include "scaling/scaling.h"

namespace ccfast::scaling {
namespace {

TEST(each_row_is_multiplied_by_its_factor) {
  for (const int64_t rows : {1, 7})
    for (const int64_t dim : {1, 33, 600})
      for (const bool on_device : {false, true}) {
        const std::vector<float> features = native::random_matrix<float>(rows, dim, 1);
        const std::vector<float> factors = native::random_matrix<float>(rows, 1, 2);
        std::vector<float> found(rows * dim), expected(features);
        for (int64_t i = 0; i < rows * dim; ++i) expected[i] *= factors[i / dim];
        const Params<float> params{features.data(), factors.data(), rows, dim, found.data()};
        on_device ? scale_rows_cuda(params, nullptr) : scale_rows(params);
        CHECK_EQUAL(found, expected);
      }
}

}  // namespace
}  // namespace ccfast::scaling
