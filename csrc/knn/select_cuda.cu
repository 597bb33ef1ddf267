// CUDA kernel that keeps the best candidates of every query; the contract is in knn.h.
//
// One block handles one row of products. For the usual lists a block is one warp, so that all work except the
// arithmetic is done once per warp. Products that can reach the lowest score kept so far, for any norms of their
// targets, become scores; the scores that do reach it wait. They are merged into the row's list when there is no more
// room for them, and at the end.
#include <cstring>

#include "candidates.cuh"

namespace ccfast::knn {
namespace {

constexpr int kMostThreads = 256;
constexpr int kLoads = 4;  // of neighbouring products, all in flight at the same time
template <class T>
constexpr int kWide = kPackSize<T>;  // neighbouring products in a load
template <class T>
constexpr int kProducts = kLoads * kWide<T>;  // checked by a thread in one step: one bit per product
constexpr int kFirstColumns = 4096;           // from which a row's first floor is computed

// A row of products, and |y|^2 / 2 of their targets.
template <class T>
struct ProductRow {
  const T* products;
  const float* half_norms;
  int cols;

  __device__ float score(int column) const { return to_float(products[column]) - half_norms[column]; }
  // Columns of which so many neighbours can be loaded at a time.
  __device__ int whole(int width) const {
    const bool aligned = reinterpret_cast<uintptr_t>(products) % (width * sizeof(T)) == 0 &&
                         reinterpret_cast<uintptr_t>(half_norms) % (kQuad * sizeof(float)) == 0;
    return aligned ? cols / width * width : 0;
  }
};

// The number of neighbouring scores of which the best counts when the first floor is set. A row of 2,048 then has at
// least twice as many such scores as it keeps candidates, or all its scores count.
__host__ __device__ int span_of(int64_t keep) { return keep <= 64 ? 4 * kQuad : keep <= 256 ? kQuad : 1; }

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

// --- the first floor ---

// The best of every kSpan scores among the first columns of a row, into scratch.best.
template <int kSpan, class T>
__device__ void write_bests(const ProductRow<T>& row, int bests, const Scratch& scratch) {
  const bool quads = row.whole(kQuad) > 0;
  for (int b = threadIdx.x; b < bests; b += blockDim.x) {
    float best = -INFINITY;
    if (kSpan % kQuad == 0 && quads) {
      for (int column = b * kSpan; column < (b + 1) * kSpan; column += kQuad) {
        const auto products = load_pack<kQuad>(row.products + column);
        const auto half_norms = load_pack<kQuad>(row.half_norms + column);
        for (int e = 0; e < kQuad; ++e) best = fmaxf(best, to_float(products.value[e]) - half_norms.value[e]);
      }
    } else {
      for (int column = b * kSpan; column < (b + 1) * kSpan; ++column) best = fmaxf(best, row.score(column));
    }
    scratch.best[b] = ordered_of(best);
  }
}

// Returns how many there are.
template <class T>
__device__ int best_of_spans(const ProductRow<T>& row, const Scratch& scratch) {
  const int bests = min(row.cols, kFirstColumns) / scratch.span;
  if (scratch.span == 4 * kQuad)
    write_bests<4 * kQuad>(row, bests, scratch);
  else if (scratch.span == kQuad)
    write_bests<kQuad>(row, bests, scratch);
  else
    write_bests<1>(row, bests, scratch);
  __syncthreads();
  return bests;
}

// The highest number, except its last bits, that at least `keep` of the bests reach; by one warp, which sets one bit
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
    for (int first = 0; first < bests; first += kWarp)
      count += __popc(__ballot_sync(kFullMask, first + lane < bests && best[first + lane] >= higher));
    if (count < keep) continue;
    floor = higher;
    reaching = count;
  }
  return floor;
}

// A score that at least `keep` of a row's first scores reach, but few more than that.
template <class T>
__device__ float first_floor(const ProductRow<T>& row, const Scratch& scratch) {
  const int bests = best_of_spans(row, scratch);
  if (bests < scratch.keep) return -INFINITY;
  if (threadIdx.x < kWarp) {
    const unsigned floor = floor_of(scratch.best, bests, scratch.keep);
    if (threadIdx.x == 0) *scratch.floor = floor;
  }
  __syncthreads();
  return fmaxf(score_of_ordered(*scratch.floor), -INFINITY);
}

// --- products that can reach the floor ---

// Which products can have a score of at least `floor`, for any target: product - least is rounded as the score
// is, and no half norm is below `least`.
template <class T>
class Gate;

template <class To, class From>
__device__ __forceinline__ To same_bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// A load of products of any type.
constexpr int kWords = kPackSize<unsigned>;
using Words = Pack<unsigned, kWords>;

template <>
class Gate<float> {
 public:
  __device__ Gate(float floor, float least) : floor_(floor), least_(least) {}
  __device__ bool passes(float product) const { return product - least_ >= floor_; }
  // A bit for each product of a load.
  __device__ unsigned passing(const Words& products) const {
    unsigned bits = 0;
    for (int e = 0; e < kWords; ++e) bits |= passes(__uint_as_float(products.value[e])) ? 1u << e : 0;
    return bits;
  }
  // The position of one load's bits among those of all loads, and the product of each bit.
  static __device__ unsigned placed(unsigned bits, int load) { return bits << (load * kWide<float>); }
  static __device__ int load_of(int bit) { return bit / kWide<float>; }
  static __device__ int element_of(int bit) { return bit % kWide<float>; }

 private:
  float floor_, least_;
};

// Compares two products at a time, with a bound that is rounded down to half precision.
template <>
class Gate<__half> {
 public:
  __device__ Gate(float floor, float least) : floor_(floor), least_(least) {
    constexpr float kLargest = 65504;
    // More than the three rounding errors: of the score, of the sum here, and of the bound in half precision.
    constexpr float kFloorRounding = 0x1p-22f, kBoundRounding = 0x1p-10f, kAbsoluteRounding = 0x1p-24f;
    const float bound = fminf(floor + least, kLargest);
    const __half lower =
        __float2half_rn(bound - fabsf(bound) * kBoundRounding - fabsf(floor) * kFloorRounding - kAbsoluteRounding);
    bound_ = __halves2half2(lower, lower);
  }
  __device__ bool passes(__half product) const { return to_float(product) - least_ >= floor_; }
  // Bits 10 .. 13 and 26 .. 29: the first and the second of each pair.
  __device__ unsigned passing(const Words& products) const {
    unsigned bits = 0;
    for (int pair = 0; pair < kWords; ++pair) {
      const __half2 reached = __hge2(same_bits<__half2>(products.value[pair]), bound_);  // 1 has the bits 10 .. 13
      bits |= same_bits<unsigned>(reached) & (0x04000400u << pair);
    }
    return bits;
  }
  static __device__ unsigned placed(unsigned bits, int load) {
    const int shift = load * kWords - 10;
    return shift < 0 ? bits >> -shift : bits << shift;
  }
  static __device__ int load_of(int bit) { return bit % 16 / kWords; }
  static __device__ int element_of(int bit) { return bit % kWords * 2 + bit / 16; }

 private:
  float floor_, least_;
  __half2 bound_;
};

// The columns first .. end that a block checks in one step. kPacked: kWide of them in a load; one otherwise.
template <class T, bool kPacked>
struct Step {
  static constexpr int kWidth = kPacked ? kWide<T> : 1;
  int first, end;
  int start;  // this thread's first column

  __device__ Step(int first, int limit) : first(first), end(min(first + columns(), limit)) {
    start = first + static_cast<int>(threadIdx.x / kWarp * (kWarp * kProducts<T>)+threadIdx.x % kWarp * kWidth);
  }
  static __device__ int columns() { return static_cast<int>(blockDim.x) * kProducts<T>; }
  __device__ int column_of(int bit) const {
    if constexpr (kPacked) return start + Gate<T>::load_of(bit) * kWarp * kWidth + Gate<T>::element_of(bit);
    return start + bit * kWarp;
  }
};

// A bit for each of a thread's products in one step that passes the gate. kFull: all columns are within the step.
// Loads beyond its end read its first columns again.
template <bool kFull, class T>
__device__ unsigned passing(const ProductRow<T>& row, const Step<T, true>& step, const Gate<T>& gate) {
  Words products[kLoads];
  for (int load = 0; load < kLoads; ++load) {
    const int column = step.start + load * kWarp * kWide<T>;
    const T* from = row.products + (kFull || column < step.end ? column : step.first);
    products[load] = load_pack<kWords>(reinterpret_cast<const unsigned*>(from));
  }
  unsigned passed = 0;
  for (int load = 0; load < kLoads; ++load) {
    const unsigned bits = gate.placed(gate.passing(products[load]), load);
    if (kFull || step.start + load * kWarp * kWide<T> < step.end) passed |= bits;
  }
  return passed;
}

template <class T>
__device__ unsigned passing(const ProductRow<T>& row, const Step<T, true>& step, const Gate<T>& gate) {
  const bool full = step.end - step.first == step.columns();
  return full ? passing<true>(row, step, gate) : passing<false>(row, step, gate);
}

template <class T>
__device__ unsigned passing(const ProductRow<T>& row, const Step<T, false>& step, const Gate<T>& gate) {
  unsigned passed = 0;
  for (int n = 0; n < kProducts<T>; ++n) {
    const int column = step.column_of(n);
    if (column < step.end && gate.passes(row.products[column])) passed |= 1u << n;
  }
  return passed;
}

// Adds the scores whose bits are set, where they reach the floor, to the fresh candidates; returns the bits of those
// for which there was no room.
template <class T, bool kPacked>
__device__ unsigned offer(const Scratch& scratch, const ProductRow<T>& row, const Step<T, kPacked>& step, int64_t col0,
                          unsigned passed, float floor, Key lowest) {
  unsigned left = 0;
  for (; passed; passed &= passed - 1) {
    const int bit = __ffs(static_cast<int>(passed)) - 1, column = step.column_of(bit);
    const float score = row.score(column);
    const Key key = key_of(score, col0 + column);
    if (score < floor || key <= lowest) continue;
    const int slot = atomicAdd(scratch.count, 1);
    if (slot < scratch.room)
      scratch.fresh[slot] = key;
    else
      left |= 1u << bit;
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

// Merges fresh candidates into the row's list, of which the first `held` are given (the others are 0): each goes to its
// rank. Keys differ, but for zeros at the list's end, so that no two have the same rank. In a list that is full few are
// fresh, and counting beats sorting.
__device__ void merge_many(const Scratch& scratch, Key* kept, int held, int fresh) {
  for (int slot = threadIdx.x; slot < held; slot += blockDim.x) scratch.list[slot] = kept[slot];
  if (threadIdx.x == 0 && fresh % 2) scratch.fresh[fresh] = 0;
  __syncthreads();
  for (int slot = threadIdx.x; slot < held + fresh; slot += blockDim.x) {
    const Key key = slot < held ? scratch.list[slot] : scratch.fresh[slot - held];
    int rank = slot < held ? slot : count_above(scratch.list, held, key);
    for (int other = 0; other < fresh; other += 2) {
      const auto pair = load_pack<2>(scratch.fresh + other);
      rank += (pair.value[0] > key) + (pair.value[1] > key);
    }
    if (rank < scratch.keep) kept[rank] = key;
  }
}

// The same by one warp, which holds the list in registers: two keys per lane, and one fresh key.
constexpr int kFewKept = 2 * kWarp, kFewFresh = 12;

__device__ void merge_few(const Scratch& scratch, Key* kept, int held, int fresh) {
  const int lane = static_cast<int>(threadIdx.x), upper = lane + kWarp;
  const Key mine = lane < fresh ? scratch.fresh[lane] : 0;
  const Key first = lane < held ? kept[lane] : 0, second = upper < held ? kept[upper] : 0;
  int rank = 0, first_rank = lane, second_rank = upper;
  __syncthreads();
  for (int other = 0; other < fresh; ++other) {
    const Key key = __shfl_sync(kFullMask, mine, other);
    const int above = __popc(__ballot_sync(kFullMask, first > key)) + __popc(__ballot_sync(kFullMask, second > key));
    first_rank += key > first;
    second_rank += key > second;
    rank += (key > mine) + (lane == other ? above : 0);
  }
  if (lane < held && first_rank < scratch.keep) kept[first_rank] = first;
  if (upper < held && second_rank < scratch.keep) kept[second_rank] = second;
  if (lane < fresh && rank < scratch.keep) kept[rank] = mine;
}

// One step of a bitonic sort: keys whose places are `distance` apart are exchanged where they are not in order. The
// order is descending in the first block of `size` places, ascending in the next, and so on.
__device__ __forceinline__ Key in_order(Key key, int place, int size, int distance) {
  const Key other = __shfl_xor_sync(kFullMask, key, distance);
  const bool comes_first = (place & distance) == 0, descending = (place & size) == 0;
  return (key > other) == (comes_first == descending) ? key : other;
}

__device__ __forceinline__ void exchange(Key& first, Key& second) {
  const Key larger = first > second ? first : second;
  second = first > second ? second : first;
  first = larger;
}

__device__ void finish_in_order(Key& first, Key& second, int size) {
  const int lane = static_cast<int>(threadIdx.x);
  for (int distance = min(size / 2, kWarp / 2); distance > 0; distance /= 2) {
    first = in_order(first, lane, size, distance);
    second = in_order(second, lane + kWarp, size, distance);
  }
}

// The same for any number of fresh keys, two per lane at a time: they are sorted, and the larger of each of them and
// its opposite in the list stays.
__device__ void merge_sorted(const Scratch& scratch, Key* kept, int held, int fresh) {
  const int lane = static_cast<int>(threadIdx.x), upper = lane + kWarp;
  Key first = lane < held ? kept[lane] : 0, second = upper < held ? kept[upper] : 0;
  for (int from = 0; from < fresh; from += kFewKept) {
    Key low = from + lane < fresh ? scratch.fresh[from + lane] : 0;
    Key high = from + upper < fresh ? scratch.fresh[from + upper] : 0;
    for (int size = 2; size <= kWarp; size *= 2) finish_in_order(low, high, size);
    exchange(low, high);
    finish_in_order(low, high, kFewKept);
    const Key last = __shfl_sync(kFullMask, high, kWarp - 1 - lane),
              before = __shfl_sync(kFullMask, low, kWarp - 1 - lane);
    first = first > last ? first : last;
    second = second > before ? second : before;
    exchange(first, second);
    finish_in_order(first, second, kFewKept);
  }
  __syncthreads();
  if (lane < scratch.keep) kept[lane] = first;
  if (upper < scratch.keep) kept[upper] = second;
}

// Merges all waiting candidates into the row's list. Begins and ends with a barrier.
__device__ void merge(const Scratch& scratch, Key* kept, int held) {
  __syncthreads();
  const int fresh = min(*scratch.count, scratch.room);
  __syncthreads();
  if (threadIdx.x == 0) *scratch.count = 0;
  if (blockDim.x > kWarp)
    merge_many(scratch, kept, held, fresh);
  else if (fresh <= kFewFresh)
    merge_few(scratch, kept, held, fresh);
  else
    merge_sorted(scratch, kept, held, fresh);
  __syncthreads();
}

// Handles one step from column `first` on, or the rest of it; moves `first` behind the step if nothing is left.
template <bool kPacked, class T>
__device__ unsigned look(const Scratch& scratch, const ProductRow<T>& row, int64_t col0, const Gate<T>& gate,
                         float floor, Key lowest, int limit, unsigned left, int& first) {
  const Step<T, kPacked> step(first, limit);
  left = offer(scratch, row, step, col0, left ? left : passing(row, step, gate), floor, lowest);
  if (!left) first = step.end;
  return left;
}

template <class T>
__global__ void __launch_bounds__(kMostThreads, 4) select_kernel(SelectParams params) {
  const int keep = static_cast<int>(params.keep);
  const Scratch scratch(keep);
  Key* const kept = reinterpret_cast<Key*>(params.lists) + blockIdx.x * params.keep;
  const ProductRow<T> row{static_cast<const T*>(params.tile.products) + blockIdx.x * params.tile.ld,
                          params.half_norms + params.col0, static_cast<int>(params.tile.cols)};
  const int whole = row.whole(kWide<T>);
  bool empty = !kept[0];
  float floor = empty ? first_floor(row, scratch) : -INFINITY;
  if (threadIdx.x == 0) *scratch.count = 0;
  __syncthreads();

  // A thread without room keeps the bits of its remaining products, waits for the others and continues after a merge.
  unsigned left = 0;
  bool more = true;
  for (int first = 0; more; empty = false) {
    const Key lowest = empty ? 0 : kept[keep - 1];
    if (lowest) floor = fmaxf(floor, score_of(lowest));
    const Gate<T> gate(floor, params.least);
    while (first < row.cols) {
      left = first < whole ? look<true>(scratch, row, params.col0, gate, floor, lowest, whole, left, first)
                           : look<false>(scratch, row, params.col0, gate, floor, lowest, row.cols, left, first);
      if (left) break;
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
