// Sinkhorn-Knopp normalisation (SwAV, appendix A) of E = exp(scores / epsilon), as factors of its rows and columns.
//
// Every step of the algorithm scales rows or columns, so that Q[i, j] = u[i] E[i, j] v[j] all along, and only u and v
// change. u cancels any constant factor of all v, so the total and the numbers of rows and columns are not needed.
#pragma once

#include <cstdint>

namespace ccfast::sinkhorn {

template <class T>
struct ExpParams {
  const T* scores;  // [rows, columns]
  double epsilon;
  int64_t rows, columns;
  T* exponentials;  // [rows, columns] out: exp(scores / epsilon); no maximum is subtracted
  double* sums;     // [columns] out: of each column of the exponentials
};

// Returns the first row with a score that is not finite, or -1.
template <class T>
int64_t exponentiate(const ExpParams<T>& params);

template <class T>
struct ScaledParams {
  const T* exponentials;  // [rows, columns]
  const double* factors;  // [columns] v
  int64_t rows, columns;
};

// sums [columns] out: column sums of E, whose rows are scaled so that they sum to 1 after a product with v.
template <class T>
void column_sums(const ScaledParams<T>& params, double* sums);

// assignment [rows, columns] out: E times v, each row divided by its sum.
template <class T>
void assign(const ScaledParams<T>& params, T* assignment);

// ---- CUDA ----

// Blocks of rows with separate column sums; partial_sums: [blocks_of_rows(rows), columns], for the kernels.
constexpr int64_t kRowsPerBlock = 32;
inline int64_t blocks_of_rows(int64_t rows) { return (rows + kRowsPerBlock - 1) / kRowsPerBlock; }

template <class T>
void exponentiate_cuda(const ExpParams<T>& params, double* partial_sums, void* stream);
template <class T>
void column_sums_cuda(const ScaledParams<T>& params, double* partial_sums, double* sums, void* stream);
template <class T>
void assign_cuda(const ScaledParams<T>& params, T* assignment, void* stream);

}  // namespace ccfast::sinkhorn
