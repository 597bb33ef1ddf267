// CUDA kernel of the ranking evaluation; the contract is in retrieval.h.
#include "../common/cuda.cuh"
#include "retrieval.h"

namespace ccfast::retrieval {
namespace {

constexpr int kThreads = 256;

// Counts over the part of a query's sorted gallery that has been read.
struct Seen {
  int64_t entries = 0, matches = 0;  // up to the current one
  int64_t pending = 0;               // matches at the current distance
  int64_t first = -1, last = 0;      // entries before the first match; rank of the last match
  double precision = 0;              // sum over distances of (matches at it) * (matches / entries up to it)
};

// One warp per query. Lanes read 32 entries at a time; every lane then follows them in order from the ballots.
template <class T>
__global__ void evaluate_ranking_kernel(SortedRankingParams<T> params) {
  const RankingParams<T>& ranking = params.ranking;
  const int64_t q = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (q >= ranking.queries) return;
  const int lane = threadIdx.x % kWarp;
  const T* distances = ranking.distances + q * ranking.gallery;
  Seen seen;
  for (int64_t start = 0; start < ranking.gallery; start += kWarp) {
    const int64_t at = start + lane;
    const bool inside = at < ranking.gallery;
    const int64_t g = inside ? params.order[q * ranking.gallery + at] : 0;
    const bool same = inside && ranking.gallery_ids[g] == ranking.query_ids[q];
    const bool junk = ranking.has_junk && ranking.gallery_ids[g] == ranking.junk_id;
    const bool left_out = junk || (same && ranking.query_cams && ranking.gallery_cams[g] == ranking.query_cams[q]);
    const bool ends = inside && (at + 1 == ranking.gallery || distances[at + 1] != distances[at]);
    const unsigned counted = __ballot_sync(kFullMask, inside && !left_out);
    const unsigned matching = __ballot_sync(kFullMask, same && !left_out);
    const unsigned ending = __ballot_sync(kFullMask, ends);
    if (!matching && !seen.pending) {
      seen.entries += __popc(counted);
      continue;
    }
    for (int bit = 0; bit < kWarp; ++bit) {
      seen.entries += counted >> bit & 1;
      if (matching >> bit & 1) {
        if (seen.first < 0) seen.first = seen.entries - 1;
        seen.last = seen.entries;
        ++seen.matches;
        ++seen.pending;
      }
      if ((ending >> bit & 1) && seen.pending) {
        seen.precision +=
            static_cast<double>(seen.pending) * static_cast<double>(seen.matches) / static_cast<double>(seen.entries);
        seen.pending = 0;
      }
    }
  }
  if (lane != 0) return;
  ranking.average_precision[q] = seen.matches ? seen.precision / static_cast<double>(seen.matches) : 0;
  ranking.first_match[q] = seen.first;
  ranking.inverse_penalty[q] = seen.matches ? static_cast<double>(seen.matches) / static_cast<double>(seen.last) : 0;
}

}  // namespace

template <class T>
void evaluate_ranking_cuda(const SortedRankingParams<T>& params, void* stream) {
  const int64_t blocks = (params.ranking.queries * kWarp + kThreads - 1) / kThreads;
  launch("retrieval evaluate_ranking", evaluate_ranking_kernel<T>, blocks, kThreads, 0, stream, params);
}

template void evaluate_ranking_cuda(const SortedRankingParams<float>&, void*);
template void evaluate_ranking_cuda(const SortedRankingParams<double>&, void*);

}  // namespace ccfast::retrieval
