#pragma once

#include <fmt/format.h>

#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "absl/status/status.h"

#include <c10/util/Exception.h>

namespace isoscan {

/// Runs `work` and turns what LibTorch throws into a status; `what` says what was being done,
/// `advice` what helps when memory is short.
template <typename Work>
auto WithoutExceptions(const std::string& what, std::string_view advice, Work work)
    -> decltype(work()) {
  constexpr std::string_view kCpuAllocation = "can't allocate memory";
  const auto out_of_memory = [&] {
    return absl::ResourceExhaustedError(fmt::format("{}: out of memory; {}", what, advice));
  };
  try {
    return work();
  } catch (const c10::OutOfMemoryError&) {
    return out_of_memory();
  } catch (const c10::Error& error) {
    const std::string message = error.what_without_backtrace();
    if (message.find(kCpuAllocation) != std::string::npos) return out_of_memory();
    return absl::InternalError(fmt::format("{}: {}", what, message));
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::exception& error) {  // oneDNN's own
    return absl::InternalError(fmt::format("{}: {}", what, error.what()));
  }
}

}  // namespace isoscan
