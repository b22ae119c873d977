#include "server/server_config.h"

#include <fmt/format.h>

#include <charconv>
#include <system_error>
#include <utility>

#include "common/config/config_reader.h"
#include "common/status/status_macros.h"
#include "server/server_toml.h"

namespace isoscan {
namespace {

Endpoint ReadEndpoint(ConfigReader& reader, std::string_view key) {
  absl::StatusOr<Endpoint> endpoint = ParseEndpoint(reader.Text(key));
  if (endpoint.ok()) return *std::move(endpoint);
  if (reader.Has(key)) reader.Refuse(key, "is not HOST:PORT, such as \"10.0.0.5:8443\"");
  return {};
}

void ReplaceLine(std::string& text, std::string_view key, std::string_view value) {
  const std::size_t begin = text.find(fmt::format("\n{} = ", key)) + 1;
  text.replace(begin, text.find('\n', begin) - begin, fmt::format("{} = \"{}\"", key, value));
}

}  // namespace

std::string ToString(const Endpoint& endpoint) {
  const bool is_ipv6 = endpoint.host.find(':') != std::string::npos;
  return fmt::format(fmt::runtime(is_ipv6 ? "[{}]:{}" : "{}:{}"), endpoint.host, endpoint.port);
}

absl::StatusOr<Endpoint> ParseEndpoint(std::string_view text) {
  constexpr int kHighestPort = 65535;
  const std::size_t colon = text.rfind(':');
  if (colon != std::string_view::npos) {
    std::string_view host = text.substr(0, colon);
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    const bool host_fits = !host.empty() && (bracketed || host.find(':') == host.npos) &&
                           host.find_first_of("[] \"\\/\n\t") == host.npos;
    const std::string_view digits = text.substr(colon + 1);
    int port = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (host_fits && error == std::errc() && end == digits.data() + digits.size() && port >= 0 &&
        port <= kHighestPort) {
      return Endpoint{.host = std::string(host), .port = port};
    }
  }
  return absl::InvalidArgumentError(fmt::format(
      "\"{}\" is not HOST:PORT with a port of 0 to {}, such as federation.example.org:8443", text,
      kHighestPort));
}

absl::StatusOr<ServerConfig> LoadServerConfig(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(ConfigReader reader, ConfigReader::Load(path));
  ServerConfig config;
  config.address = ReadEndpoint(reader, "address");
  config.listen = ReadEndpoint(reader, "listen");

  ConfigReader log = reader.Table("log");
  config.log_level = log.Choice("level", {"debug", "info", "warn", "error"}, config.log_level);
  config.log_file = log.Text("file", "");

  ConfigReader limits = reader.Table("limits");
  config.limits.worker_threads = static_cast<int>(limits.Integer(
      "worker_threads", {.minimum = 1, .maximum = 64}, config.limits.worker_threads));
  config.limits.waiting_calls = static_cast<std::size_t>(
      limits.Integer("waiting_calls", {.minimum = 16, .maximum = 100'000},
                     static_cast<std::int64_t>(config.limits.waiting_calls)));
  config.limits.transfer_memory_mib = limits.Integer(
      "transfer_memory_mib", {.minimum = 64, .maximum = 65'536}, config.limits.transfer_memory_mib);
  RETURN_IF_ERROR(reader.Finish());
  return config;
}

std::string ServerToml(const Endpoint& address, const Endpoint& listen) {
  std::string text = kServerToml;
  ReplaceLine(text, "address", ToString(address));
  ReplaceLine(text, "listen", ToString(listen));
  return text;
}

}  // namespace isoscan
