// CUDA kernel that keeps the best candidates of every query; the contract is in knn.h.
//
// One block owns one row of products, and is one warp for the usual lists: what it does beside the arithmetic, it does
// once per warp. Scores that reach the lowest one kept so far wait; what waits is merged into the row's list when there
// is no more room, and at the end.
#include "candidates.cuh"

namespace ccfast::knn {
namespace {

constexpr int kMostThreads = 256;
constexpr int kScores = 16;                            // that a thread looks at in one step
constexpr int kLoads = kScores / kQuad;                // of neighbouring products, all under way at the same time
constexpr int kFirstColumns = kMostThreads * kScores;  // that decide about a row's first floor

// A row of products, and |y|^2 / 2 of their targets.
template <class T>
struct ProductRow {
  const T* products;
  const float* half_norms;
  int cols;

  __device__ float score(int column) const { return to_float(products[column]) - half_norms[column]; }
  // Columns that can be loaded kQuad at a time.
  __device__ int whole() const {
    const bool aligned = reinterpret_cast<uintptr_t>(products) % (kQuad * sizeof(T)) == 0 &&
                         reinterpret_cast<uintptr_t>(half_norms) % (kQuad * sizeof(float)) == 0;
    return aligned ? cols / kQuad * kQuad : 0;
  }
};

// How many neighbouring scores of a thread count as one where the first floor is set: the best of them. A row of 2,048
// then has at least twice as many as it keeps candidates, or is looked at score by score.
__host__ __device__ int span_of(int64_t keep) { return keep <= 64 ? kScores : keep <= 256 ? kQuad : 1; }

// Candidates of a row that can wait to be merged; an even number.
__host__ __device__ int room_of(int64_t keep) {
  return static_cast<int>(keep < 32 ? 64 : keep < 512 ? 2 * keep : 1024);
}

// Shared memory of a block.
struct Scratch {
  int keep, room, span;
  Key* fresh;      // [room] candidates that wait
  Key* list;       // [keep] the row's list while it is merged
  unsigned* best;  // [kFirstColumns / span]
  unsigned* floor;
  int* count;  // of fresh

  __device__ explicit Scratch(int keep)
      : keep(keep),
        room(room_of(keep)),
        span(span_of(keep)),
        fresh(shared_memory<Key>()),
        list(fresh + room),
        best(reinterpret_cast<unsigned*>(list + keep)),
        floor(best + kFirstColumns / span),
        count(reinterpret_cast<int*>(floor + 1)) {}
};

size_t select_bytes(int64_t keep) {
  return (room_of(keep) + keep) * sizeof(Key) + (kFirstColumns / span_of(keep) + 1) * sizeof(unsigned) + sizeof(int);
}

// One or two entries of the list per thread.
int select_threads(int64_t keep) {
  int threads = kWarp;
  while (threads < kMostThreads && 2 * threads < keep) threads *= 2;
  return threads;
}

// The columns first .. end that a block looks at in one step; a thread's n-th score is that of column_of(n).
struct Step {
  int first, end, width;  // width: neighbouring columns, kQuad or 1
  int start;              // this thread's first one

  template <class T>
  __device__ Step(const ProductRow<T>& row, int whole, int first) : first(first), width(first < whole ? kQuad : 1) {
    end = min(first + columns(), first < whole ? whole : row.cols);
    start = first + static_cast<int>(threadIdx.x / kWarp * (kWarp * kScores) + threadIdx.x % kWarp * width);
  }
  static __device__ int columns() { return static_cast<int>(blockDim.x) * kScores; }
  __device__ int column_of(int n) const { return start + n / width * (kWarp * width) + n % width; }
};

// The scores of a thread in one step; -inf beyond its end. kFull: nothing is. All loads come before the arithmetic, and
// none is skipped: beyond the end they read the first columns again.
template <bool kFull, class T>
__device__ void read_quads(const ProductRow<T>& row, const Step& step, float* scores) {
  Pack<T, kQuad> products[kLoads];
  Pack<float, kQuad> half_norms[kLoads];
  for (int load = 0; load < kLoads; ++load) {
    const int column = step.start + load * kWarp * kQuad, from = kFull || column < step.end ? column : step.first;
    products[load] = load_pack<kQuad>(row.products + from);
    half_norms[load] = load_pack<kQuad>(row.half_norms + from);
  }
  for (int load = 0; load < kLoads; ++load) {
    const bool within = kFull || step.start + load * kWarp * kQuad < step.end;
    for (int e = 0; e < kQuad; ++e)
      scores[load * kQuad + e] = within ? to_float(products[load].value[e]) - half_norms[load].value[e] : -INFINITY;
  }
}

template <class T>
__device__ void read_scores(const ProductRow<T>& row, const Step& step, float* scores) {
  if (step.width == 1) {
    for (int n = 0; n < kScores; ++n) {
      const int column = step.start + n * kWarp;
      scores[n] = column < step.end ? row.score(column) : -INFINITY;
    }
  } else if (step.end - step.first == Step::columns()) {
    read_quads<true>(row, step, scores);
  } else {
    read_quads<false>(row, step, scores);
  }
}

// The best of every `span` scores among the first columns of a row, into scratch.best; returns how many there are.
template <class T>
__device__ int best_of_spans(const ProductRow<T>& row, int whole, const Scratch& scratch) {
  const int step_bests = Step::columns() / scratch.span;
  int bests = 0;
  for (int first = 0; first < row.cols && bests + step_bests <= kFirstColumns / scratch.span; bests += step_bests) {
    const Step step(row, whole, first);
    float scores[kScores], best = -INFINITY;
    read_scores(row, step, scores);
    for (int n = 0; n < kScores; ++n) {
      best = fmaxf(best, scores[n]);
      if ((n + 1) % scratch.span) continue;
      scratch.best[bests + (static_cast<int>(threadIdx.x) * kScores + n) / scratch.span] = ordered_of(best);
      best = -INFINITY;
    }
    first = step.end;
  }
  __syncthreads();
  return bests;
}

// The highest number, but for its last bits, that at least `keep` of the bests reach; by one warp, which sets one bit
// after the other until hardly more than `keep` reach it.
__device__ unsigned floor_of(const unsigned* best, int bests, int keep) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  unsigned differing = 0;
  for (int b = lane; b < bests; b += kWarp) differing |= best[b] ^ best[0];
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    differing |= __shfl_xor_sync(kFullMask, differing, distance);
  const int bits = kWarp - __clz(static_cast<int>(differing));  // the higher ones are the same in all
  unsigned floor = bits == kWarp ? 0 : best[0] >> bits << bits;
  for (int bit = bits - 1, reaching = bests; bit >= 0 && reaching > keep + keep / 16; --bit) {
    const unsigned higher = floor | 1u << bit;
    int count = 0;
    for (int b = lane; b < bests; b += kWarp) count += __popc(__ballot_sync(kFullMask, best[b] >= higher));
    if (count < keep) continue;
    floor = higher;
    reaching = count;
  }
  return floor;
}

// A score that at least `keep` of a row's first ones reach, and few more.
template <class T>
__device__ float first_floor(const ProductRow<T>& row, int whole, const Scratch& scratch) {
  const int bests = best_of_spans(row, whole, scratch);
  if (bests < scratch.keep) return -INFINITY;
  if (threadIdx.x < kWarp) {
    const unsigned floor = floor_of(scratch.best, bests, scratch.keep);
    if (threadIdx.x == 0) *scratch.floor = floor;
  }
  __syncthreads();
  return fmaxf(score_of_ordered(*scratch.floor), -INFINITY);
}

// Which of a thread's scores reach the floor, a bit each.
template <class T>
__device__ unsigned scan(const ProductRow<T>& row, const Step& step, float floor) {
  float scores[kScores], best = -INFINITY;
  read_scores(row, step, scores);
  for (int n = 0; n < kScores; ++n) best = fmaxf(best, scores[n]);
  unsigned passed = 0;
  if (best >= floor)
    for (int n = 0; n < kScores; ++n)
      if (scores[n] >= floor) passed |= 1u << n;
  return passed;
}

// Adds the scores whose bits are set to the fresh candidates; returns the bits of those that found no room.
template <class T>
__device__ unsigned offer(const Scratch& scratch, const ProductRow<T>& row, const Step& step, int64_t col0,
                          unsigned passed, float floor, Key lowest) {
  unsigned left = 0;
  for (; passed; passed &= passed - 1) {
    const int n = __ffs(static_cast<int>(passed)) - 1, column = step.column_of(n);
    if (column >= step.end) break;
    const float score = row.score(column);
    const Key key = key_of(score, col0 + column);
    if (score < floor || key <= lowest) continue;
    const int slot = atomicAdd(scratch.count, 1);
    if (slot < scratch.room)
      scratch.fresh[slot] = key;
    else
      left |= 1u << n;
  }
  return left;
}

// Keys of the list, which is in descending order, that are above `key`.
__device__ int count_above(const Key* list, int count, Key key) {
  int low = 0;
  while (low < count) {
    const int middle = (low + count) / 2;
    if (list[middle] > key)
      low = middle + 1;
    else
      count = middle;
  }
  return low;
}

// Merges the fresh candidates into the row's list, of which the first `held` are given (the others are 0): each goes to
// its rank. Keys differ, but for zeros at the list's end, so that no two have the same rank. In a list that is full few
// are fresh, and counting beats sorting. Nothing is fresh after it. Begins and ends with a barrier.
__device__ void merge(const Scratch& scratch, Key* kept, int held) {
  __syncthreads();
  const int fresh = min(*scratch.count, scratch.room), keep = scratch.keep;
  for (int slot = threadIdx.x; slot < held; slot += blockDim.x) scratch.list[slot] = kept[slot];
  if (threadIdx.x == 0 && fresh % 2) scratch.fresh[fresh] = 0;
  __syncthreads();
  if (threadIdx.x == 0) *scratch.count = 0;
  for (int slot = threadIdx.x; slot < held + fresh; slot += blockDim.x) {
    const Key key = slot < held ? scratch.list[slot] : scratch.fresh[slot - held];
    int rank = slot < held ? slot : count_above(scratch.list, held, key);
    for (int other = 0; other < fresh; other += 2) {
      const auto pair = load_pack<2>(scratch.fresh + other);
      rank += (pair.value[0] > key) + (pair.value[1] > key);
    }
    if (rank < keep) kept[rank] = key;
  }
  __syncthreads();
}

template <class T>
__global__ void __launch_bounds__(kMostThreads, 4) select_kernel(SelectParams params) {
  const int keep = static_cast<int>(params.keep);
  const Scratch scratch(keep);
  Key* const kept = reinterpret_cast<Key*>(params.lists) + blockIdx.x * params.keep;
  const ProductRow<T> row{static_cast<const T*>(params.tile.products) + blockIdx.x * params.tile.ld,
                          params.half_norms + params.col0, static_cast<int>(params.tile.cols)};
  const int whole = row.whole();
  bool empty = !kept[0];
  float floor = empty ? first_floor(row, whole, scratch) : -INFINITY;
  if (threadIdx.x == 0) *scratch.count = 0;
  __syncthreads();

  // A thread that finds no room waits for the others with the bits of what it has left, and goes on after a merge.
  unsigned left = 0;
  bool more = true;
  for (int first = 0; more; empty = false) {
    const Key lowest = empty ? 0 : kept[keep - 1];
    if (lowest) floor = fmaxf(floor, score_of(lowest));
    while (first < row.cols) {
      const Step step(row, whole, first);
      left = offer(scratch, row, step, params.col0, left ? left : scan(row, step, floor), floor, lowest);
      if (left) break;
      first = step.end;
    }
    __syncthreads();
    const int count = *scratch.count;
    more = count > scratch.room;
    if (count) merge(scratch, kept, empty ? 0 : keep);
  }
}

template <class T>
void launch_select(const SelectParams& params, void* stream) {
  const int threads = select_threads(params.keep);
  launch("knn select", select_kernel<T>, params.tile.rows, threads, select_bytes(params.keep), stream, params);
}

}  // namespace

int64_t max_keep_cuda() {
  const size_t bytes = max_shared_bytes();
  int64_t keep = 1;
  while (keep < (1 << 20) && select_bytes(2 * keep) <= bytes && rescore_bytes(2 * keep) <= bytes) keep *= 2;
  return keep;
}

void select_cuda(const SelectParams& params, void* stream) {
  params.tile.half ? launch_select<__half>(params, stream) : launch_select<float>(params, stream);
}

}  // namespace ccfast::knn
