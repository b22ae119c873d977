#include "client/simulation/protocol.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "absl/status/status.h"

namespace isoscan {
namespace {

constexpr FieldStrength k1_5T = FieldStrength::kTesla1_5;
constexpr FieldStrength k3T = FieldStrength::kTesla3;

constexpr std::array<Protocol, 10> kProtocols{{
    {"A", "1.5T-spgr", k1_5T, Spgr{.tr_ms = 18, .te_ms = 10, .flip_degrees = 30}},
    {"B", "1.5T-spgr-8deg", k1_5T, Spgr{.tr_ms = 9.813, .te_ms = 4.603, .flip_degrees = 8}},
    {"C", "3T-spgr", k3T, Spgr{.tr_ms = 9.6, .te_ms = 4.6, .flip_degrees = 8}},
    {"D", "1.5T-mprage", k1_5T,
     Mprage{.ti_ms = 1000,
            .tr_ms = 2400,
            .te_ms = 3.5,
            .flip_degrees = 8,
            .readout_ms = 8.6,
            .readouts = 160}},
    {"E", "3T-mprage", k3T,
     Mprage{.ti_ms = 900,
            .tr_ms = 2300,
            .te_ms = 3,
            .flip_degrees = 9,
            .readout_ms = 6.8,
            .readouts = 160}},
    {"F", "3T-mprage-7deg", k3T,
     Mprage{.ti_ms = 1100,
            .tr_ms = 2530,
            .te_ms = 3.3,
            .flip_degrees = 7,
            .readout_ms = 7.2,
            .readouts = 176}},
    {"G", "1.5T-flair", k1_5T, Flair{.tr_ms = 9000, .te_ms = 100, .ti_ms = 1760}},
    {"H", "3T-flair", k3T, Flair{.tr_ms = 9000, .te_ms = 90, .ti_ms = 2500}},
    {"I", "1.5T-tse", k1_5T, TurboSpinEcho{.tr_ms = 3300, .te_ms = 120}},
    {"J", "3T-tse", k3T, TurboSpinEcho{.tr_ms = 5000, .te_ms = 100}},
}};

struct Description {
  std::string contrast;
  std::string sidecar;
};

Description Describe(const Spgr& sequence) {
  return {"T1w", fmt::format("\"ScanningSequence\": \"GR\", \"SequenceVariant\": \"SP\", "
                             "\"MRAcquisitionType\": \"3D\", \"RepetitionTime\": {:.6g}, "
                             "\"EchoTime\": {:.6g}, \"FlipAngle\": {:.6g}",
                             sequence.tr_ms / 1000, sequence.te_ms / 1000, sequence.flip_degrees)};
}

Description Describe(const Mprage& sequence) {
  return {"T1w", fmt::format("\"ScanningSequence\": [\"GR\", \"IR\"], "
                             "\"SequenceVariant\": [\"SP\", \"MP\"], "
                             "\"MRAcquisitionType\": \"3D\", \"RepetitionTime\": {0:.6g}, "
                             "\"RepetitionTimePreparation\": {0:.6g}, "
                             "\"RepetitionTimeExcitation\": {1:.6g}, \"EchoTime\": {2:.6g}, "
                             "\"InversionTime\": {3:.6g}, \"FlipAngle\": {4:.6g}",
                             sequence.tr_ms / 1000, sequence.readout_ms / 1000,
                             sequence.te_ms / 1000, sequence.ti_ms / 1000, sequence.flip_degrees)};
}

Description Describe(const Flair& sequence) {
  return {"FLAIR",
          fmt::format("\"ScanningSequence\": [\"SE\", \"IR\"], "
                      "\"SequenceVariant\": \"SK\", \"RepetitionTime\": {:.6g}, "
                      "\"EchoTime\": {:.6g}, \"InversionTime\": {:.6g}, "
                      "\"FlipAngle\": 90",
                      sequence.tr_ms / 1000, sequence.te_ms / 1000, sequence.ti_ms / 1000)};
}

Description Describe(const TurboSpinEcho& sequence) {
  return {"T2w", fmt::format("\"ScanningSequence\": \"SE\", \"SequenceVariant\": \"SK\", "
                             "\"RepetitionTime\": {:.6g}, \"EchoTime\": {:.6g}, "
                             "\"FlipAngle\": 90",
                             sequence.tr_ms / 1000, sequence.te_ms / 1000)};
}

Description Describe(const Protocol& protocol) {
  return std::visit([](const auto& sequence) { return Describe(sequence); }, protocol.sequence);
}

}  // namespace

std::span<const Protocol> Protocols() { return kProtocols; }

absl::StatusOr<Protocol> FindProtocol(std::string_view name) {
  std::string known;
  for (const Protocol& protocol : kProtocols) {
    if (name == protocol.letter || name == protocol.name) return protocol;
    known += fmt::format("{}{} ({})", known.empty() ? "" : ", ", protocol.name, protocol.letter);
  }
  return absl::InvalidArgumentError(
      fmt::format("there is no protocol \"{}\"; there are {}", name, known));
}

double Signal(const TissueParameters& tissue, const Protocol& protocol, double transmit) {
  return std::visit([&](const auto& sequence) { return Signal(tissue, sequence, transmit); },
                    protocol.sequence);
}

std::string ContrastOf(const Protocol& protocol) { return Describe(protocol).contrast; }

Tissue NoiseReference(const Protocol& protocol) {
  return std::holds_alternative<TurboSpinEcho>(protocol.sequence) ? Tissue::kCsf : Tissue::kWhite;
}

std::string SidecarMembers(const Protocol& protocol) {
  return fmt::format("\"MagneticFieldStrength\": {}, {}", protocol.field == k3T ? 3.0 : 1.5,
                     Describe(protocol).sidecar);
}

double AffineResidual(const Protocol& from, const Protocol& onto) {
  // Of a straight line through weighted points, the residual is what correlation leaves.
  constexpr std::array<Tissue, 3> kBrain{Tissue::kCsf, Tissue::kGrey, Tissue::kWhite};
  constexpr std::array<double, 3> kWeights{0.17, 0.47, 0.36};
  std::array<double, 3> x{};
  std::array<double, 3> y{};
  double mean_x = 0;
  double mean_y = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    x[i] = Signal(TissuesAt(from.field)[IndexOf(kBrain[i])], from);
    y[i] = Signal(TissuesAt(onto.field)[IndexOf(kBrain[i])], onto);
    mean_x += kWeights[i] * x[i];
    mean_y += kWeights[i] * y[i];
  }
  double xx = 0;
  double xy = 0;
  double yy = 0;
  for (std::size_t i = 0; i < 3; ++i) {
    xx += kWeights[i] * (x[i] - mean_x) * (x[i] - mean_x);
    xy += kWeights[i] * (x[i] - mean_x) * (y[i] - mean_y);
    yy += kWeights[i] * (y[i] - mean_y) * (y[i] - mean_y);
  }
  return std::sqrt(std::max(0.0, 1 - xy * xy / (xx * yy)));
}

}  // namespace isoscan
