#include <spdlog/spdlog.h>

#include <memory>
#include <utility>

#include "client/commands/commands.h"
#include "client/commands/device_trainer.h"
#include "client/commands/session.h"
#include "client/hospital_client.h"
#include "client/process_group/launch.h"
#include "client/process_group/process_group.h"
#include "client/training/trainer.h"
#include "common/log/log.h"
#include "common/status/status_macros.h"

namespace isoscan {

absl::Status RunClient(const ClientConfig& config, bool until_ended, std::stop_token stop) {
  ASSIGN_OR_RETURN(const Launch launch, LaunchOfEnvironment());
  // Two processes must not rotate one file.
  RETURN_IF_ERROR(StartLog(config.log.level, launch.rank == 0 ? config.log.file : ""));
  std::unique_ptr<ProcessGroup> group;
  if (launch.world_size > 1) {
    ASSIGN_OR_RETURN(group, ProcessGroup::Join(launch, TrainingIdentity(), {}, stop));
    spdlog::info("ranks_met rank={} of={}", launch.rank, launch.world_size);
  }
  if (launch.rank > 0) {
    return ServeTraining(*group, config.device.name, config.device.threads,
                         TrainerOptionsOf(config.device, group.get()), stop);
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<FederationSession> session,
                   OpenSession(config, RetryPolicy::Forever()));
  HospitalClient client(config, *session, [&config, &group](const Study& study) {
    return MakeDeviceTrainer(study, config.device, group.get());
  });
  return client.Run(until_ended, std::move(stop));
}

}  // namespace isoscan
