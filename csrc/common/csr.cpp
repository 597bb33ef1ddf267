#include "csr.h"

#include <algorithm>

namespace ccfast {

void write_chunks(std::vector<CsrChunk>& chunks, int64_t* crow, int64_t* col, float* val) {
  int64_t row = 0;
  crow[0] = 0;
  for (CsrChunk& chunk : chunks) {
    std::copy(chunk.col.begin(), chunk.col.end(), col + crow[row]);
    std::copy(chunk.val.begin(), chunk.val.end(), val + crow[row]);
    for (const int64_t count : chunk.counts) {
      crow[row + 1] = crow[row] + count;
      ++row;
    }
    chunk = CsrChunk();
  }
}

}  // namespace ccfast
