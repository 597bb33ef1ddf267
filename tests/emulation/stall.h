// What the threads of a block are doing, and the report when none of them can go on.
#pragma once

#include <string>

#include "runtime.h"

namespace ccfast::emulation {

enum class State : uint8_t { kRunning, kAtBarrier, kAtCollective, kExited };

struct Thread {
  State state;
  Collective call;  // what it waits for, or its site alone at a barrier
  uint64_t result;  // of the latest collective
};

// Whether two lanes wait for the same thing. Equal values are not asked for.
bool same_call(const Collective& a, const Collective& b);
// One line for every group of neighbouring threads that wait for the same thing.
std::string describe_stall(const Thread* threads, int count);

}  // namespace ccfast::emulation
