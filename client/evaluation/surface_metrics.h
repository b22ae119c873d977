#pragma once

#include <cstdint>
#include <vector>

#include "client/evaluation/overlap.h"
#include "client/evaluation/surface.h"
#include "client/imaging/volume.h"

namespace isoscan {

/// Surfaces at most so far apart are as good as equal (the disagreement of two raters, say).
inline constexpr double kDefaultToleranceMm = 1;

struct SurfaceOptions {
  SurfaceDefinition definition = SurfaceDefinition::kElements;
  std::vector<double> tolerances_mm = {kDefaultToleranceMm};  ///< Of NSD, each at least 0.
};

/// What became of a label in a case, in the fairness report's words (docs/fairness.md).
enum class ScoreOutcome {
  kScored,
  kMiss,        ///< The reference has it, the prediction nowhere or only elsewhere.
  kFalseAlarm,  ///< The prediction has it, the reference nowhere.
  kBothEmpty    ///< Neither has it, and rightly so.
};

/// Agreement of one label in one case: what overlaps, and how far the surfaces lie apart.
///
/// docs/evaluation.md has the definitions. Where one side has nothing, which other libraries answer
/// with NaN or infinity that a mean then leaves out, the worst value stands: the length of the
/// image's diagonal for distances, 0 for NSD. Where both have nothing every value is NaN: such a
/// label is counted and belongs in no mean.
struct LabelScore {
  LabelOverlap overlap;
  double voxel_ml = 0;
  double hd_mm = 0;         ///< Greatest distance of either surface to the other.
  double hd95_mm = 0;       ///< The greater of the two surfaces' 95th percentiles.
  double assd_mm = 0;       ///< Mean distance, over both surfaces together.
  std::vector<double> nsd;  ///< Share of both surfaces within each tolerance.

  ScoreOutcome outcome() const;
  /// Both have the label, so that distances were measured and are no worst values.
  bool measured() const { return overlap.reference_voxels > 0 && overlap.predicted_voxels > 0; }
  double dice() const { return overlap.dice(); }
  double reference_ml() const;
  double predicted_ml() const;
  /// Predicted less reference; NaN where neither has the label.
  double volume_error_ml() const;
  /// The same as a fraction of the reference; NaN where the reference has none.
  double relative_volume_error() const;
};

/// Of a label that neither map has.
LabelScore BothEmptyScore(const SurfaceOptions& options);

/// Scores of labels 1 ... `labels` of two maps of one size; the spacing is the reference's. At most
/// 65534 voxels a side.
///
/// A distance counts as within a tolerance up to a millionth above it: headers hold spacings in
/// single precision, and three voxels of 0.4 mm must not be more than 1.2 mm.
/// Memory: a byte per four voxels of the box that holds the label in both maps, and 25 bytes per
/// point of both surfaces. Threads: OpenMP's; their number does not show in the result.
std::vector<LabelScore> ScoreLabels(const LabelMap& reference, const LabelMap& predicted,
                                    std::int64_t labels, const SurfaceOptions& options = {});

}  // namespace isoscan
