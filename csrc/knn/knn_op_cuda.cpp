// Glue of ccfast::knn for CUDA tensors.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <limits>

#include "../common/checks.h"
#include "../common/device.h"
#include "knn.h"
#include "precision.h"

namespace ccfast {
namespace {

constexpr int64_t kTileElements = int64_t{1} << 27;  // products in memory at a time: 512 MiB
constexpr int64_t kTileColumns = 16384;

at::Tensor squared_norms(const at::Tensor& matrix, void* stream) {
  const at::Tensor norms = at::empty({matrix.size(0)}, matrix.options().dtype(at::kDouble));
  knn::squared_norms_cuda(
      {matrix.const_data_ptr<float>(), matrix.size(0), matrix.size(1), norms.mutable_data_ptr<double>()}, stream);
  return norms;
}

struct Search {
  at::Tensor queries, features;  // [Q, D], [N, D] float32, contiguous
  int64_t k;
  at::ScalarType type;
  void* stream;
};

// The running candidates of a block of queries.
struct Lists {
  Lists(int64_t rows, int64_t keep, const at::TensorOptions& options)
      : scores(at::full({rows, keep}, -std::numeric_limits<float>::infinity(), options)),
        indices(at::full({rows, keep}, -1, options.dtype(at::kInt))),
        thresholds(at::full({rows}, -std::numeric_limits<float>::infinity(), options)) {}
  at::Tensor scores, indices, thresholds;
};

Lists search_block(const Search& search, const at::Tensor& left, const at::Tensor& right, const at::Tensor& half_norms,
                   int64_t keep) {
  Lists lists(left.size(0), keep, search.features.options());
  for (int64_t col0 = 0; col0 < right.size(0); col0 += kTileColumns) {
    const int64_t cols = std::min(kTileColumns, right.size(0) - col0);
    const at::Tensor tile = at::mm(left, right.narrow(0, col0, cols).t()).to(at::kFloat);
    knn::select_cuda({tile.const_data_ptr<float>(), left.size(0), cols, col0, half_norms.const_data_ptr<float>(), keep,
                      lists.scores.mutable_data_ptr<float>(), lists.indices.mutable_data_ptr<int32_t>(),
                      lists.thresholds.mutable_data_ptr<float>()},
                     search.stream);
  }
  return lists;
}

// Rows that the certificate does not cover: every distance, and a stable sort.
void search_exactly(const Search& search, const at::Tensor& chosen, const at::Tensor& indices,
                    const at::Tensor& distances) {
  const int64_t count = search.features.size(0);
  const int64_t step = std::max<int64_t>(1, kTileElements / 8 / count);
  for (int64_t first = 0; first < chosen.size(0); first += step) {
    const at::Tensor rows = chosen.narrow(0, first, std::min(step, chosen.size(0) - first));
    const at::Tensor all = at::empty({rows.size(0), count}, search.features.options().dtype(at::kDouble));
    knn::distances_cuda(
        {search.queries.const_data_ptr<float>(), search.features.const_data_ptr<float>(),
         rows.const_data_ptr<int64_t>(), rows.size(0), count, search.features.size(1), all.mutable_data_ptr<double>()},
        search.stream);
    const auto [values, order] = at::sort(all, /*stable=*/true, /*dim=*/1, /*descending=*/false);
    indices.index_copy_(0, rows, order.narrow(1, 0, search.k));
    distances.index_copy_(0, rows, values.narrow(1, 0, search.k).to(at::kFloat));
  }
}

// Candidates by tiles of products, re-scored; returns which rows are proven.
at::Tensor search_certified(const Search& search, const at::Tensor& indices, const at::Tensor& distances) {
  const int64_t num_queries = search.queries.size(0), dim = search.features.size(1);
  const bool symmetric = search.queries.is_same(search.features);
  const at::Tensor target_norms = squared_norms(search.features, search.stream);
  const at::Tensor query_norms = symmetric ? target_norms : squared_norms(search.queries, search.stream);
  const double largest = at::maximum(target_norms.max(), query_norms.max()).item<double>();
  const double scale = knn::scale_for(largest, search.type), unit = scale * scale;
  const at::Tensor right = (scale == 1 ? search.features : search.features * scale).to(search.type);
  const at::Tensor left = symmetric ? right : (scale == 1 ? search.queries : search.queries * scale).to(search.type);
  const at::Tensor half_norms = (target_norms * (unit / 2)).to(at::kFloat), norms = query_norms * unit;
  const knn::ErrorBound bound = knn::error_bound(largest * unit, dim, search.type);
  const at::Tensor errors = (norms * (largest * unit)).sqrt() * bound.relative + bound.absolute;

  const int64_t keep = std::min(search.features.size(0), search.k + knn::kExtraCandidates);
  const at::Tensor proven = at::empty({num_queries}, indices.options().dtype(at::kBool));
  const int64_t step = kTileElements / kTileColumns;
  for (int64_t first = 0; first < num_queries; first += step) {
    const int64_t rows = std::min(step, num_queries - first);
    const Lists lists = search_block(search, left.narrow(0, first, rows), right, half_norms, keep);
    knn::rescore_cuda(
        {search.queries.const_data_ptr<float>() + first * dim, search.features.const_data_ptr<float>(), rows,
         search.features.size(0), dim, search.k, keep, lists.indices.const_data_ptr<int32_t>(),
         lists.thresholds.const_data_ptr<float>(), norms.const_data_ptr<double>() + first,
         errors.const_data_ptr<double>() + first, unit, indices.mutable_data_ptr<int64_t>() + first * search.k,
         distances.mutable_data_ptr<float>() + first * search.k, proven.mutable_data_ptr<bool>() + first},
        search.stream);
  }
  return proven;
}

std::tuple<at::Tensor, at::Tensor> knn_cuda(const at::Tensor& features, const std::optional<at::Tensor>& queries,
                                            int64_t k, const std::string_view precision) {
  knn::check_arguments(features, queries ? *queries : features, k);
  const DeviceScope device(features);
  const at::Tensor targets = features.to(at::kFloat).contiguous();
  const at::Tensor rows = queries ? queries->to(at::kFloat).contiguous() : targets;
  check_finite_rows("features", features);
  if (queries) check_finite_rows("queries", *queries);
  const at::Tensor indices = at::empty({rows.size(0), k}, targets.options().dtype(at::kLong));
  const at::Tensor distances = at::empty({rows.size(0), k}, targets.options());
  const Search search{rows, targets, k, knn::operand_type(precision), device.stream()};
  const at::Tensor proven = k + knn::kExtraCandidates <= knn::max_keep_cuda()
                                ? search_certified(search, indices, distances)
                                : at::zeros({rows.size(0)}, indices.options().dtype(at::kBool));
  search_exactly(search, proven.logical_not().nonzero().squeeze(1), indices, distances);
  return {indices, distances};
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CCFAST_DEVICE_KEY, m) { m.impl("knn", knn_cuda); }

}  // namespace ccfast
