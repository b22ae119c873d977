#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace isoscan {

/// Runs `work` in a copy of this process and takes over what it wrote to `result`: for a library
/// that a hostile file makes crash, assert, hang, print or take memory without end. Whatever else
/// it does is lost. It prints nowhere, dies with its parent, and leaves no core, which would hold a
/// scan.
///
/// The copy has one thread only: `work` must need no other thread, nor a lock that another thread
/// of this process may hold. The cost is that of fork(): 0.3 ms, and 2 to 3 ms of processor time
/// for each 100 MB that the process holds.
///
/// True when `work` returned true, in less than `limit` and with at most `memory_bytes` of
/// addresses more than now (not checked under a sanitizer). `result` is unspecified otherwise.
/// Thread safety: any number of calls at once.
bool RunApart(std::span<std::byte> result, std::chrono::seconds limit, std::int64_t memory_bytes,
              const std::function<bool(std::span<std::byte> result)>& work);

}  // namespace isoscan
