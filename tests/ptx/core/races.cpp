#include "races.h"

#include <algorithm>

namespace ptx {
namespace {

void raise(std::map<uint32_t, Clock>& clocks, const std::map<uint32_t, Clock>& others) {
  for (const auto& [key, clock] : others) {
    Clock& mine = clocks[key];
    mine = std::max(mine, clock);
  }
}

Clock look_up(const std::map<uint32_t, Clock>& clocks, uint32_t key) {
  const auto found = clocks.find(key);
  return found == clocks.end() ? 0 : found->second;
}

}  // namespace

void Knowledge::join(const Knowledge& other) {
  raise(threads, other.threads);
  raise(blocks, other.blocks);
}

// Clocks start at 1: 0 means no access.
BlockClocks::BlockClocks(uint32_t block, int threads)
    : block_(block),
      first_(block * static_cast<uint32_t>(threads)),
      threads_(static_cast<uint32_t>(threads)),
      clocks_(static_cast<size_t>(threads), 1),
      lanes_(static_cast<size_t>((threads + kLanes - 1) / kLanes) * kLanes * kLanes) {}

bool BlockClocks::ordered(const Access& before, int thread) const {
  const uint32_t other = before.thread - first_;
  if (before.thread >= first_ && other < threads_) {
    if (before.clock / kOneBarrier < clocks_[static_cast<size_t>(thread)] / kOneBarrier) return true;
    const size_t mine = static_cast<size_t>(thread);
    if (other / kLanes == mine / kLanes && before.clock <= lanes_[mine * kLanes + other % kLanes]) return true;
  }
  if (fenced_.empty()) return false;
  const auto found = fenced_.find(thread);
  if (found == fenced_.end()) return false;
  const Knowledge& known = found->second.known;
  return before.clock <= look_up(known.threads, before.thread) ||
         before.clock < look_up(known.blocks, before.thread / threads_);
}

void BlockClocks::barrier() {
  for (Clock& clock : clocks_) clock = (clock / kOneBarrier + 1) * kOneBarrier;
  if (fenced_.empty()) return;
  Knowledge all;
  for (const auto& [thread, state] : fenced_) all.join(state.known);
  for (int thread = 0; thread < static_cast<int>(threads_); ++thread) fenced(thread).known = all;
}

void BlockClocks::warp_barrier(int warp, Mask lanes) {
  std::array<Clock, kLanes> all{};
  const size_t first = static_cast<size_t>(warp) * kLanes;
  Knowledge known;
  for (Mask left = lanes; left; left &= left - 1) {
    const auto lane = static_cast<size_t>(__builtin_ctz(left));
    for (size_t other = 0; other < kLanes; ++other)
      all[other] = std::max(all[other], lanes_[(first + lane) * kLanes + other]);
    all[lane] = std::max(all[lane], clocks_[first + lane]);
    const auto found = fenced_.find(static_cast<int>(first + lane));
    if (found != fenced_.end()) known.join(found->second.known);
  }
  for (Mask left = lanes; left; left &= left - 1) {
    const auto lane = static_cast<size_t>(__builtin_ctz(left));
    std::copy(all.begin(), all.end(), lanes_.begin() + static_cast<std::ptrdiff_t>((first + lane) * kLanes));
    ++clocks_[first + lane];
    if (!fenced_.empty()) fenced(static_cast<int>(first + lane)).known.join(known);
  }
}

BlockClocks::Fenced& BlockClocks::fenced(int thread) { return fenced_[thread]; }

Knowledge BlockClocks::all_known(int thread) const {
  const auto at = static_cast<size_t>(thread);
  Knowledge all;
  const auto found = fenced_.find(thread);
  if (found != fenced_.end()) all = found->second.known;
  all.threads[first_ + static_cast<uint32_t>(thread)] = clocks_[at];
  for (uint32_t lane = 0; lane < kLanes; ++lane) {
    const Clock clock = lanes_[at * kLanes + lane];
    if (clock) {
      Clock& mine = all.threads[first_ + static_cast<uint32_t>(thread) / kLanes * kLanes + lane];
      mine = std::max(mine, clock);
    }
  }
  Clock& block = all.blocks[block_];
  block = std::max(block, clocks_[at] / kOneBarrier * kOneBarrier);
  return all;
}

void BlockClocks::fence(int thread) {
  Fenced& state = fenced(thread);
  state.known.join(state.read);
  state.released = all_known(thread);
  ++clocks_[static_cast<size_t>(thread)];
}

void BlockClocks::strong_write(int thread, Knowledge& location) const {
  const auto found = fenced_.find(thread);
  if (found != fenced_.end()) location.join(found->second.released);
}

void BlockClocks::strong_read(int thread, const Knowledge& location) { fenced(thread).read.join(location); }

Shadow::Page& Shadow::page(uint64_t offset, int unit) {
  std::unique_ptr<Page>& page = pages_[offset / kPage];
  if (!page) {
    page = std::make_unique<Page>();
    page->unit = unit;
    page->units.resize(kPage / static_cast<uint64_t>(unit));
  } else if (unit < page->unit) {  // each part of a unit inherits its history
    const auto parts = static_cast<size_t>(page->unit / unit);
    std::vector<Unit> finer;
    finer.reserve(page->units.size() * parts);
    for (const Unit& old : page->units) finer.insert(finer.end(), parts, old);
    page->units = std::move(finer);
    page->unit = unit;
  }
  return *page;
}

void Shadow::add_reader(Unit& unit, const Access& access, uint32_t block_threads) {
  const Access last = unit.reads[0];
  if (last.thread == access.thread && last.clock == access.clock) {
    unit.reads[0].strong &= access.strong;
    return;
  }
  unit.reads[0] = access;
  if (last.empty() || last.thread == access.thread) return;
  if (last.thread / block_threads != access.thread / block_threads) {
    unit.reads = {access, Access(), Access(), last};
    return;
  }
  const bool same_warp = last.thread % block_threads / kLanes == access.thread % block_threads / kLanes;
  unit.reads[same_warp ? 1 : 2] = last;
  if (!same_warp) unit.reads[1] = Access();
}

}  // namespace ptx
