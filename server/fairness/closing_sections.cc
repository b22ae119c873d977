#include <fmt/format.h>

#include <algorithm>

#include "common/markup/escape.h"
#include "server/fairness/html.h"
#include "server/fairness/page.h"

namespace isoscan {
namespace {

std::string NetworkInWords(const NetworkPlan& network) {
  const std::string kind =
      network.kind == NetworkPlan::Kind::kResidual ? "residual encoder" : "plain convolutions";
  switch (network.norm) {
    case NetworkPlan::Norm::kInstance:
      return kind + ", instance normalisation";
    case NetworkPlan::Norm::kBatch:
      return kind + ", batch normalisation";
    case NetworkPlan::Norm::kGroup:
      return kind + ", group normalisation";
    case NetworkPlan::Norm::kNone:
      break;
  }
  return kind + ", no normalisation";
}

std::string Joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

std::string HeldOutInWords(const HeldOutRule& rule) {
  switch (rule.kind) {
    case HeldOutRule::Kind::kHash:
      return fmt::format("by the hash of the case's name, {} of 100",
                         FormatTick(100 * rule.fraction));
    case HeldOutRule::Kind::kEvery:
      return fmt::format("every {}. case", rule.every);
    case HeldOutRule::Kind::kList:
      return "a list at each hospital";
  }
  return "";
}

std::string QuorumInWords(const Quorum& quorum) {
  if (quorum.all) return "every hospital";
  std::string text = fmt::format("at least {} with {:.0f} % of the training cases",
                                 FormatCount(quorum.minimum_sites, "hospital"),
                                 100 * quorum.minimum_case_fraction);
  if (!quorum.required_sites.empty()) text += ", always " + Joined(quorum.required_sites);
  return text;
}

}  // namespace

std::string LimitsSection(const ReportContent& content) {
  const Study& study = content.record.study;
  std::string items;
  const auto item = [&items](std::string_view html) {
    items += fmt::format("<li>{}</li>\n", html);
  };
  const HarmonizationPlan& plan = study.harmonization;
  if (plan.normalize == HarmonizationPlan::Normalizer::kNone) {
    item(fmt::format(
        "<b>Not harmonised:</b> this study trains on intensities {}. Differences of scale and bias "
        "between scanners reach the network.",
        plan.n4.has_value() ? "that N4 corrects for a smooth bias field and nothing normalises"
                            : "as they are"));
  } else if (!RemovesScale(plan)) {
    item(fmt::format(
        "<b>Partly removed:</b> the normalisation ({}) smooths each histogram by a width that does "
        "not follow a scanner's scale (<i>x</i> becomes <i>s·x</i>): some of it can reach the "
        "network, and all of a bias (<i>x + b</i>) does. bandwidth = \"scott\" follows it.",
        EscapeMarkup(InWords(plan))));
  } else {
    item(fmt::format(
        "<b>Removed:</b> the normalisation ({}) removes a scanner's positive scale {}, up to "
        "rounding, because its statistics are taken from the same voxels of each scan.",
        EscapeMarkup(InWords(plan)),
        RemovesScaleAndBias(plan.normalize)
            ? "and its bias (<i>x</i> becomes <i>s·x + b</i>) exactly"
            : "exactly (<i>x</i> becomes <i>s·x</i>), but no bias (<i>x + b</i>)"));
  }
  if (plan.normalize != HarmonizationPlan::Normalizer::kNone) {
    item(fmt::format(
        "<b>Not removed:</b> a negative scale (inverted contrast), gamma and other curves, {} "
        "smooth bias field across the image, another protocol or contrast, another resolution, "
        "noise and artefacts. Where a hospital differs in these, it can be served worse although "
        "its curve above lies on the others.",
        plan.n4.has_value() ? "what N4 leaves of a" : "a"));
  }
  if (study.network.norm == NetworkPlan::Norm::kBatch) {
    item(
        "<b>Batch normalisation:</b> its running mean and variance are averaged like weights. The "
        "mean of the hospitals' variances is not the variance of all their data: what lies "
        "between the hospitals is missing, and no single pair of numbers fits hospitals of "
        "different scale.");
  }
  if (!study.network.local_layers.empty()) {
    item(fmt::format(
        "<b>A model each:</b> the layers called {} stay at each hospital. What is scored here is "
        "the shared rest with each hospital's own layers; the model on the server cannot be used "
        "without them, and there is none for a hospital that took no part.",
        EscapeMarkup(Joined(study.network.local_layers))));
  }
  item(
      fmt::format("<b>How sure:</b> an interval says what the mean of many more such cases may "
                  "be. It knows only failures that these cases contain: with fewer than 30 of "
                  "them, and a model that fails completely in one of ten or twenty, it misses the "
                  "true mean far more often than one time in 20. With fewer than {} held-out "
                  "cases a mean says little.",
                  kFewestCasesToConclude));
  item(
      "<b>Why:</b> differences between hospitals also come from their patients, not only from "
      "their scanners.");
  item(
      "<b>Dice only:</b> it measures overlap with one reference drawing. It is low for small "
      "structures by nature, and says nothing about the distance of outlines or the volume that "
      "a clinician would read off.");
  item(
      "<b>Whose numbers:</b> each hospital scores the model on its own cases and reports the "
      "result. The server never sees a scan and cannot check them.");
  return fmt::format(
      "<section>\n<h2>What this report cannot say</h2>\n<ul class=\"limits\">\n{}</ul>\n"
      "</section>\n",
      items);
}

std::string ProvenanceSection(const ReportContent& content) {
  const StudyRecord& record = content.record;
  const Study& study = record.study;
  std::string rows;
  const auto row = [&rows](std::string_view term, const std::string& text, bool code = false) {
    if (text.empty()) return;
    const std::string escaped = EscapeMarkup(text);
    rows += fmt::format("<dt>{}</dt><dd>{}</dd>\n", term,
                        code ? fmt::format("<code>{}</code>", escaped) : escaped);
  };
  row("Study digest (SHA-256)", study.digest, true);
  const auto last_model =
      std::find_if(record.rounds.rbegin(), record.rounds.rend(),
                   [](const RoundRecord& round) { return !round.model_digest.empty(); });
  if (last_model != record.rounds.rend()) {
    row(fmt::format("Model after round {} (SHA-256)", last_model->round), last_model->model_digest,
        true);
  }
  if (record.model_bytes > 0) row("Size of the model", FormatBytes(record.model_bytes));
  row("Channels", Joined(study.channels));
  row("Labels", Joined(study.labels));
  row("Held out", HeldOutInWords(study.held_out));
  row("Harmonisation", InWords(study.harmonization));
  row("Network", NetworkInWords(study.network));
  row("Stays at each hospital", Joined(study.network.local_layers));
  row("Training", fmt::format("{} per round and hospital, batches of {}",
                              study.training.passes_per_round > 0
                                  ? fmt::format("{} passes over its own cases",
                                                FormatTick(study.training.passes_per_round))
                                  : FormatCount(study.training.steps_per_round, "step"),
                              study.training.batch_size));
  row("Aggregation", StrategyInWords(study.rounds.strategy));
  if (study.rounds.sites_per_round > 0) {
    row("A round asks", fmt::format("{}, drawn by the seed",
                                    FormatCount(study.rounds.sites_per_round, "hospital")));
  }
  row("A round needs",
      QuorumInWords(study.rounds.quorum) + (study.rounds.sites_per_round > 0 ? " of these" : ""));
  row("Seed", std::to_string(study.seed));
  row("Created", FormatTime(record.created));
  if (record.ended != Time{}) row("Ended", FormatTime(record.ended));
  row("Software", record.software_version.empty() ? "" : "Isoscan " + record.software_version);
  std::string text;
  if (!study.toml.empty()) {
    text = fmt::format(
        "<details><summary>The study as the hospitals approved "
        "it</summary><pre>{}</pre></details>\n",
        EscapeMarkup(study.toml));
  }
  return fmt::format("<section>\n<h2>Provenance</h2>\n<dl>\n{}</dl>\n{}</section>\n", rows, text);
}

}  // namespace isoscan
