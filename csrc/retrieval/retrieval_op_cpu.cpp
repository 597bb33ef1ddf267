// Glue of ccfast::evaluate_ranking for CPU tensors.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include "../common/checks.h"
#include "arguments.h"
#include "retrieval.h"

namespace ccfast {
namespace {

std::tuple<at::Tensor, at::Tensor, at::Tensor> evaluate_ranking_cpu(const at::Tensor& distances,
                                                                    const at::Tensor& query_ids,
                                                                    const at::Tensor& gallery_ids,
                                                                    const std::optional<at::Tensor>& query_cams,
                                                                    const std::optional<at::Tensor>& gallery_cams,
                                                                    std::optional<int64_t> junk_id) {
  const retrieval::Ranking ranking(distances, query_ids, gallery_ids, query_cams, gallery_cams, junk_id);
  const at::Tensor rows = distances.contiguous();
  AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "evaluate_ranking", [&] {
    const int64_t bad = retrieval::evaluate_ranking(ranking.params<scalar_t>(rows));
    TORCH_CHECK_VALUE(bad < 0, "distances: expected numbers, got NaN in row ", bad);
  });
  return {ranking.average_precision, ranking.first_match, ranking.inverse_penalty};
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("evaluate_ranking", evaluate_ranking_cpu); }

}  // namespace ccfast
