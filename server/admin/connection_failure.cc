#include "server/admin/connection_failure.h"

#include <fmt/format.h>

#include <string_view>

namespace isoscan {
namespace {

std::string WhatToCheck(std::string_view words) {
  const auto has = [words](std::string_view part) { return words.find(part) != words.npos; };
  if (has("DNS resolution failed") || has("Domain name not found")) {
    return "its name cannot be resolved; check `server` in operator.toml, or give --server";
  }
  if (has("Connection refused")) {
    return "nothing listens there; check that isoscan-server runs, and `server` in operator.toml";
  }
  if (has("CERTIFICATE_VERIFY_FAILED") || has("certificate verify failed")) {
    return "its certificate is of another authority than operator.toml's, or has ended; check that "
           "--config belongs to this server";
  }
  if (has("not in peer certificate") || has("verification check failed")) {
    return "its certificate is for another name; dial the name given to isoscan-server init";
  }
  if (has("WRONG_VERSION_NUMBER") || has("wrong version number")) {
    return "what answers there does not speak TLS 1.3; check the port";
  }
  return fmt::format(
      "check the address and the network, and that the operator's certificate is of this server "
      "and has not ended (isoscan-server check) [{}]",
      words);
}

}  // namespace

absl::Status ExplainOperatorConnection(const absl::Status& status, const std::string& server) {
  if (absl::IsDeadlineExceeded(status)) {
    return absl::DeadlineExceededError(
        fmt::format("server {} did not answer in time; check that it is well", server));
  }
  // The server's own UNAVAILABLE are whole sentences without gRPC's vocabulary.
  const std::string words(status.message());
  const bool of_the_connection =
      absl::IsUnavailable(status) && words.find("the server ") == std::string::npos;
  if (!of_the_connection) return status;
  return absl::UnavailableError(
      fmt::format("cannot reach server {}: {}", server, WhatToCheck(words)));
}

}  // namespace isoscan
