#include "client/training/intensity_augmentation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "client/training/resolution_augmentation.h"

namespace isoscan {
namespace {

/// Of a harmonised patch, whose deviation is about 1.
constexpr double kFlatDeviation = 1e-6;

struct Moments {
  double mean = 0;
  double deviation = 0;
  float lowest = 0;
  float highest = 0;
};

Moments MomentsOf(std::span<const float> patch) {
  Moments moments{.lowest = patch.front(), .highest = patch.front()};
  double sum = 0;
  double squares = 0;
  for (const float value : patch) {
    sum += value;
    squares += static_cast<double>(value) * value;
    moments.lowest = std::min(moments.lowest, value);
    moments.highest = std::max(moments.highest, value);
  }
  const auto count = static_cast<double>(patch.size());
  moments.mean = sum / count;
  moments.deviation = std::sqrt(std::max(0.0, squares / count - moments.mean * moments.mean));
  return moments;
}

/// Even chances to be below and above 1.
double Factor(double low, double high, RandomStream& random) {
  return random.Chance(0.5) ? random.Uniform(low, 1) : random.Uniform(1, high);
}

void AddNoise(std::span<float> patch, double variance, RandomStream& random) {
  const double deviation = std::sqrt(variance);
  for (float& value : patch) value += static_cast<float>(deviation * random.Normal());
}

void ChangeContrast(std::span<float> patch, double factor) {
  const Moments before = MomentsOf(patch);
  const auto mean = static_cast<float>(before.mean);
  const auto scale = static_cast<float>(factor);
  for (float& value : patch) {
    value = std::clamp((value - mean) * scale + mean, before.lowest, before.highest);
  }
}

void ChangeGamma(std::span<float> patch, double gamma, bool inverted) {
  const float sign = inverted ? -1.0F : 1.0F;
  if (inverted) std::transform(patch.begin(), patch.end(), patch.begin(), std::negate<>());
  const Moments before = MomentsOf(patch);
  const float range = before.highest - before.lowest;
  if (before.deviation > kFlatDeviation) {
    const auto power = static_cast<float>(gamma);
    for (float& value : patch) value = std::pow((value - before.lowest) / range, power);
    const Moments after = MomentsOf(patch);
    const double scale = before.deviation / std::max(after.deviation, kFlatDeviation);
    for (float& value : patch) {
      value = static_cast<float>((value - after.mean) * scale + before.mean);
    }
  }
  for (float& value : patch) value *= sign;
}

}  // namespace

void AugmentIntensity(std::span<float> image, const Triple& patch_size,
                      const IntensityAugmentation& how, RandomStream& random) {
  const auto voxels = static_cast<std::size_t>(patch_size[0] * patch_size[1] * patch_size[2]);
  const auto happens = [&](double probability) {
    return random.Chance(std::min(1.0, probability * how.strength));
  };
  const auto each_channel = [&](const auto& change) {
    for (std::size_t first = 0; first < image.size(); first += voxels) {
      change(image.subspan(first, voxels));
    }
  };
  if (happens(0.10)) {
    const double variance = random.Uniform(0, 0.1);
    AddNoise(image, variance, random);
  }
  if (how.resolution && happens(0.20)) {
    each_channel([&](std::span<float> channel) {
      if (!random.Chance(0.5)) return;
      std::array<double, 3> deviations{};
      for (double& deviation : deviations) deviation = random.Uniform(0.5, 1);
      Blur(channel, patch_size, deviations);
    });
  }
  if (happens(0.15)) {
    each_channel([&](std::span<float> channel) {
      const auto factor = static_cast<float>(Factor(0.75, 1.25, random));
      for (float& value : channel) value *= factor;
    });
  }
  if (happens(0.15)) {
    each_channel(
        [&](std::span<float> channel) { ChangeContrast(channel, Factor(0.75, 1.25, random)); });
  }
  if (how.resolution && happens(0.25)) {
    each_channel([&](std::span<float> channel) {
      if (!random.Chance(0.5)) return;
      std::array<double, 3> zoom{};
      zoom.fill(random.Uniform(0.5, 1));
      if (how.flat_axis.has_value()) zoom[*how.flat_axis] = 1;
      LowerResolution(channel, patch_size, zoom);
    });
  }
  for (const bool inverted : {true, false}) {
    if (!happens(inverted ? 0.10 : 0.30)) continue;
    each_channel([&](std::span<float> channel) {
      ChangeGamma(channel, Factor(0.7, 1.5, random), inverted);
    });
  }
}

}  // namespace isoscan
