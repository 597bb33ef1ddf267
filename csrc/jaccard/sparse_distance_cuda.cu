// CUDA kernel of the sparse Jaccard distance; the contract is in jaccard.h.
//
// One block owns one row i. It first adds up, in a hash table in shared memory and in integers, what row i shares with
// every target: rounded up, so that the sum does not depend on the order of the threads and is never too low. The few
// targets that can be near enough are sorted, and their distances computed as everywhere else: in float32, the columns
// ascending. Targets are taken in ranges that fit the table, which for nearly every row is one range of all of them.
#include "jaccard.cuh"

namespace ccfast::jaccard {
namespace {

constexpr int kThreads = 384;
constexpr int kWarps = kThreads / kWarp;
constexpr int32_t kFree = -1;
constexpr int kMostProbes = 128;     // of the table for one target, before it counts as full
constexpr float kOne = 16777216.0f;  // a mass of 1 as an integer: 2^24, so that hundreds of them do not overflow

// Rounded up.
__device__ unsigned fixed_point(float mass) { return static_cast<unsigned>(fminf(mass, 1.0f) * kOne) + 1; }

// The least mass, in that unit, that a pair within max_distance can share: s / (2 - s) >= 1 - max_distance, less what
// the rounding of a float32 sum of `terms` numbers and of the distance can be.
__device__ unsigned least_mass(float max_distance, int64_t terms) {
  constexpr double kDistanceRounding = 1e-6;
  const double nearness = 1.0 - max_distance;
  const double least = (2 * nearness / (1 + nearness) - kDistanceRounding) * kOne - static_cast<double>(terms);
  return least < 1 ? 1 : static_cast<unsigned>(least);
}

// What a block works with, in shared memory.
struct Table {
  int64_t* start;  // of the row's entries in the result
  StagedColumn* staged;
  int32_t* key;         // [slots] target, or kFree
  unsigned* mass;       // [slots] what it shares with the row
  int32_t* found;       // [capacity] targets near enough, ascending
  float* distance;      // of each; in the place of mass, which nobody needs by then
  int* number;          // of them
  int* full;            // something did not fit
  int* counts;          // [32] of block-wide sums
  int slots, capacity;  // powers of two

  __device__ Table(char* memory, int slots) : slots(slots), capacity(capacity_of(slots)) {
    start = reinterpret_cast<int64_t*>(memory);
    staged = reinterpret_cast<StagedColumn*>(start + 2);
    key = reinterpret_cast<int32_t*>(staged + kStagedColumns);
    mass = reinterpret_cast<unsigned*>(key + slots);
    found = reinterpret_cast<int32_t*>(mass + slots);
    distance = reinterpret_cast<float*>(mass);
    number = reinterpret_cast<int*>(found + capacity);
    full = number + 1;
    counts = number + 2;
  }
  static __host__ __device__ int capacity_of(int slots) { return slots > 8 ? slots / 8 : 1; }
  static size_t bytes(int slots) {
    return 2 * sizeof(int64_t) + kStagedColumns * sizeof(StagedColumn) +
           sizeof(int32_t) * (2 * slots + capacity_of(slots)) + 34 * sizeof(int);
  }

  // Begins and ends with a barrier.
  __device__ void clear() {
    __syncthreads();
    for (int slot = threadIdx.x; slot < slots; slot += blockDim.x) {
      key[slot] = kFree;
      mass[slot] = 0;
    }
    if (threadIdx.x == 0) *number = *full = 0;
    __syncthreads();
  }

  __device__ void add(int32_t target, unsigned amount) {
    int slot = static_cast<int>(static_cast<unsigned>(target) * 2654435769u >> (__clz(slots) + 1));
    for (int probe = 0; probe < kMostProbes; ++probe, slot = (slot + 1) & (slots - 1)) {
      const int32_t owner = atomicCAS(&key[slot], kFree, target);
      if (owner != kFree && owner != target) continue;
      atomicAdd(&mass[slot], amount);
      return;
    }
    atomicExch(full, 1);
  }
};

// Adds up what row i shares with the targets in [first, last), a warp a column; targets may be missing where the table
// turns out to be full.
__device__ void gather_mass(const SparseDistanceParams& params, int64_t i, int64_t first, int64_t last, Table& table) {
  const DeviceCsr& v = params.v;
  const int lane = threadIdx.x % kWarp;
  for (int64_t entry = v.crow[i]; entry < v.crow[i + 1]; entry += kStagedColumns) {
    const int columns = stage_columns(v, params.postings, entry, v.crow[i + 1], first, last, table.staged);
    for (int c = threadIdx.x / kWarp; c < columns; c += kWarps) {
      if (__shfl_sync(kFullMask, lane == 0 ? atomicAdd(table.full, 0) : 0, 0)) break;
      const StagedColumn column = table.staged[c];
      for (int64_t p = column.begin + lane; p < column.end; p += kWarp) {
        const Posting posting = params.postings.entry[p];
        table.add(posting.row, fixed_point(shared_mass(column.val, posting.val)));
      }
    }
  }
  __syncthreads();
}

// Lists the targets that share at least `least`, ascending; returns how many, or -1 where there are too many.
__device__ int list_targets(unsigned least, Table& table) {
  for (int slot = threadIdx.x; slot < table.slots; slot += blockDim.x) {
    if (table.key[slot] == kFree || table.mass[slot] < least) continue;
    const int place = atomicAdd(table.number, 1);
    if (place < table.capacity) table.found[place] = table.key[slot];
  }
  __syncthreads();
  const int number = *table.number;
  if (number > table.capacity) return -1;
  const int padded = static_cast<int>(next_power_of_two(number));
  for (int slot = number + threadIdx.x; slot < padded; slot += blockDim.x) table.found[slot] = 0x7fffffff;
  block_sort(table.found, padded, Ascending());
  return number;
}

// J(i, j) by one warp: what the rows share of every common column, added in ascending order of the columns.
__device__ float pair_distance(const DeviceCsr& v, int64_t i, int64_t j) {
  const auto column_at = [&](int64_t e) { return v.col[e]; };
  const int64_t begin = v.crow[i], end = v.crow[i + 1], last = v.crow[j + 1];
  float shared = 0;
  for (int64_t first = v.crow[j]; first < last; first += kWarp) {
    const int64_t e = first + threadIdx.x % kWarp;
    float common = 0;
    if (e < last) {
      const int64_t same = lower_bound(begin, end, v.col[e], column_at);
      if (same < end && v.col[same] == v.col[e]) common = shared_mass(v.val[same], v.val[e]);
    }
    for (unsigned mask = __ballot_sync(kFullMask, common > 0); mask; mask &= mask - 1)
      shared += __shfl_sync(kFullMask, common, __ffs(static_cast<int>(mask)) - 1);
  }
  return distance_of(shared);
}

// Place of this thread's entry among those of the block with `keep`, in thread order, and their number.
__device__ int place_of(bool keep, int* counts, int* total) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const unsigned mask = __ballot_sync(kFullMask, keep);
  __syncthreads();
  if (lane == 0) counts[warp] = __popc(mask);
  __syncthreads();
  int before = 0, sum = 0;
  for (int w = 0; w < kWarps; ++w) {
    before += w < warp ? counts[w] : 0;
    sum += counts[w];
  }
  *total = sum;
  return before + __popc(mask & ((1u << lane) - 1));
}

// Computes the distances of the listed targets and keeps those within max_distance, and i itself; returns how many.
__device__ int keep_near(const SparseDistanceParams& params, int64_t i, int number, Table& table) {
  for (int t = threadIdx.x / kWarp; t < number; t += kWarps) {
    const float distance = pair_distance(params.v, i, table.found[t]);
    if (threadIdx.x % kWarp == 0) table.distance[t] = distance;
  }
  __syncthreads();
  int kept = 0;
  for (int step = 0; step < number; step += kThreads) {
    const int t = step + static_cast<int>(threadIdx.x);
    const int32_t target = t < number ? table.found[t] : kFree;
    const float distance = t < number ? table.distance[t] : 0.0f;
    int total;
    const bool keep = t < number && (distance <= params.max_distance || target == i);
    const int place = kept + place_of(keep, table.counts, &total);
    if (keep) {  // at or before the place that it was read from
      table.found[place] = target;
      table.distance[place] = distance;
    }
    kept += total;
  }
  __syncthreads();
  return kept;
}

// The targets in [first, last) within max_distance of row i, and i itself, in table.found and table.distance; returns
// how many, or -1 where the range is too wide.
__device__ int near_targets(const SparseDistanceParams& params, int64_t i, int64_t first, int64_t last, Table& table) {
  const unsigned least = least_mass(params.max_distance, params.v.crow[i + 1] - params.v.crow[i]);
  table.clear();
  if (threadIdx.x == 0 && first <= i && i < last) table.add(static_cast<int32_t>(i), least);
  gather_mass(params, i, first, last, table);
  if (*table.full) return -1;
  const int number = list_targets(least, table);
  return number < 0 ? -1 : keep_near(params, i, number, table);
}

// Calls visit(how many) for ascending ranges of targets, with those near row i in the table. Returns the ranges.
template <class Visit>
__device__ int64_t for_each_range(const SparseDistanceParams& params, int64_t i, Table& table, const Visit& visit) {
  const int64_t rows = params.v.rows;
  int64_t ranges = 0, width = rows;
  for (int64_t first = 0; first < rows;) {
    const int64_t last = first + width < rows ? first + width : rows;
    const int number = near_targets(params, i, first, last, table);
    if (number < 0) {
      width = (last - first + 1) / 2;
      continue;
    }
    visit(number);
    ++ranges;
    first = last;
  }
  return ranges;
}

// Rows of more than one range are gone through twice: how many entries there are has to be known before the first.
__global__ void __launch_bounds__(kThreads, 3) sparse_distance_kernel(SparseDistanceParams params, ScatteredRows out) {
  Table table(shared_memory<char>(), params.slots);
  const int64_t i = params.rows.begin + blockIdx.x;
  int64_t total = 0;
  const int64_t ranges = for_each_range(params, i, table, [&](int number) { total += number; });
  int64_t place = take_by_block(out, blockIdx.x, total, table.start);
  if (place < 0) return;
  const auto write = [&](int number) {
    for (int t = threadIdx.x; t < number; t += blockDim.x) {
      out.col[place + t] = table.found[t];
      out.val[place + t] = table.distance[t];
    }
    place += number;
  };
  if (ranges == 1) {
    write(static_cast<int>(total));
  } else {
    for_each_range(params, i, table, write);
  }
}

// As many slots as leave the table half empty whatever comes, up to those asked for and those that fit.
int slots_for(int64_t rows, int64_t most) {
  int slots = 2;
  while (slots < 2 * rows && slots < most) slots *= 2;
  while (Table::bytes(slots) > max_shared_bytes()) slots /= 2;
  return slots;
}

}  // namespace

void sparse_distance_cuda(const SparseDistanceParams& params, const ScatteredRows& out, void* stream) {
  SparseDistanceParams fitted = params;
  fitted.slots = slots_for(params.v.rows, params.slots);
  launch("jaccard sparse_distance", sparse_distance_kernel, params.rows.size(), kThreads, Table::bytes(fitted.slots),
         stream, fitted, out);
}

}  // namespace ccfast::jaccard
