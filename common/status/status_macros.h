/// Early return for functions that answer with absl::Status or absl::StatusOr.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define ISOSCAN_JOIN_TOKENS(left, right) left##right
#define ISOSCAN_JOIN(left, right) ISOSCAN_JOIN_TOKENS(left, right)

/// Leaves the enclosing function with the error when `expression` is not OK.
#define RETURN_IF_ERROR(expression)                  \
  do {                                               \
    absl::Status isoscan_status = (expression);      \
    if (!isoscan_status.ok()) return isoscan_status; \
  } while (false)

/// Declares or assigns `target` from a StatusOr, or leaves the enclosing function with its error.
/// Two statements: never the body of an `if` without braces.
#define ASSIGN_OR_RETURN(target, expression) \
  ISOSCAN_ASSIGN_OR_RETURN(ISOSCAN_JOIN(isoscan_result_, __LINE__), target, expression)

#define ISOSCAN_ASSIGN_OR_RETURN(result, target, expression) \
  auto result = (expression);                                \
  if (!result.ok()) return std::move(result).status();       \
  target = *std::move(result)
