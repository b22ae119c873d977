#include "client/simulation/scanner.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <optional>
#include <sstream>
#include <string_view>
#include <system_error>

#include "absl/status/status.h"

#include "client/simulation/scan_grid.h"
#include "common/status/status_macros.h"

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
      for (std::int64_t i = 0; i < geometry.size[axis]; ++i) {
        cosine_[axis].push_back(std::cos(std::numbers::pi * (static_cast<double>(i) + 0.5) /
                                         static_cast<double>(geometry.size[axis])));
      }
    }
  }

  double At(std::size_t x, std::size_t y, std::size_t z) const {
    const double along_x = cosine_[0][x];
    const double along_y = cosine_[1][y];
    const double along_z = cosine_[2][z];
    return weights_[0] * along_x + weights_[1] * along_y + weights_[2] * along_z +
           weights_[3] * along_x * along_y + weights_[4] * along_y * along_z;
  }

 private:
  std::array<double, 5> weights_{};
  std::array<std::vector<double>, 3> cosine_;
};

/// Calls visit(voxel, x, y, z) for every voxel; OpenMP over slices.
template <typename Visit>
void ForEachVoxel(const Geometry& geometry, const Visit& visit) {
  const auto [width, height, depth] = geometry.size;
#pragma omp parallel for schedule(static)
  for (std::int64_t z = 0; z < depth; ++z) {
    auto voxel = static_cast<std::size_t>(z * height * width);
    for (std::size_t y = 0; y < static_cast<std::size_t>(height); ++y) {
      for (std::size_t x = 0; x < static_cast<std::size_t>(width); ++x, ++voxel) {
        visit(voxel, x, y, static_cast<std::size_t>(z));
      }
    }
  }
}

/// What a receiver makes of magnitudes in place. `zero` is no signal, `reference` the signal above
/// it that noise is a fraction of and that the contrast curve leaves as it is.
void Receive(Volume& volume, double zero, double reference, const Scanner& scanner,
             RandomStream& random) {
  const SmoothField field(volume.geometry, random);
  std::vector<float> noise(scanner.noise > 0 ? 2 * volume.voxels.size() : 0);
  random.FillNormal(noise, scanner.noise * reference);
  ForEachVoxel(volume.geometry, [&](std::size_t i, std::size_t x, std::size_t y, std::size_t z) {
    double signal = volume.voxels[i] - zero;
    if (scanner.field > 0) signal *= 1 + scanner.field * field.At(x, y, z);
    if (scanner.noise > 0) {
      signal = std::hypot(signal + noise[2 * i], static_cast<double>(noise[2 * i + 1]));
    }
    if (scanner.gamma != 1) signal = reference * std::pow(signal / reference, scanner.gamma);
    volume.voxels[i] = static_cast<float>(signal);
  });
  const double top = *std::max_element(volume.voxels.begin(), volume.voxels.end());
  const double levels = std::exp2(scanner.bits) - 1;  // 0 without bits.
  for (float& voxel : volume.voxels) {
    double signal = voxel;
    if (levels > 0 && top > 0) signal = std::round(signal / top * levels) * top / levels;
    voxel = static_cast<float>(scanner.scale * (zero + signal) + scanner.bias);
  }
}

absl::Status PartError(const Scanner& scanner, std::string_view part, std::string_view what) {
  return absl::InvalidArgumentError(fmt::format("scanner {}: \"{}\" {}", scanner.name, part, what));
}

std::optional<double> NumberOf(std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(number)) {
    return std::nullopt;
  }
  return number;
}

struct NumberPart {
  std::string_view key;
  double Scanner::*target;
  double lowest;
  double highest;
  std::string_view demand;
};

constexpr double kTiny = 1e-30;
constexpr double kHuge = 1e30;
constexpr NumberPart kNumberParts[] = {
    {"scale", &Scanner::scale, kTiny, kHuge, "must be above 0"},
    {"bias", &Scanner::bias, -kHuge, kHuge, "is too large"},
    {"gamma", &Scanner::gamma, 0.01, 100, "must be above 0, from 0.01 to 100"},
    {"noise", &Scanner::noise, 0, 100, "must be a fraction, at least 0"},
    {"field", &Scanner::field, 0, 0.99, "must lie in [0, 1)"},
    {"transmit", &Scanner::transmit, 0, 0.5, "must lie in [0, 0.5]"},
    {"bits", &Scanner::bits, 0, 16, "must be 0 (none) to 16"},
    {"thickness", &Scanner::thickness, 0.1, 20, "must lie between 0.1 and 20 mm"},
    {"psf", &Scanner::psf, 0, 10, "must lie between 0 and 10 mm"},
    {"oblique", &Scanner::oblique, -45, 45, "must lie between -45 and 45 degrees"},
};

/// "2" or "1x1x4".
std::optional<std::array<double, 3>> SpacingOf(const std::string& text) {
  std::vector<double> numbers;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, 'x');) {
    const std::optional<double> number = NumberOf(part);
    if (!number.has_value() || *number < 0.2 || *number > 20) return std::nullopt;
    numbers.push_back(*number);
  }
  if (numbers.size() == 1) return std::array{numbers[0], numbers[0], numbers[0]};
  if (numbers.size() == 3) return std::array{numbers[0], numbers[1], numbers[2]};
  return std::nullopt;
}

absl::Status AddProtocols(const std::string& text, Scanner& scanner) {
  if (text.empty()) return PartError(scanner, "protocol=", "names no protocol");
  std::istringstream names(text);
  for (std::string name; std::getline(names, name, '+');) {
    const absl::StatusOr<Protocol> protocol = FindProtocol(name);
    if (!protocol.ok()) {
      return absl::InvalidArgumentError(
          fmt::format("scanner {}: {}", scanner.name, std::string(protocol.status().message())));
    }
    for (const Protocol& other : scanner.protocols) {
      if (ContrastOf(other) == ContrastOf(*protocol)) {
        return PartError(scanner, text,
                         fmt::format("has two protocols of contrast {}", ContrastOf(other)));
      }
    }
    scanner.protocols.push_back(*protocol);
  }
  return absl::OkStatus();
}

absl::Status SetPart(const std::string& part, Scanner& scanner) {
  const std::size_t equals = std::min(part.find('='), part.size());
  const std::string key = part.substr(0, equals);
  const std::string value = part.substr(std::min(equals + 1, part.size()));
  if (key == "protocol") return AddProtocols(value, scanner);
  if (key == "orientation") {
    if (!IsOrientation(value)) {
      return PartError(scanner, part, "must be three letters, one of R/L, A/P and S/I each");
    }
    scanner.orientation = value;
    return absl::OkStatus();
  }
  if (key == "spacing") {
    const auto spacing = SpacingOf(value);
    if (!spacing.has_value()) {
      return PartError(scanner, part, "must be millimetres from 0.2 to 20, such as 1 or 1x1x4");
    }
    scanner.spacing_mm = *spacing;
    return absl::OkStatus();
  }
  std::string known = "protocol=, orientation=, spacing=";
  for (const NumberPart& number : kNumberParts) {
    known += fmt::format(", {}=", number.key);
    if (key != number.key) continue;
    const std::optional<double> parsed = NumberOf(value);
    if (!parsed.has_value()) return PartError(scanner, part, "is not a number");
    if (*parsed < number.lowest || *parsed > number.highest) {
      return PartError(scanner, part, number.demand);
    }
    scanner.*number.target = *parsed;
    return absl::OkStatus();
  }
  return PartError(scanner, part, fmt::format("is none of {}", known));
}

}  // namespace

absl::StatusOr<Scanner> ParseScanner(const std::string& text) {
  const std::size_t colon = text.find(':');
  Scanner scanner;
  scanner.name = text.substr(0, colon);
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
  constexpr double kNotSaid = -1;
  scanner.bits = kNotSaid;
  std::istringstream parts(text.substr(colon + 1));
  for (std::string part; std::getline(parts, part, ',');) {
    RETURN_IF_ERROR(SetPart(part, scanner));
  }
  if (scanner.bits == kNotSaid) scanner.bits = scanner.protocols.empty() ? 0 : 12;
  return scanner;
}

Volume Rescan(const Volume& volume, const Scanner& scanner, RandomStream random) {
  const auto [lowest, highest] = std::minmax_element(volume.voxels.begin(), volume.voxels.end());
  const double zero = *lowest;
  const double range = std::max(*highest - zero, 1e-30);
  Volume scan = volume;
  Receive(scan, zero, range, scanner, random);
  return scan;
}

Volume Scan(const Anatomy& patient, const TissueTable& tissues, const Protocol& protocol,
            const Scanner& scanner, RandomStream random) {
  // Signals over the transmit field, from 1 - transmit to 1 + transmit: smooth, so a table does.
  constexpr std::size_t kIntervals = 64;
  const TissueTable& textbook = TissuesAt(protocol.field);
  const double unit = 100 / Signal(textbook[IndexOf(Tissue::kWhite)], protocol);
  std::array<TissueShares, kIntervals + 1> signals{};
  for (std::size_t i = 0; i <= kIntervals; ++i) {
    const double field = 2.0 * static_cast<double>(i) / kIntervals - 1;
    for (std::size_t tissue = 0; tissue < kTissues; ++tissue) {
      signals[i][tissue] = static_cast<float>(
          unit * Signal(tissues[tissue], protocol, 1 + scanner.transmit * field));
    }
  }

  const SmoothField transmit(patient.labels.geometry, random);
  Volume scan{.geometry = patient.labels.geometry,
              .voxels = std::vector<float>(patient.tissue.size())};
  ForEachVoxel(scan.geometry, [&](std::size_t i, std::size_t x, std::size_t y, std::size_t z) {
    const double at = (transmit.At(x, y, z) + 1) / 2 * kIntervals;
    const std::size_t below = std::min(static_cast<std::size_t>(at), kIntervals - 1);
    const auto part = static_cast<float>(at - static_cast<double>(below));
    float sum = 0;
    for (std::size_t tissue = 0; tissue < kTissues; ++tissue) {
      sum += patient.tissue[i][tissue] *
             std::lerp(signals[below][tissue], signals[below + 1][tissue], part);
    }
    scan.voxels[i] = sum;
  });
  const double reference = unit * Signal(textbook[IndexOf(NoiseReference(protocol))], protocol);
  Receive(scan, 0, reference, scanner, random);
  return scan;
}

}  // namespace isoscan
