#pragma once

#include <string>

namespace isoscan {

/// SHA-256 of the running program's file, computed once: what one build wrote for itself, another
/// need not compute alike. Empty where the system does not give the file.
const std::string& ProgramDigest();

}  // namespace isoscan
