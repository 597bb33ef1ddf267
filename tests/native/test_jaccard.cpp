// jaccard: the sparse stages compared with dense definitions, and the CUDA kernels with the CPU kernels.
#include <algorithm>
#include <numeric>
#include <vector>

#include "check.h"
#include "jaccard/jaccard.h"
#include "samples.h"

namespace ccfast::jaccard {
namespace {

using native::CsrRows;
using Dense = std::vector<double>;  // [rows, rows]

struct Neighbours {
  int64_t rows, dim, k1;
  std::vector<float> features;
  std::vector<int64_t> rank;     // [rows, k1]
  std::vector<float> distances;  // [rows, k1]

  Neighbours(int64_t rows, int64_t dim, int64_t k1)
      : rows(rows), dim(dim), k1(k1), features(native::clustered_rows(rows, dim)) {
    for (int64_t i = 0; i < rows; ++i) {
      std::vector<std::pair<double, int64_t>> all;
      for (int64_t j = 0; j < rows; ++j) all.emplace_back(distance(i, j), j);
      std::sort(all.begin(), all.end());
      for (int64_t m = 0; m < k1; ++m) {
        rank.push_back(all[m].second);
        distances.push_back(static_cast<float>(all[m].first));
      }
    }
  }

  double distance(int64_t i, int64_t j) const {
    return native::squared_distance_of(features.data() + i * dim, features.data() + j * dim, dim);
  }
  // Is j among the first `width` neighbours of i?
  bool near(int64_t i, int64_t j, int64_t width) const {
    const auto first = rank.begin() + i * k1;
    return std::find(first, first + width, j) != first + width;
  }
  bool reciprocal(int64_t i, int64_t j, int64_t width) const { return near(i, j, width) && near(j, i, width); }
};

struct Scales {
  std::vector<float> row, column;  // empty: none

  EncodingParams params(const Neighbours& n) const {
    return {n.features.data(),
            n.rank.data(),
            n.distances.data(),
            row.empty() ? nullptr : row.data(),
            column.empty() ? nullptr : column.data(),
            n.rows,
            n.dim,
            n.k1,
            half_columns(n.k1),
            {0, n.rows}};
  }
};

// V by its definition, from sets as dense rows of flags.
Dense encode_naively(const Neighbours& n, const Scales& scales) {
  const int64_t rows = n.rows, half = half_columns(n.k1);
  Dense v(rows * rows, 0.0);
  for (int64_t i = 0; i < rows; ++i) {
    std::vector<char> expanded(rows);
    for (int64_t c = 0; c < rows; ++c) {
      if (!n.reciprocal(i, c, n.k1)) continue;
      expanded[c] = 1;
      int64_t size = 0, common = 0;
      for (int64_t h = 0; h < rows; ++h) {
        size += n.reciprocal(c, h, half);
        common += n.reciprocal(c, h, half) && n.reciprocal(i, h, n.k1);
      }
      for (int64_t h = 0; h < rows; ++h)
        if (3 * common > 2 * size && n.reciprocal(c, h, half)) expanded[h] = 1;
    }
    double sum = 0;
    for (int64_t j = 0; j < rows; ++j) {
      if (!expanded[j]) continue;
      const double shift = scales.column.empty() ? 0 : scales.column[j], scale = scales.row.empty() ? 1 : scales.row[i];
      sum += v[i * rows + j] = std::exp(-scale * (n.distance(i, j) + shift));
    }
    for (int64_t j = 0; j < rows && sum > 0; ++j) v[i * rows + j] /= sum;
  }
  return v;
}

Dense dense_of(const Csr& v) {
  Dense out(v.rows * v.rows, 0.0);
  for (int64_t i = 0; i < v.rows; ++i)
    for (int64_t e = v.crow[i]; e < v.crow[i + 1]; ++e) {
      CHECK(e == v.crow[i] || v.col[e - 1] < v.col[e]);
      out[i * v.rows + v.col[e]] = v.val[e];
    }
  return out;
}

int64_t positive(const Dense& v) {
  return std::count_if(v.begin(), v.end(), [](double value) { return value > 0; });
}

Dense expand_naively(const Dense& v, const Neighbours& n, int64_t k2) {
  Dense out(v.size(), 0.0);
  for (int64_t i = 0; i < n.rows; ++i)
    for (int64_t m = 0; m < k2; ++m)
      for (int64_t c = 0; c < n.rows; ++c)
        out[i * n.rows + c] += v[n.rank[i * n.k1 + m] * n.rows + c] / static_cast<double>(k2);
  return out;
}

Dense distance_naively(const Dense& v, int64_t rows) {
  Dense out(v.size());
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < rows; ++j) {
      double shared = 0;
      for (int64_t c = 0; c < rows; ++c) shared += std::min(v[i * rows + c], v[j * rows + c]);
      out[i * rows + j] = 1 - shared / (2 - shared);
    }
  return out;
}

// sharpness: if it is large, the exponents of a row are so far apart that only subtracting the highest prevents
// overflow.
Scales some_scales(int64_t rows, float sharpness) {
  Scales scales{native::random_matrix<float>(1, rows, 8), native::random_matrix<float>(1, rows, 9)};
  for (float& scale : scales.row) scale = (scale + 2) * sharpness;
  return scales;
}

template <class Function>
void for_each_sample(const Function& function) {
  for (const int64_t rows : native::kRows)
    for (const int64_t dim : {1, 33})
      for (const int64_t k1 : {int64_t{1}, std::min<int64_t>(rows, 6), std::min<int64_t>(rows, 21)})
        function(Neighbours(rows, dim, k1));
}

CsrRows encoded(const Neighbours& n, const Scales& scales) { return native::csr_of(encode(scales.params(n)), n.rows); }

CsrRows expanded(const Neighbours& n, int64_t k2) {
  const CsrRows v = encoded(n, {});
  return native::csr_of(expand_queries(v.view(), n.rank.data(), n.rows, n.k1, k2), n.rows);
}

TEST(the_encoding_equals_its_definition) {
  for_each_sample([](const Neighbours& n) {
    for (const Scales& scales : {Scales(), some_scales(n.rows, 1)}) {
      const Dense expected = encode_naively(n, scales);
      const CsrRows v = encoded(n, scales);
      CHECK_EQUAL(static_cast<int64_t>(v.col.size()), positive(expected));
      CHECK_NEAR(dense_of(v.view()), expected, 1e-6);
    }
  });
}

TEST(the_query_expansion_is_a_mean) {
  for_each_sample([](const Neighbours& n) {
    for (const int64_t k2 : {int64_t{1}, (n.k1 + 1) / 2, n.k1}) {
      const Dense expected = expand_naively(dense_of(encoded(n, {}).view()), n, k2);
      const CsrRows v = expanded(n, k2);
      CHECK_EQUAL(static_cast<int64_t>(v.col.size()), positive(expected));
      CHECK_NEAR(dense_of(v.view()), expected, 1e-6);
    }
  });
}

TEST(the_dense_distance_equals_its_definition) {
  for_each_sample([](const Neighbours& n) {
    const CsrRows v = expanded(n, (n.k1 + 1) / 2);
    const Dense expected = distance_naively(dense_of(v.view()), n.rows);
    const PostingLists postings(v.view());
    std::vector<float> all(n.rows * n.rows);
    dense_jaccard(v.view(), postings, 0, n.rows, 0, n.rows, all.data());
    CHECK_NEAR(Dense(all.begin(), all.end()), expected, 1e-6);
    const int64_t row0 = n.rows / 3, col0 = n.rows / 2, rows = n.rows - row0, cols = n.rows - col0;
    std::vector<float> block(rows * cols);
    dense_jaccard(v.view(), postings, row0, n.rows, col0, n.rows, block.data());
    for (int64_t i = 0; i < rows * cols; ++i) CHECK_EQUAL(block[i], all[(row0 + i / cols) * n.rows + col0 + i % cols]);
  });
}

TEST(the_sparse_distance_holds_every_near_pair_and_the_diagonal) {
  for_each_sample([](const Neighbours& n) {
    const CsrRows v = expanded(n, (n.k1 + 1) / 2);
    const PostingLists postings(v.view());
    std::vector<float> all(n.rows * n.rows);
    dense_jaccard(v.view(), postings, 0, n.rows, 0, n.rows, all.data());
    for (const float limit : {0.0f, 0.6f, 0.999f}) {
      const CsrRows found = native::csr_of(sparse_jaccard(v.view(), postings, limit, {0, n.rows}), n.rows);
      CsrRows expected;
      for (int64_t i = 0; i < n.rows; ++i) {
        for (int64_t j = 0; j < n.rows; ++j) {
          if (i != j && all[i * n.rows + j] > limit) continue;
          expected.col.push_back(j);
          expected.val.push_back(all[i * n.rows + j]);
        }
        expected.end_row();
      }
      CHECK_EQUAL(found.crow, expected.crow);
      CHECK_EQUAL(found.col, expected.col);
      CHECK_EQUAL(found.val, expected.val);
    }
  });
}

// --- the CUDA kernels, emulated ---

// The rows of a stage in order. It runs with too little room, and again with room for all entries.
template <class Stage>
CsrRows run_stage(int64_t rows, const Stage& stage) {
  std::vector<int64_t> start(rows, -1), count(rows, -1), col;
  std::vector<float> val;
  unsigned long long used = 0, longest = 0;
  const auto run = [&](int64_t capacity) {
    used = longest = 0;
    col.assign(capacity + 1, -7);
    val.assign(capacity + 1, -7.0f);
    const ScatteredRows out{&used, &longest, capacity, start.data(), count.data(), col.data(), val.data()};
    stage(out);
    CHECK_EQUAL(col[capacity], -7);  // nothing is written without room
    return out;
  };
  run(rows / 3);
  const ScatteredRows found = run(static_cast<int64_t>(used));
  CsrRows out;
  out.crow.resize(rows + 1);
  std::partial_sum(count.begin(), count.end(), out.crow.begin() + 1);
  CHECK_EQUAL(out.crow[rows], static_cast<int64_t>(used));
  CHECK_EQUAL(longest, 0ull);
  out.col.assign(used, -1);
  out.val.assign(used, NAN);
  gather_rows_cuda(found, rows, out.crow.data(), out.col.data(), out.val.data(), nullptr);
  return out;
}

// Without a workspace, and with one of fewer blocks than rows.
template <class Function>
void for_each_workspace(int64_t bytes, const Function& function) {
  function(Workspace{nullptr, 0, 0});
  const int64_t slice = (bytes + 255) / 256 * 256;
  std::vector<double> memory(3 * slice / sizeof(double), NAN);
  function(Workspace{memory.data(), 3, slice});
}

void check_same(const CsrRows& found, const CsrRows& expected, double tolerance) {
  CHECK_EQUAL(found.crow, expected.crow);
  CHECK_EQUAL(found.col, expected.col);
  CHECK_NEAR(found.val, expected.val, tolerance);
}

DeviceCsr device_csr(const CsrRows& v) {
  return {static_cast<int64_t>(v.crow.size()) - 1, v.crow.data(), v.col.data(), v.val.data()};
}

std::vector<int32_t> back_of(const Neighbours& n) {
  std::vector<int32_t> back(n.rows * n.k1, -1);
  reciprocal_cuda({n.rank.data(), n.rows, n.k1, back.data()}, nullptr);
  return back;
}

TEST(cuda_finds_the_place_of_every_row_among_its_neighbours_neighbours) {
  for_each_sample([](const Neighbours& n) {
    const std::vector<int32_t> back = back_of(n);
    for (int64_t i = 0; i < n.rows; ++i)
      for (int64_t m = 0; m < n.k1; ++m) {
        const auto list = n.rank.begin() + n.rank[i * n.k1 + m] * n.k1;
        CHECK_EQUAL(back[i * n.k1 + m], std::find(list, list + n.k1, i) - list);
      }
  });
}

TEST(cuda_encodes_as_the_cpu_does) {
  for_each_sample([](const Neighbours& n) {
    const std::vector<int32_t> back = back_of(n);
    for (const Scales& scales : {Scales(), some_scales(n.rows, 1), some_scales(n.rows, 1000)}) {
      const CsrRows expected = encoded(n, scales);
      for_each_workspace(encode_bytes_cuda(n.k1, half_columns(n.k1)), [&](const Workspace& workspace) {
        const CsrRows found = run_stage(n.rows, [&](const ScatteredRows& out) {
          encode_cuda(scales.params(n), back.data(), workspace, out, nullptr);
        });
        check_same(found, expected, 1e-7);
      });
    }
  });
}

// The largest number of entries in the k2 rows of V that form the mean of a row.
int64_t most_entries(const Neighbours& n, const CsrRows& v, int64_t k2) {
  int64_t most = 0;
  for (int64_t i = 0; i < n.rows; ++i) {
    int64_t entries = 0;
    for (int64_t m = 0; m < k2; ++m) entries += v.crow[n.rank[i * n.k1 + m] + 1] - v.crow[n.rank[i * n.k1 + m]];
    most = std::max(most, entries);
  }
  return most;
}

TEST(cuda_expands_queries_as_the_cpu_does) {
  for_each_sample([](const Neighbours& n) {
    const CsrRows v = encoded(n, {});
    for (const int64_t k2 : {int64_t{1}, (n.k1 + 1) / 2}) {
      const int64_t most = most_entries(n, v, k2);
      const ExpandParams params{device_csr(v), n.rank.data(), n.rows, n.k1, k2, most};
      for_each_workspace(expand_bytes_cuda(most), [&](const Workspace& workspace) {
        const CsrRows found =
            run_stage(n.rows, [&](const ScatteredRows& out) { expand_queries_cuda(params, workspace, out, nullptr); });
        check_same(found, expanded(n, k2), 0);
      });
    }
  });
}

// A mean that needs more than the available room is not written; the largest need is returned.
TEST(cuda_leaves_out_means_that_do_not_fit) {
  const Neighbours n(67, 33, 21);
  const CsrRows v = encoded(n, {});
  int64_t left_out = 0, kept = 0;
  for (int64_t k2 = 1; k2 < 12; ++k2) {
    const int64_t most = most_entries(n, v, k2);
    int64_t room = 4;  // a power of two, as the size of the working set
    while (2 * room < most) room *= 2;
    std::vector<int64_t> start(n.rows, -1), count(n.rows, -1), col(n.rows * most, -1);
    std::vector<float> val(col.size());
    unsigned long long used = 0, longest = 0;
    const ScatteredRows out{&used, &longest, n.rows * most, start.data(), count.data(), col.data(), val.data()};
    expand_queries_cuda({device_csr(v), n.rank.data(), n.rows, n.k1, k2, room}, {nullptr, 0, 0}, out, nullptr);
    CHECK_EQUAL(longest, static_cast<unsigned long long>(most));
    const CsrRows expected = expanded(n, k2);
    int64_t entries = 0;
    for (int64_t i = 0; i < n.rows; ++i) {
      CHECK(count[i] == 0 || count[i] == expected.crow[i + 1] - expected.crow[i]);
      left_out += count[i] == 0;
      kept += count[i] > 0;
      entries += count[i];
    }
    CHECK_EQUAL(used, static_cast<unsigned long long>(entries));
  }
  CHECK(left_out > 0 && kept > 0);
}

// V by columns, sorted as in the glue.
struct Postings {
  std::vector<int64_t> start;
  std::vector<Posting> entry;

  explicit Postings(const CsrRows& v) : start(v.crow.size(), -1), entry(v.col.size(), {-1, NAN}) {
    std::vector<int64_t> order(v.col.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return v.col[a] < v.col[b]; });
    std::vector<int32_t> sorted;
    for (const int64_t e : order) sorted.push_back(static_cast<int32_t>(v.col[e]));
    const int64_t entries = static_cast<int64_t>(v.col.size());
    postings_cuda({device_csr(v), entries, sorted.data(), order.data(), start.data(), entry.data()}, nullptr);
  }
  DevicePostings view() const { return {start.data(), entry.data()}; }
};

TEST(cuda_postings_are_those_of_the_cpu) {
  for_each_sample([](const Neighbours& n) {
    const CsrRows v = expanded(n, (n.k1 + 1) / 2);
    const PostingLists expected(v.view());
    const Postings found(v);
    CHECK_EQUAL(found.start, expected.start);
    for (size_t p = 0; p < found.entry.size(); ++p) {
      CHECK_EQUAL(found.entry[p].row, expected.row[p]);
      CHECK_EQUAL(found.entry[p].val, expected.val[p]);
    }
  });
}

// Both triangles, from the upper one.
CsrRows mirrored(const CsrRows& upper) {
  const Postings columns(upper);
  const int64_t rows = upper.view().rows, entries = 2 * static_cast<int64_t>(upper.col.size()) - rows;
  CsrRows full;
  full.crow.assign(rows + 1, -1);
  full.col.assign(entries, -1);
  full.val.assign(entries, NAN);
  mirror_cuda({device_csr(upper), columns.view(), full.crow.data(), full.col.data(), full.val.data()}, nullptr);
  return full;
}

void check_sparse_jaccard(const CsrRows& v, float limit, RowRange range, int slots) {
  const Postings postings(v);
  const int64_t rows = v.view().rows;
  const CsrRows expected = native::csr_of(sparse_jaccard(v.view(), PostingLists(v.view()), limit, range), range.size());
  const bool upper = range.size() == rows;  // as in the glue
  const CsrRows found = run_stage(range.size(), [&](const ScatteredRows& out) {
    sparse_jaccard_cuda({device_csr(v), postings.view(), limit, range, upper, slots}, out, nullptr);
  });
  check_same(upper ? mirrored(found) : found, expected, 0);
  CHECK_EQUAL(static_cast<int64_t>(expected.crow.size()) - 1, std::min(range.size(), rows));
}

TEST(cuda_distances_are_those_of_the_cpu) {
  for_each_sample([](const Neighbours& n) {
    const CsrRows v = expanded(n, (n.k1 + 1) / 2);
    const PostingLists postings(v.view());
    const Postings device_postings(v);
    const int64_t row0 = n.rows / 3, col0 = n.rows / 2, size = (n.rows - row0) * (n.rows - col0);
    std::vector<float> expected(size), found(size, NAN);
    dense_jaccard(v.view(), postings, row0, n.rows, col0, n.rows, expected.data());
    dense_jaccard_cuda({device_csr(v), device_postings.view(), row0, n.rows, col0, n.rows, found.data()}, nullptr);
    CHECK_EQUAL(found, expected);
    check_sparse_jaccard(v, 0.6f, {0, n.rows}, kDefaultSlots);
    const RowRange last = {std::max<int64_t>(0, n.rows - 4), n.rows};
    for (const float limit : {0.0f, 0.999f}) check_sparse_jaccard(v, limit, last, kDefaultSlots);
  });
}

// More rows than neighbour lists of clustered samples can be computed for quickly. Some rows are empty; there are as
// many columns as rows, so that all entries of one column are the neighbours of a hub.
CsrRows many_rows(int64_t rows) {
  CsrRows v;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t column = i * 31 % 97;
    if (i % 50 != 49) {
      v.col.insert(v.col.end(), {column, column + 100, 200 + i % 7});
      v.val.insert(v.val.end(), {0.25f, 0.5f, 0.25f});
    }
    v.end_row();
  }
  return v;
}

// From a table with room for all targets to one with room for a single target.
TEST(cuda_sparse_distances_do_not_depend_on_the_room_for_targets) {
  const CsrRows v = many_rows(701);
  for (const int slots : {kDefaultSlots, 512, 64, 8, 4})
    for (const float limit : {0.0f, 0.5f, 0.99999994f}) check_sparse_jaccard(v, limit, {690, 701}, slots);
}

TEST(cuda_sparse_distances_of_many_rows_are_those_of_the_cpu) {
  const CsrRows v = many_rows(701);
  check_sparse_jaccard(v, 0.5f, {0, 701}, kDefaultSlots);
  check_sparse_jaccard(v, 0.7f, {0, 701}, 256);
  check_sparse_jaccard(many_rows(4001), 0.99999994f, {4000, 4001}, kDefaultSlots);  // more near targets than threads
}

// Limits that equal distances of pairs bit for bit, and the next number below each, for the last kSome rows.
constexpr int64_t kSome = 9;

std::vector<float> limits_of(const CsrRows& v) {
  const int64_t rows = v.view().rows, some = std::min<int64_t>(rows, kSome);
  std::vector<float> all(some * rows), limits;
  dense_jaccard(v.view(), PostingLists(v.view()), rows - some, rows, 0, rows, all.data());
  std::sort(all.begin(), all.end());
  all.erase(std::remove_if(all.begin(), all.end(), [](float distance) { return distance >= 1; }), all.end());
  for (size_t q = 1; q < 8; ++q) {
    limits.push_back(all[q * (all.size() - 1) / 7]);
    limits.push_back(std::nextafter(limits.back(), 0.0f));
  }
  return limits;
}

TEST(cuda_sparse_distances_at_the_limit_are_kept) {
  const Neighbours n(67, 33, 21);
  const CsrRows v = expanded(n, 6);
  for (const float limit : limits_of(v))
    for (const int slots : {kDefaultSlots, 32}) check_sparse_jaccard(v, limit, {n.rows - kSome, n.rows}, slots);
}

// Sums of many terms, which float32 rounds: more columns than are staged at a time, and more terms than fit into shared
// memory per row.
TEST(cuda_sparse_distances_of_long_rows_are_those_of_the_cpu) {
  const int64_t rows = 800;
  native::Numbers numbers(3);
  CsrRows v;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = i % 3; c < rows; c += 1 + i % 2) {
      v.col.push_back(c);
      v.val.push_back(
          static_cast<float>((1 + numbers.next()) * static_cast<double>(1 + i % 2) / static_cast<double>(rows)));
    }
    v.end_row();
  }
  for (const float limit : limits_of(v)) check_sparse_jaccard(v, limit, {rows - 3, rows}, kDefaultSlots);
}

// More targets than are accumulated at a time.
TEST(cuda_distances_span_several_tiles) {
  const int64_t rows = 2001, row0 = 1000, col0 = 123;
  const CsrRows v = many_rows(rows);
  const Postings postings(v);
  for (const int64_t tile : {kDefaultTile, int64_t{700}, int64_t{67}}) {
    std::vector<float> expected(2 * (rows - col0)), found(expected.size(), NAN);
    dense_jaccard(v.view(), PostingLists(v.view()), row0, row0 + 2, col0, rows, expected.data());
    dense_jaccard_cuda({device_csr(v), postings.view(), row0, row0 + 2, col0, rows, found.data(), tile}, nullptr);
    CHECK_EQUAL(found, expected);
  }
}

}  // namespace
}  // namespace ccfast::jaccard
