#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace isoscan {

/// What the grey values of an image are: scanners store all four under one series name.
enum class ImageComponent { kMagnitude, kPhase, kReal, kImaginary };

/// How a scan was acquired, as far as its file (DICOM) or sidecar (BIDS) says. It holds what is
/// needed to tell scanners and contrasts apart, and nothing that identifies a patient: no name,
/// number, date or UID, and no free text but the names of the machine's parts. Texts are at most 64
/// printable ASCII characters; unknown ones are empty, unknown numbers nullopt.
struct Acquisition {
  std::string modality;      ///< DICOM's code, "MR".
  std::string manufacturer;  ///< As written, such as "SIEMENS", "GE MEDICAL SYSTEMS".
  std::string model;
  std::string software;
  std::string receive_coil;
  std::optional<double> field_tesla;
  std::optional<double> repetition_ms;
  std::optional<double> echo_ms;
  std::optional<double> inversion_ms;
  std::optional<double> flip_degrees;
  std::optional<int> echo_number;
  /// DICOM's codes: SE spin echo, GR gradient echo, IR inversion recovery, EP echo planar, RM
  /// other.
  std::vector<std::string> sequence;
  /// DICOM's codes, such as SK segmented k-space, SP spoiled, SS steady state, MP prepared.
  std::vector<std::string> sequence_variant;
  std::string dimensions;               ///< "2D" or "3D": slices or a slab were excited.
  std::vector<std::string> image_type;  ///< Such as ORIGINAL, PRIMARY, M, ND, NORM.
  ImageComponent component = ImageComponent::kMagnitude;
};

enum class Contrast { kUnknown, kT1w, kT2w, kPdw, kFlair, kT2starw };
inline constexpr Contrast kContrasts[] = {Contrast::kT1w, Contrast::kT2w, Contrast::kPdw,
                                          Contrast::kFlair, Contrast::kT2starw};

/// The contrast that the timing alone makes certain enough to be told; otherwise kUnknown: echo
/// planar imaging, phase, steady states without spoiling, timings between the classes, nothing
/// known. Contrast agent is not seen: T1w with or without. The thresholds are in docs/dicom.md.
Contrast GuessContrast(const Acquisition& acquisition);

/// BIDS suffix: "T1w", "T2w", "PDw", "FLAIR", "T2starw"; "unknown".
std::string_view ContrastName(Contrast contrast);

}  // namespace isoscan
