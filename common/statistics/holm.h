#pragma once

#include <span>
#include <vector>

namespace isoscan {

/// Adjusted p-values, in the order given: all hypotheses with one of at most alpha may be rejected
/// together, and the chance that any of them is true stays within alpha, however they depend on
/// each other. NaN (a site that cannot be tested) stays NaN and counts as no hypothesis.
///
/// Source: docs/references.md#holm1979.
std::vector<double> Holm(std::span<const double> p_values);

}  // namespace isoscan
