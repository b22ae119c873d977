#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "client/intake/finding.h"

namespace isoscan {

/// The reader's refusal, by what a person would call it.
inline Fault FaultOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return status.message().find("(4D)") != absl::string_view::npos ? Fault::kFourDimensional
                                                                      : Fault::kGeometry;
    case absl::StatusCode::kResourceExhausted:
      return Fault::kMemory;
    default:
      return Fault::kUnreadable;
  }
}

}  // namespace isoscan
