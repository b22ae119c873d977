#include "client/federation/update_record.h"

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>

#include <fstream>
#include <sstream>
#include <string>

#include "client/federation/messages.h"
#include "common/transfer/chunks.h"

namespace isoscan {

absl::Status WriteUpdateRecord(const std::filesystem::path& path, const RoundUpdate& update) {
  std::string json;
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  const auto written =
      google::protobuf::util::MessageToJsonString(ToMessage(update), &json, options);
  if (!written.ok()) return absl::InternalError(written.ToString());
  return WriteFileAtomically(path, json);
}

absl::StatusOr<RoundUpdate> ReadUpdateRecord(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(fmt::format("{} does not exist", path.string()));
  std::ostringstream text;
  text << file.rdbuf();
  v1::SubmitUpdateRequest message;
  const auto read = google::protobuf::util::JsonStringToMessage(text.str(), &message);
  if (!read.ok()) {
    return absl::DataLossError(
        fmt::format("{} is not the record of an update: {}", path.string(), read.ToString()));
  }
  return RoundUpdateFrom(message);
}

}  // namespace isoscan
