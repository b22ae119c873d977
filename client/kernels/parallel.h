#pragma once

#include <cstdint>
#include <functional>

namespace isoscan {

/// Where a kernel's work is done: the pool of whoever calls (LibTorch's, in training), so that one
/// program never has two.
struct Parallel {
  int threads = 1;
  /// Calls work(0), ..., work(items - 1), each once, in any order, by up to `threads` threads at a
  /// time, and returns when all are done.
  std::function<void(std::int64_t items, const std::function<void(std::int64_t)>& work)> run =
      [](std::int64_t items, const std::function<void(std::int64_t)>& work) {
        for (std::int64_t item = 0; item < items; ++item) work(item);
      };
};

}  // namespace isoscan
