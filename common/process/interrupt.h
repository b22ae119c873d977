#pragma once

#include <stop_token>

namespace isoscan {

/// Turns SIGINT and SIGTERM into a stop request: the first asks the program to stop cleanly, the
/// second ends it at once. Call once, first thing in main(), before any other thread exists.
std::stop_token StopOnInterrupt();

}  // namespace isoscan
