#pragma once

#include <string>

namespace isoscan {

/// A small input to start from, named by what it is.
struct FuzzSeed {
  std::string name;
  std::string bytes;
};

}  // namespace isoscan
