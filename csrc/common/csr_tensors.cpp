#include "csr_tensors.h"

#include "checks.h"

namespace ccfast {

Csr csr_view(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values) {
  CCFAST_CHECK_DTYPE(crow, at::kLong);
  CCFAST_CHECK_DTYPE(col, at::kLong);
  CCFAST_CHECK_DTYPE(values, at::kFloat);
  TORCH_CHECK_VALUE(crow.dim() == 1 && crow.numel() >= 1 && col.dim() == 1 && values.sizes() == col.sizes(),
                    "crow, col, values: expected [N + 1], [nnz], [nnz], got ", crow.sizes(), ", ", col.sizes(), ", ",
                    values.sizes());
  TORCH_CHECK_VALUE(crow.is_contiguous() && col.is_contiguous() && values.is_contiguous(),
                    "crow, col, values: expected contiguous tensors");
  const Csr csr{crow.numel() - 1, crow.const_data_ptr<int64_t>(), col.const_data_ptr<int64_t>(),
                values.const_data_ptr<float>()};
  TORCH_CHECK_VALUE(csr.crow[0] == 0 && csr.crow[csr.rows] == col.numel(), "crow: expected to run from 0 to ",
                    col.numel());
  for (int64_t i = 0; i < csr.rows; ++i)
    TORCH_CHECK_VALUE(csr.crow[i] <= csr.crow[i + 1], "crow: expected ascending entries, got a descent at row ", i);
  for (int64_t e = 0; e < col.numel(); ++e)
    TORCH_CHECK_VALUE(csr.col[e] >= 0 && csr.col[e] < csr.rows, "col: expected columns in [0, ", csr.rows, "), got ",
                      csr.col[e]);
  return csr;
}

CsrTensors csr_tensors(std::vector<CsrChunk> chunks, int64_t rows) {
  const int64_t nnz = count_entries(chunks);
  const at::Tensor crow = at::empty({rows + 1}, at::kLong), col = at::empty({nnz}, at::kLong);
  const at::Tensor values = at::empty({nnz}, at::kFloat);
  write_chunks(chunks, crow.mutable_data_ptr<int64_t>(), col.mutable_data_ptr<int64_t>(),
               values.mutable_data_ptr<float>());
  return {crow, col, values};
}

}  // namespace ccfast
