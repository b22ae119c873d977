#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "client/cohort/cohort.h"
#include "common/study/study.h"

namespace isoscan {

/// A prepared case with what the cohort's declaration needs of the scan as it is stored.
struct CachedCase {
  PreparedCase prepared;
  std::vector<float> stored_sample;  ///< Intensities of the first channel before harmonisation.
};

/// The prepared cases of one study on disk, so that no scan is prepared twice and that they need
/// not be in memory. A case is known by the SHA-256 of every byte that it is made of and of the way
/// it is prepared: one whose files, labels or harmonisation have changed is not found, and neither
/// is one that another build of the program prepared.
///
/// What it gives lies in mapped files, which are checked once, when they are opened: the kernel
/// reads what is looked at and takes the memory back when it is short of it. The files may be
/// removed meanwhile, but not written to. A disk that fails later ends the process (SIGBUS).
///
/// Thread safety: none; one object at a time works on a folder.
class PreparedCache {
 public:
  /// `folder` is made when the first case is kept. `spare_bytes` of its disk are left free for
  /// other files. `on_trouble` is told of a file that is damaged (and removed), and once of a disk
  /// that takes no more: the other cases are then prepared each time, and stay in memory.
  PreparedCache(std::filesystem::path folder, std::int64_t spare_bytes,
                std::function<void(const absl::Status&)> on_trouble);

  /// The case as PrepareCase() would make it, bit for bit; nothing where it is not here. `study` is
  /// the one that it is prepared for, with its standard.
  std::optional<CachedCase> Find(const CaseFiles& files, const Study& study);

  /// Keeps what Find(files, study) did not find, and gives it as Find() will; `cached` itself where
  /// it cannot be kept.
  CachedCase Keep(const CaseFiles& files, const Study& study, CachedCase cached);

  /// The disk took no case any more.
  bool full() const { return full_; }

  /// Removes what has been neither found nor kept since this object was made.
  void RemoveOthers() const;

 private:
  std::filesystem::path PathOf(const CaseFiles& files, const Study& study);
  absl::Status Write(const std::filesystem::path& path, const CachedCase& cached) const;

  std::filesystem::path folder_;
  std::int64_t spare_bytes_;
  std::function<void(const absl::Status&)> on_trouble_;
  std::set<std::string> used_;  ///< File names.
  bool full_ = false;
};

}  // namespace isoscan
