#include <cstdio>
#include <cstring>

#include "stall.h"

namespace ccfast::emulation {
namespace {

bool same_site(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

bool same_state(const Thread& a, const Thread& b) {
  if (a.state != b.state) return false;
  return a.state == State::kExited ||
         (same_site(a.call.site, b.call.site) && (a.state == State::kAtBarrier || same_call(a.call, b.call)));
}

const char* name(Wait kind) {
  switch (kind) {
    case Wait::kBlock:
      return "__syncthreads";
    case Wait::kWarp:
      return "__syncwarp";
    case Wait::kShuffle:
      return "a shuffle";
    case Wait::kVote:
      return "a vote";
  }
  return "";
}

std::string describe(const Thread& thread) {
  if (thread.state == State::kExited) return "has exited";
  std::string text = "waits at " + std::string(name(thread.call.kind));
  if (thread.state == State::kAtCollective) {
    char mask[32];
    std::snprintf(mask, sizeof mask, " with mask 0x%08x", thread.call.mask);
    text += mask;
  }
  return text + " in " + thread.call.site.file + ":" + std::to_string(thread.call.site.line);
}

}  // namespace

bool same_call(const Collective& a, const Collective& b) {
  return a.kind == b.kind && a.mask == b.mask && same_site(a.site, b.site);
}

std::string describe_stall(const Thread* threads, int count) {
  std::string text = "threads wait for others that never come (" + std::to_string(count) + " threads in the block)";
  for (int first = 0, last = 0; first < count; first = last + 1) {
    for (last = first; last + 1 < count && same_state(threads[first], threads[last + 1]);) ++last;
    text += "\n  thread " + std::to_string(first);
    if (last > first) text += " to " + std::to_string(last);
    text += ": " + describe(threads[first]);
  }
  return text;
}

}  // namespace ccfast::emulation
