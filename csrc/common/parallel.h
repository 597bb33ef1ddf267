// Parallel loops for the CPU kernels: ATen's thread pool inside the extension, one thread in the torch-free library.
// parallel.cpp alone includes ATen's headers, which take longer to compile than a kernel.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "subnormals.h"

namespace ccfast {

#ifndef CCFAST_STANDALONE
// at::parallel_for and at::get_num_threads; body gets `closure`, begin and end.
void parallel_for(int64_t n, int64_t grain, void (*body)(const void*, int64_t, int64_t), const void* closure);
int64_t num_threads();
#else
inline int64_t num_threads() { return 1; }
#endif

// Calls body(begin, end) on disjoint ranges that cover [0, n); ranges shorter than grain are not split.
template <class Body>
void parallel_for(int64_t n, int64_t grain, const Body& body) {
  if (n <= 0) return;
#ifdef CCFAST_STANDALONE
  (void)grain;
  body(int64_t{0}, n);
#else
  parallel_for(
      n, grain,
      [](const void* closure, int64_t begin, int64_t end) { (*static_cast<const Body*>(closure))(begin, end); }, &body);
#endif
}

// parallel_for whose threads compute with subnormal numbers.
template <class Body>
void parallel_for_exact(int64_t n, int64_t grain, const Body& body) {
  parallel_for(n, grain, [&](int64_t begin, int64_t end) {
    const WithSubnormals with_subnormals;
    body(begin, end);
  });
}

// Calls body(scratch, chunk, begin, end) once for every chunk of chunk_rows rows; threads take the next chunk when they
// are done with one, so that rows of very different cost stay balanced. The rows of a chunk depend only on n and
// chunk_rows, never on the number of threads. make_scratch() runs once per worker.
template <class MakeScratch, class Body>
void parallel_chunks(int64_t n, int64_t chunk_rows, const MakeScratch& make_scratch, const Body& body) {
  const int64_t chunks = (n + chunk_rows - 1) / chunk_rows;
  std::atomic<int64_t> next{0};
  parallel_for(std::min(num_threads(), chunks), 1, [&](int64_t first, int64_t last) {
    for (int64_t worker = first; worker < last; ++worker) {
      auto scratch = make_scratch();
      for (int64_t chunk = next++; chunk < chunks; chunk = next++)
        body(scratch, chunk, chunk * chunk_rows, std::min(n, (chunk + 1) * chunk_rows));
    }
  });
}

}  // namespace ccfast
