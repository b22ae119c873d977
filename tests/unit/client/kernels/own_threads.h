#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "client/kernels/parallel.h"

namespace isoscan {

/// Threads of its own, taking items as they come.
inline Parallel OwnThreads(int threads) {
  return {.threads = threads,
          .run = [threads](std::int64_t items, const std::function<void(std::int64_t)>& work) {
            std::atomic<std::int64_t> next{0};
            std::vector<std::jthread> pool;
            for (int i = 0; i < threads; ++i) {
              pool.emplace_back([&] {
                for (std::int64_t item = next++; item < items; item = next++) work(item);
              });
            }
          }};
}

}  // namespace isoscan
