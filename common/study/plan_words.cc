#include "common/study/plan_words.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdint>
#include <vector>

#include "common/study/exchanged_tensors.h"
#include "common/study/initial_weights.h"

namespace isoscan {
namespace {

// "2 x 2 x 2, 1 x 2 x 2", each with its number where it comes several times in a row.
std::string TripleWords(const std::vector<Triple>& triples) {
  std::vector<std::string> words;
  for (std::size_t i = 0; i < triples.size();) {
    std::size_t next = i;
    while (next < triples.size() && triples[next] == triples[i]) ++next;
    words.push_back(fmt::format("{}{}", next - i > 1 ? fmt::format("{} times ", next - i) : "",
                                fmt::join(triples[i], " x ")));
    i = next;
  }
  return fmt::format("{}", fmt::join(words, ", "));
}

std::string DraftWords(const PlanningRule& planning) {
  return fmt::format(
      "  draft       grid, network and patch are yet to be planned from the sites' fingerprints\n"
      "              (nnU-Net's rules, preset {}, {} GB). Approving the draft sends this site's:\n"
      "              how often each spacing, size and intensity occurs among its training cases\n"
      "              (docs/planning.md). Every site is asked again once the plan is there\n",
      ToString(planning.preset), planning.memory_gb);
}

std::string StepWords(const TrainingPlan& training) {
  return training.passes_per_round > 0
             ? fmt::format("{} passes over a site's own cases", training.passes_per_round)
             : fmt::format("{} steps", training.steps_per_round);
}

// What goes beyond a plain mean of what each site has trained.
std::string StrategyWords(const Study& study) {
  using Kind = StrategyPlan::Kind;
  const StrategyPlan& strategy = study.rounds.strategy;
  std::string words;
  switch (strategy.kind) {
    case Kind::kFedAvg:
      break;
    case Kind::kFedNova:
      words += "  mean        of what each site changes per step (FedNova)\n";
      break;
    case Kind::kScaffold:
      words +=
          "  mean        with control variates (SCAFFOLD): twice the bytes are sent, and this\n"
          "              site keeps some of its own between rounds\n";
      break;
    case Kind::kFedAvgM:
    case Kind::kFedAdagrad:
    case Kind::kFedAdam:
    case Kind::kFedYogi:
      words += fmt::format("  mean        the server steps along its change ({})\n",
                           StrategyInWords(strategy));
      break;
    case Kind::kQFedAvg:
    case Kind::kAfl:
      words += fmt::format(
          "  mean        of which sites where the model is worse are a larger part ({}): the\n"
          "              loss that the model has on this site's patches is sent, one number a "
          "round\n",
          StrategyInWords(strategy));
      break;
    case Kind::kMedian:
    case Kind::kTrimmedMean:
    case Kind::kKrum:
    case Kind::kMultiKrum:
    case Kind::kBulyan:
    case Kind::kGeometricMedian:
      words += fmt::format("  no mean     few sites cannot move the model far ({})\n",
                           StrategyInWords(strategy));
      break;
  }
  if (strategy.maximum_update_norm > 0) {
    words += fmt::format("  refused     updates that change the weights by more than {}\n",
                         strategy.maximum_update_norm);
  }
  if (study.training.personal > 0) {
    words +=
        "  besides     a model of this site's own (Ditto), which is not sent: each round trains "
        "twice\n";
  }
  return words;
}

std::string LocalWords(const Study& study) {
  if (study.network.local_layers.empty()) return "";
  std::int64_t sent = 0;
  for (const auto& [name, shape] : ExchangedShapes(study)) sent += ElementCount(shape);
  return fmt::format("  stays here  {}: {} weights are sent, and each site has its own model\n",
                     fmt::join(study.network.local_layers, ", "), sent);
}

}  // namespace

std::string PlanInWords(const Study& study) {
  const RoundsPlan& rounds = study.rounds;
  const TrainingPlan& training = study.training;
  if (study.planning.has_value()) {
    return DraftWords(*study.planning) + StrategyWords(study) +
           fmt::format("  training    {} rounds of {}\n", rounds.rounds, StepWords(training));
  }
  const NetworkPlan& network = study.network;
  const auto& spacing = study.harmonization.spacing_mm;
  std::int64_t parameters = 0;
  for (const auto& [name, shape] : NetworkShapes(study)) parameters += ElementCount(shape);
  return fmt::format("  spacing     {}\n",
                     spacing[0] + spacing[1] + spacing[2] > 0
                         ? fmt::format("{} mm (z, y, x; 0: as stored)", fmt::join(spacing, " x "))
                         : "as stored") +
         fmt::format("  network     {} levels, {} weights, {:.2f} MB per model\n", network.stages(),
                     parameters, 4e-6 * static_cast<double>(parameters)) +
         fmt::format("  features    {}\n", fmt::join(network.features, ", ")) +
         fmt::format("  strides     {}\n", TripleWords(network.strides)) +
         fmt::format("  kernels     {}\n", TripleWords(network.kernels)) + LocalWords(study) +
         StrategyWords(study) +
         fmt::format("  training    {} rounds of {}, {} patches of {} voxels (z, y, x)\n",
                     rounds.rounds, StepWords(training), training.batch_size,
                     fmt::join(training.patch_size, " x "));
}

}  // namespace isoscan
