// The cluster memory: centroids of an epoch (Cluster Contrast, section 3.2) and its momentum update.
#pragma once

#include <cstdint>

namespace ccfast::memory {

// Smallest norm a row is divided by: a zero row stays zero instead of turning into NaN.
constexpr double kSmallestNorm = 1e-12;

template <class T>
struct CentroidParams {
  const T* features;      // [rows, dim]
  const int64_t* labels;  // [rows] in [-1, clusters); -1 is left out
  int64_t rows, dim, clusters;
  T* centroids;  // [clusters, dim] out: mean of the members, divided by its norm
};

// Returns the first cluster without a member, or -1.
template <class T>
int64_t centroids(const CentroidParams<T>& params);

enum class Mode {
  kSequential,  // every sample in batch order: M[y] <- normalise(m M[y] + (1 - m) x)
  kHardest,     // a cluster's sample with the lowest inner product with the old M[y], the first on ties; one update
  kMean,        // the batch mean of a cluster's samples, not normalised before mixing; one update
};

template <class T>
struct UpdateParams {
  T* memory;              // [clusters, dim], in place
  const T* features;      // [batch, dim]
  const double* scale;    // [batch] factor of each sample: 1, or 1 / norm
  const int64_t* labels;  // [batch] in [-1, clusters); -1 is skipped
  int64_t batch, dim;
  T momentum;
  Mode mode;
};

template <class T>
void update(const UpdateParams<T>& params);

// Norms of the rows of [rows, dim], accumulated in float64.
template <class T>
void row_norms(const T* matrix, int64_t rows, int64_t dim, double* norms);

// ---- CUDA ----

// order: positions of the rows, stably sorted by label; first[c], first[c + 1]: the range of cluster c in it.
template <class T>
struct CentroidsCudaParams {
  const T* features;
  const int64_t* order;
  const int64_t* first;
  int64_t dim, clusters;
  T* centroids;
};
template <class T>
void centroids_cuda(const CentroidsCudaParams<T>& params, void* stream);

// As update(); labels outside [0, clusters) are skipped, since nobody could be told without waiting for the device.
// normalize: divide every sample by its norm on the way (params.scale is not read).
template <class T>
void update_cuda(const UpdateParams<T>& params, int64_t clusters, bool normalize, void* stream);

}  // namespace ccfast::memory
