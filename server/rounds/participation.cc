#include "server/rounds/participation.h"

#include <fmt/format.h>

#include "server/aggregation/federated_average.h"

namespace isoscan {
namespace {

std::string WhyLeftOut(const RoundsPlan& plan, const RoundSituation& situation,
                       const Standing& site) {
  if (!site.approved) return "had not approved the study";
  if (site.withdrawn) return "has withdrawn from the study";
  if (!site.drawn) return "not drawn for this round";
  if (IsSilent(site, situation.now, plan.no_progress_limit)) {
    return fmt::format("no progress for {}, silent since {}", DurationWords(plan.no_progress_limit),
                       ClockWords(site.last_sign));
  }
  return fmt::format("no update by the deadline of {}", DurationWords(plan.round_deadline));
}

}  // namespace

std::vector<ParticipationRecord> ParticipationOf(
    const RoundsPlan& plan, const RoundSituation& situation,
    const std::map<std::string, JournaledUpdate>& updates) {
  std::vector<ParticipationRecord> participation;
  std::vector<std::int64_t> cases;
  for (const Standing& site : situation.sites) {
    if (!site.declared && !site.takes_part()) continue;
    ParticipationRecord& record = participation.emplace_back();
    record.site = site.site;
    record.declared = site.declared;
    const auto update = updates.find(site.site);
    if (update == updates.end()) {
      record.outcome = site.approved && site.drawn ? ParticipationRecord::Outcome::kLeftOut
                                                   : ParticipationRecord::Outcome::kNotAsked;
      record.reason = WhyLeftOut(plan, situation, site);
      continue;
    }
    record.training_cases = update->second.training_cases;
    record.mean_loss = update->second.mean_loss;
    record.seconds_training = update->second.seconds_training;
    record.seconds_scoring = update->second.seconds_scoring;
    cases.push_back(record.training_cases);
  }
  const std::vector<double> weights = SiteWeights(cases, plan.maximum_site_weight);
  auto weight = weights.begin();
  for (ParticipationRecord& record : participation) {
    if (record.outcome == ParticipationRecord::Outcome::kContributed) record.weight = *weight++;
  }
  return participation;
}

}  // namespace isoscan
