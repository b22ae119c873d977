/// A cohort in which nearly everything is wrong, made by hand, byte by byte where no writer would
/// write it: for the tests of the intake, and to look at (make_broken_inputs FOLDER).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace isoscan {

/// One thing that is wrong, and how the intake must tell it.
struct BrokenInput {
  std::string name;   ///< Of the case, as `inspect` lists it.
  std::string fault;  ///< As --json names it.
  std::string words;  ///< Part of the reason.
  bool quarantined = true;
};

struct BrokenInputs {
  std::vector<BrokenInput> broken;
  std::vector<std::string> sound;  ///< Cases with nothing to find.
};

/// A BIDS cohort of phantom heads with labelled left and right hippocampi: eight sound cases and
/// one for every fault.
BrokenInputs MakeBrokenCohort(const std::filesystem::path& folder);

/// DICOM series, sound and broken.
BrokenInputs MakeBrokenDicom(const std::filesystem::path& folder);

}  // namespace isoscan
