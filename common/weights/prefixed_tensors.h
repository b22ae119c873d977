#pragma once

#include <string_view>

#include "common/weights/named_tensors.h"

namespace isoscan {

/// Several sets of tensors in one, told apart by how their names begin: `prefix` + name.

/// Moves `source` into `target` under the prefix. `target` has no such names yet.
void MoveUnder(std::string_view prefix, NamedTensors source, NamedTensors& target);

/// Moves what is under the prefix out of `source`, by its names without it.
NamedTensors TakeFrom(std::string_view prefix, NamedTensors& source);

}  // namespace isoscan
