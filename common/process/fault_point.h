#pragma once

#include <initializer_list>
#include <string_view>

namespace isoscan {

/// Where a test kills a process: ISOSCAN_FAULT_POINT("journal.before", "take_update") is the point
/// "journal.before.take_update". Nothing is left of it in a program as it ships: only files that
/// are compiled with ISOSCAN_FAULT_POINTS have any, which tests/faults does to programs of its own.
///
/// The environment says what happens there (docs/testing.md#killed-at-every-point):
///   ISOSCAN_FAULT=NAME:N     the process dies by SIGKILL when it passes NAME the N-th time
///   ISOSCAN_FAULT_LOG=FILE   gets the name of every point that is passed, one a line
#ifdef ISOSCAN_FAULT_POINTS
#define ISOSCAN_FAULT_POINT(...) ::isoscan::PassFaultPoint({__VA_ARGS__})
#else
#define ISOSCAN_FAULT_POINT(...) static_cast<void>(0)
#endif

/// `words` are joined by dots. From any thread.
void PassFaultPoint(std::initializer_list<std::string_view> words);

}  // namespace isoscan
