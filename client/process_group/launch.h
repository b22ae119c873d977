#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace isoscan {

/// How this process was started beside others that train with it: the variables that torchrun and
/// the templates for Slurm and Kubernetes set for every PyTorch job.
struct Launch {
  int rank = 0;                     ///< RANK
  int world_size = 1;               ///< WORLD_SIZE
  int local_rank = 0;               ///< LOCAL_RANK: among the processes on this machine.
  int local_world_size = 1;         ///< LOCAL_WORLD_SIZE
  std::string master_address = "";  ///< MASTER_ADDR: where rank 0 listens.
  std::uint16_t master_port = 0;    ///< MASTER_PORT
  /// TORCHELASTIC_USE_AGENT_STORE: torchrun's agent listens there, and no rank need to.
  bool agent_listens = false;
  std::string attempt = "0";   ///< TORCHELASTIC_RESTART_COUNT: those of one start meet.
  std::string interface = "";  ///< GLOO_SOCKET_IFNAME: the network to use; empty: the host name's.
};

/// A Launch of one process where WORLD_SIZE is unset or 1; the other variables are not read then.
/// `variable` answers nullptr for one that is unset.
/// Errors: INVALID_ARGUMENT naming the variable that is missing or out of range.
absl::StatusOr<Launch> LaunchOf(const std::function<const char*(const char* name)>& variable);

/// That of this process' environment.
absl::StatusOr<Launch> LaunchOfEnvironment();

}  // namespace isoscan
