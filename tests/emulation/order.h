// The order in which blocks and threads take their turns.
//
// A kernel without a race gives the same result in every order. The first thread of the order that can run always
// runs, so that it is ahead of the others as far as barriers allow; forward and reverse together put any two
// threads in both orders between two barriers. README.md says what that finds and what it does not.
#pragma once

#include <array>
#include <cstdint>

#include "runtime.h"

namespace ccfast::emulation {

enum class OrderKind { kForward, kReverse, kShuffle };

struct Order {
  OrderKind kind;
  uint64_t seed;

  // From CCFAST_EMULATE_ORDER: forward (the default), reverse, or shuffle:<seed>.
  static Order from_environment();
};

// A small random generator (splitmix64): the same numbers on every machine.
struct Random {
  uint64_t state;
  uint64_t next();
  int below(int bound) { return static_cast<int>(next() % static_cast<uint64_t>(bound)); }
};

// Numbers of the blocks, in the order in which they run.
class BlockOrder {
 public:
  BlockOrder(const Order& order, int64_t count);
  int64_t block(int64_t turn) const;

 private:
  Order order_;
  int64_t count_, factor_ = 1, offset_ = 0;
};

// Which threads of a block can run, and which of them is first.
class Turns {
 public:
  // All threads can run.
  void start(const Order& order, int64_t block, int threads);
  void everybody();
  void set_ready(int thread) { ready_[word(rank_[thread])] |= bit(rank_[thread]); }
  void set_waiting(int thread) { ready_[word(rank_[thread])] &= ~bit(rank_[thread]); }
  // The first thread that can run, or -1.
  int next() const;
  bool shuffled() const { return shuffled_; }
  // Shuffled order: sometimes gives the thread's place to another one. Both must be able to run.
  void maybe_swap(int thread);

 private:
  static int word(int rank) { return rank / 64; }
  static uint64_t bit(int rank) { return uint64_t{1} << (rank % 64); }
  void shuffle();

  bool shuffled_ = false;
  int threads_ = 0;
  Random random_{0};
  std::array<int, kMaxThreads> thread_, rank_;    // thread by rank, and the reverse
  std::array<uint64_t, kMaxThreads / 64> ready_;  // by rank
};

}  // namespace ccfast::emulation
