#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <map>
#include <set>
#include <string>

#include "client/cohort/cohort.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

const std::string& PatientOf(const CaseFiles& files) {
  return files.patient.empty() ? files.name : files.patient;
}

/// SHA-256 of a text as a fraction of 1, in [0, 1): its first 52 bits.
double FractionOf(const std::string& text) {
  constexpr std::size_t kDigits = 13;
  return std::stod("0x0." + Sha256Of(text).substr(0, kDigits));
}

std::vector<bool> HeldOutByHash(const std::vector<CaseFiles>& cases, double fraction) {
  std::vector<bool> held_out;
  for (const CaseFiles& files : cases) {
    const double place =
        files.patient_fraction.has_value() ? *files.patient_fraction : FractionOf(PatientOf(files));
    held_out.push_back(place < fraction);
  }
  return held_out;
}

std::vector<bool> HeldOutByCount(const std::vector<CaseFiles>& cases, std::int64_t every) {
  std::map<std::string, std::set<std::string>> patients;
  for (const CaseFiles& files : cases) patients[files.cohort].insert(PatientOf(files));
  std::vector<bool> held_out;
  for (const CaseFiles& files : cases) {
    const std::set<std::string>& cohort = patients[files.cohort];
    const auto place = std::distance(cohort.begin(), cohort.find(PatientOf(files)));
    held_out.push_back(place % every == 0);
  }
  return held_out;
}

absl::StatusOr<std::vector<bool>> HeldOutByList(const std::vector<CaseFiles>& cases,
                                                const std::vector<std::string>& listed) {
  std::vector<bool> held_out(cases.size(), false);
  std::set<std::string> patients;
  for (const std::string& name : listed) {
    bool found = false;
    for (std::size_t i = 0; i < cases.size(); ++i) {
      if (name != cases[i].name && name != cases[i].cohort + "/" + cases[i].name) continue;
      held_out[i] = true;
      found = true;
      patients.insert(cases[i].cohort + "/" + PatientOf(cases[i]));
    }
    if (found) continue;
    return absl::InvalidArgumentError(fmt::format(
        "[held_out] names the case \"{}\", which is none of this site's {} cases: correct it in "
        "client.toml",
        name, cases.size()));
  }
  for (std::size_t i = 0; i < cases.size(); ++i) {
    if (held_out[i] || !patients.contains(cases[i].cohort + "/" + PatientOf(cases[i]))) continue;
    return absl::InvalidArgumentError(fmt::format(
        "[held_out] names some cases of a patient but not \"{}\": a model must not be scored on a "
        "patient that it was trained on; list all of them in client.toml",
        cases[i].name));
  }
  return held_out;
}

std::string RuleText(const HeldOutRule& rule) {
  switch (rule.kind) {
    case HeldOutRule::Kind::kHash:
      return fmt::format("rule = \"hash\", fraction = {}", rule.fraction);
    case HeldOutRule::Kind::kEvery:
      return fmt::format("rule = \"every\", every = {}", rule.every);
    case HeldOutRule::Kind::kList:
      break;
  }
  return "rule = \"list\"";
}

}  // namespace

absl::StatusOr<std::vector<bool>> HeldOut(const std::vector<CaseFiles>& cases,
                                          const HeldOutRule& rule,
                                          const std::vector<std::string>& listed) {
  std::vector<bool> held_out;
  switch (rule.kind) {
    case HeldOutRule::Kind::kHash:
      held_out = HeldOutByHash(cases, rule.fraction);
      break;
    case HeldOutRule::Kind::kEvery:
      held_out = HeldOutByCount(cases, rule.every);
      break;
    case HeldOutRule::Kind::kList: {
      absl::StatusOr<std::vector<bool>> by_list = HeldOutByList(cases, listed);
      if (!by_list.ok()) return by_list.status();
      held_out = *std::move(by_list);
      break;
    }
  }
  if (cases.size() == 1) {
    return absl::InvalidArgumentError(
        "this site has one case, and two are the fewest: one to train on and one that is held out; "
        "add cases");
  }
  const auto count = std::count(held_out.begin(), held_out.end(), true);
  if (count == 0 || count == static_cast<std::ptrdiff_t>(held_out.size())) {
    return absl::InvalidArgumentError(fmt::format(
        "the study's held-out rule ({}) holds out {} of this site's {} cases, and both "
        "sides need at least one: add cases, or let the study use rule = \"every\" or \"list\"",
        RuleText(rule), count, cases.size()));
  }
  return held_out;
}

}  // namespace isoscan
