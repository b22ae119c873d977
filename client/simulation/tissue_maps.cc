#include "client/simulation/tissue_maps.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>

#include "absl/status/status.h"

#include "client/harmonization/fuzzy_c_means.h"
#include "client/imaging/image_file.h"
#include "client/imaging/orientation.h"
#include "common/status/status_macros.h"

namespace isoscan {
namespace {

constexpr std::array<std::string_view, kTissues> kNames{"csf", "grey",   "white",
                                                        "fat", "muscle", "lesion"};

/// Centres of three classes by fuzzy c-means over a histogram, ascending. Nothing when there are
/// fewer than three intensities.
std::optional<PerTissueClass> ClassCentres(const std::vector<float>& values) {
  constexpr std::size_t kBins = 1024;
  constexpr int kRounds = 200;
  if (values.empty()) return std::nullopt;
  const auto [lowest, highest] = std::minmax_element(values.begin(), values.end());
  const double low = *lowest;
  const double width = (static_cast<double>(*highest) - low) / kBins;
  if (!(width > 0)) return std::nullopt;
  std::vector<IntensityBin> bins(kBins);
  for (std::size_t i = 0; i < kBins; ++i) {
    bins[i].mean = low + width * (static_cast<double>(i) + 0.5);
  }
  for (const float value : values) {
    const auto bin = static_cast<std::size_t>((value - low) / width);
    ++bins[std::min(bin, kBins - 1)].voxels;
  }
  std::erase_if(bins, [](const IntensityBin& bin) { return bin.voxels == 0; });
  if (bins.size() < kTissueClasses) return std::nullopt;

  PerTissueClass centres{low + width * kBins / 6, low + width * kBins / 2,
                         low + width * kBins * 5 / 6};
  for (int round = 0; round < kRounds; ++round) {
    centres = MovedCenters(bins, centres, 1e-12 * width * width);
  }
  std::sort(centres.begin(), centres.end());
  return centres;
}

/// What each of three centres contributes to an intensity between two of them.
std::array<float, 3> MixOf(const std::array<double, 3>& centres, double intensity) {
  const auto part = [&](std::size_t lower) {
    const double share = (intensity - centres[lower]) / (centres[lower + 1] - centres[lower]);
    return static_cast<float>(std::clamp(share, 0.0, 1.0));
  };
  const float beyond_first = part(0);
  const float beyond_second = part(1);
  return {1 - beyond_first, beyond_first - beyond_second, beyond_second};
}

absl::Status CheckGrid(const Geometry& found, const Geometry& grid, const std::string& file) {
  if (SameGrid(found, grid)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("the tissue {} lies on another grid than the atlas; resample it first", file));
}

/// Of a BIDS tissue label; kTissues when it gives no signal.
std::size_t TissueOfLabel(float label) {
  switch (std::lround(label)) {
    case 1:
    case 8:
    case 9:
    case 11:
      return IndexOf(Tissue::kGrey);
    case 2:
    case 10:
      return IndexOf(Tissue::kWhite);
    case 3:
      return IndexOf(Tissue::kCsf);
    case 5:
      return IndexOf(Tissue::kMuscle);
    case 7:
      return IndexOf(Tissue::kLesion);
    default:
      return kTissues;
  }
}

absl::StatusOr<std::vector<TissueShares>> SharesOfLabels(const std::string& file,
                                                         const Geometry& grid) {
  ASSIGN_OR_RETURN(const Volume stored, ReadLabelValues(file));
  const Volume labels = ToCanonical(stored);
  RETURN_IF_ERROR(CheckGrid(labels.geometry, grid, file));
  std::vector<TissueShares> shares(labels.voxels.size());
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const std::size_t tissue = TissueOfLabel(labels.voxels[i]);
    if (tissue < kTissues) shares[i][tissue] = 1;
  }
  return shares;
}

absl::Status AddProbabilities(const std::string& text, const Geometry& grid,
                              std::vector<TissueShares>& shares) {
  const std::size_t equals = text.find('=');
  const std::string file = equals == std::string::npos ? "" : text.substr(equals + 1);
  const auto name = std::find(kNames.begin(), kNames.end(), text.substr(0, equals));
  if (name == kNames.end() || file.empty()) {
    return absl::InvalidArgumentError(fmt::format(
        "--tissue {}: write one FILE of labels, or NAME=FILE for each map, NAME one of {}", text,
        fmt::join(kNames, ", ")));
  }
  const auto tissue = static_cast<std::size_t>(name - kNames.begin());
  ASSIGN_OR_RETURN(const Volume stored, ReadVolume(file));
  const Volume map = ToCanonical(stored);
  RETURN_IF_ERROR(CheckGrid(map.geometry, grid, file));
  for (std::size_t i = 0; i < shares.size(); ++i) {
    // Not clamp: a comparison with NaN is false, and NaN is no share.
    const float share = map.voxels[i];
    if (share > 0) shares[i][tissue] += std::min(share, 1.0F);
  }
  return absl::OkStatus();
}

}  // namespace

TissueShares HeadClasses::SharesOf(float intensity, bool in_brain) const {
  TissueShares shares{};
  const std::array<float, 3> mix = MixOf(in_brain ? brain : outside, intensity);
  if (in_brain) {
    shares[IndexOf(Tissue::kCsf)] = mix[0];
    shares[IndexOf(Tissue::kGrey)] = mix[1];
    shares[IndexOf(Tissue::kWhite)] = mix[2];
  } else {
    shares[IndexOf(Tissue::kMuscle)] = mix[1];
    shares[IndexOf(Tissue::kFat)] = mix[2];
  }
  return shares;
}

absl::StatusOr<HeadClasses> ClassifyHead(const Volume& head, const Volume& brain) {
  std::vector<float> inside;
  std::vector<float> outside;
  for (std::size_t i = 0; i < head.voxels.size(); ++i) {
    (brain.voxels[i] > 0 ? inside : outside).push_back(head.voxels[i]);
  }
  HeadClasses classes;
  for (const bool in_brain : {true, false}) {
    const std::optional<PerTissueClass> centres = ClassCentres(in_brain ? inside : outside);
    if (!centres.has_value()) {
      return absl::InvalidArgumentError(fmt::format(
          "the head has fewer than three intensities {} the brain: no tissue can be told apart",
          in_brain ? "inside" : "outside"));
    }
    (in_brain ? classes.brain : classes.outside) = *centres;
  }
  return classes;
}

absl::StatusOr<std::vector<TissueShares>> ReadTissue(const std::vector<std::string>& files,
                                                     const Geometry& grid) {
  if (files.size() == 1 && files[0].find('=') == std::string::npos) {
    return SharesOfLabels(files[0], grid);
  }
  std::vector<TissueShares> shares(static_cast<std::size_t>(grid.voxels()));
  for (const std::string& file : files) RETURN_IF_ERROR(AddProbabilities(file, grid, shares));
  for (TissueShares& voxel : shares) {
    float sum = 0;
    for (const float share : voxel) sum += share;
    if (sum <= 1) continue;
    for (float& share : voxel) share /= sum;
  }
  return shares;
}

}  // namespace isoscan
