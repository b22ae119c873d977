#include "client/simulation/scanner.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <sstream>
#include <system_error>

#include "absl/status/status.h"

namespace isoscan {
namespace {

/// A smooth field over the volume, within [-1, 1]: the lowest cosine modes with random weights.
class SmoothField {
 public:
  SmoothField(const Geometry& geometry, RandomStream& random) {
    double sum = 0;
    for (double& weight : weights_) {
      weight = random.Normal();
      sum += std::abs(weight);
    }
    for (double& weight : weights_) weight /= std::max(sum, 1e-12);
    for (std::size_t axis = 0; axis < 3; ++axis) {
      size_[axis] = static_cast<double>(geometry.size[axis]);
    }
  }

  double At(double x, double y, double z) const {
    constexpr double kPi = 3.14159265358979323846;
    const std::array<double, 3> cosine{std::cos(kPi * (x + 0.5) / size_[0]),
                                       std::cos(kPi * (y + 0.5) / size_[1]),
                                       std::cos(kPi * (z + 0.5) / size_[2])};
    return weights_[0] * cosine[0] + weights_[1] * cosine[1] + weights_[2] * cosine[2] +
           weights_[3] * cosine[0] * cosine[1] + weights_[4] * cosine[1] * cosine[2];
  }

 private:
  std::array<double, 5> weights_{};
  std::array<double, 3> size_{};
};

}  // namespace

absl::StatusOr<Scanner> ParseScanner(const std::string& text) {
  const std::size_t colon = text.find(':');
  Scanner scanner{.name = text.substr(0, colon)};
  if (scanner.name.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("scanner \"{}\" has no name; write NAME:scale=2,bias=100", text));
  }
  // It becomes a folder.
  const bool is_name = std::all_of(scanner.name.begin(), scanner.name.end(), [](char character) {
    return std::isalnum(static_cast<unsigned char>(character)) != 0 || character == '-' ||
           character == '_';
  });
  if (!is_name) {
    return absl::InvalidArgumentError(
        fmt::format("\"{}\" is no scanner's name; use letters, digits, - and _", scanner.name));
  }
  if (colon == std::string::npos) return scanner;
  std::istringstream parts(text.substr(colon + 1));
  for (std::string part; std::getline(parts, part, ',');) {
    const std::size_t equals = part.find('=');
    const std::string key = part.substr(0, equals);
    double* const target = key == "scale"   ? &scanner.scale
                           : key == "bias"  ? &scanner.bias
                           : key == "gamma" ? &scanner.gamma
                           : key == "noise" ? &scanner.noise
                           : key == "field" ? &scanner.field
                                            : nullptr;
    if (target == nullptr || equals == std::string::npos) {
      return absl::InvalidArgumentError(fmt::format(
          "scanner {}: \"{}\" is none of scale=, bias=, gamma=, noise=, field=", scanner.name,
          part));
    }
    const char* const first = part.data() + equals + 1;
    const char* const last = part.data() + part.size();
    const auto [end, error] = std::from_chars(first, last, *target);
    if (error != std::errc() || end != last || !std::isfinite(*target)) {
      return absl::InvalidArgumentError(
          fmt::format("scanner {}: \"{}\" is not a number", scanner.name, part));
    }
  }
  if (scanner.scale <= 0 || scanner.gamma <= 0 || scanner.noise < 0 || scanner.field < 0 ||
      scanner.field >= 1) {
    return absl::InvalidArgumentError(fmt::format(
        "scanner {}: scale and gamma must be above 0, noise at least 0, field in [0, 1)",
        scanner.name));
  }
  return scanner;
}

Volume Scan(const Volume& anatomy, const Scanner& scanner, RandomStream random) {
  const auto [lowest, highest] = std::minmax_element(anatomy.voxels.begin(), anatomy.voxels.end());
  const double low = *lowest;
  const double range = std::max(static_cast<double>(*highest) - low, 1e-30);
  const SmoothField field(anatomy.geometry, random);

  Volume scan{.geometry = anatomy.geometry, .voxels = {}};
  scan.voxels.reserve(anatomy.voxels.size());
  std::size_t index = 0;
  for (std::int64_t z = 0; z < anatomy.geometry.size[2]; ++z) {
    for (std::int64_t y = 0; y < anatomy.geometry.size[1]; ++y) {
      for (std::int64_t x = 0; x < anatomy.geometry.size[0]; ++x, ++index) {
        double signal = (static_cast<double>(anatomy.voxels[index]) - low) / range;
        if (scanner.gamma != 1) signal = std::pow(signal, scanner.gamma);
        if (scanner.field > 0) {
          signal *= 1 + scanner.field * field.At(static_cast<double>(x), static_cast<double>(y),
                                                 static_cast<double>(z));
        }
        if (scanner.noise > 0) {
          const double real = signal + scanner.noise * random.Normal();
          signal = std::hypot(real, scanner.noise * random.Normal());
        }
        scan.voxels.push_back(
            static_cast<float>(scanner.scale * (low + range * signal) + scanner.bias));
      }
    }
  }
  return scan;
}

}  // namespace isoscan
