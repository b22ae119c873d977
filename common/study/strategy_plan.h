#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace isoscan {

class ConfigReader;

/// How the server makes one model of a round's updates. docs/strategies.md has formulas, sources
/// and what goes with what; docs/study.md the keys.
struct StrategyPlan {
  enum class Kind {
    kFedAvg,    ///< Mean of the updates by training cases.
    kFedNova,   ///< Of what each changed per effective step.
    kScaffold,  ///< As kFedAvg, with control variates.
    // Of what the mean changes the server makes a step of its own.
    kFedAvgM,
    kFedAdagrad,
    kFedAdam,
    kFedYogi,
    // Sites on which the model is worse count for more.
    kQFedAvg,
    kAfl,
    // No few sites can move the model far, whatever they send.
    kMedian,
    kTrimmedMean,
    kKrum,
    kMultiKrum,
    kBulyan,
    kGeometricMedian,
  };
  /// Of kFedAdam, whose moments start at 0. docs/strategies.md has the numbers of each.
  enum class BiasCorrection {
    kNone,      ///< Reddi et al.
    kAdam,      ///< Kingma and Ba, Algorithm 1: both moments by 1 - beta^t.
    kAdamStep,  ///< Kingma and Ba, section 2: the step by both, tau not.
    kFlower,    ///< As kAdamStep with t + 1 in place of t.
  };

  Kind kind = Kind::kFedAvg;
  /// Of the server's own optimisers; of kAfl, of the sites' weights.
  double server_learning_rate = 1;
  double server_momentum = 0.9;  ///< kFedAvgM.
  double beta1 = 0.9;            ///< Of the first moment; the three adaptive ones.
  double beta2 = 0.99;           ///< Of the second; kFedAdam and kFedYogi.
  double tau = 1e-3;             ///< Added to the root of the second moment.
  BiasCorrection bias_correction = BiasCorrection::kNone;
  double q = 1;           ///< kQFedAvg: 0 is kFedAvg; the larger, the more the worst count.
  double smoothness = 0;  ///< kQFedAvg's L; 0: 1 / learning_rate of the sites.
  double trim = 0.2;      ///< kTrimmedMean: share of the updates left out on either side.
  std::int64_t byzantine_sites = 1;  ///< How many may send anything; Krum and its kin.
  std::int64_t chosen_sites = 0;     ///< kMultiKrum; 0: all but byzantine_sites + 2.
  /// Of an update's change of the parameters, Euclidean; beyond it the update is refused. 0: any.
  double maximum_update_norm = 0;
};

/// "fedavg", "fednova", "scaffold", "fedavgm", ...
std::string_view ToString(StrategyPlan::Kind kind);
/// "none", "adam", "adam_step", "flower".
std::string_view ToString(StrategyPlan::BiasCorrection correction);

/// Every kind, in the order of the enumeration.
std::vector<StrategyPlan::Kind> StrategyKinds();

/// What a person reads: "fedadam, server_learning_rate 0.01, beta1 0.9, ...".
std::string StrategyInWords(const StrategyPlan& plan);

/// No network has a smaller loss: a cross entropy is at least 0, a soft Dice at most 1.
inline constexpr double kLeastLoss = -1;

/// Sites send the loss that the round's model has before they train on it.
bool NeedsLossBefore(StrategyPlan::Kind kind);
/// The training cases decide how much a site counts for; otherwise all count the same, or what the
/// updates are like decides.
bool WeighsByCases(StrategyPlan::Kind kind);
/// The fewest updates that a round can be closed with: 1, or so many that the sites that may send
/// anything, or those that are trimmed, are outnumbered.
std::int64_t FewestUpdates(const StrategyPlan& plan);

/// Reads `aggregation` and its parameters of [rounds]; refuses a parameter that goes with another
/// aggregation.
StrategyPlan ReadStrategy(ConfigReader& rounds);

}  // namespace isoscan
