#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "absl/status/status.h"

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
/// OK when `work` returned true; `result` is unspecified otherwise.
///
/// Threads: any number of calls at once.
/// Errors:  ABORTED `work` returned false, threw, crashed, or took `memory_bytes` of addresses more
///          than the process had (not checked under a sanitizer); DEADLINE_EXCEEDED `limit`;
///          RESOURCE_EXHAUSTED no copy could be made, or the system killed it; CANCELLED a SIGINT
///          or SIGTERM reached it. Messages are short, for a sentence that names the input.
absl::Status RunApart(std::span<std::byte> result, std::chrono::seconds limit,
                      std::int64_t memory_bytes,
                      const std::function<bool(std::span<std::byte> result)>& work);

}  // namespace isoscan
