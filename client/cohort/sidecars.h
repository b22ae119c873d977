#pragma once

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "client/imaging/acquisition.h"

namespace isoscan {

/// What the JSON beside a scan says about how it was made.
struct Sidecar {
  Acquisition acquisition;
  std::string description;  ///< SeriesDescription and ProtocolName.
  std::string fault;        ///< Why a sidecar could not be read; empty: none was unreadable.
};

/// Reads the JSON files that go with scans, by BIDS's inheritance: of the folders from the
/// dataset's root down to the scan's, each file whose suffix is the scan's and whose entities the
/// scan has; the deeper, then the more specific one wins. Outside BIDS that is the file of the
/// scan's own name. Folders are listed once. Source: docs/references.md#bids.
///
/// Thread safety: none.
class Sidecars {
 public:
  explicit Sidecars(std::filesystem::path root);

  Sidecar Of(const std::filesystem::path& image);

 private:
  struct File {
    std::filesystem::path path;
    std::set<std::string> entities;
    std::string suffix;
  };
  const std::vector<File>& FilesIn(const std::filesystem::path& folder);

  std::filesystem::path root_;
  std::map<std::filesystem::path, std::vector<File>> folders_;
};

}  // namespace isoscan
