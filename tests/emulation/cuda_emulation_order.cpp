#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "order.h"

namespace ccfast::emulation {
namespace {

// One of this many atomic operations lets another thread go first.
constexpr int kSwapOdds = 4;

}  // namespace

Order Order::from_environment() {
  const char* value = std::getenv("CCFAST_EMULATE_ORDER");
  const std::string text = value ? value : "", shuffle = "shuffle:";
  if (text.empty() || text == "forward") return {OrderKind::kForward, 0};
  if (text == "reverse") return {OrderKind::kReverse, 0};
  const std::string digits = text.rfind(shuffle, 0) == 0 ? text.substr(shuffle.size()) : "";
  if (digits.empty() || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos)
    throw std::runtime_error("CCFAST_EMULATE_ORDER: expected forward, reverse or shuffle:<seed>, got " + text);
  return {OrderKind::kShuffle, std::stoull(digits)};
}

uint64_t Random::next() {
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// A shuffled grid may be too large for a list: i -> (factor * i + offset) mod count visits every block once if factor
// and count have no common divisor.
BlockOrder::BlockOrder(const Order& order, int64_t count) : order_(order), count_(count) {
  if (order.kind != OrderKind::kShuffle) return;
  Random random{order.seed};
  const auto draw = [&] { return static_cast<int64_t>(random.next() % static_cast<uint64_t>(count)); };
  offset_ = draw();
  do factor_ = 1 + draw();
  while (std::gcd(factor_, count) != 1);
}

int64_t BlockOrder::block(int64_t turn) const {
  if (order_.kind == OrderKind::kReverse) return count_ - 1 - turn;
  return (factor_ * turn + offset_) % count_;
}

void Turns::start(const Order& order, int64_t block, int threads) {
  threads_ = threads;
  shuffled_ = order.kind == OrderKind::kShuffle;
  random_.state = order.seed + (static_cast<uint64_t>(block) << 20);  // of the block alone: a run can be repeated
  for (int rank = 0; rank < threads; ++rank) {
    const int thread = order.kind == OrderKind::kReverse ? threads - 1 - rank : rank;
    thread_[rank] = thread;
    rank_[thread] = rank;
  }
  everybody();
}

void Turns::everybody() {
  if (shuffled_) shuffle();
  for (int w = 0; w < kMaxThreads / 64; ++w) {
    const int left = threads_ - w * 64;
    ready_[w] = left >= 64 ? ~uint64_t{0} : left > 0 ? bit(left) - 1 : 0;
  }
}

void Turns::shuffle() {
  for (int last = threads_ - 1; last > 0; --last) std::swap(thread_[last], thread_[random_.below(last + 1)]);
  for (int rank = 0; rank < threads_; ++rank) rank_[thread_[rank]] = rank;
}

int Turns::next() const {
  for (int w = 0; w * 64 < threads_; ++w)
    if (ready_[w]) return thread_[w * 64 + __builtin_ctzll(ready_[w])];
  return -1;
}

void Turns::maybe_swap(int thread) {
  if (random_.below(kSwapOdds) != 0) return;
  const int other = thread_[random_.below(threads_)], rank = rank_[thread];
  if (!(ready_[word(rank_[other])] & bit(rank_[other]))) return;
  std::swap(rank_[thread], rank_[other]);
  thread_[rank_[thread]] = thread;
  thread_[rank] = other;
}

}  // namespace ccfast::emulation
