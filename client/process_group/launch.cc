#include "client/process_group/launch.h"

#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <limits>
#include <string_view>

#include "absl/status/status.h"

#include "common/status/status_macros.h"

namespace isoscan {
namespace {

using Variable = std::function<const char*(const char* name)>;

absl::StatusOr<int> Number(const Variable& variable, const char* name, int minimum, int maximum) {
  const char* const text = variable(name);
  if (text == nullptr) {
    return absl::InvalidArgumentError(fmt::format(
        "WORLD_SIZE is set and {} is not; start every process as a PyTorch job, with RANK, "
        "WORLD_SIZE, MASTER_ADDR and MASTER_PORT",
        name));
  }
  const std::string_view digits = text;
  int number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size() || number < minimum ||
      number > maximum) {
    return absl::InvalidArgumentError(
        fmt::format("{} is \"{}\", expected a number from {} to {}", name, text, minimum, maximum));
  }
  return number;
}

}  // namespace

absl::StatusOr<Launch> LaunchOf(const Variable& variable) {
  constexpr int kMostRanks = 65536;
  Launch launch;
  if (variable("WORLD_SIZE") == nullptr) return launch;
  ASSIGN_OR_RETURN(launch.world_size, Number(variable, "WORLD_SIZE", 1, kMostRanks));
  if (launch.world_size == 1) return launch;

  ASSIGN_OR_RETURN(launch.rank, Number(variable, "RANK", 0, launch.world_size - 1));
  if (variable("LOCAL_WORLD_SIZE") != nullptr) {
    ASSIGN_OR_RETURN(launch.local_world_size,
                     Number(variable, "LOCAL_WORLD_SIZE", 1, launch.world_size));
  }
  if (variable("LOCAL_RANK") != nullptr) {
    ASSIGN_OR_RETURN(launch.local_rank, Number(variable, "LOCAL_RANK", 0, launch.world_size - 1));
  }
  const char* const address = variable("MASTER_ADDR");
  if (address == nullptr || *address == '\0') {
    return absl::InvalidArgumentError(
        "WORLD_SIZE is set and MASTER_ADDR is not; it is the address of the machine of rank 0");
  }
  launch.master_address = address;
  ASSIGN_OR_RETURN(const int port,
                   Number(variable, "MASTER_PORT", 1, std::numeric_limits<std::uint16_t>::max()));
  launch.master_port = static_cast<std::uint16_t>(port);

  const char* const agent = variable("TORCHELASTIC_USE_AGENT_STORE");
  launch.agent_listens = agent != nullptr && std::string_view(agent) == "True";
  if (const char* const attempt = variable("TORCHELASTIC_RESTART_COUNT")) launch.attempt = attempt;
  if (const char* const interface = variable("GLOO_SOCKET_IFNAME")) launch.interface = interface;
  return launch;
}

absl::StatusOr<Launch> LaunchOfEnvironment() {
  return LaunchOf([](const char* name) -> const char* { return std::getenv(name); });
}

}  // namespace isoscan
