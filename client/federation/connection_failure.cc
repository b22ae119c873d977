#include "client/federation/connection_failure.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <initializer_list>
#include <sstream>
#include <string_view>

namespace isoscan {
namespace {

bool HasAny(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::any_of(words.begin(), words.end(), [text](std::string_view word) {
    return text.find(word) != std::string_view::npos;
  });
}

std::string HostOf(const std::string& server) {
  if (server.starts_with('[')) return server.substr(1, server.find(']') - 1);
  return server.substr(0, server.rfind(':'));
}

/// gRPC's own rule: an entry of no_proxy matches the end of the host's name.
bool IsExcludedFromProxy(const std::string& host) {
  const char* excluded = std::getenv("no_grpc_proxy");
  if (excluded == nullptr) excluded = std::getenv("no_proxy");
  std::istringstream entries(excluded == nullptr ? "" : excluded);
  for (std::string entry; std::getline(entries, entry, ',');) {
    entry.erase(std::remove(entry.begin(), entry.end(), ' '), entry.end());
    if (!entry.empty() && host.ends_with(entry)) return true;
  }
  return false;
}

std::string Cause(std::string_view words, const std::string& server) {
  // A proxy's refusal also mentions the handshake, and a certificate's also the socket: the order
  // of the questions matters.
  if (HasAny(words, {"proxy returned", "HTTP proxy"})) {
    return "the proxy refused to connect; ask your network team to allow CONNECT to this address";
  }
  if (HasAny(words, {"DNS resolution failed", "Domain name not found", "Name or service"})) {
    return "its name cannot be resolved; check `server` in client.toml and this machine's DNS";
  }
  if (HasAny(words, {"Connection refused"})) {
    return "nothing listens there; check that isoscan-server runs, and `server` in client.toml";
  }
  if (HasAny(words, {"No route to host", "Network is unreachable", "Host is unreachable"})) {
    return "this machine has no network route to it; check the network and the firewall";
  }
  if (HasAny(words, {"Connection timed out", "Timeout occurred", "FD Shutdown", "FD shutdown",
                     "Deadline", "deadline"})) {
    return "no answer in time; check that the firewall lets this machine out to this port";
  }
  if (HasAny(words, {"not in peer certificate", "verification check failed", "SNI"})) {
    return fmt::format(
        "its certificate is for another name than {}; use the name that stands in the invitation",
        HostOf(server));
  }
  if (HasAny(words, {"CERTIFICATE_VERIFY_FAILED", "certificate verify failed",
                     "unable to get local issuer"})) {
    return "its certificate is not from this site's authority, or has ended; check `authority` in "
           "client.toml (authority.pem of your enrolment) and this machine's clock";
  }
  if (HasAny(words, {"WRONG_VERSION_NUMBER", "wrong version number", "UNSUPPORTED_PROTOCOL"})) {
    return "what answers there does not speak TLS 1.3; check the port, and for a proxy or firewall "
           "that opens TLS";
  }
  return "server unreachable, or it refused this site's certificate; check that `isoscan-client "
         "check` finds the certificate valid, that the coordinator has not suspended the site, and "
         "that no proxy or firewall opens TLS";
}

}  // namespace

absl::Status ExplainConnectionFailure(const absl::Status& status, const std::string& server) {
  const std::string words(status.message());
  const std::string proxy = ProxyFor(server);
  const std::string through = proxy.empty() ? "" : fmt::format(" (through the proxy {})", proxy);
  if (absl::IsDeadlineExceeded(status)) {
    return absl::DeadlineExceededError(
        fmt::format("server {}{} did not answer in time; check that the firewall lets this machine "
                    "out to this port, and ask the coordinator whether the server is well",
                    server, through));
  }
  const bool of_the_connection =
      absl::IsUnavailable(status) &&
      HasAny(words, {"failed to connect", "DNS resolution", "Socket closed", "socket closed",
                     "Connection reset", "Broken pipe", "andshake", "recvmsg", "sendmsg",
                     "onnection refused", "keepalive", "Transport closed", "empty address list",
                     "GOAWAY", "connections to all backends failing", "End of TCP stream"});
  if (!of_the_connection) return status;
  return absl::UnavailableError(
      fmt::format("cannot reach server {}{}: {}", server, through, Cause(words, server)));
}

bool IsLoopback(const std::string& server) {
  const std::string host = HostOf(server);
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

std::string ProxyFor(const std::string& server) {
  if (IsLoopback(server) || IsExcludedFromProxy(HostOf(server))) return "";
  constexpr std::array<const char*, 3> kVariables{"grpc_proxy", "https_proxy", "http_proxy"};
  for (const char* const variable : kVariables) {
    const char* const value = std::getenv(variable);
    if (value == nullptr || *value == '\0') continue;
    const std::string proxy = value;
    const std::size_t credentials = proxy.rfind('@');
    return credentials == std::string::npos ? proxy : proxy.substr(credentials + 1);
  }
  return "";
}

}  // namespace isoscan
