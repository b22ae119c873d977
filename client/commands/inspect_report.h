#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "client/intake/case_sight.h"
#include "client/intake/mask_advice.h"

namespace isoscan {

/// What `inspect` found, ready to be shown. Everything in it names files: it is for the site alone.
struct InspectReport {
  std::string study;  ///< Empty: none was asked for.
  struct Cohort {
    std::string name;
    std::string folder;
    std::string layout;
    MaskAdvice advice;
  };
  std::vector<Cohort> cohorts;
  std::vector<CaseSight> cases;
  std::vector<bool> held_out;    ///< One per case of a study; empty without one.
  absl::Status held_out_status;  ///< Why the study's rule holds out none of them, or all.
  std::vector<std::string> left_out;
  bool headers_only = false;
  int threads = 1;
  std::int64_t budget_bytes = 0;  ///< 0: no voxel was read.
  double seconds = 0;
  std::int64_t peak_bytes = 0;
};

/// To standard output.
void PrintInspectTable(const InspectReport& report);
void PrintInspectJson(const InspectReport& report);

}  // namespace isoscan
