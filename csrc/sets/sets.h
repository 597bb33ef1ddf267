// Contrastive loss with a set of positives for each row: -(1 / |positives|) sum_p (z_p - logsumexp of the kept z).
#pragma once

#include <cstdint>

namespace ccfast::sets {

// The columns that count for each row.
template <class T>
struct Columns {
  const T* logits;              // [rows, columns]
  const bool* positives;        // [rows, columns]
  const bool* keep;             // [rows, columns]; nullptr: all
  const int32_t* multiplicity;  // [rows, columns] how often a kept column counts; nullptr: once
  int64_t rows, columns;
};

template <class T>
struct LossParams {
  Columns<T> in;
  T* losses;         // [rows] out; 0 for a row without positives or without kept columns
  double* log_sums;  // [rows] out: logsumexp over the kept columns
  int64_t* counts;   // [rows] out: positives; 0 for a row that has no loss
};

template <class T>
void loss(const LossParams<T>& params);

template <class T>
struct BackwardParams {
  Columns<T> in;
  const T* upstream;       // [rows]
  const double* log_sums;  // [rows]
  const int64_t* counts;   // [rows]
  T* gradient;             // [rows, columns] out
};

template <class T>
void backward(const BackwardParams<T>& params);

// ---- CUDA ----

template <class T>
void loss_cuda(const LossParams<T>& params, void* stream);
template <class T>
void backward_cuda(const BackwardParams<T>& params, void* stream);

}  // namespace ccfast::sets
