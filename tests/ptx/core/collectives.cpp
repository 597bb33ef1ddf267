// Collectives of the lanes of a warp: __syncwarp, shuffles, votes, matches.
#include "launch.h"

namespace ptx {
namespace {

constexpr uint64_t kPoison = 0x7ffbcbcbu;  // from a lane that provides no value

// The source lane of a shuffle, by the rule of the PTX manual; negative: its own lane.
int source(const Instruction& in, int lane, unsigned b, unsigned c) {
  const int by = static_cast<int>(b & 31), clamp = static_cast<int>(c & 31), segment = static_cast<int>(c >> 8 & 31);
  const int last = (lane & segment) | (clamp & ~segment);
  if (in.has(Word::kUp)) return lane - by >= last ? lane - by : -1;
  const int wanted = in.has(Word::kDown)   ? lane + by
                     : in.has(Word::kBfly) ? lane ^ by
                                           : (lane & segment) | (by & ~segment);
  return wanted <= last ? wanted : -1;
}

void shuffle(Warp& warp, const Instruction& in, Mask lanes) {
  uint64_t given[kLanes];
  std::memcpy(given, warp.operand(in.from[0]), sizeof given);
  const uint64_t *b = warp.operand(in.from[1]), *c = warp.operand(in.from[2]);
  int from[kLanes];
  for_lanes(lanes, [&](int lane) {
    from[lane] = source(in, lane, static_cast<unsigned>(b[lane]), static_cast<unsigned>(c[lane]));
  });
  for_lanes(lanes, [&](int lane) {
    const int take = from[lane] < 0 ? lane : from[lane];
    if (in.to[0] != kIgnored) warp.row(in.to[0])[lane] = lanes >> take & 1 ? given[take] & 0xffffffffu : kPoison;
    if (in.to.size() > 1 && in.to[1] != kIgnored) warp.row(in.to[1])[lane] = from[lane] >= 0;
  });
}

void vote(Warp& warp, const Instruction& in, Mask lanes) {
  const uint64_t* given = warp.operand(in.from[0]);
  Mask votes = 0;
  for_lanes(lanes, [&](int lane) { votes |= static_cast<Mask>(given[lane] & 1) << lane; });
  const bool all = votes == lanes, any = votes != 0;
  const uint64_t result = in.has(Word::kBallot) ? votes
                          : in.has(Word::kAll)  ? all
                          : in.has(Word::kAny)  ? any
                                                : all || !any;
  for_lanes(lanes, [&](int lane) { warp.row(in.to[0])[lane] = result; });
}

void match(Warp& warp, const Instruction& in, Mask lanes) {
  uint64_t given[kLanes];
  std::memcpy(given, warp.operand(in.from[0]), sizeof given);
  const uint64_t mask = size_of(in.from_type) == 8 ? ~uint64_t{0} : 0xffffffffu;
  Mask equal[kLanes] = {};
  for_lanes(lanes, [&](int lane) {
    for_lanes(lanes, [&](int other) {
      if (((given[lane] ^ given[other]) & mask) == 0) equal[lane] |= Mask{1} << other;
    });
  });
  for_lanes(lanes, [&](int lane) {
    const bool all = equal[lane] == lanes;
    warp.row(in.to[0])[lane] = in.has(Word::kAny) || all ? equal[lane] : 0;
    if (in.to.size() > 1 && in.to[1] != kIgnored) warp.row(in.to[1])[lane] = all;
  });
}

}  // namespace

// False while lanes of the mask are missing. Lanes of one group may have different masks.
bool Launch::collective(Warp& warp, Group& group, const Instruction& in, Mask active) {
  const uint64_t* masks = warp.operand(in.from.back());
  Mask alive = 0;
  for (const Group& other : warp.groups) alive |= other.lanes;
  for (Mask left = active; left;) {
    const int first = __builtin_ctz(left);
    const auto wanted = static_cast<Mask>(masks[first]);
    if (!(wanted >> first & 1)) fail(warp, group.at, first, "a mask that leaves out the calling lane");
    if (wanted & ~alive) fail(warp, group.at, first, "a mask with a lane that has exited or does not exist");
    for (Mask others = left & wanted; others; others &= others - 1)
      if (static_cast<Mask>(masks[__builtin_ctz(others)]) != wanted)
        fail(warp, group.at, first, "lanes that name each other in different masks");
    if (wanted & ~active) return false;
    left &= ~wanted;
  }
  for (Mask left = active; left;) {
    const auto lanes = static_cast<Mask>(masks[__builtin_ctz(left)]);
    exchange(warp, in, lanes);
    left &= ~lanes;
  }
  return true;
}

void Launch::exchange(Warp& warp, const Instruction& in, Mask lanes) {
  if (in.kind == Kind::kWarpBarrier)
    warp.block->clocks.warp_barrier(warp.number, lanes);
  else if (in.kind == Kind::kShuffle)
    shuffle(warp, in, lanes);
  else if (in.kind == Kind::kVote)
    vote(warp, in, lanes);
  else
    match(warp, in, lanes);
}

}  // namespace ptx
