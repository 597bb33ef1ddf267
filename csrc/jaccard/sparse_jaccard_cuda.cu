// CUDA kernel of the sparse Jaccard distance; the contract is in jaccard.h.
//
// One block computes one row i. It first adds up, as integers in a hash table in shared memory, its overlap with
// every target: rounded up, so that the sum does not depend on the order of the threads and is never too low. The few
// targets that can be near enough are sorted, and their distances computed as everywhere else: in float32, the columns
// ascending. Targets are taken in ranges that fit the table, which for nearly every row is one range of all of them.
#include "../common/pack.cuh"
#include "jaccard.cuh"

namespace ccfast::jaccard {
namespace {

constexpr int kThreads = 384;
constexpr int kWarps = kThreads / kWarp;
constexpr int kPart = 8;  // lanes that compute a distance; a warp computes four at a time
constexpr int32_t kFree = -1;
constexpr int kQuad = kPackSize<int32_t>;
constexpr int kMostProbes = 128;       // for one target, before the table counts as full
constexpr float kUnits = 16777216.0f;  // in a mass of 1: 2^24, so that sums of hundreds do not overflow

// In these units, rounded up.
__device__ unsigned fixed_point(float mass) { return static_cast<unsigned>(fminf(mass, 1.0f) * kUnits) + 1; }

// The least mass, in these units, that a pair within max_distance can share: s / (2 - s) >= 1 - max_distance, minus
// the largest rounding error of a float32 sum of `terms` numbers and of the distance.
__device__ unsigned least_mass(float max_distance, int64_t terms) {
  constexpr double kDistanceRounding = 1e-6;
  const double nearness = 1.0 - max_distance;
  const double least = (2 * nearness / (1 + nearness) - kDistanceRounding) * kUnits - static_cast<double>(terms);
  return least < 1 ? 1 : static_cast<unsigned>(least);
}

// The shared memory of a block.
struct Table {
  int64_t* start;  // where the row's entries begin in the result
  StagedColumn* staged;
  int32_t* key;         // [slots] target, or kFree
  unsigned* mass;       // [slots] its overlap with the row
  int32_t* found;       // [capacity] targets near enough, ascending
  float* distance;      // of each; reuses the memory of mass, which is no longer needed
  int* number;          // of them
  int* full;            // whether something did not fit
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
  }
  static __host__ __device__ int capacity_of(int slots) { return slots > 8 ? slots / 8 : 1; }
  static size_t bytes(int slots) {
    return 2 * sizeof(int64_t) + kStagedColumns * sizeof(StagedColumn) +
           sizeof(int32_t) * (2 * slots + capacity_of(slots)) + 2 * sizeof(int);
  }

  // Begins and ends with a barrier.
  __device__ void clear() {
    __syncthreads();
    for (int slot = kQuad * static_cast<int>(threadIdx.x); slot < slots; slot += kQuad * kThreads) {
      store_pack(key + slot, Pack<int32_t, kQuad>{{kFree, kFree, kFree, kFree}});
      store_pack(mass + slot, Pack<unsigned, kQuad>{});
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

// Adds up the overlap of row i with the targets in [first, last), one warp per column. Targets may be missing if the
// table is full.
__device__ void gather_mass(const SparseJaccardParams& params, int64_t i, int64_t first, int64_t last, Table& table) {
  const DeviceCsr& v = params.v;
  const int lane = threadIdx.x % kWarp;
  for (int64_t entry = v.crow[i]; entry < v.crow[i + 1]; entry += kStagedColumns) {
    const int columns = stage_columns(v, params.postings, entry, v.crow[i + 1], first, last, table.staged);
    for (int c = threadIdx.x / kWarp; c < columns; c += kWarps) {
      if (__shfl_sync(kFullMask, lane == 0 ? load_volatile(table.full) : 0, 0)) break;
      const StagedColumn column = table.staged[c];
      for (int64_t p = column.begin + lane; p < column.end; p += kWarp) {
        const Posting posting = params.postings.entry[p];
        table.add(posting.row, fixed_point(shared_mass(column.val, posting.val)));
      }
    }
  }
  __syncthreads();
}

// Sorts the list, ascending; begins after and ends with a barrier. A few are ranked by counting, many are sorted.
__device__ void sort_targets(int32_t* found, int number) {
  constexpr int kFew = kThreads / 2;
  const int slot = static_cast<int>(threadIdx.x);
  if (number > kFew) {
    const int padded = static_cast<int>(next_power_of_two(number));
    for (int free = number + slot; free < padded; free += kThreads) found[free] = 0x7fffffff;
    return block_sort(found, padded, Ascending());
  }
  const int32_t target = slot < number ? found[slot] : 0;
  int rank = 0;
  for (int other = 0; slot < number && other < number; ++other) rank += found[other] < target;
  __syncthreads();
  if (slot < number) found[rank] = target;
  __syncthreads();
}

// Lists the targets that share at least `least`, ascending; returns how many, or -1 if there are too many.
__device__ int list_targets(unsigned least, Table& table) {
  for (int slot = kQuad * static_cast<int>(threadIdx.x); slot < table.slots; slot += kQuad * kThreads) {
    const auto mass = load_pack<kQuad>(table.mass + slot);
    if (max(max(mass.value[0], mass.value[1]), max(mass.value[2], mass.value[3])) < least) continue;  // or free
    for (int e = 0; e < kQuad; ++e) {
      if (mass.value[e] < least) continue;
      const int place = atomicAdd(table.number, 1);
      if (place < table.capacity) table.found[place] = table.key[slot + e];
    }
  }
  __syncthreads();
  const int number = *table.number;
  if (number > table.capacity) return -1;
  sort_targets(table.found, number);
  return number;
}

// The terms of row i, columns ascending: in shared memory where they fit, in global memory otherwise.
template <class Column>
struct OwnTerms {
  const Column* col;
  const float* val;
  int64_t count;

  // The overlap of row i with a row that has the value `other` in the column.
  __device__ float common(int64_t column, float other) const {
    const auto wanted = static_cast<Column>(column);
    const auto all = static_cast<unsigned>(count);
    unsigned low = 0, high = all;
    while (low < high) {
      const unsigned middle = (low + high) / 2;
      const bool below = col[middle] < wanted;
      low = below ? middle + 1 : low;
      high = below ? high : middle;
    }
    return low < all && col[low] == wanted ? shared_mass(val[low], other) : 0.0f;
  }
};

// J(i, j), computed by each part of a warp for its own j: the overlaps in the common columns, added in ascending
// order of the columns. Other columns add 0, which changes no bit. active: whether the part has a j.
template <class Column>
__device__ float pair_distance(const DeviceCsr& v, const OwnTerms<Column>& own, int64_t j, bool active) {
  int64_t e = (active ? v.crow[j] : 0) + threadIdx.x % kPart;
  const int64_t last = active ? v.crow[j + 1] : 0;
  float shared = 0;
  while (__any_sync(kFullMask, e < last)) {
    const float common = e < last ? own.common(v.col[e], v.val[e]) : 0.0f;
    for (int lane = 0; lane < kPart; ++lane) shared += __shfl_sync(kFullMask, common, lane, kPart);
    e += kPart;
  }
  return distance_of(shared);
}

// Distances of the listed targets from row i.
template <class Column>
__device__ void measure(const DeviceCsr& v, const OwnTerms<Column>& own, int number, Table& table) {
  constexpr int kParts = kWarp / kPart;
  for (int first = static_cast<int>(threadIdx.x) / kWarp * kParts; first < number; first += kWarps * kParts) {
    const int t = first + static_cast<int>(threadIdx.x) % kWarp / kPart;
    const float distance = pair_distance(v, own, t < number ? table.found[t] : 0, t < number);
    if (threadIdx.x % kPart == 0 && t < number) table.distance[t] = distance;
  }
  __syncthreads();
}

// The same, with the terms of row i in the place of the staged columns, which are no longer needed.
__device__ void measure(const DeviceCsr& v, int64_t i, int number, Table& table) {
  constexpr int kMostTerms = kStagedColumns * sizeof(StagedColumn) / (sizeof(int32_t) + sizeof(float));
  const int64_t begin = v.crow[i], count = v.crow[i + 1] - begin;
  if (count > kMostTerms) return measure(v, OwnTerms<int64_t>{v.col + begin, v.val + begin, count}, number, table);
  int32_t* col = reinterpret_cast<int32_t*>(table.staged);
  float* val = reinterpret_cast<float*>(col + kMostTerms);
  for (int e = threadIdx.x; e < count; e += kThreads) {
    col[e] = static_cast<int32_t>(v.col[begin + e]);
    val[e] = v.val[begin + e];
  }
  __syncthreads();
  measure(v, OwnTerms<int32_t>{col, val, count}, number, table);
}

// Computes the distances of the listed targets and keeps those within max_distance, and i itself; returns how many.
__device__ int keep_near(const SparseJaccardParams& params, int64_t i, int number, Table& table) {
  measure(params.v, i, number, table);
  if (threadIdx.x < kWarp) {
    int kept = 0;
    for (int first = 0; first < number; first += kWarp) {
      const int t = first + static_cast<int>(threadIdx.x);
      const int32_t target = t < number ? table.found[t] : kFree;
      const float distance = t < number ? table.distance[t] : 0.0f;
      const bool keep = t < number && (distance <= params.max_distance || target == i);
      const unsigned mask = __ballot_sync(kFullMask, keep);
      __syncwarp();  // all threads have read before any thread writes
      if (keep) {    // at or before the place that it was read from
        const int place = kept + __popc(mask & ((1u << threadIdx.x) - 1));
        table.found[place] = target;
        table.distance[place] = distance;
      }
      kept += __popc(mask);
      __syncwarp();
    }
    if (threadIdx.x == 0) *table.number = kept;
  }
  __syncthreads();
  return *table.number;
}

// The targets in [first, last) within max_distance of row i, and i itself, in table.found and table.distance; returns
// how many, or -1 if the range is too wide.
__device__ int near_targets(const SparseJaccardParams& params, int64_t i, int64_t first, int64_t last, Table& table) {
  const unsigned least = least_mass(params.max_distance, params.v.crow[i + 1] - params.v.crow[i]);
  table.clear();
  if (threadIdx.x == 0 && first <= i && i < last) table.add(static_cast<int32_t>(i), least);
  gather_mass(params, i, first, last, table);
  if (*table.full) return -1;
  const int number = list_targets(least, table);
  return number < 0 ? -1 : keep_near(params, i, number, table);
}

// Calls visit(count) for ascending ranges, with their targets near row i in the table. Returns the number of ranges.
template <class Visit>
__device__ int64_t for_each_range(const SparseJaccardParams& params, int64_t i, Table& table, const Visit& visit) {
  const int64_t rows = params.v.rows;
  int64_t ranges = 0, width = rows;
  for (int64_t first = params.upper ? i : 0; first < rows;) {
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

// Rows of more than one range are computed twice: the number of entries has to be known before the first is written.
__global__ void __launch_bounds__(kThreads, 3) sparse_jaccard_kernel(SparseJaccardParams params, ScatteredRows out) {
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

// Enough slots to leave the table half empty in any case, but at most the requested number and what fits.
int slots_for(int64_t rows, int64_t most) {
  int slots = 4;
  while (slots < 2 * rows && slots < most) slots *= 2;
  while (Table::bytes(slots) > max_shared_bytes()) slots /= 2;
  return slots;
}

}  // namespace

void sparse_jaccard_cuda(const SparseJaccardParams& params, const ScatteredRows& out, void* stream) {
  SparseJaccardParams fitted = params;
  fitted.slots = slots_for(params.v.rows, params.slots);
  launch("jaccard sparse_jaccard", sparse_jaccard_kernel, params.rows.size(), kThreads, Table::bytes(fitted.slots),
         stream, fitted, out);
}

}  // namespace ccfast::jaccard
