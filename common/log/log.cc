#include "common/log/log.h"

#include <fmt/format.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstddef>
#include <map>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace isoscan {
namespace {

constexpr std::size_t kFileBytes = 10 << 20;
constexpr std::size_t kOlderFiles = 4;

}  // namespace

absl::Status StartLog(const std::string& level, const std::filesystem::path& file) {
  const std::map<std::string_view, spdlog::level::level_enum> levels = {
      {"debug", spdlog::level::debug},
      {"info", spdlog::level::info},
      {"warn", spdlog::level::warn},
      {"error", spdlog::level::err}};
  const auto chosen = levels.find(level);
  if (chosen == levels.end()) {
    return absl::InvalidArgumentError(
        fmt::format("the log level is \"{}\", allowed are debug, info, warn, error", level));
  }
  try {
    std::vector<spdlog::sink_ptr> sinks = {std::make_shared<spdlog::sinks::stderr_color_sink_mt>()};
    if (!file.empty()) {
      sinks.push_back(std::make_shared<spdlog::sinks::rotating_file_sink_mt>(
          file.string(), kFileBytes, kOlderFiles));
    }
    auto logger = std::make_shared<spdlog::logger>("isoscan", sinks.begin(), sinks.end());
    logger->set_level(chosen->second);
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %^%l%$ %v");
    logger->flush_on(spdlog::level::trace);  // Few lines, and the last ones matter most.
    spdlog::set_default_logger(std::move(logger));
  } catch (const spdlog::spdlog_ex& error) {
    return absl::NotFoundError(fmt::format("cannot open the log file: {}", error.what()));
  }
  return absl::OkStatus();
}

}  // namespace isoscan
