// Glue of the stages of the k-reciprocal encoding and the Jaccard distance for CUDA tensors.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>

#include "../common/checks.h"
#include "../common/device.h"
#include "../common/dispatch.h"
#include "arguments.h"
#include "jaccard.h"

namespace ccfast {
namespace {

constexpr int64_t kWorkspaceBlocks =
    1024;  // blocks that share the device when a row's working set exceeds shared memory

// The workspace for rows of `bytes` each: none while they fit shared memory. The tensor owns the memory.
std::pair<jaccard::Workspace, at::Tensor> workspace_for(int64_t bytes, int64_t rows, const at::Tensor& like) {
  if (jaccard::fits_shared_memory_cuda(bytes)) return {{nullptr, 0, 0}, at::Tensor()};
  const int64_t blocks = std::min(kWorkspaceBlocks, rows), slice = (bytes + 255) / 256 * 256;
  const at::Tensor memory = at::empty({blocks * slice}, like.options().dtype(at::kByte));
  return {{memory.mutable_data_ptr(), blocks, slice}, memory};
}

// Runs a stage twice: to count the entries of every row, then to fill them.
template <class Stage>
CsrTensors count_and_fill(int64_t rows, const at::TensorOptions& options, const Stage& stage) {
  const at::Tensor counts = at::empty({rows}, options.dtype(at::kLong));
  if (rows > 0) stage(jaccard::CsrOutput{counts.mutable_data_ptr<int64_t>(), nullptr, nullptr, nullptr});
  const at::Tensor crow = at::zeros({rows + 1}, options.dtype(at::kLong));
  crow.narrow(0, 1, rows).copy_(counts.cumsum(0));
  const int64_t nnz = crow[rows].item<int64_t>();
  const at::Tensor col = at::empty({nnz}, options.dtype(at::kLong)),
                   values = at::empty({nnz}, options.dtype(at::kFloat));
  if (nnz > 0)
    stage(jaccard::CsrOutput{nullptr, crow.const_data_ptr<int64_t>(), col.mutable_data_ptr<int64_t>(),
                             values.mutable_data_ptr<float>()});
  return {crow, col, values};
}

jaccard::DeviceCsr device_csr(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values) {
  CCFAST_CHECK_DTYPE(crow, at::kLong);
  CCFAST_CHECK_DTYPE(col, at::kLong);
  CCFAST_CHECK_DTYPE(values, at::kFloat);
  TORCH_CHECK_VALUE(crow.dim() == 1 && crow.numel() >= 1 && col.dim() == 1 && values.sizes() == col.sizes() &&
                        crow.is_contiguous() && col.is_contiguous() && values.is_contiguous(),
                    "crow, col, values: expected contiguous [N + 1], [nnz], [nnz], got ", crow.sizes(), ", ",
                    col.sizes(), ", ", values.sizes());
  return {crow.numel() - 1, crow.const_data_ptr<int64_t>(), col.const_data_ptr<int64_t>(),
          values.const_data_ptr<float>()};
}

const float* optional_data(const std::optional<at::Tensor>& value) {
  return value ? value->const_data_ptr<float>() : nullptr;
}

CsrTensors encode_neighbours_cuda(const at::Tensor& features, const at::Tensor& rank, const at::Tensor& distances,
                                  int64_t half, const std::optional<at::Tensor>& row_scale,
                                  const std::optional<at::Tensor>& column_shift, int64_t row_begin,
                                  std::optional<int64_t> row_end) {
  CCFAST_CHECK_DIM(features, 2);
  CCFAST_CHECK_DIM(rank, 2);
  CCFAST_CHECK_DTYPE(features, at::kFloat);
  CCFAST_CHECK_DTYPE(rank, at::kLong);
  const DeviceScope device(features);
  const int64_t rows = features.size(0), k1 = rank.size(1);
  const jaccard::RowRange range = row_range(row_begin, row_end, rows);
  check_encoding_shapes(rank, distances, rows, range);
  TORCH_CHECK_VALUE(half >= 1 && half <= k1, "half: expected 1 to ", k1, ", got ", half);
  const at::Tensor x = features.contiguous(), r = rank.contiguous(), d = distances.contiguous();
  const at::Tensor back = at::empty({rows, k1}, r.options().dtype(at::kInt));
  jaccard::reciprocal_cuda({r.const_data_ptr<int64_t>(), rows, k1, back.mutable_data_ptr<int32_t>()}, device.stream());
  const jaccard::EncodingParams params{x.const_data_ptr<float>(),
                                       r.const_data_ptr<int64_t>(),
                                       d.const_data_ptr<float>(),
                                       optional_data(row_scale),
                                       optional_data(column_shift),
                                       rows,
                                       x.size(1),
                                       k1,
                                       half,
                                       range};
  const auto [workspace, memory] = workspace_for(jaccard::encode_bytes_cuda(k1, half), range.size(), x);
  return count_and_fill(range.size(), x.options(), [&, &workspace = workspace](const jaccard::CsrOutput& out) {
    jaccard::encode_cuda(params, back.const_data_ptr<int32_t>(), workspace, out, device.stream());
  });
}

CsrTensors expand_queries_cuda(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values,
                               const at::Tensor& rank, int64_t k2) {
  const DeviceScope device(values);
  const jaccard::DeviceCsr v = device_csr(crow, col, values);
  CCFAST_CHECK_DTYPE(rank, at::kLong);
  TORCH_CHECK_VALUE(k2 >= 1 && rank.dim() == 2 && rank.size(1) >= k2 && rank.is_contiguous(),
                    "rank: expected a contiguous [rows, >= ", k2, "], got ", rank.sizes());
  const int64_t rows = rank.size(0);
  const int64_t max_entries = crow.diff().max().item<int64_t>();
  const jaccard::ExpandParams params{v, rank.const_data_ptr<int64_t>(), rows, rank.size(1), k2, max_entries};
  const auto [workspace, memory] = workspace_for(jaccard::expand_bytes_cuda(k2, max_entries), rows, values);
  return count_and_fill(rows, values.options(), [&, &workspace = workspace](const jaccard::CsrOutput& out) {
    jaccard::expand_queries_cuda(params, workspace, out, device.stream());
  });
}

// V by columns: a stable sort by column keeps the rows of a column ascending.
struct Postings {
  Postings(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values) {
    const int64_t rows = crow.numel() - 1;
    const auto [sorted, order] = at::sort(col, /*stable=*/true, /*dim=*/0, /*descending=*/false);
    const at::Tensor boundaries = at::arange(rows + 1, col.options());
    start = at::searchsorted(sorted, boundaries);
    row = at::repeat_interleave(at::arange(rows, col.options()), crow.diff(), 0, col.numel()).index_select(0, order);
    val = values.index_select(0, order);
  }
  jaccard::DevicePostings view() const {
    return {start.const_data_ptr<int64_t>(), row.const_data_ptr<int64_t>(), val.const_data_ptr<float>()};
  }
  at::Tensor start, row, val;
};

CsrTensors sparse_jaccard_cuda(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values,
                               double max_distance, int64_t row_begin, std::optional<int64_t> row_end) {
  const DeviceScope device(values);
  const jaccard::DeviceCsr v = device_csr(crow, col, values);
  const jaccard::RowRange range = row_range(row_begin, row_end, v.rows);
  const Postings postings(crow, col, values);
  return count_and_fill(range.size(), values.options(), [&](const jaccard::CsrOutput& out) {
    jaccard::sparse_distance_cuda({v, postings.view(), static_cast<float>(max_distance), range}, out, device.stream());
  });
}

at::Tensor dense_jaccard_cuda(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values,
                              int64_t row_begin, int64_t row_end, int64_t col_begin, int64_t col_end) {
  const DeviceScope device(values);
  const jaccard::DeviceCsr v = device_csr(crow, col, values);
  TORCH_CHECK_VALUE(0 <= row_begin && row_begin <= row_end && row_end <= v.rows, "rows: expected a range within ",
                    v.rows);
  TORCH_CHECK_VALUE(0 <= col_begin && col_begin <= col_end && col_end <= v.rows, "columns: expected a range within ",
                    v.rows);
  const Postings postings(crow, col, values);
  const at::Tensor out = at::empty({row_end - row_begin, col_end - col_begin}, values.options());
  jaccard::dense_distance_cuda(
      {v, postings.view(), row_begin, row_end, col_begin, col_end, out.mutable_data_ptr<float>()}, device.stream());
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CCFAST_DEVICE_KEY, m) {
  m.impl("encode_neighbours", encode_neighbours_cuda);
  m.impl("expand_queries", expand_queries_cuda);
  m.impl("sparse_jaccard", sparse_jaccard_cuda);
  m.impl("dense_jaccard", dense_jaccard_cuda);
}

}  // namespace ccfast
