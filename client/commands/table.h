#pragma once

#include <string>
#include <vector>

namespace isoscan {

/// Prints rows of text in columns that are as wide as their widest cell, aligned left; the last one
/// is not padded.
void PrintRows(const std::vector<std::vector<std::string>>& rows);

}  // namespace isoscan
