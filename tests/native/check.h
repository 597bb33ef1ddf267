// The parts of a test framework that the native tests need.
//
//   TEST(sums_are_exact) { CHECK_EQUAL(1 + 1, 2); }
//
// Every test file is a program. It runs its tests, or those whose names contain its first argument.
#pragma once

#include <cstdio>
#include <cstring>
#include <exception>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace ccfast::native {

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

struct Register {
  Register(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

// The text of one element of a vector, only for elements that differ: with a sanitizer, one string per element
// takes longer than most tests.
inline std::string at(const char* text, size_t i) { return std::string(text) + " at " + std::to_string(i); }

template <class A, class B>
void check_equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (a == b) return;
  std::ostringstream out;
  out.precision(17);
  out << text << ": " << a << " is not " << b;
  fail(file, line, out.str());
}

template <class T>
void check_equal(const std::vector<T>& a, const std::vector<T>& b, const char* text, const char* file, int line) {
  check_equal(a.size(), b.size(), (std::string(text) + ": sizes").c_str(), file, line);
  for (size_t i = 0; i < a.size(); ++i)
    if (!(a[i] == b[i])) check_equal(a[i], b[i], at(text, i).c_str(), file, line);
}

// |a - b| <= tolerance; false for NaN.
inline bool is_near(double a, double b, double tolerance) { return a - b <= tolerance && b - a <= tolerance; }

inline void check_near(double a, double b, double tolerance, const char* text, const char* file, int line) {
  if (is_near(a, b, tolerance)) return;
  std::ostringstream out;
  out.precision(17);
  out << text << ": " << a << " is not within " << tolerance << " of " << b;
  fail(file, line, out.str());
}

template <class T>
void check_near(const std::vector<T>& a, const std::vector<T>& b, double tolerance, const char* text, const char* file,
                int line) {
  check_equal(a.size(), b.size(), (std::string(text) + ": sizes").c_str(), file, line);
  for (size_t i = 0; i < a.size(); ++i) {
    const double left = static_cast<double>(a[i]), right = static_cast<double>(b[i]);
    if (!is_near(left, right, tolerance)) check_near(left, right, tolerance, at(text, i).c_str(), file, line);
  }
}

// The message of the exception that the call throws, or empty.
template <class Function>
std::string error_of(const Function& function) {
  try {
    function();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

inline int run_all(int argc, char** argv) {
  int failed = 0;
  for (const Test& test : tests()) {
    if (argc > 1 && !std::strstr(test.name, argv[1])) continue;
    try {
      test.run();
      std::printf("passed  %s\n", test.name);
    } catch (const std::exception& error) {
      ++failed;
      std::printf("FAILED  %s\n        %s\n", test.name, error.what());
    }
    std::fflush(stdout);
  }
  return failed ? 1 : 0;
}

}  // namespace ccfast::native

#define TEST(name)                                                    \
  static void name();                                                 \
  static const ccfast::native::Register register_##name(#name, name); \
  static void name()
#define CHECK(condition) \
  if (!(condition)) ccfast::native::fail(__FILE__, __LINE__, #condition)
#define CHECK_EQUAL(a, b) ccfast::native::check_equal((a), (b), #a, __FILE__, __LINE__)
#define CHECK_NEAR(a, b, tolerance) ccfast::native::check_near((a), (b), (tolerance), #a, __FILE__, __LINE__)
// The call throws std::runtime_error whose message contains `part`.
#define CHECK_ERROR(call, part)                                                                          \
  do {                                                                                                   \
    const std::string message = ccfast::native::error_of([&] { call; });                                 \
    if (!ccfast::native::contains(message, part))                                                        \
      ccfast::native::fail(__FILE__, __LINE__,                                                           \
                           "expected an error with '" + std::string(part) + "', got '" + message + "'"); \
  } while (false)

int main(int argc, char** argv) { return ccfast::native::run_all(argc, argv); }
