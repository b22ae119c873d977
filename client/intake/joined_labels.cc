#include "client/intake/joined_labels.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <map>
#include <utility>

#include "absl/status/statusor.h"

#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "client/intake/reader_fault.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

/// What is met in one label file, by value.
struct ValueCount {
  std::int64_t voxels = 0;
  std::array<double, 3> index_sum{};  ///< Canonical.
};

constexpr std::size_t kMostLabels = 254;

/// Reads one label file into `joined`. A label with fewer voxels lies on top of one with more: the
/// part over the whole.
class LabelFileReader {
 public:
  LabelFileReader(CaseSight& sight, const ScanFiles::LabelFile& file, JoinedLabels& joined)
      : sight_(sight), file_(file), joined_(joined) {}

  void Read(const Geometry& canonical) {
    const absl::StatusOr<Volume> volume = ReadLabelValues(file_.path, sight_.files.geometry);
    if (!volume.ok()) {
      sight_.Quarantine(FaultOf(volume.status()), file_.path,
                        std::string(volume.status().message()));
      return;
    }
    if (CanonicalGeometry(volume->geometry).size != canonical.size) {
      sight_.Quarantine(Fault::kGrid, file_.path, "it changed while it was read");
      return;
    }
    Count(*volume, canonical);
    if (!CheckValues() || !NameValues(canonical)) return;
    Join(*volume, canonical);
  }

 private:
  /// The values and their voxels; neighbours are alike, so most voxels cost one comparison.
  void Count(const Volume& volume, const Geometry& canonical) {
    const CanonicalWalk walk = CanonicalWalkOf(volume.geometry);
    float last = 0;
    ValueCount* current = &counts_[0];
    for (std::int64_t z = 0; z < canonical.size[2]; ++z) {
      for (std::int64_t y = 0; y < canonical.size[1]; ++y) {
        const std::int64_t row = walk.first + z * walk.step[2] + y * walk.step[1];
        for (std::int64_t x = 0; x < canonical.size[0]; ++x) {
          const float value = volume.voxels[static_cast<std::size_t>(row + x * walk.step[0])];
          if (value != last) {
            current = Find(value);
            last = value;
          }
          ++current->voxels;
          current->index_sum[0] += static_cast<double>(x);
          current->index_sum[1] += static_cast<double>(y);
          current->index_sum[2] += static_cast<double>(z);
        }
      }
    }
    counts_.erase(0);
  }

  ValueCount* Find(float value) {
    if (!(std::abs(value) < 9e15f) || value != std::floor(value) ||
        (file_.any_positive && value < 0)) {
      example_ = value;
      return &fractional_;
    }
    const auto whole = static_cast<std::int64_t>(value);
    const auto found = counts_.find(whole);
    if (found != counts_.end()) return &found->second;
    // A scan in the place of a label map has thousands of values.
    if (counts_.size() > 4 * kMostLabels) return &too_many_;
    return &counts_[whole];
  }

  bool CheckValues() {
    if (fractional_.voxels > 0) {
      sight_.Quarantine(
          Fault::kLabelValues, file_.path,
          fmt::format("{} voxels are NaN, negative or no whole numbers, such as {:g}: "
                      "a label map holds whole numbers; threshold a probability map "
                      "at 0.5, and resample labels with nearest neighbours",
                      fractional_.voxels, example_));
      return false;
    }
    if (too_many_.voxels > 0) {
      sight_.Quarantine(Fault::kLabelValues, file_.path,
                        fmt::format("it holds more than {} different values: it is no label map",
                                    counts_.size()));
      return false;
    }
    if (!file_.closed || file_.any_positive) return true;
    std::string unknown;
    int shown = 0;
    for (const auto& [value, count] : counts_) {
      if (file_.names.contains(value)) continue;
      if (++shown > 5) {
        unknown += ", ...";
        break;
      }
      unknown += fmt::format("{}{} ({} voxels)", unknown.empty() ? "" : ", ", value, count.voxels);
    }
    if (unknown.empty()) return true;
    sight_.Quarantine(Fault::kLabelValues, file_.path,
                      fmt::format("it holds values that no label has: {}; name their labels, or "
                                  "set background = [VALUE], under [cohort.labels] in client.toml",
                                  unknown));
    return false;
  }

  /// Adds the file's labels to the case's; of each value its place among them.
  bool NameValues(const Geometry& canonical) {
    std::int64_t labelled = 0;
    for (const auto& [value, name] : file_.names) {
      if (!name.empty()) (void)Place(name);
    }
    for (const auto& [value, count] : counts_) {
      std::string name = std::to_string(value);
      if (file_.any_positive) name = file_.names.begin()->second;
      if (const auto known = file_.names.find(value); known != file_.names.end()) {
        name = known->second;
      }
      if (name.empty()) continue;
      const std::size_t place = Place(name);
      if (place >= kMostLabels) {
        sight_.Quarantine(Fault::kLabelValues, file_.path,
                          fmt::format("the case has more than {} labels", kMostLabels));
        return false;
      }
      places_[value] = place;
      LabelSight& label = sight_.labels[place];
      const auto before = static_cast<double>(label.voxels);
      label.voxels += count.voxels;
      std::array<double, 3> index{};
      for (std::size_t axis = 0; axis < 3; ++axis) {
        index[axis] = count.index_sum[axis] / static_cast<double>(count.voxels);
      }
      const std::array<double, 3> centre = PhysicalPoint(canonical, index);
      const double share = static_cast<double>(count.voxels) / static_cast<double>(label.voxels);
      for (std::size_t axis = 0; axis < 3; ++axis) {
        label.centre_mm[axis] =
            (before > 0 ? label.centre_mm[axis] * (1 - share) : 0) + centre[axis] * share;
      }
      joined_.counts[place] = label.voxels;
      labelled += count.voxels;
    }
    if (labelled > 0) return true;
    std::string names;
    for (const auto& [value, name] : file_.names) {
      if (!name.empty()) names += (names.empty() ? "" : ", ") + name;
    }
    sight_.Flag(Fault::kEmptyLabel, file_.path,
                fmt::format("it has no labelled voxel{}{}", names.empty() ? "" : " of ", names));
    return false;
  }

  std::size_t Place(const std::string& name) {
    const auto known = std::find(joined_.names.begin(), joined_.names.end(), name);
    const auto place = static_cast<std::size_t>(known - joined_.names.begin());
    if (known == joined_.names.end()) {
      joined_.names.push_back(name);
      joined_.counts.push_back(0);
      sight_.labels.emplace_back().name = name;
    }
    return place;
  }

  void Join(const Volume& volume, const Geometry& canonical) {
    const CanonicalWalk walk = CanonicalWalkOf(volume.geometry);
    std::vector<std::uint8_t> slice;
    float last = 0;
    std::size_t label = 0;
    for (std::int64_t z = 0; z < canonical.size[2]; ++z) {
      joined_.slices.Read(z, slice);
      auto voxel = slice.begin();
      for (std::int64_t y = 0; y < canonical.size[1]; ++y) {
        const std::int64_t row = walk.first + z * walk.step[2] + y * walk.step[1];
        for (std::int64_t x = 0; x < canonical.size[0]; ++x, ++voxel) {
          const float value = volume.voxels[static_cast<std::size_t>(row + x * walk.step[0])];
          if (value == 0) continue;
          if (value != last) {
            const auto place = places_.find(static_cast<std::int64_t>(value));
            label = place == places_.end() ? 0 : place->second + 1;
            last = value;
          }
          if (label == 0) continue;
          if (*voxel == 0 || joined_.counts[*voxel - 1U] > joined_.counts[label - 1]) {
            *voxel = static_cast<std::uint8_t>(label);
          }
        }
      }
      joined_.slices.Write(z, slice);
    }
  }

  CaseSight& sight_;
  const ScanFiles::LabelFile& file_;
  JoinedLabels& joined_;
  std::map<std::int64_t, ValueCount> counts_;
  std::map<std::int64_t, std::size_t> places_;
  ValueCount fractional_;
  ValueCount too_many_;
  float example_ = 0;
};

std::string DigestOf(const Geometry& canonical, const LabelSlices& slices) {
  Sha256 digest;
  digest.Update({reinterpret_cast<const char*>(canonical.size.data()), sizeof(canonical.size)});
  std::vector<std::uint8_t> slice;
  for (std::int64_t z = 0; z < canonical.size[2]; ++z) {
    slices.Read(z, slice);
    digest.Update({reinterpret_cast<const char*>(slice.data()), slice.size()});
  }
  return std::move(digest).Finish();
}

}  // namespace

JoinedLabels ReadLabels(CaseSight& sight, const Geometry& canonical) {
  JoinedLabels joined;
  if (sight.files.labels.empty()) return joined;
  joined.slices = LabelSlices(canonical.size);
  for (const ScanFiles::LabelFile& file : sight.files.labels) {
    LabelFileReader(sight, file, joined).Read(canonical);
  }
  const double millilitres =
      canonical.spacing_mm[0] * canonical.spacing_mm[1] * canonical.spacing_mm[2] / 1000;
  std::int64_t labelled = 0;
  for (LabelSight& label : sight.labels) {
    label.millilitres = static_cast<double>(label.voxels) * millilitres;
    labelled += label.voxels;
  }
  if (labelled > 0) sight.label_digest = DigestOf(canonical, joined.slices);
  return joined;
}

void CheckGivenMask(CaseSight& sight, const JoinedLabels& labels, const Geometry& canonical) {
  const std::filesystem::path& path = sight.files.mask;
  if (path.empty()) return;
  const absl::StatusOr<Volume> mask = ReadLabelValues(path, sight.files.geometry);
  if (!mask.ok()) {
    sight.Quarantine(FaultOf(mask.status()), path, std::string(mask.status().message()));
    return;
  }
  if (CanonicalGeometry(mask->geometry).size != canonical.size) {
    sight.Quarantine(Fault::kGrid, path, "it changed while it was read");
    return;
  }
  const CanonicalWalk walk = CanonicalWalkOf(mask->geometry);
  std::int64_t chosen = 0;
  std::int64_t outside = 0;
  std::vector<std::uint8_t> slice(static_cast<std::size_t>(canonical.size[0] * canonical.size[1]));
  for (std::int64_t z = 0; z < canonical.size[2]; ++z) {
    if (!labels.slices.empty()) labels.slices.Read(z, slice);
    auto label = slice.begin();
    for (std::int64_t y = 0; y < canonical.size[1]; ++y) {
      const std::int64_t row = walk.first + z * walk.step[2] + y * walk.step[1];
      for (std::int64_t x = 0; x < canonical.size[0]; ++x, ++label) {
        const bool inside = mask->voxels[static_cast<std::size_t>(row + x * walk.step[0])] > 0;
        chosen += inside ? 1 : 0;
        outside += !inside && *label != 0 ? 1 : 0;
      }
    }
  }
  if (chosen == 0) {
    sight.Quarantine(Fault::kMask, path, "the mask is empty: none of its voxels is set");
  } else if (outside > 0 && sight.files.zero_outside_mask) {
    sight.Quarantine(Fault::kMask, path,
                     fmt::format("{} labelled voxels lie outside the mask, and outside = \"zero\" "
                                 "would erase them: correct the mask, or let the study use outside "
                                 "= \"keep\"",
                                 outside));
  }
}

}  // namespace isoscan
