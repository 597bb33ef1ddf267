// Glue of ccfast::knn for CUDA tensors: operands, tiles of products, and the search for the rows that stay open.
//
// A search waits for the device twice: for the largest norm, which also tells whether all numbers are finite, and for
// the rows without a certificate. It waits again only if there are such rows, or norms far from 1.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

#include "../common/checks.h"
#include "../common/device.h"
#include "half_sums.h"
#include "knn.h"
#include "precision.h"
#include "tiles.h"

namespace ccfast {
namespace {

// Products in memory at a time. They are written once and read up to three times (as rows, for the transpose, and that
// again), so a tile of halves, 16 MiB, and the 24 MiB that it is made from at 2,048 dimensions should fit into the
// second-level cache together: 50 MB on an H100 or H200. Blocks of 128 x 256 products, of which cuBLAS computes one on
// each multiprocessor, are 256 per tile: nearly two full turns of 132 multiprocessors. Fewer rows than columns, because
// half of the products of a diagonal block are not needed.
constexpr int64_t kTileRows = 2048;
constexpr int64_t kTileColumns = 4096;
constexpr int64_t kHalfAlignment = 8;  // halves in 16 bytes; operands are padded to that, so that every load is whole
constexpr int64_t kExactDistances = int64_t{1} << 24;  // in memory at a time: 128 MiB
// Open rows for which all distances cost less than float32 products: each reads the features once, while preparing the
// operands and multiplying them reads them twice, and takes two launches for every kTileColumns targets.
constexpr int64_t kMostExactRows = 4;

struct Search {
  at::Tensor queries, features;  // [Q, D], [N, D] float32, contiguous; the same one in a symmetric search
  int64_t k;
  void* stream;

  bool symmetric() const { return queries.is_same(features); }
  int64_t dim() const { return features.size(1); }
};

// Rows as the products read them.
struct Operand {
  at::Tensor matrix;      // scaled; float32 [rows, dim], or float16 padded with zeros
  at::Tensor statistics;  // [2, rows] float64: squared norms, and the norms of the rounding errors
  at::Tensor half_norms;  // [rows] float32

  Operand(const at::Tensor& rows, double scale, at::ScalarType type, void* stream)
      : statistics(at::empty({2, rows.size(0)}, rows.options().dtype(at::kDouble))),
        half_norms(at::empty({rows.size(0)}, rows.options())) {
    const bool half = type == at::kHalf;
    const int64_t padded_rows = knn::round_up(rows.size(0), kHalfAlignment);
    const int64_t padded_dim = knn::round_up(rows.size(1), kHalfAlignment);
    if (half)
      matrix = at::empty({padded_rows, padded_dim}, rows.options().dtype(type));
    else
      matrix = scale == 1 ? rows : at::empty_like(rows);
    double* norms = statistics.mutable_data_ptr<double>();
    knn::prepare_cuda(
        {rows.const_data_ptr<float>(), rows.size(0), rows.size(1), scale, norms, half_norms.mutable_data_ptr<float>(),
         norms + rows.size(0), half ? matrix.mutable_data_ptr() : nullptr, padded_rows, padded_dim,
         half || scale == 1 ? nullptr : matrix.mutable_data_ptr<float>()},
        stream);
  }
  int64_t rows() const { return half_norms.size(0); }
  const double* norms() const { return statistics.const_data_ptr<double>(); }
  const double* rounding() const { return norms() + rows(); }
};

// The largest norms of any row and of what rounding has changed, not finite where a row is not; and the least squared
// norm of a target.
struct Extent {
  knn::RoundedNorm largest;
  double least;
};

// Both sides of the products.
class Operands {
 public:
  Operands(const Search& search, double scale, at::ScalarType type)
      : type(type), scale(scale), features(search.features, scale, type, search.stream) {
    if (!search.symmetric()) queries_.emplace(search.queries, scale, type, search.stream);
  }
  const Operand& queries() const { return queries_ ? *queries_ : features; }
  double unit() const { return scale * scale; }

  // Waits for the device.
  Extent extent() const {
    auto [least, most] = at::aminmax(features.statistics, /*dim=*/1);
    if (queries_) most = at::maximum(most, queries_->statistics.amax(1));
    const at::Tensor ends = at::stack({least, most}).cpu();
    const double* values = ends.const_data_ptr<double>();
    return {{std::sqrt(values[2]), values[3]}, values[0]};
  }

  const at::ScalarType type;
  const double scale;
  const Operand features;

 private:
  std::optional<Operand> queries_;
};

knn::RowError error_of(const Search& search, const Operands& operands, knn::RoundedNorm largest) {
  const double float64 = knn::float64_error(search.dim());
  if (operands.type == at::kHalf) {
    knn::RowError error = knn::float16_error(largest, search.dim());
    error.float64 = float64;
    error.longest = largest.norm;
    return error;
  }
  const knn::ErrorBound bound = knn::error_bound(largest.norm * largest.norm, search.dim(), operands.type);
  return {bound.relative * largest.norm, 0, bound.absolute, float64, largest.norm};
}

// The memory for tiles of products, which all tiles use in turn.
class TileBuffer {
 public:
  TileBuffer(int64_t rows, int64_t cols, const at::TensorOptions& options)
      : memory_(at::empty({std::min(rows, kTileRows) * std::min(cols, kTileColumns)}, options)) {}
  at::Tensor view(int64_t rows, int64_t cols) const { return memory_.narrow(0, 0, rows * cols).view({rows, cols}); }

 private:
  at::Tensor memory_;
};

// The products of `tile` from column `first` on. Columns of `products` beyond the tile are padding.
knn::ProductTile part_of(const at::Tensor& products, const knn::Tile& tile, int64_t first) {
  const auto* start = static_cast<const char*>(products.const_data_ptr()) + first * products.element_size();
  return {start, products.scalar_type() == at::kHalf, tile.rows, tile.cols - first, products.size(1)};
}

// The best candidates of every query, as knn.h describes their lists.
at::Tensor search_tiles(const Search& search, const Operands& operands, double least_square, int64_t keep) {
  const Operand &queries = operands.queries(), &features = operands.features;
  const at::Tensor lists = at::zeros({queries.rows(), keep}, search.features.options().dtype(at::kLong));
  const TileBuffer buffer(queries.rows(), features.matrix.size(0), features.matrix.options());
  std::optional<TileBuffer> mirror;
  if (search.symmetric()) mirror.emplace(queries.rows(), features.rows(), features.matrix.options());
  const int64_t alignment = operands.type == at::kHalf ? kHalfAlignment : 1;
  const knn::PartsInSingle parts_in_single;
  const auto offer = [&](const knn::ProductTile& tile, int64_t first_query, int64_t first_target) {
    auto* list = reinterpret_cast<uint64_t*>(lists.mutable_data_ptr<int64_t>()) + first_query * keep;
    const auto least = static_cast<float>(least_square / 2);  // rounded as the others are
    knn::select_cuda({tile, first_target, features.half_norms.const_data_ptr<float>(), least, keep, list},
                     search.stream);
  };
  for (const knn::Tile& tile :
       knn::tiles_of(queries.rows(), features.rows(), search.symmetric(), kTileRows, kTileColumns)) {
    const int64_t width = knn::round_up(tile.cols, alignment);
    at::Tensor products = buffer.view(tile.rows, width);
    at::mm_out(products, queries.matrix.narrow(0, tile.row0, tile.rows),
               features.matrix.narrow(0, tile.col0, width).t());
    offer(part_of(products, tile, 0), tile.row0, tile.col0);
    if (tile.mirrored == tile.cols) continue;
    const knn::ProductTile source = part_of(products, tile, tile.mirrored);
    const at::Tensor transposed = mirror->view(source.cols, source.rows);
    knn::transpose_cuda({source, transposed.mutable_data_ptr(), source.rows}, search.stream);
    offer({transposed.const_data_ptr(), source.half, source.cols, source.rows, source.rows}, tile.col0 + tile.mirrored,
          tile.row0);
  }
  return lists;
}

struct Neighbours {
  Neighbours(int64_t rows, int64_t k, const at::TensorOptions& options)
      : indices(at::empty({rows, k}, options.dtype(at::kLong))),
        distances(at::empty({rows, k}, options.dtype(at::kFloat))) {}
  at::Tensor indices, distances;  // [Q, k]
};

int64_t kept_of(const Search& search, at::ScalarType type) {
  const int64_t extra = type == at::kHalf ? knn::kExtraHalfCandidates : knn::kExtraCandidates;
  return std::min(search.features.size(0), search.k + extra);
}

// Candidates by tiles of products, re-scored. Returns the rows that are not proven, for which it waits.
at::Tensor search_certified(const Search& search, const Operands& operands, const Extent& extent,
                            const Neighbours& found) {
  const int64_t keep = kept_of(search, operands.type);
  const at::Tensor lists = search_tiles(search, operands, extent.least, keep);
  const int64_t rows = search.queries.size(0);
  const at::Tensor proven = at::empty({rows}, lists.options().dtype(at::kBool));
  const at::Tensor counts = at::empty({rows}, lists.options().dtype(at::kInt));
  const at::Tensor exact = at::empty({rows, keep}, lists.options().dtype(at::kDouble));
  knn::rescore_cuda(
      {search.queries.const_data_ptr<float>(), search.features.const_data_ptr<float>(), rows, search.features.size(0),
       search.dim(), search.k, keep, reinterpret_cast<const uint64_t*>(lists.const_data_ptr<int64_t>()),
       operands.queries().norms(), operands.queries().rounding(), error_of(search, operands, extent.largest),
       operands.unit(), search.symmetric(), counts.mutable_data_ptr<int32_t>(), exact.mutable_data_ptr<double>(),
       found.indices.mutable_data_ptr<int64_t>(), found.distances.mutable_data_ptr<float>(),
       proven.mutable_data_ptr<bool>()},
      search.stream);
  if (proven.all().item<bool>()) return at::empty({0}, lists.options());
  return proven.logical_not().nonzero().squeeze(1);
}

// Every distance of the chosen rows, and a stable sort.
void search_exactly(const Search& search, const at::Tensor& chosen, const Neighbours& found) {
  const int64_t count = search.features.size(0);
  const int64_t step = std::max<int64_t>(1, kExactDistances / count);
  for (int64_t first = 0; first < chosen.size(0); first += step) {
    const at::Tensor rows = chosen.narrow(0, first, std::min(step, chosen.size(0) - first));
    const at::Tensor all = at::empty({rows.size(0), count}, search.features.options().dtype(at::kDouble));
    knn::distances_cuda(
        {search.queries.const_data_ptr<float>(), search.features.const_data_ptr<float>(),
         rows.const_data_ptr<int64_t>(), rows.size(0), count, search.dim(), all.mutable_data_ptr<double>()},
        search.stream);
    const auto [values, order] = at::sort(all, /*stable=*/true, /*dim=*/1, /*descending=*/false);
    found.indices.index_copy_(0, rows, order.narrow(1, 0, search.k));
    found.distances.index_copy_(0, rows, values.narrow(1, 0, search.k).to(at::kFloat));
  }
}

// By float32 products, then by all distances for rows that stay open. extent: of the rows before scaling.
void search_in_single(const Search& search, const Extent& extent, const Neighbours& found) {
  const double norm = extent.largest.norm, scale = knn::scale_for(norm * norm, at::kFloat);
  const Operands operands(search, scale, at::kFloat);
  const Extent scaled{{norm * scale, 0}, extent.least * scale * scale};
  search_exactly(search, search_certified(search, operands, scaled, found), found);
}

void search_open_rows(const Search& search, const at::Tensor& open, const Extent& extent, const Neighbours& found) {
  if (open.size(0) <= kMostExactRows) return search_exactly(search, open, found);
  const Search rest{search.queries.index_select(0, open), search.features, search.k, search.stream};
  const Neighbours rest_found(open.size(0), search.k, found.distances.options());
  search_in_single(rest, extent, rest_found);
  found.indices.index_copy_(0, open, rest_found.indices);
  found.distances.index_copy_(0, open, rest_found.distances);
}

// By float16 products; returns the rows that stay open.
at::Tensor search_in_half(const Search& search, const Operands& operands, const Extent& extent,
                          const Neighbours& found) {
  const double scale = knn::scale_for(extent.largest.norm * extent.largest.norm, at::kHalf);
  if (scale == 1) return search_certified(search, operands, extent, found);
  const Operands scaled(search, scale, at::kHalf);
  return search_certified(search, scaled, scaled.extent(), found);
}

std::tuple<at::Tensor, at::Tensor> knn_cuda(const at::Tensor& features, const std::optional<at::Tensor>& queries,
                                            int64_t k, const std::string_view precision,
                                            std::optional<int64_t> row_begin) {
  const std::optional<int64_t> own = knn::checked_own_rows(features, queries, k, row_begin);
  knn::operand_type(precision);  // raises an error if unknown; all give the same result here, see ccfast/ops/knn.py
  const DeviceScope device(features);
  const at::Tensor targets = features.to(at::kFloat).contiguous();
  const Search search{queries ? queries->to(at::kFloat).contiguous() : targets, targets, k, device.stream()};
  const Neighbours found(search.queries.size(0), k, targets.options());

  if (search.queries.size(0) == 0) return {found.indices, found.distances};
  const bool half = !knn::sums_are_float16();
  const Operands operands(search, 1, half ? at::kHalf : at::kFloat);
  const Extent extent = operands.extent();
  if (!std::isfinite(extent.largest.norm)) {
    check_finite_rows("features", features);
    if (queries) check_finite_rows("queries", *queries);
  }
  if (kept_of(search, operands.type) > knn::max_keep_cuda()) {
    search_exactly(search, at::arange(search.queries.size(0), found.indices.options()), found);
  } else if (!half) {
    search_in_single(search, extent, found);
  } else {
    const at::Tensor open = search_in_half(search, operands, extent, found);
    if (open.size(0) > search.queries.size(0) / knn::kRowsPerOpenRow)
      search_in_single(search, extent, found);
    else if (open.size(0) > 0)
      search_open_rows(search, open, extent, found);
  }
  if (own)
    knn::put_own_first_cuda({found.indices.mutable_data_ptr<int64_t>(), search.queries.size(0), k, *own},
                            search.stream);
  return {found.indices, found.distances};
}

at::Tensor squared_norms_cuda(const at::Tensor& features) {
  CCFAST_CHECK_DIM(features, 2);
  CCFAST_CHECK_DTYPE(features, at::kFloat);
  const DeviceScope device(features);
  return Operand(features.contiguous(), 1, at::kFloat, device.stream()).statistics[0];
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CCFAST_DEVICE_KEY, m) {
  m.impl("knn", knn_cuda);
  m.impl("squared_norms", squared_norms_cuda);
}

}  // namespace ccfast
