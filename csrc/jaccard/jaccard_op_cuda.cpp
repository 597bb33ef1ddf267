// Glue of the stages of the k-reciprocal encoding and the Jaccard distance for CUDA tensors.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>

#include "../common/checks.h"
#include "../common/csr_tensors.h"
#include "../common/device.h"
#include "arguments.h"
#include "jaccard.h"

namespace ccfast {
namespace {

constexpr int64_t kWorkspaceBlocks =
    1024;  // blocks that share the device when a row's working set exceeds shared memory

// Estimates for usual data, with some reserve; data that need more cost a second run of the stage.
constexpr int64_t kExpectedSets = 2;    // entries of V per row, in multiples of k1
constexpr int64_t kExpectedGrowth = 4;  // growth of a row by query expansion
constexpr int64_t kExpectedSpread =
    2;  // entries of k2 rows of V together, in multiples of the mean; rounded up to a power of two
constexpr int64_t kExpectedNear = 64;  // pairs per row within the largest distance

// The workspace for rows of `bytes` each: none if they fit into shared memory. The tensor owns the memory.
std::pair<jaccard::Workspace, at::Tensor> workspace_for(int64_t bytes, int64_t rows, const at::Tensor& like) {
  if (jaccard::fits_shared_memory_cuda(bytes)) return {{nullptr, 0, 0}, at::Tensor()};
  const int64_t blocks = std::min(kWorkspaceBlocks, rows), slice = (bytes + 255) / 256 * 256;
  const at::Tensor memory = at::empty({blocks * slice}, like.options().dtype(at::kByte));
  return {{memory.mutable_data_ptr(), blocks, slice}, memory};
}

// The room that a stage has, or needs: entries of all rows and, if it matters, of one row while it is computed.
struct Room {
  int64_t entries, row = 0;
  bool holds(const Room& needed) const { return needed.entries <= entries && needed.row <= row; }
};

// Memory for the rows of a stage, which come in any order.
struct Scattered {
  Scattered(int64_t rows, int64_t capacity, const at::TensorOptions& options)
      : used(at::zeros({2}, options.dtype(at::kLong))),
        start(at::empty({rows}, options.dtype(at::kLong))),
        count(at::empty({rows}, options.dtype(at::kLong))),
        col(at::empty({capacity}, options.dtype(at::kLong))),
        values(at::empty({capacity}, options.dtype(at::kFloat))) {}
  jaccard::ScatteredRows view() const {
    auto* counters = reinterpret_cast<unsigned long long*>(used.mutable_data_ptr<int64_t>());
    return {counters,
            counters + 1,
            col.numel(),
            start.mutable_data_ptr<int64_t>(),
            count.mutable_data_ptr<int64_t>(),
            col.mutable_data_ptr<int64_t>(),
            values.mutable_data_ptr<float>()};
  }
  // Waits for the device.
  Room needed() const {
    const at::Tensor copy = used.cpu();
    const int64_t* counters = copy.const_data_ptr<int64_t>();
    return {counters[0], counters[1]};
  }
  at::Tensor used;  // entries of all rows, and what the longest of the rows that were left out needs
  at::Tensor start, count, col, values;
};

// Runs a stage with room for the expected number of entries. If they do not fit, runs it again with room for all of
// them. Then puts the rows into order. It waits for the device once, to read how much room the stage needed.
template <class Stage>
CsrTensors run_stage(int64_t rows, Room room, const at::TensorOptions& options, void* stream, const Stage& stage) {
  Scattered scattered(rows, room.entries, options);
  stage(scattered.view(), room);
  Room needed = scattered.needed();
  while (!room.holds(needed)) {
    room = {std::max(room.entries, needed.entries), std::max(room.row, needed.row)};
    scattered = Scattered(rows, room.entries, options);
    stage(scattered.view(), room);
    needed = scattered.needed();
  }
  const int64_t nnz = needed.entries;
  const at::Tensor crow =
      rows ? at::empty({rows + 1}, options.dtype(at::kLong)) : at::zeros({1}, options.dtype(at::kLong));
  at::Tensor ends = crow.narrow(0, 1, rows);
  at::cumsum_out(ends, scattered.count, 0);
  const at::Tensor col = at::empty({nnz}, options.dtype(at::kLong)),
                   values = at::empty({nnz}, options.dtype(at::kFloat));
  jaccard::gather_rows_cuda(scattered.view(), rows, crow.mutable_data_ptr<int64_t>(), col.mutable_data_ptr<int64_t>(),
                            values.mutable_data_ptr<float>(), stream);
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
  TORCH_CHECK_VALUE(crow.numel() <= std::numeric_limits<int32_t>::max(), "crow: expected fewer than 2^31 rows");
  return {crow.numel() - 1, crow.const_data_ptr<int64_t>(), col.const_data_ptr<int64_t>(),
          values.const_data_ptr<float>()};
}

CsrTensors encode_neighbours_cuda(const at::Tensor& features, const at::Tensor& rank, const at::Tensor& distances,
                                  int64_t half, const std::optional<at::Tensor>& row_scale,
                                  const std::optional<at::Tensor>& column_shift, int64_t row_begin,
                                  std::optional<int64_t> row_end, const std::optional<at::Tensor>& feature_rows) {
  CCFAST_CHECK_DIM(features, 2);
  CCFAST_CHECK_DIM(rank, 2);
  CCFAST_CHECK_DTYPE(features, at::kFloat);
  CCFAST_CHECK_DTYPE(rank, at::kLong);
  const DeviceScope device(features);
  const int64_t rows = feature_rows ? rank.size(0) : features.size(0), k1 = rank.size(1);
  const jaccard::RowRange range = row_range(row_begin, row_end, rows);
  check_encoding_shapes(rank, distances, rows, range);
  TORCH_CHECK_VALUE(half >= 1 && half <= k1, "half: expected 1 to ", k1, ", got ", half);
  const at::Tensor x = features.contiguous(), r = rank.contiguous(), d = distances.contiguous();
  const at::Tensor back = at::empty({rows, k1}, r.options().dtype(at::kInt));
  jaccard::reciprocal_cuda({r.const_data_ptr<int64_t>(), rows, k1, back.mutable_data_ptr<int32_t>()}, device.stream());
  const jaccard::EncodingParams params{x.const_data_ptr<float>(),
                                       r.const_data_ptr<int64_t>(),
                                       d.const_data_ptr<float>(),
                                       optional_data(row_scale, "row_scale", rows),
                                       optional_data(column_shift, "column_shift", rows),
                                       rows,
                                       x.size(1),
                                       k1,
                                       half,
                                       range,
                                       optional_rows(feature_rows, "feature_rows", rows)};
  const auto [workspace, memory] = workspace_for(jaccard::encode_bytes_cuda(k1, half), range.size(), x);
  const int64_t expected = range.size() * std::min(k1 * (half + 1), kExpectedSets * k1);
  return run_stage(range.size(), {expected}, x.options(), device.stream(),
                   [&, &workspace = workspace](const jaccard::ScatteredRows& out, const Room&) {
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
  const int64_t mean = col.numel() / std::max<int64_t>(v.rows, 1) + 1;
  const Room expected{std::min(k2, kExpectedGrowth) * mean * rows, std::min(k2, kExpectedSpread) * k2 * mean};
  return run_stage(rows, expected, values.options(), device.stream(),
                   [&](const jaccard::ScatteredRows& out, const Room& room) {
                     const auto [workspace, memory] = workspace_for(jaccard::expand_bytes_cuda(room.row), rows, values);
                     jaccard::expand_queries_cuda({v, rank.const_data_ptr<int64_t>(), rows, rank.size(1), k2, room.row},
                                                  workspace, out, device.stream());
                   });
}

// V by columns: a stable sort by column keeps the rows of a column ascending.
struct Postings {
  Postings(const jaccard::DeviceCsr& v, const at::Tensor& col, void* stream) {
    const auto [sorted, order] = at::sort(col.to(at::kInt), /*stable=*/true, /*dim=*/0, /*descending=*/false);
    static_assert(sizeof(jaccard::Posting) == sizeof(int64_t));
    start = at::empty({v.rows + 1}, col.options());
    entry = at::empty({col.numel()}, col.options());
    jaccard::postings_cuda(
        {v, col.numel(), sorted.const_data_ptr<int32_t>(), order.const_data_ptr<int64_t>(),
         start.mutable_data_ptr<int64_t>(), static_cast<jaccard::Posting*>(entry.mutable_data_ptr())},
        stream);
  }
  jaccard::DevicePostings view() const {
    return {start.const_data_ptr<int64_t>(), static_cast<const jaccard::Posting*>(entry.const_data_ptr())};
  }
  at::Tensor start, entry;
};

// Both triangles of distances from the upper one.
CsrTensors mirrored(const CsrTensors& upper, void* stream) {
  const auto& [crow, col, values] = upper;
  const int64_t rows = crow.numel() - 1, nnz = 2 * col.numel() - rows;
  const jaccard::DeviceCsr view = device_csr(crow, col, values);
  const Postings columns(view, col, stream);
  const at::Tensor full_crow = at::empty({rows + 1}, crow.options()), full_col = at::empty({nnz}, col.options()),
                   full_values = at::empty({nnz}, values.options());
  jaccard::mirror_cuda({view, columns.view(), full_crow.mutable_data_ptr<int64_t>(),
                        full_col.mutable_data_ptr<int64_t>(), full_values.mutable_data_ptr<float>()},
                       stream);
  return {full_crow, full_col, full_values};
}

// A pair's distance has the same bits from both sides: if all rows are requested, it is computed once.
CsrTensors sparse_jaccard_cuda(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values,
                               double max_distance, int64_t row_begin, std::optional<int64_t> row_end) {
  const DeviceScope device(values);
  const jaccard::DeviceCsr v = device_csr(crow, col, values);
  const jaccard::RowRange range = row_range(row_begin, row_end, v.rows);
  const Postings postings(v, col, device.stream());
  const bool all = range.size() == v.rows;
  const jaccard::SparseJaccardParams params{v, postings.view(), distance_limit(max_distance), range, all};
  const CsrTensors near =
      run_stage(range.size(), {(all ? kExpectedNear / 2 : kExpectedNear) * range.size()}, values.options(),
                device.stream(), [&](const jaccard::ScatteredRows& out, const Room&) {
                  jaccard::sparse_jaccard_cuda(params, out, device.stream());
                });
  return all && v.rows ? mirrored(near, device.stream()) : near;
}

at::Tensor dense_jaccard_cuda(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values,
                              int64_t row_begin, int64_t row_end, int64_t col_begin, int64_t col_end) {
  const DeviceScope device(values);
  const jaccard::DeviceCsr v = device_csr(crow, col, values);
  TORCH_CHECK_VALUE(0 <= row_begin && row_begin <= row_end && row_end <= v.rows, "rows: expected a range within ",
                    v.rows);
  TORCH_CHECK_VALUE(0 <= col_begin && col_begin <= col_end && col_end <= v.rows, "columns: expected a range within ",
                    v.rows);
  const Postings postings(v, col, device.stream());
  const at::Tensor out = at::empty({row_end - row_begin, col_end - col_begin}, values.options());
  jaccard::dense_jaccard_cuda(
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
