// Jaccard distance of sparse encodings on the CPU: one row at a time walks the posting lists of its columns.
#include <algorithm>
#include <utility>

#include "../common/parallel.h"
#include "../common/simd.h"
#include "jaccard.h"

namespace ccfast::jaccard {
namespace {

constexpr int64_t kChunkRows = 64;

float distance_of(float shared) { return std::max(0.0f, 1.0f - shared / (2.0f - shared)); }

CCFAST_CLONES void distances_of(const float* shared, int64_t count, float* out) {
  for (int64_t j = 0; j < count; ++j) {
    const float distance = 1.0f - shared[j] / (2.0f - shared[j]);
    out[j] = distance < 0.0f ? 0.0f : distance;
  }
}

// Row accumulator of s(i, j) = sum over columns c, ascending, of min(V[i, c], V[j, c]).
struct SharedMass {
  explicit SharedMass(int64_t rows) : mass(rows, 0.0f), touched(rows) {}
  std::vector<float> mass;
  std::vector<int32_t> touched;
  int64_t count = 0;

  // Adds column c of row i for the rows `first` and up.
  void add(const PostingLists& postings, int64_t c, float value, int64_t first) {
    if (!(value > 0)) return;
    const int32_t* row = postings.row.data() + postings.start[c];
    const int32_t* row_end = postings.row.data() + postings.start[c + 1];
    row = std::lower_bound(row, row_end, static_cast<int32_t>(first));
    const float* val = postings.val.data() + (row - postings.row.data());
    for (; row != row_end; ++row, ++val) {
      float& sum = mass[*row];
      touched[count] = *row;
      count += sum == 0.0f;
      sum += std::min(value, *val);
    }
  }
};

// J(i, j) for j >= first at most max_distance, and the diagonal, ascending in j.
void near_row(const Csr& v, const PostingLists& postings, int64_t i, int64_t first, float max_distance,
              SharedMass& shared, CsrChunk& out) {
  shared.count = 0;
  for (int64_t e = v.crow[i]; e < v.crow[i + 1]; ++e) shared.add(postings, v.col[e], v.val[e], first);
  if (shared.mass[i] == 0.0f) shared.touched[shared.count++] = static_cast<int32_t>(i);
  int32_t* kept = shared.touched.data();
  for (int64_t t = 0; t < shared.count; ++t) {
    const int32_t j = shared.touched[t];
    if (j == i || distance_of(shared.mass[j]) <= max_distance) {
      *kept++ = j;
    } else {
      shared.mass[j] = 0.0f;
    }
  }
  std::sort(shared.touched.data(), kept);
  for (const int32_t* j = shared.touched.data(); j != kept; ++j) {
    out.add(*j, distance_of(shared.mass[*j]));
    shared.mass[*j] = 0.0f;
  }
  out.counts.push_back(static_cast<int64_t>(kept - shared.touched.data()));
}

// Mirrors upper rows (diagonal first) to full rows with ascending columns.
std::vector<CsrChunk> mirror(std::vector<CsrChunk>& upper, int64_t rows) {
  std::vector<int64_t> counts(rows, 0);
  int64_t i = 0;
  for (const CsrChunk& chunk : upper) {
    for (const int64_t count : chunk.counts) counts[i++] += count;
    for (const int64_t j : chunk.col) ++counts[j];
  }
  std::vector<int64_t> start(rows + 1, 0);
  for (int64_t row = 0; row < rows; ++row)
    start[row + 1] = start[row] + --counts[row];  // the diagonal was counted twice
  std::vector<CsrChunk> full(1);
  full[0].counts = std::move(counts);
  full[0].col.resize(start[rows]);
  full[0].val.resize(start[rows]);
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  i = 0;
  for (CsrChunk& chunk : upper) {
    int64_t e = 0;
    for (const int64_t count : chunk.counts) {
      for (const int64_t last = e + count; e < last; ++e) {
        const int64_t j = chunk.col[e];
        full[0].col[next[i]] = j;
        full[0].val[next[i]++] = chunk.val[e];
        if (j == i) continue;
        full[0].col[next[j]] = i;
        full[0].val[next[j]++] = chunk.val[e];
      }
      ++i;
    }
    chunk = CsrChunk();
  }
  return full;
}

}  // namespace

// Entries that are not positive add nothing to any s(i, j) and are left out, so that a zero sum means "untouched".
PostingLists::PostingLists(const Csr& v) : start(v.rows + 1, 0) {
  const int64_t nnz = v.crow[v.rows];
  for (int64_t e = 0; e < nnz; ++e) start[v.col[e] + 1] += v.val[e] > 0;
  for (int64_t c = 0; c < v.rows; ++c) start[c + 1] += start[c];
  row.resize(start[v.rows]);
  val.resize(start[v.rows]);
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  for (int64_t i = 0; i < v.rows; ++i)
    for (int64_t e = v.crow[i]; e < v.crow[i + 1]; ++e) {
      if (!(v.val[e] > 0)) continue;
      const int64_t slot = next[v.col[e]]++;
      row[slot] = static_cast<int32_t>(i);
      val[slot] = v.val[e];
    }
}

// Of all rows only the upper triangle is computed.
std::vector<CsrChunk> sparse_jaccard(const Csr& v, const PostingLists& postings, float max_distance, RowRange rows) {
  const bool all = rows.size() == v.rows;
  std::vector<CsrChunk> chunks((rows.size() + kChunkRows - 1) / kChunkRows);
  parallel_chunks(
      rows.size(), kChunkRows, [&] { return SharedMass(v.rows + 1); },
      [&](SharedMass& shared, int64_t chunk, int64_t begin, int64_t end) {
        for (int64_t i = rows.begin + begin; i < rows.begin + end; ++i)
          near_row(v, postings, i, all ? i : 0, max_distance, shared, chunks[chunk]);
      });
  return all ? mirror(chunks, v.rows) : std::move(chunks);
}

void dense_jaccard(const Csr& v, const PostingLists& postings, int64_t row_begin, int64_t row_end, int64_t col_begin,
                   int64_t col_end, float* out) {
  const int64_t columns = col_end - col_begin;
  parallel_chunks(
      row_end - row_begin, kChunkRows, [&] { return SharedMass(v.rows + 1); },
      [&](SharedMass& shared, int64_t, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          shared.count = 0;
          for (int64_t e = v.crow[row_begin + i]; e < v.crow[row_begin + i + 1]; ++e)
            shared.add(postings, v.col[e], v.val[e], col_begin);
          distances_of(shared.mass.data() + col_begin, columns, out + i * columns);
          for (int64_t t = 0; t < shared.count; ++t) shared.mass[shared.touched[t]] = 0.0f;
        }
      });
}

}  // namespace ccfast::jaccard
