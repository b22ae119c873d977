#include "tests/unit/server/fairness/example_study.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

namespace isoscan {
namespace {

constexpr double kNoDice = std::numeric_limits<double>::quiet_NaN();

struct ExampleSite {
  const char* name;
  std::int64_t training_cases;
  std::int64_t held_out_cases;
  double final_dice;
  double spread;
  double scale;
  double bias;
};

constexpr ExampleSite kSites[] = {
    {"case-western", 41, 11, 0.91, 0.03, 1.0, 0},
    {"henry-ford", 26, 7, 0.58, 0.17, 2.6, 40},
    {"st-joseph-hospital-and-medical-center-phoenix", 63, 16, 0.79, 0.1, 0.7, 10},
    {"thomas-jefferson", 38, 12, 0.84, 0.06, 1.7, 120},
    {"ucsf", 90, 23, 0.88, 0.05, 1.2, 15},
    {"duke", 77, 19, 0.82, 0.07, 0.9, 60},
    {"mayo", 120, 30, 0.89, 0.04, 1.4, 5},
    {"emory", 35, 9, 0.74, 0.12, 2.1, 80},
    {"unc", 52, 13, 0.80, 0.08, 1.1, 33},
    {"cedars-sinai", 68, 17, 0.86, 0.05, 0.6, 25},
    {"md-anderson", 140, 35, 0.90, 0.03, 1.9, 70},
    {"fondazione-neurologico-besta", 47, 12, 0.77, 0.09, 1.3, 95},
};

/// In [-1, 1): enough of a spread for an example, from no random generator.
double Wobble(int a, int b, int c) {
  const double x = std::sin(a * 12.9898 + b * 78.233 + c * 37.719) * 43758.5453;
  return 2 * (x - std::floor(x)) - 1;
}

double DiceAt(const ExampleSite& site, int index, int round, int rounds, int label) {
  const double learnt = 1 - std::exp(-3.5 * round / std::max(1, rounds));
  const double target = site.final_dice - 0.03 * label;
  const double own = Wobble(index, label, site.name[0]) * site.spread;
  const double noise = 0.015 * Wobble(index + round, label + 7, site.name[1]);
  const double dice = 0.04 + (target + own + noise - 0.04) * learnt;
  return std::clamp(dice, 0.0, 0.97);
}

ModelScoresRecord ScoresOf(const ExampleSite& site, int site_index, int round,
                           const ExampleShape& shape, double factor) {
  std::vector<std::vector<LabelScoreRecord>> cases;
  for (int i = 0; i < site.held_out_cases; ++i) {
    std::vector<LabelScoreRecord> labels;
    for (int label = 0; label < shape.labels; ++label) {
      labels.push_back(LabelScore(factor * DiceAt(site, i, round, shape.rounds, label)));
    }
    if (site_index == 1 && i == 2) labels[0] = Miss();
    if (site_index == 3 && i == 5) labels.back() = FalseAlarm();
    if (i == 4 && shape.labels > 1) labels[1] = BothEmpty();
    cases.push_back(std::move(labels));
  }
  return GlobalScores(site.name, round, std::move(cases));
}

/// Air, then two tissues, through a scanner's scale and bias.
HistogramRecord RawHistogram(double scale, double bias) {
  HistogramRecord histogram{.low = 0, .high = 1000, .counts = std::vector<std::int64_t>(100, 0)};
  for (int bin = 0; bin < 100; ++bin) {
    const double x = ((bin + 0.5) * 10 - bias) / scale;
    const double air = 60'000 * std::exp(-0.5 * std::pow(x / 9, 2));
    const double grey = 8'000 * std::exp(-0.5 * std::pow((x - 110) / 24, 2));
    const double white = 9'500 * std::exp(-0.5 * std::pow((x - 185) / 18, 2));
    histogram.counts[static_cast<std::size_t>(bin)] = std::llround((air + grey + white) / scale);
  }
  return histogram;
}

HistogramRecord HarmonizedHistogram(int site) {
  HistogramRecord histogram{.low = -4, .high = 6, .counts = std::vector<std::int64_t>(100, 0)};
  for (int bin = 0; bin < 100; ++bin) {
    const double x = -4 + (bin + 0.5) * 0.1;
    const double shift = site == 1 ? 0.18 : 0.02 * site;
    const double air = 30'000 * std::exp(-0.5 * std::pow((x + 0.75) / 0.11, 2));
    const double grey = 8'000 * std::exp(-0.5 * std::pow((x - 0.6 - shift) / 0.3, 2));
    const double white = 9'500 * std::exp(-0.5 * std::pow((x - 1.6 - shift) / 0.22, 2));
    histogram.counts[static_cast<std::size_t>(bin)] = std::llround(air + grey + white);
  }
  return histogram;
}

RoundRecord ExampleRound(int round, int sites, Time start) {
  RoundRecord record;
  record.round = round;
  record.opened = start + std::chrono::seconds(200) * (round - 1);
  record.closed = record.opened + std::chrono::milliseconds(188'400);
  record.model_digest =
      fmt::format("{:064x}", 0x9e3779b97f4a7c15ULL * static_cast<unsigned>(round));
  record.seconds_aggregating = 0.34;
  double total = 0;
  for (int i = 0; i < sites; ++i) total += static_cast<double>(kSites[i].training_cases);
  for (int i = 0; i < sites; ++i) {
    ParticipationRecord part;
    part.site = kSites[i].name;
    if (i == 1 && (round == 4 || round == 5)) {
      part.outcome = ParticipationRecord::Outcome::kLeftOut;
      part.reason = "no progress for 30 minutes";
    } else {
      part.training_cases = kSites[i].training_cases;
      part.weight = static_cast<double>(part.training_cases) / total;
      part.mean_loss = 1.2 / round;
      part.seconds_training = 130 + 12 * i % 41;
      part.seconds_scoring = 9 + 2.5 * (i % 4);
    }
    record.sites.push_back(std::move(part));
  }
  return record;
}

/// Curves that fall with the distance from the neutral amount, faster at smaller hospitals.
InvarianceCertificate ExampleCertificate(const ExampleSite& site) {
  InvarianceCertificate certificate{.cases = site.held_out_cases,
                                    .largest_logit_change = 1e-6 * site.scale,
                                    .scale = 1e-5,
                                    .bias = 100,
                                    .voxels_changed = site.held_out_cases / 10,
                                    .voxels_compared = 2'500'000 * site.held_out_cases};
  for (const PerturbationFacts& facts : PerturbationTable()) {
    DegradationCurve& curve = certificate.curves.emplace_back();
    curve.perturbation = facts.perturbation;
    const double span = facts.amounts.back() - facts.amounts.front();
    for (const double amount : facts.amounts) {
      const double distance = std::abs(amount - facts.neutral) / span;
      curve.points.push_back({.amount = amount,
                              .cases = site.held_out_cases,
                              .flipped = 0.6 * distance * (1 - 0.3 * site.final_dice),
                              .dice = site.final_dice * (1 - site.spread * 5 * distance)});
    }
  }
  return certificate;
}

}  // namespace

LabelScoreRecord LabelScore(double dice) {
  const std::int64_t common = std::llround(1000 * dice);
  return {
      .dice = dice, .reference_voxels = 1000, .predicted_voxels = 1000, .common_voxels = common};
}

LabelScoreRecord BothEmpty() {
  return {.dice = kNoDice, .reference_voxels = 0, .predicted_voxels = 0, .common_voxels = 0};
}

LabelScoreRecord Miss() {
  return {.dice = 0, .reference_voxels = 1000, .predicted_voxels = 0, .common_voxels = 0};
}

LabelScoreRecord FalseAlarm() {
  return {.dice = 0, .reference_voxels = 0, .predicted_voxels = 25, .common_voxels = 0};
}

ModelScoresRecord GlobalScores(const std::string& site, int round,
                               std::vector<std::vector<LabelScoreRecord>> cases) {
  ModelScoresRecord scores;
  scores.after_round = round;
  scores.site = site;
  int index = 0;
  for (std::vector<LabelScoreRecord>& labels : cases) {
    scores.cases.push_back({.case_index = index++, .cohort = "", .labels = std::move(labels)});
  }
  return scores;
}

ModelScoresRecord LocalOnlyScores(const std::string& site,
                                  std::vector<std::vector<LabelScoreRecord>> cases) {
  ModelScoresRecord scores = GlobalScores(site, 0, std::move(cases));
  scores.model = ModelScoresRecord::Model::kLocalOnly;
  return scores;
}

StudyRecord ExampleStudy(const ExampleShape& shape) {
  static const std::vector<std::string> names{
      "caudate",     "putamen",  "thalamus",  "pallidum",
      "hippocampus", "amygdala", "accumbens", "ventral-diencephalon"};
  StudyRecord record;
  record.study.name = "deep-grey-matter";
  record.study.description =
      "Deep grey matter on T1-weighted scans of hospitals whose scanners "
      "differ by scale and bias.";
  record.study.channels = {"T1w"};
  record.study.labels.assign(names.begin(), names.begin() + shape.labels);
  record.study.rounds.rounds = shape.rounds;
  record.study.toml = "name = \"deep-grey-matter\"\nseed = 1\n";
  record.study.digest = "4f1d2c8e9b7a60315f4e3d2c1b0a99887766554433221100ffeeddccbbaa9988";
  record.finished = true;
  record.created = Time{std::chrono::milliseconds(1'767'600'000'000)};
  record.ended = record.created + std::chrono::seconds(200) * (shape.rounds + 1);
  record.model_bytes = 12'345'678;
  record.software_version = "0.1.0";
  for (int i = 0; i < shape.sites; ++i) {
    const ExampleSite& site = kSites[i];
    SiteRecord declared;
    declared.name = site.name;
    declared.training_cases = site.training_cases;
    declared.held_out_cases = site.held_out_cases;
    declared.refused_cases = i == 2 ? 1 : 0;
    declared.raw = RawHistogram(site.scale, site.bias);
    declared.harmonized = HarmonizedHistogram(i);
    record.sites.push_back(std::move(declared));
    for (int round = 0; round <= shape.rounds; ++round) {
      record.scores.push_back(ScoresOf(site, i, round, shape, 1));
    }
    // The second hospital sent none.
    if (i != 1) record.scores.back().certificate = ExampleCertificate(site);
    if (shape.local_only) {
      record.scores.push_back(ScoresOf(site, i, shape.rounds, shape, i == 1 ? 1.04 : 0.93));
      record.scores.back().model = ModelScoresRecord::Model::kLocalOnly;
    }
    if (shape.personal) {
      record.scores.push_back(ScoresOf(site, i, shape.rounds, shape, 1.02));
      record.scores.back().model = ModelScoresRecord::Model::kPersonal;
    }
  }
  for (int round = 1; round <= shape.rounds; ++round) {
    record.rounds.push_back(ExampleRound(round, shape.sites, record.created));
  }
  return record;
}

}  // namespace isoscan
