#include <algorithm>
#include <vector>

#include "../common/parallel.h"
#include "../common/simd.h"
#include "dbscan.h"

namespace ccfast::dbscan {
namespace {

struct Degree {
  int64_t within, nan;
};

CCFAST_CLONES Degree degree_of(const float* row, int64_t count, float eps) {
  Degree degree{0, 0};
  for (int64_t j = 0; j < count; ++j) {
    degree.within += row[j] <= eps;
    degree.nan += row[j] != row[j];
  }
  return degree;
}

// Grows one cluster after the other from its lowest core through the neighbours of cores. for_each_neighbour(i, visit)
// calls visit(j) for every j within eps of i.
template <class ForEachNeighbour>
void grow(const std::vector<char>& core, int64_t rows, int64_t* labels, const ForEachNeighbour& for_each_neighbour) {
  std::fill(labels, labels + rows, int64_t{-1});
  std::vector<int64_t> open;
  int64_t cluster = 0;
  for (int64_t seed = 0; seed < rows; ++seed) {
    if (labels[seed] != -1 || !core[seed]) continue;
    labels[seed] = cluster;
    open.push_back(seed);
    while (!open.empty()) {
      const int64_t i = open.back();
      open.pop_back();
      for_each_neighbour(i, [&](int64_t j) {
        if (labels[j] != -1) return;
        labels[j] = cluster;
        if (core[j]) open.push_back(j);
      });
    }
    ++cluster;
  }
}

}  // namespace

void sparse(const Csr& distances, float eps, int64_t min_samples, int64_t* labels) {
  std::vector<char> core(distances.rows);
  parallel_for(distances.rows, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t within = 0;
      bool diagonal = false;
      for (int64_t e = distances.crow[i]; e < distances.crow[i + 1]; ++e) {
        within += distances.val[e] <= eps;
        diagonal |= distances.col[e] == i;
      }
      core[i] = within + !diagonal >= min_samples;
    }
  });
  grow(core, distances.rows, labels, [&](int64_t i, const auto& visit) {
    for (int64_t e = distances.crow[i]; e < distances.crow[i + 1]; ++e)
      if (distances.val[e] <= eps) visit(distances.col[e]);
  });
}

int64_t dense(const float* distances, int64_t rows, float eps, int64_t min_samples, int64_t* labels) {
  std::vector<char> core(rows), nan(rows);
  parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Degree degree = degree_of(distances + i * rows, rows, eps);
      core[i] = degree.within >= min_samples;
      nan[i] = degree.nan > 0;
    }
  });
  const auto bad = std::find(nan.begin(), nan.end(), 1);
  if (bad != nan.end()) return bad - nan.begin();
  grow(core, rows, labels, [&](int64_t i, const auto& visit) {
    const float* row = distances + i * rows;
    for (int64_t j = 0; j < rows; ++j)
      if (row[j] <= eps) visit(j);
  });
  return -1;
}

}  // namespace ccfast::dbscan
