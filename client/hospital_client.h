#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "client/client_config.h"
#include "client/federation/federation_session.h"
#include "client/training/trainer.h"

namespace isoscan {

/// What a study's work needs of the device. client/commands/run.cc has the real one (Trainer); the
/// seam lets the loop below be tested without LibTorch.
class StudyTrainer {
 public:
  virtual ~StudyTrainer() = default;

  /// As Trainer::Train.
  virtual absl::StatusOr<TrainingResult> Train(const NamedTensors& weights,
                                               std::span<const PreparedCase> cases,
                                               const TrainingTask& task, std::stop_token stop,
                                               const StepObserver& observe) = 0;
  /// As Trainer::Predict.
  virtual absl::StatusOr<LabelMap> Predict(const NamedTensors& weights,
                                           const PreparedCase& prepared) = 0;
  virtual std::string device_name() const = 0;
  /// Memory of this machine (not of a GPU) that training takes beside the cases, in bytes.
  virtual std::int64_t memory_bytes() const = 0;
};

using TrainerFactory =
    std::function<absl::StatusOr<std::unique_ptr<StudyTrainer>>(const Study& study)>;

/// A site's part in its studies: waits for assignments, works on those of studies whose very text
/// this site has approved, one at a time, and hands the results in.
///
///   train       download the global model, score it on held-out cases, train, upload, submit
///   score       download the final model, score it
///   local only  train alone from the initial weights as many steps as the study had, score
///
/// Work that the server no longer asks for is dropped within a training step. An update that is
/// trained and not yet accepted is kept in the state folder, so a client that was killed sends it
/// without training again.
class HospitalClient {
 public:
  /// `session` must outlive this object.
  HospitalClient(ClientConfig config, FederationSession& session, TrainerFactory make_trainer);
  ~HospitalClient();

  /// Works until `stop` (CANCELLED) or, with `until_ended`, until every approved study has ended
  /// (OK).
  ///
  /// Errors, all of which leave a state that the next run goes on from: FAILED_PRECONDITION another
  /// client runs on this state folder, nothing is approved (`until_ended`), the certificate is of
  /// another site, or no usable case is left; RESOURCE_EXHAUSTED memory or disk, with both numbers;
  /// PERMISSION_DENIED the site is suspended; ABORTED another client of this site; and those of
  /// FederationSession and Trainer.
  absl::Status Run(bool until_ended, std::stop_token stop);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace isoscan
