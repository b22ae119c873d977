#include "client/client_config.h"

#include <fmt/format.h>

#include <fstream>
#include <set>
#include <sstream>
#include <string_view>
#include <utility>

#include "common/config/address.h"
#include "common/config/config_reader.h"
#include "common/status/status_macros.h"
#include "common/study/study.h"
#include "common/tls/keys.h"

namespace isoscan {
namespace {

namespace fs = std::filesystem;

CohortFolder::Layout LayoutOf(const std::string& name) {
  if (name == "bids") return CohortFolder::Layout::kBids;
  if (name == "decathlon") return CohortFolder::Layout::kDecathlon;
  if (name == "nnunet") return CohortFolder::Layout::kNnunet;
  if (name == "dicom") return CohortFolder::Layout::kDicom;
  return CohortFolder::Layout::kAuto;
}

CohortFolder ReadCohort(ConfigReader& table, const fs::path& folder) {
  CohortFolder cohort;
  cohort.name = table.Text("name", "");
  const std::string path = table.Text("folder");
  if (table.Has("folder") && path.empty()) table.Refuse("folder", "is empty");
  cohort.folder = folder / path;
  cohort.layout =
      LayoutOf(table.Choice("layout", {"auto", "bids", "decathlon", "nnunet", "dicom"}, "auto"));
  cohort.geometry =
      GeometrySourceOf(table.Choice("geometry", {"agreed", "qform", "sform"}, "agreed"));
  ConfigReader labels = table.Table("labels");
  for (const std::string& label : labels.Keys()) cohort.labels[label] = labels.Values(label);
  ConfigReader channels = table.Table("channels");
  for (const std::string& channel : channels.Keys()) {
    cohort.channels[channel] = channels.Text(channel);
  }
  return cohort;
}

bool IsDevice(std::string_view text) {
  constexpr std::string_view kGpu = "cuda:";
  if (text == "auto" || text == "cpu" || text == "cuda") return true;
  if (!text.starts_with(kGpu) || text.size() == kGpu.size()) return false;
  text.remove_prefix(kGpu.size());
  return text.size() <= 3 && text.find_first_not_of("0123456789") == text.npos;
}

absl::StatusOr<std::string> ReadPem(const fs::path& path, const std::string& key) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(
        fmt::format("{} cannot be read; it is certificate.{} of client.toml, and `isoscan-client "
                    "enrol` makes it",
                    path.string(), key));
  }
  std::ostringstream text;
  text << file.rdbuf();
  const absl::StatusOr<int> days = DaysUntilExpiry(text.str());
  if (!days.ok()) {
    return absl::DataLossError(fmt::format("{} (certificate.{} of client.toml): {}", path.string(),
                                           key, std::string(days.status().message())));
  }
  return text.str();
}

}  // namespace

absl::StatusOr<ClientConfig> LoadClientConfig(const fs::path& path) {
  absl::StatusOr<ConfigReader> loaded = ConfigReader::Load(path);
  if (absl::IsNotFound(loaded.status())) {
    return absl::NotFoundError(
        fmt::format("{}; name this site's client.toml with --config, or make one: isoscan-client "
                    "enrol INVITATION --folder FOLDER",
                    std::string(loaded.status().message())));
  }
  ASSIGN_OR_RETURN(ConfigReader reader, std::move(loaded));
  const fs::path folder = fs::absolute(path).parent_path();

  ClientConfig config;
  config.server = reader.Text("server");
  if (reader.Has("server") && !IsAddress(config.server)) {
    reader.Refuse("server", fmt::format("is \"{}\", expected HOST:PORT", config.server));
  }
  config.site = reader.Text("site");
  if (reader.Has("site") && !IsName(config.site)) {
    reader.Refuse(
        "site",
        fmt::format("is \"{}\", allowed are lower-case letters, digits and hyphens", config.site));
  }
  config.state = folder / reader.Text("state", "state");

  ConfigReader certificate = reader.Table("certificate");
  config.certificate.authority = folder / certificate.Text("authority", "authority.pem");
  config.certificate.certificate = folder / certificate.Text("certificate", "site.pem");
  config.certificate.key = folder / certificate.Text("key", "site.key");

  ConfigReader device = reader.Table("device");
  config.device.name = device.Text("name", "auto");
  if (!IsDevice(config.device.name)) {
    device.Refuse("name", fmt::format("is \"{}\", allowed are auto, cpu, cuda and cuda:N",
                                      config.device.name));
  }
  config.device.threads =
      static_cast<int>(device.Integer("threads", {.minimum = 0, .maximum = 1024}, 0));
  config.device.patches_at_once =
      device.Integer("patches_at_once", {.minimum = 0, .maximum = 1024}, 0);

  config.cache_cases = reader.Table("cache").Flag("cases", config.cache_cases);
  config.checkpoint.every_steps =
      reader.Table("checkpoint").Integer("every_steps", {.minimum = 0, .maximum = 1'000'000}, 0);

  ConfigReader log = reader.Table("log");
  config.log.level = log.Choice("level", {"debug", "info", "warn", "error"}, "info");
  const std::string log_file = log.Text("file", "");
  if (!log_file.empty()) config.log.file = folder / log_file;

  std::set<std::string> names;
  for (ConfigReader& table : reader.Tables("cohort")) {
    config.cohorts.push_back(ReadCohort(table, folder));
    const std::string& name = config.cohorts.back().name;
    if (!names.insert(name).second) {
      table.Refuse(table.Has("name") ? "name" : "folder",
                   fmt::format("belongs to a second cohort named \"{}\"; give each [[cohort]] a "
                               "name of its own",
                               name));
    }
  }
  config.held_out_cases = reader.Table("held_out").Texts("cases", std::vector<std::string>{});
  RETURN_IF_ERROR(reader.Finish());
  return config;
}

absl::StatusOr<TlsFiles> LoadTlsFiles(const ClientConfig::Certificate& certificate) {
  TlsFiles files;
  ASSIGN_OR_RETURN(files.authority, ReadPem(certificate.authority, "authority"));
  ASSIGN_OR_RETURN(files.certificate, ReadPem(certificate.certificate, "certificate"));
  ASSIGN_OR_RETURN(files.private_key, ReadSecret(certificate.key));
  return files;
}

std::string NewClientConfig(const std::string& server, const std::string& site) {
  return fmt::format(
      R"(# Configuration of isoscan-client at this site. Paths are relative to this file.
# Every key: deploy/config/client.toml and docs/hospital.md.

server = "{}"
site = "{}"
state = "state"

[certificate]
authority = "authority.pem"
certificate = "site.pem"
key = "site.key"

[device]
name = "auto"    # auto, cpu, cuda, cuda:1
threads = 0      # 0: every core

# Each folder of labelled MRI is a [[cohort]]. Remove the # and set the folder; then
# `isoscan-client check` and `isoscan-client inspect` tell what is in it.
#
# [[cohort]]
# folder = "/data/hippocampus"     # BIDS, Medical Segmentation Decathlon or nnU-Net raw
#
# Only where names differ between the study and this folder:
# [cohort.labels]
# anterior = [1]                   # study's label = values in this folder's label images,
# posterior = ["CA", "subiculum"]  # or names of BIDS masks
# [cohort.channels]
# T1w = "MPRAGE"                   # study's channel = this folder's name for it
)",
      server, site);
}

}  // namespace isoscan
