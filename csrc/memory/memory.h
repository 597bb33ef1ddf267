// The cluster memory: centroids of an epoch (Cluster Contrast, section 3.2) and its momentum update.
#pragma once

#include <cstdint>

namespace ccfast::memory {

// The smallest norm by which a row is divided: a zero row stays zero instead of becoming NaN.
constexpr double kSmallestNorm = 1e-12;
// Largest norm whose reciprocal is a normal float32.
constexpr double kLargestNorm = 8e37;

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

// mix(x): M[y] <- normalise(m M[y] + (1 - m) x). A group: the samples of one cluster that share a number in `groups`;
// groups are in the order of their first samples. Similarities are inner products with the old M[y].
enum class Mode {
  kSequential,  // every sample in batch order: mix
  kHardest,     // the sample of lowest similarity, or of lowest inner product with a row of `reference`: mix
  kMean,        // the mean of the samples, not normalised before: mix
  kLast,        // the last sample: mix
  kReplace,     // M[y] <- the last sample
  // The modes of 3C: cm_camera, cm_hard_camera, tccl_camera, hd_camera, in this order.
  kGroupFirst,     // the first sample of every group, group after group: mix
  kGroupHardest,   // the sample of lowest similarity of every group, group after group: mix
  kGroupMean,      // the groups' normalised mean of lowest similarity: mix
  kGroupHarmonic,  // a = 1 - similarity, b = 1 + <x, normalised mean of its group>: the sample of highest
                   // a b / (a + b): mix
};

inline bool needs_groups(Mode mode) { return mode >= Mode::kGroupFirst; }

// Among equal candidates the first one is used: in the batch, or in the first of the groups.
template <class T>
struct UpdateParams {
  T* memory;              // [clusters, dim], in place
  const T* features;      // [batch, dim]
  const double* scale;    // [batch] factor of each sample: 1, or 1 / norm
  const int64_t* labels;  // [batch] in [-1, clusters); -1 is skipped
  int64_t batch, dim;
  T momentum;
  Mode mode;
  const T* reference = nullptr;     // [clusters, dim] for kHardest; nullptr: the memory
  const int64_t* groups = nullptr;  // [batch], for the modes of groups
  T* scratch = nullptr;             // [batch, dim], for the modes of groups on CUDA
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

// As update(); labels outside [0, clusters) are skipped: reporting them would have to wait for the device.
// normalize: every sample is divided by its norm as well (params.scale is not read).
template <class T>
void update_cuda(const UpdateParams<T>& params, int64_t clusters, bool normalize, void* stream);
// The part of update_cuda() for kLast, kReplace and the modes of groups.
template <class T>
void update_chosen_cuda(const UpdateParams<T>& params, int64_t clusters, bool normalize, void* stream);

}  // namespace ccfast::memory
