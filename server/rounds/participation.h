#pragma once

#include <map>
#include <string>
#include <vector>

#include "server/fairness/study_record.h"
#include "server/rounds/journal.h"
#include "server/rounds/round_rules.h"

namespace isoscan {

/// Who is in a round that closes now and with which weight, and who is not and why: every declared
/// site and every other one that takes part, by name. The weights (SiteWeights) sum to 1.
std::vector<ParticipationRecord> ParticipationOf(
    const RoundsPlan& plan, const RoundSituation& situation,
    const std::map<std::string, JournaledUpdate>& updates);

}  // namespace isoscan
