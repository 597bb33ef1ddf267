// The order of execution: blocks, warps, branches, barriers.
//
// Lanes of a warp at the same instruction form a group and run in lockstep. Without a seed, the group with the lowest
// instruction goes first, so that lanes meet where their branches join: nvcc places later code further down. With a
// seed, any warp and any group of it may go next, as on a GPU since Volta.
#include "launch.h"

#include <algorithm>

namespace ptx {

Launch::Launch(const Kernel& kernel, const Module& module, const Shape& shape, const Options& options,
               const Allocations& allocations, std::vector<uint8_t> parameters, std::vector<Counts>& counts)
    : kernel_(kernel),
      module_(module),
      shape_(shape),
      options_(options),
      global_(allocations),
      parameters_(std::move(parameters)),
      counts_(counts),
      random_(static_cast<uint64_t>(options.seed)) {}

void Launch::run() {
  if (options_.seed < 0)
    run_in_order();
  else
    run_shuffled();
  if (!race_report_.empty()) throw LaunchError(race_report_);
}

std::unique_ptr<Block> Launch::start_block(uint32_t number) {
  const size_t shared = (static_cast<size_t>(kernel_.static_shared_bytes) + 15) / 16 * 16 + shape_.dynamic_shared_bytes;
  auto block = std::make_unique<Block>(number, shape_.threads, shared);
  block->local.resize(static_cast<size_t>(kernel_.local_bytes * shape_.threads));
  block->warps.resize(static_cast<size_t>((shape_.threads + kLanes - 1) / kLanes));
  for (size_t w = 0; w < block->warps.size(); ++w) {
    Warp& warp = block->warps[w];
    const int lanes = std::min(kLanes, shape_.threads - static_cast<int>(w) * kLanes);
    warp.block = block.get();
    warp.number = static_cast<int>(w);
    warp.groups = {{lanes == kLanes ? kAllLanes : (Mask{1} << lanes) - 1, 0, Group::kRuns}};
    if (!free_registers_.empty()) {
      warp.registers = std::move(free_registers_.back());
      free_registers_.pop_back();
    }
    warp.registers.resize(static_cast<size_t>(kernel_.registers) * kLanes);
    warp.constants = &kernel_.constants;
    warp.undefined.resize(static_cast<size_t>(kernel_.registers));
    fill_special(warp);
  }
  return block;
}

void Launch::end_block(Block& block) {
  for (Warp& warp : block.warps) free_registers_.push_back(std::move(warp.registers));
}

void Launch::fill_special(Warp& warp) const {
  for (const auto& [name, row] : kernel_.special) {
    const auto fill = [&](const auto& value) {
      for (int lane = 0; lane < kLanes; ++lane) warp.row(row)[lane] = static_cast<uint64_t>(value(lane));
    };
    const bool first = name.back() == 'x';
    if (name.compare(0, 5, "%tid.") == 0)
      fill([&](int lane) { return first ? warp.number * kLanes + lane : 0; });
    else if (name.compare(0, 6, "%ntid.") == 0)
      fill([&](int) { return first ? shape_.threads : 1; });
    else if (name.compare(0, 7, "%ctaid.") == 0)
      fill([&](int) { return first ? warp.block->number : 0; });
    else if (name.compare(0, 8, "%nctaid.") == 0)
      fill([&](int) { return first ? shape_.grid : 1; });
    else if (name == "%laneid")
      fill([](int lane) { return lane; });
    else if (name == "%warpid")
      fill([&](int) { return warp.number; });
    else if (name == "%lanemask_eq")
      fill([](int lane) { return Mask{1} << lane; });
    else if (name == "%lanemask_lt")
      fill([](int lane) { return (Mask{1} << lane) - 1; });
    else if (name == "%lanemask_le")
      fill([](int lane) { return (Mask{2} << lane) - 1; });
    else if (name == "%lanemask_gt")
      fill([](int lane) { return ~((Mask{2} << lane) - 1); });
    else if (name == "%lanemask_ge")
      fill([](int lane) { return ~((Mask{1} << lane) - 1); });
  }
}

// --- order of blocks and warps ---

bool Launch::done(const Block& block) const { return block.exited == shape_.threads; }

void Launch::run_in_order() {
  for (int64_t number = 0; number < shape_.grid; ++number) {
    const std::unique_ptr<Block> block = start_block(static_cast<uint32_t>(number));
    while (!done(*block)) {
      for (Warp& warp : block->warps) run_warp(warp, INT64_MAX);
      if (!done(*block) && !release_barrier(*block)) report_stall(*block);
    }
    end_block(*block);
  }
}

void Launch::run_shuffled() {
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<Warp*> ready;
  std::vector<uint32_t> to_start(static_cast<size_t>(shape_.grid));
  for (size_t n = 0; n < to_start.size(); ++n) to_start[n] = static_cast<uint32_t>(n);
  const auto below = [&](size_t bound) { return static_cast<size_t>(random_() % bound); };
  const auto start_next = [&] {
    std::swap(to_start[below(to_start.size())], to_start.back());
    blocks.push_back(start_block(to_start.back()));
    to_start.pop_back();
    for (Warp& warp : blocks.back()->warps) ready.push_back(&warp);
  };
  while (!to_start.empty() && blocks.size() < static_cast<size_t>(options_.resident_blocks)) start_next();
  while (!ready.empty()) {
    const size_t pick = below(ready.size());
    Warp& warp = *ready[pick];
    if (run_warp(warp, int64_t{1} << below(9))) continue;
    ready[pick] = ready.back();
    ready.pop_back();
    Block& block = *warp.block;
    if (done(block)) {
      end_block(block);
      blocks.erase(std::find_if(blocks.begin(), blocks.end(), [&](const auto& held) { return held.get() == &block; }));
      if (!to_start.empty()) start_next();
    } else if (release_barrier(block)) {
      for (Warp& released : block.warps) ready.push_back(&released);
    }
  }
  if (!blocks.empty()) report_stall(*blocks[0]);
}

// Releases all threads of a block when all are at the barrier.
bool Launch::release_barrier(Block& block) {
  for (const Warp& warp : block.warps)
    for (const Group& group : warp.groups)
      if (group.state != Group::kAtBarrier) return false;
  if (block.exited) return false;
  for (Warp& warp : block.warps) {
    if (warp.groups.size() > 1) return false;
    warp.groups[0].state = Group::kRuns;
    ++warp.groups[0].at;
  }
  block.clocks.barrier();
  return true;
}

void Launch::report_stall(const Block& block) const {
  std::map<std::pair<int, Group::State>, int> waiting;
  for (const Warp& warp : block.warps)
    for (const Group& group : warp.groups) waiting[{group.at, group.state}] += __builtin_popcount(group.lanes);
  std::string text = "block " + std::to_string(block.number) + ": no thread can go on; " +
                     std::to_string(block.exited) + " threads have exited";
  for (const auto& [stop, threads] : waiting)
    text += "; " + std::to_string(threads) + (stop.second == Group::kAtBarrier ? " at the barrier " : " wait at ") +
            place(stop.first);
  throw LaunchError(text);
}

// --- one warp ---

Group* Launch::choose(Warp& warp) {
  Group* chosen = nullptr;
  uint64_t ready = 0;
  for (Group& group : warp.groups) {
    if (group.state != Group::kRuns) continue;
    ++ready;
    const bool take = options_.seed < 0 ? !chosen || group.at < chosen->at : ready == 1 || random_() % ready == 0;
    if (take) chosen = &group;
  }
  return chosen;
}

// Executes up to `budget` instructions; returns whether the warp can continue.
bool Launch::run_warp(Warp& warp, int64_t budget) {
  for (; budget > 0; --budget) {
    Group* group = choose(warp);
    if (!group) return false;
    execute(warp, *group);
    if (warp.groups.size() > 1) merge(warp);
  }
  return std::any_of(warp.groups.begin(), warp.groups.end(),
                     [](const Group& group) { return group.state == Group::kRuns; });
}

void Launch::merge(Warp& warp) {
  std::vector<Group>& groups = warp.groups;
  for (size_t a = 0; a < groups.size(); ++a) {
    for (size_t b = a + 1; b < groups.size();) {
      const bool waits = groups[a].state == Group::kAtBarrier, other_waits = groups[b].state == Group::kAtBarrier;
      if (groups[a].at != groups[b].at || waits != other_waits) {
        ++b;
        continue;
      }
      if (!waits) groups[a].state = Group::kRuns;  // this may complete a collective
      groups[a].lanes |= groups[b].lanes;
      groups[b] = groups.back();
      groups.pop_back();
    }
  }
}

void Launch::execute(Warp& warp, Group& group) {
  const int at = group.at;
  const Instruction& in = kernel_.code[static_cast<size_t>(at)];
  Counts& counts = counts_[static_cast<size_t>(at)];
  Mask active = group.lanes;
  if (in.guarded) {
    Mask on = 0;
    const uint64_t* guard = warp.row(in.guard);
    for (int lane = 0; lane < kLanes; ++lane) on |= static_cast<Mask>(guard[lane] & 1) << lane;
    active &= in.guard_negated ? ~on : on;
  }
  if (++instructions_ > options_.most_instructions) throw LaunchError("does not come to an end; at " + place(at));
  ++counts.executed;
  counts.lanes += static_cast<uint64_t>(__builtin_popcount(active));
  if (warp.any_undefined) follow_undefined(warp, in, at, group.lanes);
  switch (in.kind) {
    case Kind::kCompute:
      if (active) in.compute(warp, in, active);
      break;
    case Kind::kBranch:
      return branch(warp, group, in, active);
    case Kind::kExit:
      return leave(warp, group, active);
    case Kind::kBlockBarrier:
      if (in.from.size() != 1 || warp.operand(in.from[0])[0] != 0 || active != group.lanes)
        fail(warp, at, -1, "the executor knows the barrier 0 of all threads only");
      group.state = Group::kAtBarrier;
      return;
    case Kind::kWarpBarrier:
    case Kind::kShuffle:
    case Kind::kVote:
    case Kind::kMatch:
      if (active && !collective(warp, group, in, active)) {
        group.state = Group::kAtCollective;
        --counts.executed;
        counts.lanes -= static_cast<uint64_t>(__builtin_popcount(active));
        return;
      }
      break;
    case Kind::kLoad:
    case Kind::kStore:
    case Kind::kAtomic:
      if (active) access(warp, in, at, active);
      break;
    case Kind::kFence:
      fence(warp, active);
      break;
    case Kind::kTrap:
      if (active) fail(warp, at, __builtin_ctz(active), "trap");
      break;
    case Kind::kNothing:
      break;
  }
  ++group.at;
}

// Unwritten values: a move copies them, a select may pass over them, any other use is an error.
// Loads and stores handle their own values.
void Launch::follow_undefined(Warp& warp, const Instruction& in, int at, Mask lanes) const {
  Mask used = in.guarded ? warp.undefined_in(in.guard) : 0;
  Mask copied = 0;
  const bool memory = in.kind == Kind::kLoad || in.kind == Kind::kStore || in.kind == Kind::kAtomic;
  if (memory) {
    used |= warp.undefined_in(in.address);
  } else if (in.parts[0] == "mov") {
    for (const int row : in.from) copied |= warp.undefined_in(row);
  } else if (in.parts[0] == "selp") {
    const uint64_t* chosen = warp.operand(in.from[2]);
    for_lanes(lanes,
              [&](int lane) { copied |= warp.undefined_in(in.from[chosen[lane] & 1 ? 0 : 1]) & Mask{1} << lane; });
    used |= warp.undefined_in(in.from[2]);
  } else {
    for (const int row : in.from) used |= warp.undefined_in(row);
  }
  used &= lanes;
  if (used) fail(warp, at, __builtin_ctz(used), "uses shared memory that nobody has written");
  if (memory) return;
  for (const int row : in.to) warp.set_undefined(row, lanes, copied & lanes);
}

void Launch::branch(Warp& warp, Group& group, const Instruction& in, Mask active) {
  if (active == group.lanes) {
    group.at = in.target;
    return;
  }
  const int next = ++group.at;
  if (!active || in.target == next) return;
  ++counts_[static_cast<size_t>(next - 1)].diverged;
  group.lanes &= ~active;
  warp.groups.push_back({active, in.target, Group::kRuns});
}

void Launch::leave(Warp& warp, Group& group, Mask active) {
  warp.block->exited += __builtin_popcount(active);
  group.lanes &= ~active;
  ++group.at;
  if (group.lanes) return;
  group = warp.groups.back();
  warp.groups.pop_back();
  // Lanes that wait for an exited lane never continue: let them report it.
  for (Group& other : warp.groups)
    if (other.state == Group::kAtCollective) other.state = Group::kRuns;
}

std::string Launch::place(int at) const {
  const Instruction& in = kernel_.code[static_cast<size_t>(at)];
  std::string file = module_.file(in.file);
  const size_t slash = file.rfind('/');
  if (slash != std::string::npos) file = file.substr(slash + 1);
  return in.line ? file + ":" + std::to_string(in.line) + " (" + in.text + ")" : "(" + in.text + ")";
}

void Launch::fail(const Warp& warp, int at, int lane, const std::string& what) const {
  std::string text = "block " + std::to_string(warp.block->number) + ", ";
  text += lane < 0 ? "warp " + std::to_string(warp.number) : "thread " + std::to_string(warp.number * kLanes + lane);
  throw LaunchError(text + ": " + what + " at " + place(at));
}

}  // namespace ptx
