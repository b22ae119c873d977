#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/rounds/journal.h"

namespace isoscan {

/// A journal that works until `failure` is set, and answers it to everything then.
class FailingJournal final : public Journal {
 public:
  explicit FailingJournal(Journal& journal) : journal_(journal) {}

  absl::Status failure;

  absl::StatusOr<std::vector<JournaledStudy>> Studies() const override {
    return failure.ok() ? journal_.Studies() : failure;
  }
  absl::StatusOr<std::vector<RoundRecord>> ClosedRounds(const std::string& study) const override {
    return failure.ok() ? journal_.ClosedRounds(study) : failure;
  }
  absl::StatusOr<std::vector<ModelScoresRecord>> Scores(const std::string& study) const override {
    return failure.ok() ? journal_.Scores(study) : failure;
  }
  absl::StatusOr<std::vector<ModelScoresRecord>> GlobalScores(const std::string& study,
                                                              int first_round) const override {
    return failure.ok() ? journal_.GlobalScores(study, first_round) : failure;
  }
  absl::StatusOr<std::optional<std::string>> TakenWeights(const std::string& study, int round,
                                                          const std::string& site) const override {
    return failure.ok() ? journal_.TakenWeights(study, round, site) : failure;
  }
  absl::Status CreateStudy(const Study& study, const GlobalModelRecord& initial,
                           Time now) override {
    return failure.ok() ? journal_.CreateStudy(study, initial, now) : failure;
  }
  absl::Status PlanStudy(const Study& planned, const GlobalModelRecord& initial,
                         Time now) override {
    return failure.ok() ? journal_.PlanStudy(planned, initial, now) : failure;
  }
  absl::Status StartStudy(const std::string& study, const std::vector<double>& standard,
                          const std::set<std::string>& asked, Time now) override {
    return failure.ok() ? journal_.StartStudy(study, standard, asked, now) : failure;
  }
  absl::Status SetPhase(const std::string& study, StudyPhase phase, Time now) override {
    return failure.ok() ? journal_.SetPhase(study, phase, now) : failure;
  }
  absl::Status FinishStudy(const std::string& study, Time now) override {
    return failure.ok() ? journal_.FinishStudy(study, now) : failure;
  }
  absl::Status Approve(const std::string& study, const SiteRecord& cohort,
                       const AskedSites& also_asked, Time now) override {
    return failure.ok() ? journal_.Approve(study, cohort, also_asked, now) : failure;
  }
  absl::Status Withdraw(const std::string& study, const std::string& site,
                        const AskedSites& also_asked) override {
    return failure.ok() ? journal_.Withdraw(study, site, also_asked) : failure;
  }
  absl::Status TakeUpdate(const std::string& site, const SiteUpdate& update, Time now) override {
    return failure.ok() ? journal_.TakeUpdate(site, update, now) : failure;
  }
  absl::Status DropUpdate(const std::string& study, int round, const std::string& site) override {
    return failure.ok() ? journal_.DropUpdate(study, round, site) : failure;
  }
  absl::Status TakeScores(const std::string& study, const ModelScoresRecord& scores) override {
    return failure.ok() ? journal_.TakeScores(study, scores) : failure;
  }
  absl::Status CloseRound(const std::string& study, const ClosedRound& round,
                          const std::set<std::string>& asked) override {
    return failure.ok() ? journal_.CloseRound(study, round, asked) : failure;
  }

 private:
  Journal& journal_;
};

}  // namespace isoscan
