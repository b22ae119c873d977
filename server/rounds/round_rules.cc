#include "server/rounds/round_rules.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/random/philox.h"

namespace isoscan {
namespace {

template <typename Predicate>
std::vector<std::string> NamesOf(const std::vector<Standing>& sites, Predicate predicate) {
  std::vector<std::string> names;
  for (const Standing& site : sites) {
    if (predicate(site)) names.push_back(site.site);
  }
  return names;
}

std::string ContributionsOf(const std::vector<std::string>& names, const std::string& word) {
  return fmt::format("the {}{} of {}", word, names.size() == 1 ? "" : "s", ListWords(names));
}

std::string AtLeastShortfall(const Quorum& quorum, const std::vector<Standing>& sites,
                             const std::string& word) {
  std::int64_t contributors = 0;
  std::int64_t cases = 0;
  std::int64_t all_cases = 0;
  for (const Standing& site : sites) {
    if (!site.asked()) continue;
    all_cases += site.training_cases;
    if (!site.contributed) continue;
    ++contributors;
    cases += site.training_cases;
  }
  std::vector<std::string> parts;
  if (contributors < quorum.minimum_sites) {
    parts.push_back(fmt::format("{}s of at least {} sites ({} so far)", word, quorum.minimum_sites,
                                contributors));
  }
  // A fraction such as 0.1 * 30 is a hair above 3 in binary; that hair is no case.
  const double needed = quorum.minimum_case_fraction * static_cast<double>(all_cases);
  if (static_cast<double>(cases) < needed - 1e-9 * static_cast<double>(all_cases)) {
    parts.push_back(fmt::format("{:.4g} % of the {} declared training cases ({} so far)",
                                100 * quorum.minimum_case_fraction, all_cases, cases));
  }
  std::vector<std::string> required;
  for (const std::string& name : quorum.required_sites) {
    const auto site = std::find_if(sites.begin(), sites.end(),
                                   [&](const Standing& other) { return other.site == name; });
    if (site != sites.end() && site->contributed && !site->withdrawn) continue;
    required.push_back(site == sites.end() || !site->approved ? name + " (has not approved)"
                       : site->withdrawn                      ? name + " (has withdrawn)"
                                                              : name);
  }
  if (!required.empty()) parts.push_back(ContributionsOf(required, word));
  return ListWords(parts);
}

}  // namespace

std::set<std::string> SitesToAsk(const RoundsPlan& plan, std::uint64_t seed, int round,
                                 const std::set<std::string>& already,
                                 const std::set<std::string>& candidates) {
  const std::vector<std::string>& required = plan.quorum.required_sites;
  std::set<std::string> chosen;
  std::vector<std::pair<std::uint64_t, std::string>> draws;
  for (const std::string& site : candidates) {
    if (already.contains(site)) continue;
    const bool needed =
        !plan.quorum.all && std::find(required.begin(), required.end(), site) != required.end();
    if (plan.sites_per_round == 0 || needed) {
      chosen.insert(site);
      continue;
    }
    RandomStream random(seed, "asked " + site, static_cast<std::uint64_t>(round));
    const std::uint64_t high = random.NextBits();
    draws.emplace_back(high << 32 | random.NextBits(), site);
  }
  std::sort(draws.begin(), draws.end());
  for (const auto& [draw, site] : draws) {
    if (static_cast<std::int64_t>(already.size() + chosen.size()) >= plan.sites_per_round) break;
    chosen.insert(site);
  }
  return chosen;
}

std::string QuorumShortfall(const Quorum& quorum, const std::vector<Standing>& sites,
                            const std::string& contribution) {
  std::string shortfall;
  if (quorum.all) {
    const std::vector<std::string> missing = NamesOf(sites, [](const Standing& site) {
      return site.declared && site.drawn && !site.withdrawn && !site.contributed;
    });
    if (!missing.empty()) shortfall = ContributionsOf(missing, contribution);
  } else {
    shortfall = AtLeastShortfall(quorum, sites, contribution);
  }
  const std::int64_t contributors =
      std::count_if(sites.begin(), sites.end(),
                    [](const Standing& site) { return site.asked() && site.contributed; });
  if (shortfall.empty() && contributors == 0) {
    shortfall = fmt::format("the {} of any site", contribution);
  }
  if (shortfall.empty() && contributors < quorum.fewest_updates) {
    shortfall = fmt::format("{}s of at least {} sites, which its aggregation asks for ({} so far)",
                            contribution, quorum.fewest_updates, contributors);
  }
  return shortfall;
}

bool IsSilent(const Standing& site, Time now, std::chrono::milliseconds limit) {
  return site.pending() && now >= site.last_sign + limit;
}

bool IsPastDeadline(const RoundsPlan& plan, const RoundSituation& situation) {
  return situation.now >= situation.since + plan.round_deadline;
}

bool IsDue(const RoundsPlan& plan, const RoundSituation& situation) {
  bool any_contributed = false;
  bool any_pending = false;
  bool any_at_work = false;
  for (const Standing& site : situation.sites) {
    any_contributed |= site.asked() && site.contributed;
    any_pending |= site.pending();
    any_at_work |= site.pending() && !IsSilent(site, situation.now, plan.no_progress_limit);
  }
  const bool past_deadline = IsPastDeadline(plan, situation);
  if (situation.final_scores) {
    return !any_pending || past_deadline || (!any_at_work && any_contributed);
  }
  return QuorumShortfall(plan.quorum, situation.sites).empty() && (!any_at_work || past_deadline);
}

std::string WaitingFor(const RoundsPlan& plan, const RoundSituation& situation) {
  if (IsDue(plan, situation)) return "";
  std::vector<std::string> silent;
  bool any_at_work = false;
  for (const Standing& site : situation.sites) {
    if (IsSilent(site, situation.now, plan.no_progress_limit)) {
      silent.push_back(fmt::format("{} (silent since {})", site.site, ClockWords(site.last_sign)));
    } else {
      any_at_work |= site.pending();
    }
  }
  if (situation.final_scores) {
    return silent.empty() ? "" : fmt::format("the final scores wait for {}", ListWords(silent));
  }

  const std::string shortfall = QuorumShortfall(plan.quorum, situation.sites);
  const bool past_deadline = IsPastDeadline(plan, situation);
  std::vector<std::string> parts;
  if (past_deadline) {
    parts.push_back(fmt::format("round {} is past its deadline of {}", situation.round,
                                DurationWords(plan.round_deadline)));
  }
  if (!silent.empty()) {
    parts.push_back(fmt::format("round {} waits for {}", situation.round, ListWords(silent)));
  }
  if (past_deadline || !any_at_work) {
    parts.push_back(fmt::format("round {} still needs {}", situation.round, shortfall));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

std::string ClockWords(Time time) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  return fmt::format("{:%H:%M} UTC",
                     fmt::gmtime(static_cast<std::time_t>(seconds.time_since_epoch().count())));
}

std::string DurationWords(std::chrono::milliseconds duration) {
  const auto words = [](double count, const char* unit) {
    return fmt::format("{:.3g} {}{}", count, unit, count == 1 ? "" : "s");
  };
  const double minutes = static_cast<double>(duration.count()) / 60e3;
  if (minutes >= 120) return words(minutes / 60, "hour");
  if (minutes >= 1) return words(minutes, "minute");
  return words(minutes * 60, "second");
}

std::string ListWords(const std::vector<std::string>& words) {
  if (words.size() < 2) return words.empty() ? "" : words.front();
  return fmt::format("{} and {}", fmt::join(words.begin(), words.end() - 1, ", "), words.back());
}

}  // namespace isoscan
