// A hospital's client without LibTorch, for tests of what surrounds the training: the real client
// (HospitalClient, its session over mutual TLS, its files), a trainer that only calculates. It
// takes the place of isoscan-client, and of its commands what LocalFederation and the tests call:
//
//   isoscan-client enrol INVITATION --folder FOLDER
//   isoscan-client --config FILE approve|withdraw STUDY
//   isoscan-client --config FILE run
//
// Two runs give the same weights, bit for bit, whatever the machine and the number of threads.

#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/approved_studies.h"
#include "client/federation/channel.h"
#include "client/federation/enrolment.h"
#include "client/federation/grpc_federation_session.h"
#include "client/hospital_client.h"
#include "client/state_folder.h"
#include "client/study_cohort.h"
#include "common/log/log.h"
#include "common/process/exit_code.h"
#include "common/process/interrupt.h"
#include "common/status/status_macros.h"
#include "common/tls/credentials.h"
#include "common/tls/keys.h"
#include "common/transfer/chunks.h"
#include "common/weights/sha256.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

/// Halves every weight and adds a number that depends on site and round: each model depends on all
/// those before it, and on every site.
class CalculatingTrainer final : public StudyTrainer {
 public:
  absl::StatusOr<TrainingResult> Train(const NamedTensors& weights,
                                       std::span<const PreparedCase> /*cases*/,
                                       const TrainingTask& task, std::stop_token stop,
                                       const StepObserver& observe) override {
    const std::string seed = Sha256Of(fmt::format("{} {}", task.random_stream, task.round));
    float shift = 0;
    for (const char digit : seed) shift = shift / 16 + static_cast<float>(digit);
    shift /= 1024;
    TrainingResult result{.weights = weights, .mean_loss = shift, .steps = task.steps};
    if (task.loss_steps > 0) result.loss_before = 1 + shift;
    for (auto& [name, tensor] : result.weights) {
      std::uint32_t place = 0;
      for (float& value : tensor.values) {
        value = value / 2 + shift * static_cast<float>(++place % 251);
      }
    }
    for (std::int64_t step = 0; step < task.steps; ++step) {
      if (stop.stop_requested()) return absl::CancelledError("interrupted");
      observe(task.first_step + step, shift);
    }
    return result;
  }
  absl::StatusOr<LabelMap> Predict(const NamedTensors& /*weights*/,
                                   const PreparedCase& prepared) override {
    return prepared.Reference();
  }
  absl::StatusOr<std::vector<float>> Scores(const NamedTensors& /*weights*/,
                                            const PreparedCase& /*prepared*/) override {
    return absl::UnimplementedError("this site makes no certificate");
  }
  std::string device_name() const override { return "pencil and paper"; }
  std::int64_t memory_bytes() const override { return 0; }
};

absl::Status Enrol(const fs::path& invitation_file, const fs::path& folder) {
  ASSIGN_OR_RETURN(const Invitation invitation, LoadInvitation(invitation_file));
  fs::create_directories(folder);
  ASSIGN_OR_RETURN(const std::string key, CreatePrivateKey());
  RETURN_IF_ERROR(WriteSecret(folder / "site.key", key));
  ASSIGN_OR_RETURN(
      const std::string request,
      CreateSigningRequest(key, {.role = Identity::Role::kSite, .name = invitation.site}));
  ASSIGN_OR_RETURN(const std::string issued, RequestCertificate(invitation, request, {}));
  RETURN_IF_ERROR(WriteFileAtomically(folder / "authority.pem", invitation.authority));
  return WriteFileAtomically(folder / "site.pem", issued);
}

absl::Status Approve(const ClientConfig& config, FederationSession& session,
                     const std::string& name) {
  ASSIGN_OR_RETURN(const std::vector<OfferedStudy> offered, session.Studies({}));
  for (const OfferedStudy& entry : offered) {
    if (entry.name != name) continue;
    ASSIGN_OR_RETURN(const Study study, ParseStudy(entry.toml, name));
    ASSIGN_OR_RETURN(const SiteCases cases, ListSiteCases(config, study));
    ASSIGN_OR_RETURN(const StudyCohort cohort,
                     PrepareStudyCohort(cases, study, {}, [](std::int64_t, std::int64_t) {}));
    RETURN_IF_ERROR(ApprovedStudies(SiteStateFolder(config.state).approved()).Add(study));
    return session.Approve(name, study.digest, cohort.declaration, {});
  }
  return absl::NotFoundError(fmt::format("the server offers no study {}", name));
}

absl::Status Main(const std::vector<std::string>& arguments, const std::stop_token& stop) {
  if (arguments.size() == 4 && arguments[0] == "enrol") return Enrol(arguments[1], arguments[3]);
  if (arguments.size() < 3) return absl::InvalidArgumentError("see the top of scripted_site.cc");
  const std::string& command = arguments[2];
  ASSIGN_OR_RETURN(const ClientConfig config, LoadClientConfig(arguments[1]));
  RETURN_IF_ERROR(StartLog(config.log.level, config.log.file));
  ASSIGN_OR_RETURN(const TlsFiles files, LoadTlsFiles(config.certificate));
  const bool runs = command == "run";
  const std::unique_ptr<FederationSession> session =
      ConnectOverGrpc(config.server, files, runs ? RetryPolicy::Forever() : RetryPolicy::Once());
  if (runs) {
    HospitalClient client(config, *session,
                          [](const Study&) { return std::make_unique<CalculatingTrainer>(); });
    return client.Run(/*until_ended=*/true, stop);
  }
  if (command == "approve") return Approve(config, *session, arguments[3]);
  RETURN_IF_ERROR(ApprovedStudies(SiteStateFolder(config.state).approved()).Remove(arguments[3]));
  return session->Withdraw(arguments[3], {});
}

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) {
  const std::stop_token stop = isoscan::StopOnInterrupt();
  isoscan::RequireTls13();
  isoscan::LogGrpcAsDebug();
  return isoscan::Report(isoscan::Main({argv + 1, argv + argc}, stop));
}
