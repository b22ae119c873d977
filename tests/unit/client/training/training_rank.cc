/// A rank of several_ranks_test.cc in a process of its own, started as PyTorch jobs are.
///
///   training_rank serve COLLECTIVE_MS PATCHES_AT_ONCE   takes part in rank 0's training
///   training_rank idle                                  meets the others, then does nothing
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "client/process_group/launch.h"
#include "client/process_group/process_group.h"
#include "client/training/trainer.h"
#include "common/status/status_macros.h"
#include <unistd.h>

namespace isoscan {
namespace {

absl::Status Run(int argc, char** argv) {
  ASSIGN_OR_RETURN(const Launch launch, LaunchOfEnvironment());
  ProcessGroup::Limits limits;
  if (argc > 2) limits.collective = std::chrono::milliseconds(std::atoi(argv[2]));
  ASSIGN_OR_RETURN(const std::unique_ptr<ProcessGroup> group,
                   ProcessGroup::Join(launch, "test", limits, {}));
  if (argc == 2) {
    std::cerr << "met\n";
    while (true) pause();
  }
  return ServeTraining(*group, "cpu", 1, {.patches_at_once = std::atoi(argv[3])}, {});
}

}  // namespace
}  // namespace isoscan

int main(int argc, char** argv) {
  const absl::Status status = isoscan::Run(argc, argv);
  if (status.ok()) return 0;
  std::cerr << "error: " << status.message() << "\n";
  return 1;
}
