#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/study/harmonization_plan.h"
#include "common/study/plan_preset.h"
#include "common/study/strategy_plan.h"

namespace isoscan {

/// Every triple of a study is in tensor order: z (slice), y (row), x (column), as in nnU-Net's
/// plans.
using Triple = std::array<std::int64_t, 3>;

/// Which cases are held out: never trained on, only scored. Fixed for the study; adding cases never
/// moves a case from one side to the other, except under kEvery.
struct HeldOutRule {
  enum class Kind {
    kHash,   ///< SHA-256 of the case's name, as a fraction of 1, is below `fraction`.
    kEvery,  ///< Cases 0, k, 2k, ... of each cohort, by name.
    kList,   ///< Named in each site's own configuration ([held_out] cases = [...]): no case's name
             ///< is part of a study.
  };
  Kind kind = Kind::kHash;
  double fraction = 0.2;
  std::int64_t every = 5;
};

/// How the grid, the network and the patch of a draft are to be planned (docs/planning.md).
struct PlanningRule {
  PlanPreset preset = PlanPreset::kPlain;
  double memory_gb = 8;  ///< Of a GPU, as nnU-Net counts it.
};

/// nnU-Net's PlainConvUNet or ResidualEncoderUNet. Stage 0 is the finest.
struct NetworkPlan {
  enum class Kind {
    kPlain,
    kResidual,  ///< The encoder has residual blocks of two convolutions.
  };
  enum class Norm {
    kInstance,
    kBatch,  ///< Running statistics are averaged with the weights.
    kGroup,  ///< gcd(8, features) groups of channels, of one sample each.
    kNone,
  };

  Kind kind = Kind::kPlain;
  std::vector<std::int64_t> features;  ///< Channels per stage.
  std::vector<Triple> strides;         ///< Per stage; the first is 1, 1, 1.
  std::vector<Triple> kernels;         ///< Per stage; odd.
  /// In encoder and decoder; of kResidual in the decoder alone, and 1 by default.
  std::int64_t convolutions_per_stage = 2;
  std::vector<std::int64_t> blocks_per_stage = {};  ///< Of kResidual, per stage of the encoder.
  Norm norm = Norm::kInstance;
  /// WeightsDigest() of what the study starts from; empty: InitialWeights().
  std::string initial_weights = "";
  /// What stays at each site (FedBN): "norm" for all normalisation layers, or how tensors' names
  /// begin. common/study/exchanged_tensors.h.
  std::vector<std::string> local_layers = {};

  std::size_t stages() const { return features.size(); }
};

struct TrainingPlan {
  enum class Optimizer { kSgd, kAdamW };
  enum class Augmentation {
    kIntensity,  ///< Noise, brightness, contrast, gamma.
    kNnunet,     ///< Also rotation, scaling, blur and lower resolution (docs/training.md).
    kNone,
  };
  enum class RandomNumbers {
    kSite,    ///< Each site draws from the stream of its own name.
    kShared,  ///< All sites draw the same numbers: for tests of equivalence.
  };
  enum class Precision {
    kFloat32,
    kMixed,  ///< bfloat16 on a CPU or GPU that has it, float32 on others.
  };

  Triple patch_size{};
  std::int64_t batch_size = 2;
  std::int64_t steps_per_round = 50;
  double passes_per_round =
      0;  ///< Over a site's own cases, in place of steps_per_round; 0: not so.
  Optimizer optimizer = Optimizer::kSgd;
  double learning_rate = 0.01;  ///< At first; falls as (1 - step/steps)^0.9 over the study.
  double momentum = 0.99;       ///< Nesterov; SGD only.
  double weight_decay = 3e-5;
  double gradient_norm_limit = 12;
  double foreground_fraction = 0.33;  ///< Of a batch, patches centred on a labelled voxel.
  bool deep_supervision = false;
  double proximal = 0;  ///< FedProx's mu: how strongly weights are drawn to the global model's.
  double personal = 0;  ///< Ditto's lambda, of a model that each site has beside it; 0: none.
  std::vector<std::int64_t> mirror_axes;  ///< 0 = z, 1 = y, 2 = x.
  Augmentation augmentation = Augmentation::kIntensity;
  double intensity_augmentation = 1;  ///< Of nnU-Net's probabilities of changing intensities.
  RandomNumbers random_numbers = RandomNumbers::kSite;
  Precision precision = Precision::kFloat32;
};

struct EvaluationPlan {
  double overlap = 0.5;     ///< Of neighbouring windows, in [0, 0.9].
  bool local_only = false;  ///< At the end each site also trains alone, as many steps as the study
                            ///< had, and scores that model beside the federated one.
  bool certificate =
      false;  ///< At the end each site also measures what changes of its own scans do
              ///< to the final model (docs/fairness.md, "Invariance certificate").
};

/// When a round may close without some of the sites.
struct Quorum {
  bool all = true;  ///< Every declared site. Otherwise the three rules below, together.
  std::int64_t minimum_sites = 1;
  double minimum_case_fraction = 0;  ///< Of the declared training cases.
  std::vector<std::string> required_sites;
  std::int64_t fewest_updates = 1;  ///< Under either policy: FewestUpdates() of the strategy.
};

struct RoundsPlan {
  /// Which global model counts as the best, by the sites' own held-out cases.
  enum class BestBy {
    kCases,      ///< Highest mean Dice over all cases of all sites.
    kWorstSite,  ///< Highest mean Dice at the site where it is lowest.
  };

  std::int64_t rounds = 10;
  std::int64_t sites_per_round = 0;  ///< Drawn anew for each round; 0: every site is asked.
  BestBy best_by = BestBy::kCases;
  std::int64_t patience = 0;  ///< Rounds without a gain that end the study early; 0: none do.
  double least_gain = 0;      ///< By how much more than before is a gain, in Dice.
  std::int64_t priority = 0;  ///< Sites do the work of studies with a higher one first.
  StrategyPlan strategy;
  double maximum_site_weight = 1;  ///< No site counts for more than this fraction of a mean.
  Quorum quorum;
  std::chrono::milliseconds no_progress_limit{std::chrono::minutes(30)};
  std::chrono::milliseconds round_deadline{std::chrono::hours(24)};
};

/// "cases", "worst_site".
std::string_view ToString(RoundsPlan::BestBy best_by);

/// What all sites agree to do together: read from study.toml, whose SHA-256 the sites approve. The
/// text itself travels, so every site can read what it approved. docs/study.md is the schema.
struct Study {
  std::string name;  ///< Lower-case letters, digits and hyphens.
  std::string description;
  std::uint64_t seed = 1;
  std::vector<std::string> channels;  ///< Contrasts, such as "T1w".
  std::vector<std::string> labels;    ///< Foreground labels by name; label i + 1 of the network.
  std::vector<std::string> sites;     ///< Declared sites; empty: those that approve before start.
  HeldOutRule held_out;
  /// Of a draft alone: spacing, network and patch are yet to be planned from the sites'
  /// fingerprints and are empty here. Its planned text is another study text, which has no such
  /// rule.
  std::optional<PlanningRule> planning;
  HarmonizationPlan harmonization;
  NetworkPlan network;
  TrainingPlan training;
  EvaluationPlan evaluation;
  RoundsPlan rounds;

  std::string toml;    ///< The text it was read from.
  std::string digest;  ///< SHA-256 of `toml`.

  std::int64_t classes() const { return static_cast<std::int64_t>(labels.size()) + 1; }
};

/// Errors: INVALID_ARGUMENT with file and line for anything that docs/study.md does not allow, also
///         for a patch that the strides do not divide.
absl::StatusOr<Study> ParseStudy(std::string toml, const std::string& source);

/// Errors: NOT_FOUND naming what cannot be read, and those of ParseStudy.
absl::StatusOr<Study> LoadStudy(const std::filesystem::path& path);

/// Errors: FAILED_PRECONDITION a draft, which has no network to work with until it is planned.
absl::Status CheckPlanned(const Study& study);

/// What every file of a study's weights says beside them (docs/wire-format.md): `study`,
/// `study_digest`, `round`, and the two of HarmonizationMetadata().
std::map<std::string, std::string> WeightsMetadataOf(const Study& study, std::int64_t round);

/// A site's or study's name: 1 to 63 lower-case letters, digits and inner hyphens, as in DNS.
bool IsName(std::string_view text);

}  // namespace isoscan
