// For tests: runs a function in each order of threads and blocks.
#pragma once

#include <cstdlib>
#include <string>
#include <vector>

namespace ccfast::emulation {

// Sets CCFAST_EMULATE_ORDER during its lifetime.
class WithOrder {
 public:
  explicit WithOrder(const char* order) {
    const char* before = std::getenv(kName);
    if (before) before_ = before;
    had_one_ = before != nullptr;
    setenv(kName, order, 1);
  }
  ~WithOrder() {
    if (had_one_) {
      setenv(kName, before_.c_str(), 1);
    } else {
      unsetenv(kName);
    }
  }
  WithOrder(const WithOrder&) = delete;
  WithOrder& operator=(const WithOrder&) = delete;

 private:
  static constexpr const char* kName = "CCFAST_EMULATE_ORDER";
  bool had_one_ = false;
  std::string before_;
};

template <class Function>
void in_every_order(const Function& function) {
  for (const char* order : {"forward", "reverse", "shuffle:1", "shuffle:2"}) {
    const WithOrder with_order(order);
    function();
  }
}

// The result of a kernel in an order.
template <class Function>
auto result_in(const char* order, const Function& function) {
  const WithOrder with_order(order);
  return function();
}

}  // namespace ccfast::emulation
