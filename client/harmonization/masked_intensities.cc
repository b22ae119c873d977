#include "client/harmonization/masked_intensities.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>

namespace isoscan {
namespace {

/// Pieces that a volume is cut into, whatever the number of threads; joined in their order.
std::size_t PiecesOf(std::size_t voxels) { return std::clamp<std::size_t>(voxels >> 15, 1, 16); }

/// A range, or a divisor, below this fraction of the greatest magnitude is rounding noise.
constexpr double kRelativeFloor = 1e-6;

/// Calls piece(number, first, end) for every piece of `voxels` voxels, on all threads.
template <typename Piece>
void ForEachPiece(std::size_t voxels, Piece piece) {
  const std::size_t pieces = PiecesOf(voxels);
#pragma omp parallel for schedule(dynamic, 1) if (pieces > 1)
  for (std::size_t number = 0; number < pieces; ++number) {
    piece(number, voxels * number / pieces, voxels * (number + 1) / pieces);
  }
}

bool IsFinite(float value) {
  return (std::bit_cast<std::uint32_t>(value) & 0x7f800000u) != 0x7f800000u;
}

/// Which bin of a range a value falls into; ascends with the value.
class BinOf {
 public:
  explicit BinOf(const IntensityRange& range)
      : minimum_(range.minimum),
        scale_(static_cast<double>(kIntensityBins) / (range.maximum - range.minimum)) {}

  std::size_t operator()(double value) const {
    return std::min(static_cast<std::size_t>((value - minimum_) * scale_), kIntensityBins - 1);
  }

 private:
  double minimum_;
  double scale_;
};

struct Bin {
  std::int64_t voxels = 0;
  double sum = 0;
};

std::vector<Bin> SumBins(const Volume& volume, const Mask& mask, const IntensityRange& range) {
  const BinOf bin_of(range);
  std::vector<std::vector<Bin>> pieces(PiecesOf(mask.size()));
  ForEachPiece(mask.size(), [&](std::size_t piece, std::size_t first, std::size_t end) {
    std::vector<Bin>& bins = pieces[piece];
    bins.resize(kIntensityBins);
    for (std::size_t i = first; i < end; ++i) {
      const auto value = static_cast<double>(volume.voxels[i]);
      if (mask[i] == 0 || value < range.minimum || value > range.maximum) continue;
      Bin& bin = bins[bin_of(value)];
      ++bin.voxels;
      bin.sum += value;
    }
  });
  std::vector<Bin> total(kIntensityBins);
  for (const std::vector<Bin>& bins : pieces) {
    for (std::size_t i = 0; i < kIntensityBins; ++i) {
      total[i].voxels += bins[i].voxels;
      total[i].sum += bins[i].sum;
    }
  }
  return total;
}

/// The voxels of a few bins, by bin.
std::map<std::size_t, std::vector<float>> ValuesIn(const std::vector<std::uint8_t>& wanted,
                                                   const Volume& volume, const Mask& mask,
                                                   const BinOf& bin_of) {
  std::vector<std::map<std::size_t, std::vector<float>>> pieces(PiecesOf(mask.size()));
  ForEachPiece(mask.size(), [&](std::size_t piece, std::size_t first, std::size_t end) {
    for (std::size_t i = first; i < end; ++i) {
      if (mask[i] == 0) continue;
      const std::size_t bin = bin_of(static_cast<double>(volume.voxels[i]));
      if (wanted[bin] != 0) pieces[piece][bin].push_back(volume.voxels[i]);
    }
  });
  std::map<std::size_t, std::vector<float>> total;
  for (const auto& piece : pieces) {
    for (const auto& [bin, values] : piece) {
      total[bin].insert(total[bin].end(), values.begin(), values.end());
    }
  }
  return total;
}

}  // namespace

absl::StatusOr<IntensityRange> RangeOverMask(const Volume& volume, const Mask& mask, double limit) {
  if (mask.size() != volume.voxels.size()) {
    return absl::InvalidArgumentError(
        fmt::format("the mask has {} voxels, the volume {}", mask.size(), volume.voxels.size()));
  }
  struct Piece {
    float minimum = std::numeric_limits<float>::infinity();
    float maximum = -std::numeric_limits<float>::infinity();
    std::int64_t voxels = 0;
    std::int64_t not_finite = 0;
  };
  std::vector<Piece> pieces(PiecesOf(mask.size()));
  ForEachPiece(mask.size(), [&](std::size_t number, std::size_t first, std::size_t end) {
    Piece piece;
    for (std::size_t i = first; i < end; ++i) {
      const float value = volume.voxels[i];
      const bool inside = mask[i] != 0 && !(static_cast<double>(value) > limit);
      piece.not_finite += IsFinite(value) ? 0 : 1;
      piece.voxels += inside ? 1 : 0;
      piece.minimum = inside && value < piece.minimum ? value : piece.minimum;
      piece.maximum = inside && value > piece.maximum ? value : piece.maximum;
    }
    pieces[number] = piece;
  });
  Piece total;
  for (const Piece& piece : pieces) {
    total.minimum = std::min(total.minimum, piece.minimum);
    total.maximum = std::max(total.maximum, piece.maximum);
    total.voxels += piece.voxels;
    total.not_finite += piece.not_finite;
  }
  if (total.not_finite > 0) {
    return absl::InvalidArgumentError(
        fmt::format("{} of {} voxels are NaN or infinite: set them to the value of air, or leave "
                    "the case out",
                    total.not_finite, mask.size()));
  }
  if (total.voxels == 0) {
    return absl::InvalidArgumentError(
        fmt::format("the mask is empty: none of {} voxels is chosen", mask.size()));
  }
  const IntensityRange range{.minimum = static_cast<double>(total.minimum),
                             .maximum = static_cast<double>(total.maximum),
                             .voxels = total.voxels};
  const double floor = kRelativeFloor * std::max(std::abs(range.minimum), std::abs(range.maximum));
  if (!(range.maximum - range.minimum > floor)) {
    return absl::InvalidArgumentError(fmt::format(
        "all {} voxels under the mask have the intensity {:g}: a constant volume cannot be "
        "normalised; look at the scan, it is empty or the mask lies beside it",
        range.voxels, range.minimum));
  }
  return range;
}

std::vector<double> QuantilesOverMask(const Volume& volume, const Mask& mask,
                                      const IntensityRange& range,
                                      std::span<const double> fractions) {
  // The bins tell where an order statistic lies; only their few voxels are sorted.
  const std::vector<Bin> bins = SumBins(volume, mask, range);
  const auto last = static_cast<double>(range.voxels - 1);
  std::map<std::int64_t, double> order_statistics;
  for (const double fraction : fractions) {
    const auto rank = static_cast<std::int64_t>(fraction * last);
    order_statistics[rank] = 0;
    order_statistics[std::min(rank + 1, range.voxels - 1)] = 0;
  }
  std::vector<std::uint8_t> wanted(kIntensityBins, 0);
  std::map<std::int64_t, std::pair<std::size_t, std::int64_t>> place;  // Bin, and rank within it.
  std::size_t bin = 0;
  std::int64_t below = 0;
  for (const auto& [rank, value] : order_statistics) {
    while (below + bins[bin].voxels <= rank) below += bins[bin++].voxels;
    wanted[bin] = 1;
    place[rank] = {bin, rank - below};
  }
  std::map<std::size_t, std::vector<float>> values = ValuesIn(wanted, volume, mask, BinOf(range));
  for (auto& [rank, value] : order_statistics) {
    const auto& [where, position] = place[rank];
    std::vector<float>& candidates = values[where];
    std::nth_element(candidates.begin(), candidates.begin() + position, candidates.end());
    value = static_cast<double>(candidates[static_cast<std::size_t>(position)]);
  }

  std::vector<double> quantiles;
  for (const double fraction : fractions) {
    const auto rank = static_cast<std::int64_t>(fraction * last);
    const double low = order_statistics[rank];
    const double high = order_statistics[std::min(rank + 1, range.voxels - 1)];
    quantiles.push_back(low + (high - low) * (fraction * last - static_cast<double>(rank)));
  }
  return quantiles;
}

std::vector<IntensityBin> BinsOverMask(const Volume& volume, const Mask& mask,
                                       const IntensityRange& range) {
  std::vector<IntensityBin> bins;
  for (const Bin& bin : SumBins(volume, mask, range)) {
    if (bin.voxels == 0) continue;
    bins.push_back({.mean = bin.sum / static_cast<double>(bin.voxels), .voxels = bin.voxels});
  }
  return bins;
}

std::int64_t VoxelsBelow(const Volume& volume, const Mask& mask, double value) {
  std::vector<std::int64_t> pieces(PiecesOf(mask.size()), 0);
  ForEachPiece(mask.size(), [&](std::size_t number, std::size_t first, std::size_t end) {
    std::int64_t below = 0;
    for (std::size_t i = first; i < end; ++i) {
      below += mask[i] != 0 && static_cast<double>(volume.voxels[i]) < value ? 1 : 0;
    }
    pieces[number] = below;
  });
  std::int64_t total = 0;
  for (const std::int64_t piece : pieces) total += piece;
  return total;
}

absl::Status CheckDivisor(double divisor, const IntensityRange& range, std::string_view name) {
  const double greatest = std::max(std::abs(range.minimum), std::abs(range.maximum));
  if (divisor > kRelativeFloor * greatest) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "{} is {:g}, the intensities under the mask run from {:g} to {:g}: dividing by it would turn "
      "the contrast over or blow it up; use a mask without air, or a normaliser that also removes "
      "a bias (instance, nyul, white_stripe)",
      name, divisor, range.minimum, range.maximum));
}

}  // namespace isoscan
