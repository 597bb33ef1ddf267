// queue: the ring and the shifted queue compared with plain loops, on the CPU and in the CUDA kernels.
#include <vector>

#include "check.h"
#include "queue/queue.h"
#include "samples.h"

namespace ccfast::queue {
namespace {

struct Shape {
  int64_t size, count, dim;
};
constexpr Shape kShapes[] = {{1, 1, 1}, {5, 5, 3}, {7, 2, 33}, {64, 24, 130}, {10, 9, 5}};

std::vector<float> expected(const Shape& shape, int64_t pointer, const std::vector<float>& before,
                            const std::vector<float>& rows) {
  std::vector<float> after(before);
  for (int64_t i = 0; i < shape.size; ++i)
    for (int64_t d = 0; d < shape.dim; ++d) {
      if (pointer >= 0 && i < shape.count)
        after[(pointer + i) % shape.size * shape.dim + d] = rows[i * shape.dim + d];
      else if (pointer < 0)
        after[i * shape.dim + d] =
            i < shape.count ? rows[i * shape.dim + d] : before[(i - shape.count) * shape.dim + d];
    }
  return after;
}

TEST(rows_are_where_plain_loops_put_them) {
  for (const Shape& shape : kShapes)
    for (int64_t pointer = -1; pointer < shape.size; ++pointer)
      for (const bool on_device : {false, true}) {
        const std::vector<float> before = native::random_matrix<float>(shape.size, shape.dim, 1);
        const std::vector<float> rows = native::random_matrix<float>(shape.count, shape.dim, 2);
        std::vector<float> found(before);
        int64_t place = pointer;
        const Params<float> params{found.data(), rows.data(), shape.size, shape.count, shape.dim};
        if (pointer < 0)
          on_device ? enqueue_front_cuda(params, nullptr) : enqueue_front(params);
        else
          on_device ? enqueue_ring_cuda(params, &place, nullptr) : enqueue_ring(params, &place);
        CHECK_EQUAL(found, expected(shape, pointer, before, rows));
        CHECK_EQUAL(place, pointer < 0 ? pointer : (pointer + shape.count) % shape.size);
      }
}

}  // namespace
}  // namespace ccfast::queue
