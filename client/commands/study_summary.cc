#include "client/commands/study_summary.h"

#include <fmt/format.h>

#include "client/training/trainer.h"
#include "common/study/plan_words.h"

namespace isoscan {
namespace {

std::string HeldOutWords(const HeldOutRule& rule) {
  switch (rule.kind) {
    case HeldOutRule::Kind::kHash:
      return fmt::format("{:.0f} % of the cases, by the hash of their names", 100 * rule.fraction);
    case HeldOutRule::Kind::kEvery:
      return fmt::format("one case in {} of each folder, by name", rule.every);
    case HeldOutRule::Kind::kList:
      return "the cases that [held_out] of client.toml lists";
  }
  return "";
}

}  // namespace

std::string Summarize(const Study& study) {
  std::string text = fmt::format("study {}\n", study.name);
  if (!study.description.empty()) text += fmt::format("  {}\n", study.description);
  text += fmt::format("  digest      {}\n", study.digest);
  text += fmt::format("  channels    {}\n", fmt::join(study.channels, ", "));
  text += fmt::format("  labels      {}\n", fmt::join(study.labels, ", "));
  text += fmt::format("  sites       {}\n", study.sites.empty()
                                                ? "those that approve before it starts"
                                                : fmt::format("{}", fmt::join(study.sites, ", ")));
  text += fmt::format("  held out    {}\n", HeldOutWords(study.held_out));
  text += fmt::format("  intensities {}\n", InWords(study.harmonization));
  if (study.harmonization.normalize == HarmonizationPlan::Normalizer::kKde &&
      !RemovesScale(study.harmonization)) {
    text +=
        "              beware: its kernel does not follow a scanner's scale, and above "
        "intensities\n"
        "              of some 200 finds no tissue; bandwidth = \"scott\" does "
        "(docs/harmonisation.md)"
        "\n";
  }
  text += PlanInWords(study);
  if (!study.planning.has_value()) {
    text += fmt::format("  memory      about {} for training, on a CPU\n",
                        Gibibytes(EstimateTrainingMemory(study)));
  }
  if (!study.network.initial_weights.empty()) {
    text += fmt::format("  starts from another model's weights, SHA-256 {}\n",
                        study.network.initial_weights);
  }
  if (study.evaluation.local_only) {
    text += "  afterwards  as many steps more as all rounds had, alone, to compare\n";
  }
  if (study.evaluation.certificate) {
    text += "  afterwards  an invariance certificate: about 50 predictions of each held-out case\n";
  }
  return text;
}

std::string Gibibytes(std::int64_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (1024.0 * 1024.0 * 1024.0));
}

}  // namespace isoscan
