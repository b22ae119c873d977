#pragma once

#include <stop_token>

namespace isoscan {

/// Turns SIGINT and SIGTERM into a stop request: the first asks the program to stop cleanly, the
/// second ends it at once, with exit code 130. Programs that this one starts are not affected. Stop
/// callbacks run in a thread of their own. Call once, first thing in main(), before any other
/// thread exists.
std::stop_token StopOnInterrupt();

}  // namespace isoscan
