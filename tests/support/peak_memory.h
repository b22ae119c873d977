#pragma once

#include <gtest/gtest.h>

#include <cstdint>

#include "common/process/resources.h"
#include <sys/wait.h>
#include <unistd.h>

namespace isoscan {

/// Peak memory in bytes of a copy of this process that does nothing but `work`; -1 when `work`
/// returns false, or ends it.
template <typename Work>
std::int64_t PeakMemoryOf(Work work) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const std::int64_t peak = work() ? PeakMemoryBytes() : -1;
    _exit(write(ends[1], &peak, sizeof(peak)) == sizeof(peak) ? 0 : 1);
  }
  close(ends[1]);
  std::int64_t peak = -1;
  if (read(ends[0], &peak, sizeof(peak)) != static_cast<ssize_t>(sizeof(peak))) peak = -1;
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return peak;
}

}  // namespace isoscan
