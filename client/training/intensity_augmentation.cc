#include "client/training/intensity_augmentation.h"

#include <algorithm>
#include <cmath>
#include <functional>

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

void AugmentIntensity(std::span<float> patch, double strength, RandomStream& random) {
  const auto happens = [&](double probability) {
    return random.Chance(std::min(1.0, probability * strength));
  };
  if (happens(0.10)) AddNoise(patch, random.Uniform(0, 0.1), random);
  if (happens(0.15)) {
    const auto factor = static_cast<float>(Factor(0.75, 1.25, random));
    for (float& value : patch) value *= factor;
  }
  if (happens(0.15)) ChangeContrast(patch, Factor(0.75, 1.25, random));
  if (happens(0.10)) ChangeGamma(patch, Factor(0.7, 1.5, random), /*inverted=*/true);
  if (happens(0.30)) ChangeGamma(patch, Factor(0.7, 1.5, random), /*inverted=*/false);
}

}  // namespace isoscan
