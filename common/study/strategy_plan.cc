#include "common/study/strategy_plan.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/config/config_reader.h"

namespace isoscan {
namespace {

using Kind = StrategyPlan::Kind;
using BiasCorrection = StrategyPlan::BiasCorrection;

const std::vector<std::pair<Kind, std::string_view>>& KindWords() {
  static const std::vector<std::pair<Kind, std::string_view>> words = {
      {Kind::kFedAvg, "fedavg"},
      {Kind::kFedNova, "fednova"},
      {Kind::kScaffold, "scaffold"},
      {Kind::kFedAvgM, "fedavgm"},
      {Kind::kFedAdagrad, "fedadagrad"},
      {Kind::kFedAdam, "fedadam"},
      {Kind::kFedYogi, "fedyogi"},
      {Kind::kQFedAvg, "qfedavg"},
      {Kind::kAfl, "afl"},
      {Kind::kMedian, "median"},
      {Kind::kTrimmedMean, "trimmed_mean"},
      {Kind::kKrum, "krum"},
      {Kind::kMultiKrum, "multi_krum"},
      {Kind::kBulyan, "bulyan"},
      {Kind::kGeometricMedian, "geometric_median"}};
  return words;
}

const std::vector<std::pair<BiasCorrection, std::string_view>>& CorrectionWords() {
  static const std::vector<std::pair<BiasCorrection, std::string_view>> words = {
      {BiasCorrection::kNone, "none"},
      {BiasCorrection::kAdam, "adam"},
      {BiasCorrection::kAdamStep, "adam_step"},
      {BiasCorrection::kFlower, "flower"}};
  return words;
}

template <typename Value>
std::string_view WordOf(const std::vector<std::pair<Value, std::string_view>>& words, Value value) {
  return std::find_if(words.begin(), words.end(),
                      [value](const auto& entry) { return entry.first == value; })
      ->second;
}

// The first of `words` is the default.
template <typename Value>
Value ReadWord(ConfigReader& table, const char* key,
               const std::vector<std::pair<Value, std::string_view>>& words) {
  std::vector<std::string> allowed;
  for (const auto& [value, word] : words) allowed.emplace_back(word);
  const std::string chosen = table.Choice(key, allowed, allowed.front());
  return std::find_if(words.begin(), words.end(),
                      [&](const auto& entry) { return entry.second == chosen; })
      ->first;
}

// A number of the plan, and what has it.
struct Parameter {
  const char* key;
  double StrategyPlan::*number;
  ConfigReader::NumberRange range;
  std::vector<Kind> of;
};

const std::vector<Parameter>& Numbers() {
  const std::vector<Kind> adaptive = {Kind::kFedAdagrad, Kind::kFedAdam, Kind::kFedYogi};
  static const std::vector<Parameter> numbers = {
      {.key = "server_learning_rate",
       .number = &StrategyPlan::server_learning_rate,
       .range = {.minimum = 1e-9, .maximum = 1000},
       .of = {Kind::kFedAvgM, Kind::kFedAdagrad, Kind::kFedAdam, Kind::kFedYogi, Kind::kAfl}},
      {.key = "server_momentum",
       .number = &StrategyPlan::server_momentum,
       .range = {.minimum = 0, .maximum = 0.9999},
       .of = {Kind::kFedAvgM}},
      {.key = "beta1",
       .number = &StrategyPlan::beta1,
       .range = {.minimum = 0, .maximum = 0.9999},
       .of = adaptive},
      {.key = "beta2",
       .number = &StrategyPlan::beta2,
       .range = {.minimum = 0, .maximum = 0.999999},
       .of = {Kind::kFedAdam, Kind::kFedYogi}},
      {.key = "tau",
       .number = &StrategyPlan::tau,
       .range = {.minimum = 1e-12, .maximum = 1000},
       .of = adaptive},
      {.key = "q",
       .number = &StrategyPlan::q,
       .range = {.minimum = 0, .maximum = 100},
       .of = {Kind::kQFedAvg}},
      {.key = "smoothness",
       .number = &StrategyPlan::smoothness,
       .range = {.minimum = 0, .maximum = 1e9},
       .of = {Kind::kQFedAvg}},
      {.key = "trim",
       .number = &StrategyPlan::trim,
       .range = {.minimum = 0.001, .maximum = 0.4999},
       .of = {Kind::kTrimmedMean}}};
  return numbers;
}

const std::vector<Kind> kByzantine = {Kind::kKrum, Kind::kMultiKrum, Kind::kBulyan};

bool Has(const std::vector<Kind>& kinds, Kind kind) {
  return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
}

// Remembers that `key` is there, but none of `of` was chosen.
void CheckGoesWith(ConfigReader& rounds, const char* key, const std::vector<Kind>& of, Kind kind) {
  if (Has(of, kind) || !rounds.Has(key)) return;
  std::vector<std::string> words;
  for (const Kind other : of) words.push_back(fmt::format("\"{}\"", ToString(other)));
  rounds.Refuse(key, fmt::format("goes with aggregation = {} only, which is \"{}\" here",
                                 fmt::join(words, " or "), ToString(kind)));
}

// Where the defaults of a kind are not those of the struct.
StrategyPlan DefaultsOf(Kind kind) {
  StrategyPlan plan{.kind = kind};
  const bool adaptive = Has({Kind::kFedAdagrad, Kind::kFedAdam, Kind::kFedYogi}, kind);
  if (adaptive) plan.server_learning_rate = 0.01;
  if (kind == Kind::kAfl) plan.server_learning_rate = 0.1;
  if (kind == Kind::kFedAdagrad) plan.beta1 = 0;
  return plan;
}

}  // namespace

std::string_view ToString(StrategyPlan::Kind kind) { return WordOf(KindWords(), kind); }

std::string_view ToString(StrategyPlan::BiasCorrection correction) {
  return WordOf(CorrectionWords(), correction);
}

std::vector<StrategyPlan::Kind> StrategyKinds() {
  std::vector<Kind> kinds;
  for (const auto& [kind, word] : KindWords()) kinds.push_back(kind);
  return kinds;
}

std::string StrategyInWords(const StrategyPlan& plan) {
  std::string words(ToString(plan.kind));
  for (const Parameter& parameter : Numbers()) {
    if (!Has(parameter.of, plan.kind)) continue;
    if (parameter.number == &StrategyPlan::smoothness && plan.smoothness == 0) continue;
    words += fmt::format(", {} {}", parameter.key, plan.*parameter.number);
  }
  if (plan.kind == Kind::kFedAdam) {
    words += fmt::format(", bias_correction {}", ToString(plan.bias_correction));
  }
  if (Has(kByzantine, plan.kind)) {
    words += fmt::format(", byzantine_sites {}", plan.byzantine_sites);
  }
  if (plan.chosen_sites > 0) words += fmt::format(", chosen_sites {}", plan.chosen_sites);
  if (plan.maximum_update_norm > 0) {
    words += fmt::format(", maximum_update_norm {}", plan.maximum_update_norm);
  }
  return words;
}

bool NeedsLossBefore(StrategyPlan::Kind kind) {
  return kind == Kind::kQFedAvg || kind == Kind::kAfl;
}

bool WeighsByCases(StrategyPlan::Kind kind) {
  switch (kind) {
    case Kind::kFedAvg:
    case Kind::kFedNova:
    case Kind::kScaffold:
    case Kind::kFedAvgM:
    case Kind::kFedAdagrad:
    case Kind::kFedAdam:
    case Kind::kFedYogi:
    case Kind::kQFedAvg:
    case Kind::kGeometricMedian:
      return true;
    case Kind::kAfl:
    case Kind::kMedian:
    case Kind::kTrimmedMean:
    case Kind::kKrum:
    case Kind::kMultiKrum:
    case Kind::kBulyan:
      break;
  }
  return false;
}

std::int64_t FewestUpdates(const StrategyPlan& plan) {
  if (plan.kind == Kind::kKrum) return 2 * plan.byzantine_sites + 3;
  if (plan.kind == Kind::kMultiKrum) {
    return std::max(2 * plan.byzantine_sites + 3, plan.chosen_sites + plan.byzantine_sites);
  }
  if (plan.kind == Kind::kBulyan) return 4 * plan.byzantine_sites + 3;
  if (plan.kind == Kind::kTrimmedMean && plan.trim > 0) {
    // Of a trim of 1 / n, n updates, whatever its last bit is.
    return static_cast<std::int64_t>(std::ceil((1 - 1e-9) / plan.trim));
  }
  return 1;
}

StrategyPlan ReadStrategy(ConfigReader& rounds) {
  const Kind kind = ReadWord(rounds, "aggregation", KindWords());
  StrategyPlan plan = DefaultsOf(kind);
  for (const Parameter& parameter : Numbers()) {
    double& number = plan.*parameter.number;
    number = rounds.Number(parameter.key, parameter.range, number);
    CheckGoesWith(rounds, parameter.key, parameter.of, kind);
  }
  plan.bias_correction = ReadWord(rounds, "bias_correction", CorrectionWords());
  CheckGoesWith(rounds, "bias_correction", {Kind::kFedAdam}, kind);
  plan.byzantine_sites =
      rounds.Integer("byzantine_sites", {.minimum = 0, .maximum = 249}, plan.byzantine_sites);
  CheckGoesWith(rounds, "byzantine_sites", kByzantine, kind);
  plan.chosen_sites =
      rounds.Integer("chosen_sites", {.minimum = 0, .maximum = 1000}, plan.chosen_sites);
  CheckGoesWith(rounds, "chosen_sites", {Kind::kMultiKrum}, kind);
  plan.maximum_update_norm = rounds.Number("maximum_update_norm", {.minimum = 0, .maximum = 1e12},
                                           plan.maximum_update_norm);
  if (rounds.Has("maximum_site_weight") && !WeighsByCases(kind)) {
    rounds.Refuse("maximum_site_weight",
                  fmt::format("limits what training cases give a site, and aggregation = \"{}\" "
                              "does not weigh sites by them: leave it out",
                              ToString(kind)));
  }
  return plan;
}

}  // namespace isoscan
