#pragma once

#include <chrono>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "common/clock/clock.h"
#include "common/study/study.h"

namespace isoscan {

/// One site's standing in the open round.
struct Standing {
  std::string site;
  bool declared = true;  ///< By the study, or by its approval before the start.
  bool approved = false;
  bool withdrawn = false;
  bool drawn = true;         ///< For this round; false where a round asks some of the sites only.
  bool contributed = false;  ///< Its update (or its final scores) is here.
  std::int64_t training_cases = 0;
  Time last_sign{};  ///< Of life: progress, upload, connection.

  bool takes_part() const { return approved && !withdrawn; }
  /// Asked: it may contribute to this round.
  bool asked() const { return takes_part() && drawn; }
  bool pending() const { return asked() && !contributed; }
};

/// The open round, as its rules see it. Plain data, so that every rule is a pure function.
struct RoundSituation {
  int round = 0;
  bool final_scores = false;  ///< The round after the last one: sites only score.
  Time since{};               ///< When it opened, or when a paused study went on.
  Time now{};
  std::vector<Standing> sites;  ///< By name.
};

/// Whom of `candidates` a round of training is to ask beside those that it asks `already`: all of
/// them where the plan has no sites_per_round; otherwise the quorum's required sites and, for the
/// places that are left, those with the lowest draws. A site's draw is a pure function of (seed,
/// round, name), so every set of sites is equally likely, a restart draws the same, and where one
/// leaves the next takes its place while all others stay. By name.
std::set<std::string> SitesToAsk(const RoundsPlan& plan, std::uint64_t seed, int round,
                                 const std::set<std::string>& already,
                                 const std::set<std::string>& candidates);

/// What a quorum still lacks, in words such as "the update of st-marys"; empty when it is complete.
/// No round without any update is ever complete, and none with fewer than the strategy needs.
/// `contribution` is the word for what sites bring.
std::string QuorumShortfall(const Quorum& quorum, const std::vector<Standing>& sites,
                            const std::string& contribution = "update");

/// True when the site is pending and gave no sign of life for `limit`.
bool IsSilent(const Standing& site, Time now, std::chrono::milliseconds limit);

bool IsPastDeadline(const RoundsPlan& plan, const RoundSituation& situation);

/// True when the round may close now:
///   training: the quorum is complete, and every other asked site is silent or the deadline has
///             passed;
///   final scores: every asked site has scored; or the others are silent and at least one has; or
///             the deadline has passed.
bool IsDue(const RoundsPlan& plan, const RoundSituation& situation);

/// Why the round has not closed, for people; empty while everyone who is awaited is at work.
std::string WaitingFor(const RoundsPlan& plan, const RoundSituation& situation);

/// "12:04 UTC".
std::string ClockWords(Time time);
/// "30 minutes", "24 hours".
std::string DurationWords(std::chrono::milliseconds duration);
/// "a", "a and b", "a, b and c".
std::string ListWords(const std::vector<std::string>& words);

}  // namespace isoscan
