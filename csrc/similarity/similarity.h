// Means of similarities by label: the similarity to a centroid that is not normalised, without the centroid.
#pragma once

#include <cstdint>

namespace ccfast::similarity {

template <class T>
struct MeanParams {
  const T* similarities;  // [rows, columns]
  const int64_t* labels;  // [columns]; what is outside [0, segments) is left out
  const int64_t* counts;  // [segments] columns of each label
  int64_t rows, columns, segments;
  T* means;  // [rows, segments] out, 0 where the label has no column; summed in float64
};

template <class T>
void segment_mean(const MeanParams<T>& params);

template <class T>
struct BackwardParams {
  const T* upstream;      // [rows, segments]
  const int64_t* labels;  // [columns]
  const int64_t* counts;  // [segments]
  int64_t rows, columns, segments;
  T* gradient;  // [rows, columns] out: upstream of the column's label over its count, 0 where it is left out
};

template <class T>
void segment_mean_backward(const BackwardParams<T>& params);

// ---- CUDA ----

// order: the columns, stably sorted by label; first[s], first[s + 1]: the range of label s in it.
template <class T>
struct MeanCudaParams {
  const T* similarities;
  const int64_t* order;
  const int64_t* first;
  int64_t rows, columns, segments;
  T* means;
};
template <class T>
void segment_mean_cuda(const MeanCudaParams<T>& params, void* stream);

template <class T>
void segment_mean_backward_cuda(const BackwardParams<T>& params, void* stream);

}  // namespace ccfast::similarity
