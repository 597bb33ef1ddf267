// DBSCAN on precomputed distances, with exactly the labels of scikit-learn 1.x.
//
// Core: at least min_samples points at distance <= eps, itself included. Clusters are numbered by their lowest core; a
// border point joins the lowest-numbered cluster with a core within eps; the rest is noise, -1.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "../common/csr.h"

namespace ccfast::dbscan {

// eps as distances are compared with it: as float32, and finite, so that infinite distances are never within it.
inline float radius(double eps) {
  return static_cast<float>(std::min(eps, static_cast<double>(std::numeric_limits<float>::max())));
}

// Distances that are not stored are larger than eps, except on the diagonal, where they are 0.
void sparse(const Csr& distances, float eps, int64_t min_samples, int64_t* labels);

// distances: [rows, rows], row-major. Returns the first row that holds a NaN, or -1.
int64_t dense(const float* distances, int64_t rows, float eps, int64_t min_samples, int64_t* labels);

// ---- CUDA: the same labels in parallel. Cores are joined to trees that hook to the lower index, so that the root of a
// cluster is its lowest core, for any order of the threads. Distances must be symmetric. ----

// A dense matrix (crow is null), or sparse rows.
struct DeviceDistances {
  int64_t rows;
  const int64_t* crow;
  const int64_t* col;
  const float* val;
  float eps;
};

// core[i] = row i has at least min_samples entries within eps.
void find_cores_cuda(const DeviceDistances& distances, int64_t min_samples, bool* core, void* stream);
// root[i] = lowest core of the cluster of core i; i itself for other points. is_root[i] = 1 for a core that is its own
// root, 0 otherwise: the sum up to a root counts the clusters up to its own.
void join_cores_cuda(const DeviceDistances& distances, const bool* core, int32_t* root, int64_t* is_root, void* stream);
// labels of cores from roots_up_to[i] = is_root[0] + .. + is_root[i], of border points the lowest among the cores
// within eps, -1 for noise.
void label_cuda(const DeviceDistances& distances, const bool* core, const int32_t* root, const int64_t* roots_up_to,
                int64_t* labels, void* stream);

}  // namespace ccfast::dbscan
