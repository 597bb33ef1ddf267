// Glue of ccfast::evaluate_ranking for CUDA tensors: a stable sort by ATen, in blocks of queries, then one walk.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <algorithm>

#include "../common/checks.h"
#include "../common/device.h"
#include "arguments.h"
#include "retrieval.h"

namespace ccfast {
namespace {

constexpr int64_t kSortedAtATime = int64_t{1} << 26;

// The params of `rows` queries from `first` on, whose distances have been sorted.
template <class T>
retrieval::SortedRankingParams<T> sorted_params(const retrieval::RankingParams<T>& all, int64_t first,
                                                const at::Tensor& sorted, const at::Tensor& order) {
  retrieval::RankingParams<T> part = all;
  part.distances = sorted.const_data_ptr<T>();
  part.queries = sorted.size(0);
  part.query_ids += first;
  if (part.query_cams) part.query_cams += first;
  part.average_precision += first;
  part.first_match += first;
  part.inverse_penalty += first;
  return {part, order.const_data_ptr<int64_t>()};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> evaluate_ranking_cuda(const at::Tensor& distances,
                                                                     const at::Tensor& query_ids,
                                                                     const at::Tensor& gallery_ids,
                                                                     const std::optional<at::Tensor>& query_cams,
                                                                     const std::optional<at::Tensor>& gallery_cams,
                                                                     std::optional<int64_t> junk_id) {
  const DeviceScope device(distances);
  const retrieval::Ranking ranking(distances, query_ids, gallery_ids, query_cams, gallery_cams, junk_id);
  const at::Tensor rows = distances.contiguous(), nan = rows.isnan().any(1);
  TORCH_CHECK_VALUE(!nan.any().item<bool>(), "distances: expected numbers, got NaN in row ",
                    nan.to(at::kByte).argmax().item<int64_t>());
  const int64_t step = std::max<int64_t>(1, kSortedAtATime / rows.size(1));
  for (int64_t first = 0; first < rows.size(0); first += step) {
    const at::Tensor block = rows.narrow(0, first, std::min(step, rows.size(0) - first));
    const auto sort = at::sort(block, /*stable=*/true, /*dim=*/1, /*descending=*/false);
    const at::Tensor sorted = std::get<0>(sort), order = std::get<1>(sort);
    AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "evaluate_ranking", [&] {
      retrieval::evaluate_ranking_cuda(sorted_params(ranking.params<scalar_t>(rows), first, sorted, order),
                                       device.stream());
    });
  }
  return {ranking.average_precision, ranking.first_match, ranking.inverse_penalty};
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CCFAST_DEVICE_KEY, m) { m.impl("evaluate_ranking", evaluate_ranking_cuda); }

}  // namespace ccfast
