// k-reciprocal sets, expansion, V and query expansion on the CPU.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../common/parallel.h"
#include "../common/simd.h"
#include "jaccard.h"

namespace ccfast::jaccard {
namespace {

constexpr int64_t kChunkRows = 64;

// The reciprocal lists of every row: R(i) in its first counts[i] slots; H(i) likewise with the half lists.
struct Reciprocal {
  Reciprocal(int64_t rows, int64_t width) : width(width), members(rows * width), counts(rows) {}
  int64_t width;
  std::vector<int32_t> members;
  std::vector<int32_t> counts;

  const int32_t* begin(int64_t i) const { return members.data() + i * width; }
  const int32_t* end(int64_t i) const { return begin(i) + counts[i]; }
};

// { j among the first `width` neighbours of i : i among the first `width` neighbours of j }, nearest first.
Reciprocal reciprocal_neighbours(const EncodingParams& params, int64_t width) {
  Reciprocal sets(params.num_rows, width);
  parallel_for(params.num_rows, kChunkRows, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t m = 0; m < width; ++m) {
        const int64_t j = params.rank[i * params.k1 + m];
        const int64_t* back = params.rank + j * params.k1;
        if (std::find(back, back + width, i) != back + width)
          sets.members[i * width + sets.counts[i]++] = static_cast<int32_t>(j);
      }
    }
  });
  return sets;
}

// Marks rows with the number of the current query, so that no clearing is needed between queries.
struct Marks {
  explicit Marks(int64_t rows) : mark(rows, -1) {}
  std::vector<int64_t> mark;
  bool has(int64_t row, int64_t query) const { return mark[row] == query; }
  bool insert(int64_t row, int64_t query) {
    if (mark[row] == query) return false;
    mark[row] = query;
    return true;
  }
};

struct EncodingScratch {
  explicit EncodingScratch(int64_t rows) : reciprocal(rows), expanded(rows), ranked(rows), distance(rows) {}
  Marks reciprocal, expanded, ranked;
  std::vector<float> distance;   // to the current query, of rows marked in `ranked`
  std::vector<int32_t> members;  // E(i)
  std::vector<double> weights;
};

// E(i): R(i) and, for every candidate c in R(i) with 3 |H(c) and R(i)| > 2 |H(c)|, H(c). Ascending.
void expand(const Reciprocal& full, const Reciprocal& half, int64_t i, EncodingScratch& scratch) {
  auto& members = scratch.members;
  members.assign(full.begin(i), full.end(i));
  for (const int32_t j : members) {
    scratch.reciprocal.insert(j, i);
    scratch.expanded.insert(j, i);
  }
  for (const int32_t* c = full.begin(i); c != full.end(i); ++c) {
    int64_t common = 0;
    for (const int32_t* h = half.begin(*c); h != half.end(*c); ++h) common += scratch.reciprocal.has(*h, i);
    if (3 * common <= 2 * static_cast<int64_t>(half.counts[*c])) continue;
    for (const int32_t* h = half.begin(*c); h != half.end(*c); ++h)
      if (scratch.expanded.insert(*h, i)) members.push_back(*h);
  }
  std::sort(members.begin(), members.end());
}

const float* feature(const EncodingParams& params, int64_t row) {
  return params.features + (params.feature_rows ? params.feature_rows[row] : row) * params.dim;
}

double exponent(const EncodingParams& params, int64_t i, int64_t j, const EncodingScratch& scratch) {
  const double distance = scratch.ranked.has(j, i)
                              ? scratch.distance[j]
                              : squared_distance(feature(params, i), feature(params, j), params.dim);
  const double shift = params.column_shift ? params.column_shift[j] : 0.0;
  const double scale = params.row_scale ? params.row_scale[i] : 1.0;
  return -scale * (distance + shift);
}

// Softmax of the exponents over E(i), in float64.
void weigh(const EncodingParams& params, int64_t i, EncodingScratch& scratch, CsrChunk& out) {
  for (int64_t m = 0; m < params.k1; ++m) {
    const int64_t j = params.rank[i * params.k1 + m];
    scratch.ranked.insert(j, i);
    scratch.distance[j] = params.distances[(i - params.rows.begin) * params.k1 + m];
  }
  scratch.weights.clear();
  double highest = -std::numeric_limits<double>::infinity(), sum = 0;
  for (const int32_t j : scratch.members) {
    scratch.weights.push_back(exponent(params, i, j, scratch));
    highest = std::max(highest, scratch.weights.back());
  }
  for (double& weight : scratch.weights) sum += weight = std::exp(weight - highest);
  for (size_t m = 0; m < scratch.members.size(); ++m)
    out.add(scratch.members[m], static_cast<float>(scratch.weights[m] / sum));
  out.counts.push_back(static_cast<int64_t>(scratch.members.size()));
}

// Sums sparse rows into a dense row and remembers which columns it touched.
struct RowSum {
  explicit RowSum(int64_t columns) : sum(columns), marks(columns) {}
  std::vector<float> sum;
  Marks marks;
  std::vector<int64_t> touched;

  void add(const Csr& v, int64_t row, int64_t query) {
    for (int64_t e = v.crow[row]; e < v.crow[row + 1]; ++e) {
      const int64_t c = v.col[e];
      if (marks.insert(c, query)) {
        sum[c] = v.val[e];
        touched.push_back(c);
      } else {
        sum[c] += v.val[e];
      }
    }
  }
};

}  // namespace

std::vector<CsrChunk> encode(const EncodingParams& params) {
  const Reciprocal full = reciprocal_neighbours(params, params.k1);
  const Reciprocal half = reciprocal_neighbours(params, params.half);
  std::vector<CsrChunk> chunks((params.rows.size() + kChunkRows - 1) / kChunkRows);
  parallel_chunks(
      params.rows.size(), kChunkRows, [&] { return EncodingScratch(params.num_rows); },
      [&](EncodingScratch& scratch, int64_t chunk, int64_t begin, int64_t end) {
        for (int64_t i = params.rows.begin + begin; i < params.rows.begin + end; ++i) {
          expand(full, half, i, scratch);
          weigh(params, i, scratch, chunks[chunk]);
        }
      });
  return chunks;
}

std::vector<CsrChunk> expand_queries(const Csr& v, const int64_t* rank, int64_t rank_rows, int64_t rank_stride,
                                     int64_t k2) {
  std::vector<CsrChunk> chunks((rank_rows + kChunkRows - 1) / kChunkRows);
  const float count = static_cast<float>(k2);
  parallel_chunks(
      rank_rows, kChunkRows, [&] { return RowSum(v.rows); },
      [&](RowSum& row, int64_t chunk, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          row.touched.clear();
          for (int64_t m = 0; m < k2; ++m) row.add(v, rank[i * rank_stride + m], i);
          std::sort(row.touched.begin(), row.touched.end());
          for (const int64_t c : row.touched) chunks[chunk].add(c, row.sum[c] / count);
          chunks[chunk].counts.push_back(static_cast<int64_t>(row.touched.size()));
        }
      });
  return chunks;
}

}  // namespace ccfast::jaccard
