#pragma once

#include <array>
#include <cstddef>

namespace isoscan {

/// What a simulated head is made of. Bone and air give no signal and need no name: they are what
/// the shares of the others leave of a voxel.
enum class Tissue : std::size_t { kCsf, kGrey, kWhite, kFat, kMuscle, kLesion };
inline constexpr std::size_t kTissues = 6;

/// The part of a voxel that each tissue fills: 0 to 1, their sum at most 1.
using TissueShares = std::array<float, kTissues>;

/// What a tissue's signal follows from. Times in milliseconds; proton density relative to water.
struct TissueParameters {
  double t1_ms = 0;
  double t2_ms = 0;
  double t2_star_ms = 0;
  double proton_density = 0;
};
using TissueTable = std::array<TissueParameters, kTissues>;

/// The two field strengths with published values.
enum class FieldStrength { kTesla1_5, kTesla3 };

/// Source: 1.5 T docs/references.md#collins1998 (BrainWeb's table); 3 T grey and white matter
/// #wansapura1999, T1 of CSF #lu2005, fat and muscle #debazelaire2004. Assumed: T2 of CSF at 3 T
/// (literature 1650 to 2000), T2* at 3 T, and the lesion at 3 T, which is the one at 1.5 T times
/// grey matter's ratio of the two fields.
const TissueTable& TissuesAt(FieldStrength field);

constexpr std::size_t IndexOf(Tissue tissue) { return static_cast<std::size_t>(tissue); }

}  // namespace isoscan
