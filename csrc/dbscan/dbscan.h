// DBSCAN on precomputed distances, with the labels of scikit-learn 1.x number for number.
//
// Core: at least min_samples points at distance <= eps, itself included. Clusters are numbered by their lowest core; a
// border point joins the lowest-numbered cluster with a core within eps; the rest is noise, -1.
#pragma once

#include <cstdint>

#include "../common/csr.h"

namespace ccfast::dbscan {

// Distances that are not stored are larger than eps, but for those of the diagonal, which are 0.
void sparse(const Csr& distances, float eps, int64_t min_samples, int64_t* labels);

// distances: [rows, rows], row-major. Returns the first row that holds a NaN, or -1.
int64_t dense(const float* distances, int64_t rows, float eps, int64_t min_samples, int64_t* labels);

}  // namespace ccfast::dbscan
