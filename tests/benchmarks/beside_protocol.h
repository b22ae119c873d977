#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <map>
#include <string>

#include "absl/status/statusor.h"

#include "common/process/resources.h"

namespace isoscan {

/// One run of a way: its time, and what else `beside` shall keep of it.
struct Run {
  double milliseconds = 0;
  double processor_milliseconds = 0;  ///< Of all threads; 0 where it was not taken.
  std::string result = "null";        ///< JSON.
};

using Ways = std::map<std::string, std::function<Run()>>;

[[noreturn]] inline void Fail(const std::string& message) {
  fmt::print(stderr, "error: {}\n", message);
  std::exit(1);
}

template <typename T>
T Unwrap(absl::StatusOr<T> result) {
  if (!result.ok()) Fail(result.status().ToString());
  return *std::move(result);
}

template <typename Work>
double Milliseconds(Work work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

/// What tests/benchmarks/beside speaks: the names of all ways, then for each name that comes in on
/// a line the answer on one.
inline void Serve(const Ways& ways) {
  std::string names;
  for (const auto& [name, run] : ways) {
    names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", name);
  }
  fmt::print("{{\"ways\": [{}]}}\n", names);
  std::fflush(stdout);
  for (std::string name; std::getline(std::cin, name);) {
    const auto way = ways.find(name);
    if (way == ways.end()) Fail("there is no way " + name);
    const Run run = way->second();
    fmt::print("{{\"ms\": {:.4f}, \"processor_ms\": {:.1f}, \"result\": {}, \"peak_mib\": {}}}\n",
               run.milliseconds, run.processor_milliseconds, run.result, PeakMemoryBytes() >> 20);
    std::fflush(stdout);
  }
}

}  // namespace isoscan
