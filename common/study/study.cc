#include "common/study/study.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <utility>

#include "common/config/config_reader.h"
#include "common/status/file_error.h"
#include "common/status/printable.h"
#include "common/status/status_macros.h"
#include "common/study/exchanged_tensors.h"
#include "common/study/initial_weights.h"
#include "common/study/label_side.h"
#include "common/study/population_standard.h"
#include "common/weights/named_tensors.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

// What a study may ask of a site before the site's own memory is even looked at: far above every
// published 3D plan, far below what would bring a machine down.
constexpr std::size_t kMaximumTextBytes = 64 * 1024;
// toml++ frees the tables of a dotted key one inside the other: tens of thousands would overflow
// the stack of whoever reads the text.
constexpr std::ptrdiff_t kMaximumDots = 4096;
constexpr std::int64_t kMaximumParameters = std::int64_t{256} << 20;
constexpr std::int64_t kMaximumBatchVoxels = std::int64_t{64} << 20;
constexpr std::size_t kMaximumChannels = 16;
constexpr std::size_t kMaximumLabels = 255;
constexpr std::size_t kMaximumSites = 1000;
constexpr std::size_t kMaximumStages = 8;
constexpr std::size_t kMaximumLabelBytes = 64;
constexpr double kMinimumSpacing = 0.01;

constexpr ConfigReader::NumberRange kMinutes = {.minimum = 0.0001, .maximum = 60.0 * 24 * 31};

template <typename Value>
Value OneOf(ConfigReader& table, const char* key,
            const std::vector<std::pair<std::string, Value>>& values, std::size_t fallback) {
  std::vector<std::string> words;
  for (const auto& [word, value] : values) words.push_back(word);
  const std::string chosen = table.Choice(key, words, words[fallback]);
  const auto found = std::find(words.begin(), words.end(), chosen);
  return found == words.end() ? values[fallback].second
                              : values[static_cast<std::size_t>(found - words.begin())].second;
}

std::chrono::milliseconds Minutes(ConfigReader& table, const char* key,
                                  std::chrono::milliseconds fallback) {
  constexpr double kMilliseconds = 60'000;
  const double minutes =
      table.Number(key, kMinutes, static_cast<double>(fallback.count()) / kMilliseconds);
  return std::chrono::milliseconds(std::llround(minutes * kMilliseconds));
}

template <typename Number>
std::array<Number, 3> ToTriple(ConfigReader& table, const char* key,
                               const std::vector<Number>& numbers) {
  std::array<Number, 3> triple{};
  if (numbers.size() == triple.size()) {
    std::copy(numbers.begin(), numbers.end(), triple.begin());
  } else if (table.Has(key)) {
    table.Refuse(key, fmt::format("has {} numbers where 3 are needed: z, y, x", numbers.size()));
  }
  return triple;
}

std::vector<Triple> Triples(ConfigReader& table, const char* key, ConfigReader::IntegerRange range,
                            std::optional<std::vector<std::vector<std::int64_t>>> fallback) {
  std::vector<Triple> triples;
  for (const std::vector<std::int64_t>& numbers :
       table.IntegerLists(key, range, std::move(fallback))) {
    triples.push_back(ToTriple(table, key, numbers));
  }
  return triples;
}

HeldOutRule ReadHeldOutRule(ConfigReader table) {
  HeldOutRule rule;
  rule.kind = OneOf<HeldOutRule::Kind>(table, "rule",
                                       {{"hash", HeldOutRule::Kind::kHash},
                                        {"every", HeldOutRule::Kind::kEvery},
                                        {"list", HeldOutRule::Kind::kList}},
                                       0);
  rule.fraction = table.Number("fraction", {.minimum = 0.001, .maximum = 0.9}, rule.fraction);
  rule.every = table.Integer("every", {.minimum = 2, .maximum = 1000}, rule.every);
  return rule;
}

// The words that ToString() has for `values`; the first is the default.
template <typename Value>
Value OneOf(ConfigReader& table, const char* key, const std::vector<Value>& values) {
  std::vector<std::pair<std::string, Value>> words;
  for (const Value value : values) words.emplace_back(ToString(value), value);
  return OneOf<Value>(table, key, words, 0);
}

N4Plan ReadN4(ConfigReader table) {
  N4Plan plan;
  plan.shrink = table.Integer("shrink", {.minimum = 1, .maximum = 16}, plan.shrink);
  plan.levels = table.Integer("levels", {.minimum = 1, .maximum = 6}, plan.levels);
  plan.iterations = table.Integer("iterations", {.minimum = 1, .maximum = 1000}, plan.iterations);
  plan.convergence = table.Number("convergence", {.minimum = 0, .maximum = 0.1}, plan.convergence);
  plan.control_points =
      table.Integer("control_points", {.minimum = 4, .maximum = 16}, plan.control_points);
  return plan;
}

// One contrast per channel, where the normaliser needs them: declared, or by the channels' names.
std::vector<HarmonizationPlan::Contrast> ReadContrasts(ConfigReader& table,
                                                       HarmonizationPlan::Normalizer normalizer,
                                                       const std::vector<std::string>& channels) {
  const bool declared = table.Has("contrasts");
  const std::vector<std::string> names = table.Texts("contrasts", channels);
  if (!NeedsContrast(normalizer)) return {};
  if (names.size() != channels.size()) {
    table.Refuse("contrasts", fmt::format("has {} entries, the study has {} channels", names.size(),
                                          channels.size()));
  }
  std::vector<HarmonizationPlan::Contrast> contrasts;
  for (const std::string& name : names) {
    if (const std::optional<HarmonizationPlan::Contrast> contrast = ContrastOf(name)) {
      contrasts.push_back(*contrast);
    } else {
      table.Refuse(declared ? "contrasts" : "normalize",
                   fmt::format("{}'{}', which is no contrast that is known (T1w, T2w, FLAIR, PDw)"
                               "{}",
                               declared ? "has " : "goes by the contrast, and a channel is called ",
                               name, declared ? "" : ": set contrasts, one for each channel"));
    }
  }
  return contrasts;
}

// A standard that the study gives, channel after channel; empty: the sites' own.
std::vector<double> ReadStandard(ConfigReader& table, HarmonizationPlan::Normalizer normalizer,
                                 std::size_t channels) {
  const std::vector<double> standard =
      table.Numbers("standard", {.minimum = -kLargestStandard, .maximum = kLargestStandard},
                    std::vector<double>());
  const std::size_t length = StandardLength(normalizer);
  if (standard.empty() || length == 0) return {};
  if (standard.size() != length * channels) {
    table.Refuse("standard",
                 fmt::format("has {} numbers, {} channels with normalize = \"{}\" have {}",
                             standard.size(), channels, ToString(normalizer), length * channels));
    return {};
  }
  for (std::size_t i = 0; i < standard.size(); ++i) {
    if (i % length == 0 || standard[i] > standard[i - 1]) continue;
    table.Refuse("standard",
                 fmt::format("does not ascend: {} follows {}", standard[i], standard[i - 1]));
  }
  return standard;
}

HarmonizationPlan ReadHarmonization(ConfigReader table, const std::vector<std::string>& channels) {
  using Plan = HarmonizationPlan;
  Plan plan;
  if (table.Has("n4")) plan.n4 = ReadN4(table.Table("n4"));
  plan.mask = OneOf<Plan::Mask>(
      table, "mask",
      {Plan::Mask::kWhole, Plan::Mask::kOtsu, Plan::Mask::kThreshold, Plan::Mask::kGiven});
  plan.threshold = table.Number("threshold", {.minimum = 0, .maximum = 0.99}, plan.threshold);
  plan.outside =
      OneOf<Plan::Outside>(table, "outside", {Plan::Outside::kKeep, Plan::Outside::kZero});
  plan.normalize = OneOf<Plan::Normalizer>(
      table, "normalize",
      {Plan::Normalizer::kInstance, Plan::Normalizer::kZScore, Plan::Normalizer::kNyul,
       Plan::Normalizer::kWhiteStripe, Plan::Normalizer::kKde, Plan::Normalizer::kFcm,
       Plan::Normalizer::kLsq, Plan::Normalizer::kNone});
  plan.contrasts = ReadContrasts(table, plan.normalize, channels);
  plan.tissue = OneOf<Plan::Tissue>(
      table, "tissue", {Plan::Tissue::kWhiteMatter, Plan::Tissue::kGreyMatter, Plan::Tissue::kCsf});
  plan.bandwidth = OneOf<Plan::Bandwidth>(table, "bandwidth",
                                          {Plan::Bandwidth::kPackage, Plan::Bandwidth::kScott});
  plan.standard = ReadStandard(table, plan.normalize, channels.size());
  plan.spacing_mm = ToTriple(
      table, "spacing_mm",
      table.Numbers("spacing_mm", {.minimum = 0, .maximum = 100}, std::vector<double>(3, 0.0)));
  plan.interpolation = OneOf<Plan::Interpolation>(
      table, "interpolation", {Plan::Interpolation::kLinear, Plan::Interpolation::kBSpline});
  return plan;
}

PlanningRule ReadPlanning(ConfigReader table) {
  PlanningRule rule;
  rule.preset = OneOf<PlanPreset>(
      table, "preset", {PlanPreset::kPlain, PlanPreset::kResidualM, PlanPreset::kResidualL});
  rule.memory_gb = table.Number("memory_gb", {.minimum = 0.001, .maximum = 10'000},
                                DefaultMemoryGb(rule.preset));
  return rule;
}

NetworkPlan ReadNetwork(ConfigReader table, bool required) {
  NetworkPlan plan;
  plan.kind = OneOf<NetworkPlan::Kind>(
      table, "kind",
      {{"plain", NetworkPlan::Kind::kPlain}, {"residual", NetworkPlan::Kind::kResidual}}, 0);
  const bool residual = plan.kind == NetworkPlan::Kind::kResidual;
  using Lists = std::vector<std::vector<std::int64_t>>;
  plan.features = table.Integers("features", {.minimum = 1, .maximum = 2048},
                                 required ? std::nullopt : std::optional(plan.features));
  plan.strides = Triples(table, "strides", {.minimum = 1, .maximum = 4},
                         required ? std::nullopt : std::optional(Lists()));
  plan.kernels = Triples(table, "kernels", {.minimum = 1, .maximum = 7},
                         std::vector(plan.features.size(), std::vector<std::int64_t>(3, 3)));
  plan.convolutions_per_stage =
      table.Integer("convolutions_per_stage", {.minimum = 1, .maximum = 8}, residual ? 1 : 2);
  if (residual) {
    plan.blocks_per_stage =
        table.Integers("blocks_per_stage", {.minimum = 1, .maximum = 16},
                       required ? std::nullopt : std::optional(plan.blocks_per_stage));
  }
  plan.norm = OneOf<NetworkPlan::Norm>(table, "norm",
                                       {{"instance", NetworkPlan::Norm::kInstance},
                                        {"batch", NetworkPlan::Norm::kBatch},
                                        {"group", NetworkPlan::Norm::kGroup},
                                        {"none", NetworkPlan::Norm::kNone}},
                                       0);
  plan.initial_weights = table.Text("initial_weights", "");
  plan.local_layers = table.Texts("local_layers", plan.local_layers);
  return plan;
}

TrainingPlan ReadTraining(ConfigReader table, const std::vector<std::string>& labels,
                          bool required) {
  TrainingPlan plan;
  const std::optional<std::vector<std::int64_t>> none = std::vector<std::int64_t>();
  plan.patch_size = ToTriple(table, "patch_size",
                             table.Integers("patch_size", {.minimum = 1, .maximum = 1024},
                                            required ? std::nullopt : none));
  plan.batch_size = table.Integer("batch_size", {.minimum = 1, .maximum = 256}, plan.batch_size);
  plan.steps_per_round =
      table.Integer("steps_per_round", {.minimum = 1, .maximum = 1'000'000}, plan.steps_per_round);
  plan.passes_per_round =
      table.Number("passes_per_round", {.minimum = 0, .maximum = 10'000}, plan.passes_per_round);
  plan.optimizer = OneOf<TrainingPlan::Optimizer>(
      table, "optimizer",
      {{"sgd", TrainingPlan::Optimizer::kSgd}, {"adamw", TrainingPlan::Optimizer::kAdamW}}, 0);
  plan.learning_rate =
      table.Number("learning_rate", {.minimum = 1e-9, .maximum = 10}, plan.learning_rate);
  plan.momentum = table.Number("momentum", {.minimum = 0, .maximum = 0.9999}, plan.momentum);
  plan.weight_decay = table.Number("weight_decay", {.minimum = 0, .maximum = 1}, plan.weight_decay);
  plan.gradient_norm_limit = table.Number("gradient_norm_limit", {.minimum = 1e-3, .maximum = 1e6},
                                          plan.gradient_norm_limit);
  plan.foreground_fraction =
      table.Number("foreground_fraction", {.minimum = 0, .maximum = 1}, plan.foreground_fraction);
  plan.deep_supervision = table.Flag("deep_supervision", plan.deep_supervision);
  plan.proximal = table.Number("proximal", {.minimum = 0, .maximum = 1000}, plan.proximal);
  plan.personal = table.Number("personal", {.minimum = 0, .maximum = 1000}, plan.personal);
  plan.augmentation =
      OneOf<TrainingPlan::Augmentation>(table, "augmentation",
                                        {{"intensity", TrainingPlan::Augmentation::kIntensity},
                                         {"nnunet", TrainingPlan::Augmentation::kNnunet},
                                         {"none", TrainingPlan::Augmentation::kNone}},
                                        0);
  if (plan.augmentation == TrainingPlan::Augmentation::kNnunet) {
    plan.mirror_axes =
        AnyHasASide(labels) ? std::vector<std::int64_t>{0, 1} : std::vector<std::int64_t>{0, 1, 2};
  }
  plan.mirror_axes = table.Integers("mirror_axes", {.minimum = 0, .maximum = 2}, plan.mirror_axes);
  plan.intensity_augmentation = table.Number("intensity_augmentation", {.minimum = 0, .maximum = 1},
                                             plan.intensity_augmentation);
  plan.random_numbers =
      OneOf<TrainingPlan::RandomNumbers>(table, "random_numbers",
                                         {{"site", TrainingPlan::RandomNumbers::kSite},
                                          {"shared", TrainingPlan::RandomNumbers::kShared}},
                                         0);
  plan.precision = OneOf<TrainingPlan::Precision>(
      table, "precision",
      {{"float32", TrainingPlan::Precision::kFloat32}, {"mixed", TrainingPlan::Precision::kMixed}},
      0);
  return plan;
}

EvaluationPlan ReadEvaluation(ConfigReader table) {
  EvaluationPlan plan;
  plan.overlap = table.Number("overlap", {.minimum = 0, .maximum = 0.9}, plan.overlap);
  plan.local_only = table.Flag("local_only", plan.local_only);
  plan.certificate = table.Flag("certificate", plan.certificate);
  return plan;
}

Quorum ReadQuorum(ConfigReader table) {
  Quorum quorum;
  quorum.all = OneOf<bool>(table, "policy", {{"all", true}, {"at_least", false}}, 0);
  quorum.minimum_sites = table.Integer(
      "minimum_sites", {.minimum = 1, .maximum = static_cast<std::int64_t>(kMaximumSites)},
      quorum.minimum_sites);
  quorum.minimum_case_fraction = table.Number("minimum_case_fraction", {.minimum = 0, .maximum = 1},
                                              quorum.minimum_case_fraction);
  quorum.required_sites = table.Texts("required_sites", quorum.required_sites);
  return quorum;
}

RoundsPlan ReadRounds(ConfigReader table) {
  RoundsPlan plan;
  plan.rounds = table.Integer("rounds", {.minimum = 1, .maximum = 10'000}, plan.rounds);
  plan.strategy = ReadStrategy(table);
  plan.sites_per_round = table.Integer(
      "sites_per_round", {.minimum = 0, .maximum = static_cast<std::int64_t>(kMaximumSites)},
      plan.sites_per_round);
  plan.maximum_site_weight = table.Number("maximum_site_weight", {.minimum = 0.001, .maximum = 1},
                                          plan.maximum_site_weight);
  plan.no_progress_limit = Minutes(table, "no_progress_minutes", plan.no_progress_limit);
  plan.round_deadline = Minutes(table, "round_deadline_minutes", plan.round_deadline);
  plan.best_by = OneOf<RoundsPlan::BestBy>(
      table, "best_by", {RoundsPlan::BestBy::kCases, RoundsPlan::BestBy::kWorstSite});
  plan.patience = table.Integer("patience", {.minimum = 0, .maximum = 10'000}, plan.patience);
  plan.least_gain = table.Number("least_gain", {.minimum = 0, .maximum = 1}, plan.least_gain);
  plan.priority = table.Integer("priority", {.minimum = -10, .maximum = 10}, plan.priority);
  plan.quorum = ReadQuorum(table.Table("quorum"));
  plan.quorum.fewest_updates = FewestUpdates(plan.strategy);
  return plan;
}

Study ReadStudy(ConfigReader& reader) {
  Study study;
  study.name = reader.Text("name");
  study.description = reader.Text("description", "");
  study.seed = static_cast<std::uint64_t>(
      reader.Integer("seed", {.minimum = 0}, static_cast<std::int64_t>(study.seed)));
  study.channels = reader.Texts("channels");
  study.labels = reader.Texts("labels");
  study.sites = reader.Texts("sites", study.sites);
  study.held_out = ReadHeldOutRule(reader.Table("held_out"));
  if (reader.Has("preprocessing")) {
    reader.Refuse("preprocessing",
                  "is the table of an earlier version: call it [harmonization], and write "
                  "normalize = \"instance\" for normalization = \"masked_instance\", normalize = "
                  "\"none\" for \"none\"; its other keys stay");
  }
  if (reader.Has("planning")) study.planning = ReadPlanning(reader.Table("planning"));
  study.harmonization = ReadHarmonization(reader.Table("harmonization"), study.channels);
  const bool required = !study.planning.has_value();
  study.network = ReadNetwork(reader.Table("network"), required);
  study.training = ReadTraining(reader.Table("training"), study.labels, required);
  study.evaluation = ReadEvaluation(reader.Table("evaluation"));
  study.rounds = ReadRounds(reader.Table("rounds"));
  return study;
}

// Names of channels and labels end up in reports, messages and as keys of a site's client.toml.
bool IsLabel(std::string_view text) {
  return !text.empty() && text.size() <= kMaximumLabelBytes && text.front() != ' ' &&
         text.back() != ' ' && Printable(text) == text;
}

// People decide upon what a terminal shows them of a study: it must show all of it, as it stands.
// Answers with the number of the first line that would not; 0: there is none.
std::size_t FirstUnprintableLine(std::string_view text) {
  std::string line;
  std::istringstream lines{std::string(text)};
  for (std::size_t number = 1; std::getline(lines, line); ++number) {
    if (line.ends_with('\r')) line.pop_back();
    std::replace(line.begin(), line.end(), '\t', ' ');
    if (Printable(line) != line) return number;
  }
  return 0;
}

// Refuses `key` when an entry comes twice, is not `allowed`, or when there are more than `most`.
template <typename Value, typename Predicate>
void CheckList(ConfigReader& table, const char* key, const std::vector<Value>& values,
               std::size_t most, Predicate allowed, std::string_view form) {
  if (values.size() > most) {
    table.Refuse(key, fmt::format("has {} entries, allowed are {}", values.size(), most));
  }
  std::set<Value> seen;
  for (const Value& value : values) {
    if (!allowed(value)) {
      table.Refuse(key, fmt::format("has '{}', which is not {}", value, form));
    } else if (!seen.insert(value).second) {
      table.Refuse(key, fmt::format("has '{}' twice", value));
    }
  }
}

constexpr std::string_view kNameForm = "1 to 63 lower-case letters, digits and inner hyphens";
constexpr std::string_view kLabelForm = "1 to 64 bytes of printable text without outer spaces";

void CheckWords(const Study& study, ConfigReader& reader) {
  if (!IsName(study.name)) {
    reader.Refuse("name", fmt::format("is '{}', which is not {}", study.name, kNameForm));
  }
  if (FirstUnprintableLine(study.description) != 0) {
    reader.Refuse("description", "has control characters; write plain text");
  }
  CheckList(reader, "channels", study.channels, kMaximumChannels, IsLabel, kLabelForm);
  CheckList(reader, "labels", study.labels, kMaximumLabels, IsLabel, kLabelForm);
  CheckList(reader, "sites", study.sites, kMaximumSites, IsName, kNameForm);
  if (study.channels.empty()) reader.Refuse("channels", "is empty; name one contrast at least");
  if (study.labels.empty()) reader.Refuse("labels", "is empty; name one label at least");
  if (std::count(study.labels.begin(), study.labels.end(), "background") != 0) {
    reader.Refuse("labels", "has 'background', which every network has: list what is to be found");
  }
}

void CheckHarmonizationPlan(const HarmonizationPlan& plan, ConfigReader table) {
  for (const double spacing : plan.spacing_mm) {
    if (spacing > 0 && spacing < kMinimumSpacing) {
      table.Refuse("spacing_mm", fmt::format("has {} mm; allowed are 0 (as stored) and {} to 100",
                                             spacing, kMinimumSpacing));
    }
  }
  const bool zero = plan.outside == HarmonizationPlan::Outside::kZero;
  if (zero && plan.mask != HarmonizationPlan::Mask::kGiven) {
    table.Refuse("outside",
                 "is 'zero', which erases anatomy unless mask = \"given\"; use 'keep' or a given "
                 "mask");
  }
  using Normalizer = HarmonizationPlan::Normalizer;
  if (zero && (plan.normalize == Normalizer::kNone || plan.normalize == Normalizer::kZScore)) {
    table.Refuse("outside", fmt::format("is 'zero', which is the mean under the mask only where "
                                        "intensities are normalised over it, not with normalize = "
                                        "\"{}\"; use 'keep'",
                                        ToString(plan.normalize)));
  }
}

// The plan's lists fit each other; false when the network cannot even be described.
bool CheckStages(const NetworkPlan& network, ConfigReader& table) {
  const std::size_t stages = network.stages();
  if (stages < 2 || stages > kMaximumStages) {
    table.Refuse("features",
                 fmt::format("has {} stages, allowed are 2 to {}", stages, kMaximumStages));
    return false;
  }
  bool consistent = true;
  const auto check = [&](const char* key, std::size_t count, const char* of) {
    if (count == stages) return;
    table.Refuse(key, fmt::format("has {} {}, features has {} stages", count, of, stages));
    consistent = false;
  };
  check("strides", network.strides.size(), "triples");
  check("kernels", network.kernels.size(), "triples");
  if (network.kind == NetworkPlan::Kind::kResidual) {
    check("blocks_per_stage", network.blocks_per_stage.size(), "numbers");
  }
  if (!network.strides.empty() && network.strides.front() != Triple{1, 1, 1}) {
    table.Refuse("strides", "must begin with [1, 1, 1]: the first stage has full resolution");
    consistent = false;
  }
  for (const Triple& kernel : network.kernels) {
    if (std::all_of(kernel.begin(), kernel.end(), [](auto size) { return size % 2 == 1; })) {
      continue;
    }
    table.Refuse("kernels", fmt::format("has [{}, {}, {}]; a kernel's sizes are odd", kernel[0],
                                        kernel[1], kernel[2]));
    consistent = false;
  }
  return consistent;
}

void CheckPatch(const Study& study, ConfigReader table) {
  const TrainingPlan& training = study.training;
  constexpr std::array<const char*, 3> kAxes = {"z", "y", "x"};
  std::int64_t voxels = training.batch_size;
  std::int64_t coarsest_voxels = 1;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    std::int64_t divisor = 1;
    for (const Triple& stride : study.network.strides) divisor *= stride[axis];
    const std::int64_t size = training.patch_size[axis];
    voxels *= size;
    coarsest_voxels *= size / divisor;
    if (size % divisor != 0) {
      const std::int64_t below = size / divisor * divisor;
      table.Refuse("patch_size",
                   fmt::format("is {} along {}, which the strides' product {} does not divide; "
                               "use {}{}",
                               size, kAxes[axis], divisor,
                               below == 0 ? "" : fmt::format("{} or ", below), below + divisor));
      return;
    }
  }
  if (voxels > kMaximumBatchVoxels) {
    table.Refuse("patch_size", fmt::format("times batch_size is {} voxels, allowed are {}", voxels,
                                           kMaximumBatchVoxels));
  }
  const NetworkPlan::Norm norm = study.network.norm;
  const bool batch_norm = norm == NetworkPlan::Norm::kBatch;
  if (norm != NetworkPlan::Norm::kNone &&
      coarsest_voxels * (batch_norm ? training.batch_size : 1) < 2) {
    table.Refuse("patch_size",
                 "leaves a single voxel at the coarsest stage, which has no standard deviation to "
                 "normalise by; use a larger patch or fewer strides");
  }
}

// What hangs together is planned as a whole: half of it by hand would fit neither the cohort nor
// the memory.
void CheckLeftToThePlan(ConfigReader& reader) {
  const std::vector<std::pair<const char*, std::vector<const char*>>> planned = {
      {"harmonization", {"spacing_mm"}},
      {"network",
       {"kind", "features", "strides", "kernels", "convolutions_per_stage", "blocks_per_stage"}},
      {"training", {"patch_size"}}};
  for (const auto& [name, keys] : planned) {
    ConfigReader table = reader.Table(name);
    for (const char* const key : keys) {
      if (!table.Has(key)) continue;
      table.Refuse(key, "is found by the plan that [planning] asks for: leave one of the two out");
    }
  }
}

// Every entry keeps something, and something is left to learn together.
void CheckLocalLayers(const Study& study, const TensorShapes& shapes, ConfigReader& table) {
  for (const std::string& layer : study.network.local_layers) {
    NetworkPlan alone;
    alone.local_layers = {layer};
    if (std::any_of(shapes.begin(), shapes.end(),
                    [&](const auto& tensor) { return StaysAtSite(alone, tensor.first); })) {
      continue;
    }
    table.Refuse("local_layers",
                 fmt::format("has '{}', and no tensor of this network is called so or begins so: "
                             "\"norm\", or the start of a name such as decoder.seg_layers",
                             layer));
  }
  if (!study.network.local_layers.empty() && ExchangedShapes(study).empty()) {
    table.Refuse("local_layers", "keeps the whole network at each site: nothing is left to share");
  }
}

// Rounds never close with fewer updates than the strategy's mathematics asks for.
void CheckFewestUpdates(const Study& study, ConfigReader& rounds) {
  const StrategyPlan& strategy = study.rounds.strategy;
  const Quorum& quorum = study.rounds.quorum;
  const std::int64_t fewest = FewestUpdates(strategy);
  const auto declared = static_cast<std::int64_t>(study.sites.size());
  if (fewest > 1 && declared > 0 && declared < fewest) {
    rounds.Refuse("aggregation", fmt::format("needs {} sites ({}), and {} are declared", fewest,
                                             StrategyInWords(strategy), declared));
  }
  const std::int64_t asked = study.rounds.sites_per_round;
  if (asked > 0 && asked < fewest) {
    rounds.Refuse("sites_per_round", fmt::format("is {}, but the aggregation ({}) needs {} updates",
                                                 asked, StrategyInWords(strategy), fewest));
  }
  if (!quorum.all && quorum.minimum_sites < fewest) {
    rounds.Refuse("aggregation",
                  fmt::format("needs {} updates ({}), and a round may close with {}: set "
                              "quorum.minimum_sites = {}",
                              fewest, StrategyInWords(strategy), quorum.minimum_sites, fewest));
  }
}

// What a strategy's mathematics needs of the optimiser, and strategies that would each have a model
// of the site's own.
void CheckStrategy(const Study& study, ConfigReader& reader) {
  using Kind = StrategyPlan::Kind;
  ConfigReader training = reader.Table("training");
  ConfigReader rounds = reader.Table("rounds");
  const TrainingPlan& plan = study.training;
  const Kind kind = study.rounds.strategy.kind;
  const bool sgd = plan.optimizer == TrainingPlan::Optimizer::kSgd;
  if (plan.passes_per_round > 0 && training.Has("steps_per_round")) {
    training.Refuse("steps_per_round", "goes without passes_per_round only: set one of the two");
  }
  if (kind == Kind::kFedNova && (!sgd || plan.proximal > 0)) {
    rounds.Refuse("aggregation",
                  "is 'fednova', which counts the steps of SGD with or without momentum: set "
                  "optimizer = \"sgd\" and proximal = 0");
  }
  if (kind == Kind::kScaffold && (!sgd || plan.momentum > 0 || plan.proximal > 0)) {
    rounds.Refuse("aggregation",
                  "is 'scaffold', whose control variates are mean gradients of plain SGD: set "
                  "optimizer = \"sgd\", momentum = 0 and proximal = 0");
  }
  if (plan.personal > 0 && (kind == Kind::kScaffold || !study.network.local_layers.empty())) {
    training.Refuse("personal",
                    "gives each site a model of its own beside the shared one, and goes with "
                    "neither aggregation = \"scaffold\" nor local_layers");
  }
  CheckFewestUpdates(study, rounds);
}

void CheckTraining(const Study& study, ConfigReader& reader) {
  ConfigReader network = reader.Table("network");
  ConfigReader training = reader.Table("training");
  CheckList(
      training, "mirror_axes", study.training.mirror_axes, 3, [](std::int64_t) { return true; },
      "an axis");
  constexpr std::int64_t kLeftToRight = 2;
  const std::vector<std::int64_t>& mirrored = study.training.mirror_axes;
  if (std::find(mirrored.begin(), mirrored.end(), kLeftToRight) != mirrored.end() &&
      AnyHasASide(study.labels)) {
    training.Refuse("mirror_axes",
                    "has 2, left to right, but labels tell left from right: a mirrored patch would "
                    "show one side under the other's name; use [0, 1]");
  }
  const bool none = study.training.augmentation == TrainingPlan::Augmentation::kNone;
  if (none && training.Has("intensity_augmentation") && study.training.intensity_augmentation > 0) {
    training.Refuse("intensity_augmentation", "is set, but augmentation = \"none\"; remove it");
  }
  const std::string& initial = study.network.initial_weights;
  if (!initial.empty() && !IsSha256(initial)) {
    network.Refuse("initial_weights",
                   "is no SHA-256 of weights: 64 lower-case hexadecimal digits, as `isoscan-client "
                   "import` prints them");
  }
  CheckList(network, "local_layers", study.network.local_layers, kMaximumLabels, IsLabel,
            kLabelForm);
  if (!initial.empty() && !study.network.local_layers.empty()) {
    network.Refuse("initial_weights",
                   "goes with local_layers = [] only: a site has the layers of the seed to begin "
                   "its own with");
  }
  if (study.planning.has_value()) {
    if (!initial.empty()) {
      network.Refuse("initial_weights",
                     "names weights of a network, and the plan that [planning] asks for finds "
                     "another: leave one of the two out");
    }
    return CheckLeftToThePlan(reader);
  }
  if (!CheckStages(study.network, network)) return;

  CheckPatch(study, training);
  const TensorShapes shapes = NetworkShapes(study);
  std::int64_t parameters = 0;
  for (const auto& [name, shape] : shapes) parameters += ElementCount(shape);
  if (parameters > kMaximumParameters) {
    network.Refuse("features", fmt::format("makes a network of {} parameters, allowed are {}",
                                           parameters, kMaximumParameters));
  }
  CheckLocalLayers(study, shapes, network);
}

void CheckPatience(const Study& study, ConfigReader table) {
  if (study.rounds.patience == 0) {
    if (study.rounds.least_gain > 0) {
      table.Refuse("least_gain",
                   "goes with patience only: set after how many rounds without it "
                   "the study ends");
    }
    return;
  }
  if (study.rounds.sites_per_round > 0) {
    table.Refuse("patience",
                 "compares the models that the same sites scored, and with "
                 "sites_per_round others score each one: set one of the two");
  }
}

// A round that may not ask whom its quorum needs would never close.
void CheckSitesPerRound(const Study& study, ConfigReader table) {
  const Quorum& quorum = study.rounds.quorum;
  const std::int64_t asked = study.rounds.sites_per_round;
  if (asked == 0) return;
  if (!study.sites.empty() && asked > static_cast<std::int64_t>(study.sites.size())) {
    table.Refuse("sites_per_round",
                 fmt::format("is {}, but only {} sites are declared", asked, study.sites.size()));
  }
  if (quorum.all) return;
  if (asked < quorum.minimum_sites) {
    table.Refuse("sites_per_round", fmt::format("is {}, but the quorum's minimum_sites is {}",
                                                asked, quorum.minimum_sites));
  }
  if (asked < static_cast<std::int64_t>(quorum.required_sites.size())) {
    table.Refuse("sites_per_round", fmt::format("is {}, but the quorum requires {} sites", asked,
                                                quorum.required_sites.size()));
  }
}

void CheckQuorum(const Study& study, ConfigReader table) {
  const Quorum& quorum = study.rounds.quorum;
  CheckList(table, "required_sites", quorum.required_sites, kMaximumSites, IsName, kNameForm);
  if (study.sites.empty()) return;

  if (!quorum.all && quorum.minimum_sites > static_cast<std::int64_t>(study.sites.size())) {
    table.Refuse("minimum_sites", fmt::format("is {}, but only {} sites are declared",
                                              quorum.minimum_sites, study.sites.size()));
  }
  for (const std::string& site : quorum.required_sites) {
    if (std::find(study.sites.begin(), study.sites.end(), site) == study.sites.end()) {
      table.Refuse("required_sites",
                   fmt::format("has '{}', which is not among the declared sites", site));
    }
  }
}

}  // namespace

absl::StatusOr<Study> ParseStudy(std::string toml, const std::string& source) {
  if (toml.size() > kMaximumTextBytes) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: this text is too long for a study, allowed are {} bytes", source, kMaximumTextBytes));
  }
  if (const std::ptrdiff_t dots = std::count(toml.begin(), toml.end(), '.'); dots > kMaximumDots) {
    return absl::InvalidArgumentError(fmt::format(
        "{}: {} dots are too many for a study, allowed are {}", source, dots, kMaximumDots));
  }
  if (const std::size_t line = FirstUnprintableLine(toml); line != 0) {
    return absl::InvalidArgumentError(fmt::format(
        "{}:{}: control characters, or some that turn the direction of writing, stand in this "
        "line; remove them",
        source, line));
  }
  ASSIGN_OR_RETURN(ConfigReader reader, ConfigReader::Parse(toml, source));
  Study study = ReadStudy(reader);
  RETURN_IF_ERROR(reader.Finish());

  // Only now is every value of its type and in its range: what is left is whether they fit
  // together.
  CheckWords(study, reader);
  CheckHarmonizationPlan(study.harmonization, reader.Table("harmonization"));
  CheckTraining(study, reader);
  CheckStrategy(study, reader);
  CheckPatience(study, reader.Table("rounds"));
  CheckSitesPerRound(study, reader.Table("rounds"));
  CheckQuorum(study, reader.Table("rounds").Table("quorum"));
  RETURN_IF_ERROR(reader.Finish());

  study.digest = Sha256Of(toml);
  study.toml = std::move(toml);
  return study;
}

absl::StatusOr<Study> LoadStudy(const std::filesystem::path& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  // One byte more than is allowed, so that ParseStudy sees that it is too long.
  std::string text(kMaximumTextBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.is_open() || file.bad() || (file.fail() && !file.eof())) {
    return FileError("cannot read the study", path.string(), errno);
  }
  text.resize(static_cast<std::size_t>(file.gcount()));
  return ParseStudy(std::move(text), path.string());
}

std::string_view ToString(RoundsPlan::BestBy best_by) {
  return best_by == RoundsPlan::BestBy::kCases ? "cases" : "worst_site";
}

absl::Status CheckPlanned(const Study& study) {
  if (!study.planning.has_value()) return absl::OkStatus();
  return absl::FailedPreconditionError(fmt::format(
      "{} is a draft: its grid and network are yet to be planned (isoscan-admin study plan {})",
      study.name, study.name));
}

std::map<std::string, std::string> WeightsMetadataOf(const Study& study, std::int64_t round) {
  std::map<std::string, std::string> metadata = HarmonizationMetadata(study.harmonization);
  metadata["study"] = study.name;
  metadata["study_digest"] = study.digest;
  metadata["round"] = fmt::format("{}", round);
  return metadata;
}

bool IsName(std::string_view text) {
  const auto allowed = [](char character) {
    return (character >= 'a' && character <= 'z') || (character >= '0' && character <= '9') ||
           character == '-';
  };
  return !text.empty() && text.size() <= 63 && text.front() != '-' && text.back() != '-' &&
         std::all_of(text.begin(), text.end(), allowed);
}

}  // namespace isoscan
