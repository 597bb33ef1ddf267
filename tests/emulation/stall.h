// The state of the threads of a block, and the report if none of them can run.
#pragma once

#include <string>

#include "runtime.h"

namespace ccfast::emulation {

enum class State : uint8_t { kRunning, kAtBarrier, kAtCollective, kExited };

struct Thread {
  State state;
  Collective call;  // what it waits for; at a barrier only the site
  uint64_t result;  // result of the latest collective
};

// Whether two lanes wait for the same thing. Their values may differ.
bool same_call(const Collective& a, const Collective& b);
// One line per group of adjacent threads that wait for the same thing.
std::string describe_stall(const Thread* threads, int count);

}  // namespace ccfast::emulation
