#pragma once

#include <memory>
#include <stop_token>

#include "absl/status/status.h"

#include "client/client_config.h"
#include "client/federation/federation_session.h"
#include "client/study_trainer.h"

namespace isoscan {

/// A site's part in its studies: waits for assignments and works on those of studies whose very
/// text this site has approved, one at a time (StudyWork). Work that the server no longer asks for
/// is dropped within a training step.
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
