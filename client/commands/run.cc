#include <utility>

#include "client/commands/commands.h"
#include "client/commands/device_trainer.h"
#include "client/commands/session.h"
#include "client/hospital_client.h"
#include "common/log/log.h"
#include "common/status/status_macros.h"

namespace isoscan {

absl::Status RunClient(const ClientConfig& config, bool until_ended, std::stop_token stop) {
  RETURN_IF_ERROR(StartLog(config.log.level, config.log.file));
  ASSIGN_OR_RETURN(const std::unique_ptr<FederationSession> session,
                   OpenSession(config, RetryPolicy::Forever()));
  HospitalClient client(config, *session, [&config](const Study& study) {
    return MakeDeviceTrainer(study, config.device);
  });
  return client.Run(until_ended, std::move(stop));
}

}  // namespace isoscan
