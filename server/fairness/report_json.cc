#include "server/fairness/report_json.h"

#include <nlohmann/json.hpp>

#include <chrono>
#include <utility>

#include "common/invariance/certificate_json.h"
#include "common/json/numbers.h"

namespace isoscan {
namespace {

// Keys in the order in which they were written, which is the order in which people read them.
using Json = nlohmann::ordered_json;

/// Seconds since the Unix epoch; null for what has not happened.
Json TimeOrNull(Time time) {
  if (time == Time{}) return nullptr;
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

Json ToJson(const Distribution& distribution) {
  return {{"n", distribution.n},
          {"mean", NumberOrNull(distribution.mean)},
          {"median", NumberOrNull(distribution.median)},
          {"lower_quartile", NumberOrNull(distribution.lower_quartile)},
          {"upper_quartile", NumberOrNull(distribution.upper_quartile)},
          {"lowest", NumberOrNull(distribution.lowest)},
          {"highest", NumberOrNull(distribution.highest)}};
}

Json ToJson(const std::optional<Interval>& interval) {
  if (!interval) return nullptr;
  return {{"low", NumberOrNull(interval->low)},
          {"high", NumberOrNull(interval->high)},
          {"level", interval->level},
          {"method", WordsFor(interval->method)}};
}

Json ToJson(const Spread& spread) {
  return {{"observed", NumberOrNull(spread.observed)},
          {"interval", ToJson(std::optional(spread.interval))}};
}

Json ToJson(const StudyCertainty& certainty) {
  Json json = {{"sites_without_interval", certainty.without_spread}};
  if (!certainty.spread) return json;
  const SpreadOverSites& spread = *certainty.spread;
  json["gap"] = ToJson(spread.gap);
  json["standard_deviation"] = ToJson(spread.sd);
  json["jain_on_error"] = spread.jain_on_error ? ToJson(*spread.jain_on_error) : Json(nullptr);
  json["p_equal"] = spread.p_equal;
  json["smallest_gap"] = spread.smallest_gap;
  return json;
}

Json VerdictJson(const SiteCertainty& certainty) {
  if (!certainty.joining) return nullptr;
  const Comparison& joining = *certainty.joining;
  return {{"verdict", WordsFor(certainty.verdict)}, {"margin", kMargin},
          {"interval", ToJson(joining.interval)},   {"p_better", joining.p_better},
          {"p_not_worse", joining.p_not_worse},     {"p_harmed", joining.p_harmed}};
}

Json ToJson(const std::vector<CaseStatistics>& cases) {
  Json list = Json::array();
  for (const CaseStatistics& scored : cases) {
    Json entry = {{"case", scored.case_index}, {"dice", NumberOrNull(scored.dice)}};
    if (!scored.cohort.empty()) entry["cohort"] = scored.cohort;
    list.push_back(std::move(entry));
  }
  return list;
}

/// `model` may be nullptr: the same keys, and null for every number.
Json ToJson(const ModelStatistics* model, const std::vector<std::string>& labels) {
  static const ModelStatistics none;
  const ModelStatistics& statistics = model != nullptr ? *model : none;
  const auto count = [model](std::int64_t value) {
    return model != nullptr ? Json(value) : Json(nullptr);
  };
  Json list = Json::array();
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const LabelStatistics label = model != nullptr ? model->labels[i] : LabelStatistics{};
    list.push_back({{"name", labels[i]},
                    {"dice", ToJson(label.dice)},
                    {"misses", count(label.misses)},
                    {"false_alarms", count(label.false_alarms)},
                    {"both_empty", count(label.both_empty)},
                    {"unusable", count(label.unusable)}});
  }
  return {{"dice", ToJson(statistics.dice)},
          {"labels", std::move(list)},
          {"misses", count(statistics.misses)},
          {"false_alarms", count(statistics.false_alarms)},
          {"unscored_cases", count(statistics.unscored_cases)},
          {"lowest_cases", ToJson(statistics.lowest)},
          {"cases", ToJson(statistics.cases)}};
}

const ModelStatistics* PointerTo(const std::optional<ModelStatistics>& model) {
  return model ? &*model : nullptr;
}

Json ToJson(const InvarianceCertificate& certificate) {
  Json json = {{"cases", certificate.cases}};
  json.update(InvarianceJson(certificate));
  json["curves"] = CurvesJson(certificate);
  return json;
}

Json ToJson(const SiteStatistics& site, const std::vector<std::string>& labels) {
  Json json = {{"name", site.site.name},
               {"training_cases", site.site.training_cases},
               {"held_out_cases", site.site.held_out_cases},
               {"refused_cases", site.site.refused_cases},
               {"too_few_cases", site.too_few},
               {"withdrawn", site.site.withdrawn}};
  json.update(ToJson(PointerTo(site.after), labels));
  json["interval"] = ToJson(site.certainty.mean);
  json["median_interval"] = ToJson(site.certainty.median);
  json["before"] = ToJson(PointerTo(site.before), labels);
  const double before = site.before ? site.before->dice.mean : kNoScore;
  json["change"] = NumberOrNull((site.after ? site.after->dice.mean : kNoScore) - before);
  json["certificate"] = site.certificate ? ToJson(*site.certificate) : Json(nullptr);
  json["local_only"] = nullptr;
  if (site.local_only) {
    json["local_only"] = ToJson(PointerTo(site.local_only), labels);
    const PairedDifference joining = site.joining.value_or(PairedDifference{});
    json["local_only"]["federated_minus_alone"] = ToJson(joining.difference);
    json["local_only"]["cases_better_federated"] = joining.better;
    json["local_only"]["cases_worse_federated"] = joining.worse;
    json["local_only"]["joining"] = VerdictJson(site.certainty);
  }
  json["personal"] = nullptr;
  if (site.personal) {
    json["personal"] = ToJson(PointerTo(site.personal), labels);
    const PairedDifference owning = site.owning.value_or(PairedDifference{});
    json["personal"]["personal_minus_federated"] = ToJson(owning.difference);
    json["personal"]["cases_better_personal"] = owning.better;
    json["personal"]["cases_worse_personal"] = owning.worse;
  }
  json["rounds"] = Json::array();
  for (std::size_t round = 1; round < site.mean_by_round.size(); ++round) {
    json["rounds"].push_back(NumberOrNull(site.mean_by_round[round]));
  }
  json["contributed_rounds"] = site.contributed_rounds;
  json["seconds"] = {{"training", NumberOrNull(site.time.training)},
                     {"scoring", NumberOrNull(site.time.scoring)},
                     {"aggregating", NumberOrNull(site.time.aggregating)},
                     {"waiting_and_transfer", NumberOrNull(site.time.waiting)}};
  return json;
}

/// Digest of the global model that came out of `round`.
std::string ModelDigest(const StudyRecord& record, int round) {
  for (const RoundRecord& closed : record.rounds) {
    if (closed.round == round) return closed.model_digest;
  }
  return record.initial_model_digest;
}

Json BestModelOf(const StudyRecord& record, const ModelRanking& ranking) {
  const JudgedModel* const best = ranking.best();
  if (best == nullptr) return nullptr;
  Json models = Json::array();
  for (const JudgedModel& model : ranking.models) {
    models.push_back({{"round", model.round}, {"score", model.score}});
  }
  return {{"round", best->round},
          {"digest", ModelDigest(record, best->round)},
          {"by", ToString(record.study.rounds.best_by)},
          {"score", best->score},
          {"judges", ranking.judges},
          {"models", std::move(models)}};
}

Json ToJson(const RoundRecord& round) {
  Json sites = Json::array();
  for (const ParticipationRecord& part : round.sites) {
    using Outcome = ParticipationRecord::Outcome;
    sites.push_back({{"site", part.site},
                     {"declared", part.declared},
                     {"outcome", part.outcome == Outcome::kContributed ? "contributed"
                                 : part.outcome == Outcome::kLeftOut   ? "left out"
                                                                       : "not asked"},
                     {"reason", part.reason},
                     {"training_cases", part.training_cases},
                     {"weight", NumberOrNull(part.weight)},
                     {"mean_loss", NumberOrNull(part.mean_loss)},
                     {"seconds_training", NumberOrNull(part.seconds_training)},
                     {"seconds_scoring", NumberOrNull(part.seconds_scoring)}});
  }
  return {
      {"round", round.round},
      {"opened", TimeOrNull(round.opened)},
      {"closed", TimeOrNull(round.closed)},
      {"model_digest", round.model_digest},
      {"seconds_aggregating", NumberOrNull(round.seconds_aggregating)},
      {"ends_training", round.ends_training.empty() ? Json(nullptr) : Json(round.ends_training)},
      {"sites", std::move(sites)}};
}

Json ToJson(const HistogramRecord& histogram) {
  return {{"low", NumberOrNull(histogram.low)},
          {"high", NumberOrNull(histogram.high)},
          {"counts", histogram.counts}};
}

Json ProvenanceOf(const StudyRecord& record) {
  std::string model_digest;
  for (const RoundRecord& round : record.rounds) {
    if (!round.model_digest.empty()) model_digest = round.model_digest;
  }
  return {{"study_digest", record.study.digest}, {"model_digest", model_digest},
          {"model_bytes", record.model_bytes},   {"created", TimeOrNull(record.created)},
          {"ended", TimeOrNull(record.ended)},   {"study_toml", record.study.toml}};
}

}  // namespace

std::string RenderJson(const ReportContent& content) {
  const StudyRecord& record = content.record;
  const StudyStatistics& study = content.statistics;
  const auto name_of = [&study](const std::optional<std::size_t>& site) -> Json {
    return site ? Json(study.sites[*site].site.name) : Json(nullptr);
  };

  Json json = {{"report_version", 2},
               {"study", record.study.name},
               {"description", record.study.description},
               {"digest", record.study.digest},
               {"software_version", record.software_version},
               {"finished", record.finished},
               {"rounds", study.rounds},
               {"rounds_planned", record.study.rounds.rounds},
               {"scored_round", study.scored_round ? Json(*study.scored_round) : Json(nullptr)},
               {"held_out_cases_scored", study.cases},
               {"mean_dice", NumberOrNull(study.mean_over_cases)},
               {"mean_dice_over_sites", NumberOrNull(study.mean_over_sites)},
               {"best_site", name_of(study.best)},
               {"worst_site", name_of(study.worst)},
               {"gap", NumberOrNull(study.gap)},
               {"between_sites", ToJson(study.certainty)},
               {"best_model", BestModelOf(record, study.ranking)}};
  json["sites"] = Json::array();
  json["histograms"] = Json::array();
  for (const SiteStatistics& site : study.sites) {
    json["sites"].push_back(ToJson(site, record.study.labels));
    json["histograms"].push_back({{"site", site.site.name},
                                  {"raw", ToJson(site.site.raw)},
                                  {"harmonized", ToJson(site.site.harmonized)}});
  }
  json["participation"] = Json::array();
  for (const RoundRecord& round : record.rounds) json["participation"].push_back(ToJson(round));
  json["seconds"] = {{"rounds", NumberOrNull(study.seconds)},
                     {"aggregating", NumberOrNull(study.seconds_aggregating)}};
  json["provenance"] = ProvenanceOf(record);
  // A name that is not UTF-8 must not cost the whole report: its bytes become U+FFFD.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace isoscan
