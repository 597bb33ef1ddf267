// Compressed sparse rows: a view, and a builder that lets threads fill chunks of rows independently.
#pragma once

#include <cstdint>
#include <vector>

namespace ccfast {

// Row i holds entries crow[i] .. crow[i + 1] - 1 with ascending columns.
struct Csr {
  int64_t rows;
  const int64_t* crow;  // [rows + 1]
  const int64_t* col;   // [nnz]
  const float* val;     // [nnz]
};

// Consecutive rows that one thread has finished.
struct CsrChunk {
  std::vector<int64_t> counts;  // entries per row
  std::vector<int64_t> col;
  std::vector<float> val;

  void add(int64_t column, float value) {
    col.push_back(column);
    val.push_back(value);
  }
};

inline int64_t count_entries(const std::vector<CsrChunk>& chunks) {
  int64_t total = 0;
  for (const CsrChunk& chunk : chunks) total += static_cast<int64_t>(chunk.col.size());
  return total;
}

// Writes the chunks, in order, to crow [rows + 1], col [nnz] and val [nnz], and frees each once it is written.
void write_chunks(std::vector<CsrChunk>& chunks, int64_t* crow, int64_t* col, float* val);

}  // namespace ccfast
