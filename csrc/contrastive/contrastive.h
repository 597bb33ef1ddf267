// Centroid contrastive loss (Cluster Contrast, equation 2): cross-entropy of normalise(x) . memory / temperature.
//
// The gradient needs the softmax that the loss has just computed, so one pass computes both. Only the upstream factor
// is then missing, which scales the gradient.
#pragma once

#include <cstdint>

namespace ccfast::contrastive {

// The smallest norm by which a feature is divided, as in torch.nn.functional.normalize.
constexpr double kSmallestNorm = 1e-12;
// Largest norm whose reciprocal is a normal float32; rows of larger norm are divided in float64.
constexpr double kLargestNorm = 8e37;

// out = x / max(norm, kSmallestNorm), row by row; norms accumulated in float64. Returns the first row whose norm is not
// finite, or -1.
template <class T>
int64_t normalize_rows(const T* x, int64_t rows, int64_t dim, T* out, double* norms);

// Turns the gradient with respect to the normalised rows, in place, into that with respect to the rows.
template <class T>
void normalize_rows_backward(T* gradient, const T* normalized, const double* norms, int64_t rows, int64_t dim);

template <class T>
struct SoftmaxParams {
  T* logits;              // [rows, classes]: products x . memory in; with_gradient: gradient of the loss by them out
  int64_t stride;         // stride of the rows of logits, at least classes
  const int64_t* labels;  // [rows] in [0, classes) or ignore_index
  const double* weights;  // factor of the gradient of each row's loss
  int64_t weight_stride;  // stride of weights; 0: one weight for all rows
  int64_t rows, classes;
  double temperature, label_smoothing;
  int64_t ignore_index;
  bool with_gradient;
  T* losses;  // [rows] out; 0 where ignored
};

template <class T>
void softmax_cross_entropy(const SoftmaxParams<T>& params);

// The optional arguments of the loss; nullptr: not given. With z = logits * sharpness over the
// columns that take part, e the smoothing and K their number, the loss of a row is
//   -weight * sum_c ((1 - e) t_c + e / K) log softmax(z)_c,   t: the targets, or 1 at the label.
// A row whose targets are all zero is ignored. A target on a column that does not take part makes the loss infinite.
template <class T>
struct TargetParams {
  const T* targets;           // [rows, classes]; the labels are then not read
  const T* sharpness;         // [classes], in place of 1 / temperature
  const bool* mask;           // [rows, classes]: the columns that take part
  const double* row_weights;  // [rows]
};

template <class T>
void softmax_cross_entropy(const SoftmaxParams<T>& params, const TargetParams<T>& targets);

// ---- CUDA: the same three steps on a stream. Nothing is checked that would need a wait for the device: a label
// outside [0, classes) counts as ignored. Work that is done once per batch is one more block of a launch: a separate
// launch would take more host time than the work takes on the device. ----

// The batch's labels, from which the first step finds what the mean divides by.
struct LabelsToCount {
  const int64_t* labels;  // [rows]
  int64_t rows, classes, ignore_index;
  bool mean;
  double* weight;  // [] out: 1 / max(1, rows that are not ignored) for the mean, otherwise 1
};

// x is read in its own precision and normalised into T. rows = 0: only the labels are counted.
enum HalfBits : uint16_t {};
enum BFloat16Bits : uint16_t {};
template <class In, class T>
void normalize_rows_cuda(const In* x, int64_t rows, int64_t dim, T* out, double* norms, const LabelsToCount& labels,
                         void* stream);
void normalize_rows_cuda(const HalfBits* x, int64_t rows, int64_t dim, float* out, double* norms,
                         const LabelsToCount& labels, void* stream);
void normalize_rows_cuda(const BFloat16Bits* x, int64_t rows, int64_t dim, float* out, double* norms,
                         const LabelsToCount& labels, void* stream);

// params.weights is in device memory. rows * stride values are allocated; those between classes and stride may be
// read and written.
template <class T>
void softmax_cross_entropy_cuda(const SoftmaxParams<T>& params, void* stream);
template <class T>
void softmax_cross_entropy_cuda(const SoftmaxParams<T>& params, const TargetParams<T>& targets, void* stream);

// The batch's losses, which the last step reduces to the one that is returned.
template <class T>
struct LossesToSum {
  const T* losses;  // [rows]
  int64_t rows;
  const double* weight;  // []
  T* loss;               // [] out: weight times the sum; nullptr: nothing to sum
};

// rows = 0: only the losses are summed.
template <class T>
void normalize_rows_backward_cuda(T* gradient, const T* normalized, const double* norms, int64_t rows, int64_t dim,
                                  const LossesToSum<T>& losses, void* stream);

}  // namespace ccfast::contrastive
