#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "absl/status/status.h"

#include "client/cohort/label_names.h"
#include "client/cohort/layouts.h"
#include "common/status/status_macros.h"

// Source: docs/references.md#bids, "Derivatives: Imaging derivatives".

namespace isoscan {
namespace {

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

bool IsEntity(const std::string& part) { return part.find('-') != std::string::npos; }

/// "sub-01_ses-1_run-2_FLAIR": the entities and what the image is.
struct Scan {
  std::filesystem::path path;
  std::string stem;
  std::set<std::string> entities;  ///< Such as "sub-01", "run-2".
  std::string suffix;              ///< Such as "FLAIR"; empty when the name is not BIDS.

  std::string name() const { return stem.substr(0, stem.size() - suffix.size() - 1); }
};

Scan ScanOf(const std::filesystem::path& path) {
  Scan scan{.path = path, .stem = StemOf(path), .entities = {}, .suffix = {}};
  std::vector<std::string> parts = Split(scan.stem, '_');
  if (parts.empty() || IsEntity(parts.back())) return scan;
  scan.suffix = parts.back();
  parts.pop_back();
  if (!std::all_of(parts.begin(), parts.end(), IsEntity)) scan.suffix.clear();
  scan.entities.insert(parts.begin(), parts.end());
  return scan;
}

/// A mask or a map of labels in derivatives/.
struct Derivative {
  std::filesystem::path path;
  std::string pipeline;  ///< Folder under derivatives/.
  std::string stem;
  std::set<std::string> entities;   ///< Those that say which scan it belongs to.
  std::vector<std::string> names;   ///< What a configuration may call it; the longest last.
  bool is_dseg = false;             ///< Many labels by value, instead of one mask.
  std::vector<NamedValues> values;  ///< Of a dseg, from its table.

  std::string longest_name() const { return names.empty() ? stem : names.back(); }
};

/// Entities that say what a derivative shows, not of which scan.
bool Describes(const std::string& entity) {
  for (const std::string_view key : {"label-", "desc-", "seg-", "res-", "den-", "hemi-"}) {
    if (entity.starts_with(key)) return true;
  }
  return false;
}

/// "label-SC_desc-manual" may be called SC, label-SC_desc-manual.
std::vector<std::string> NamesOf(const std::vector<std::string>& description) {
  std::vector<std::string> names;
  for (const std::string_view key : {"label-", "desc-", "seg-"}) {
    for (const std::string& entity : description) {
      if (names.empty() && entity.starts_with(key)) names.push_back(entity.substr(key.size()));
    }
  }
  const std::string all = fmt::format("{}", fmt::join(description, "_"));
  if (!all.empty()) names.push_back(all);
  return names;
}

/// Lines "index<TAB>name ..." of a dseg.tsv, whose first line names the columns.
std::vector<NamedValues> ReadTable(const std::filesystem::path& path) {
  std::vector<NamedValues> labels;
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return labels;
  if (line.ends_with('\r')) line.pop_back();
  const std::vector<std::string> columns = Split(line, '\t');
  const auto column = [&columns](const char* name) {
    return static_cast<std::size_t>(
        std::distance(columns.begin(), std::find(columns.begin(), columns.end(), name)));
  };
  const std::size_t index = column("index");
  const std::size_t name = column("name");
  while (std::getline(file, line)) {
    if (line.ends_with('\r')) line.pop_back();
    const std::vector<std::string> cells = Split(line, '\t');
    if (index >= cells.size() || name >= cells.size()) continue;
    if (const std::optional<std::int64_t> value = ToInteger(cells[index])) {
      labels.push_back({.name = cells[name], .values = {*value}});
    }
  }
  return labels;
}

/// Finds the table of a dseg file: beside it under the same name, or, by BIDS's inheritance, the
/// nearest *dseg.tsv up to the pipeline's folder. Each folder is searched once.
class Tables {
 public:
  std::vector<NamedValues> Of(const std::filesystem::path& dseg,
                              const std::filesystem::path& pipeline) {
    std::error_code ignored;
    const std::filesystem::path own = dseg.parent_path() / (StemOf(dseg) + ".tsv");
    if (std::filesystem::is_regular_file(own, ignored)) return ReadTable(own);
    for (std::filesystem::path folder = dseg.parent_path();; folder = folder.parent_path()) {
      const std::optional<std::vector<NamedValues>>& table = In(folder);
      if (table.has_value()) return *table;
      if (folder == pipeline || folder == folder.root_path()) return {};
    }
  }

 private:
  const std::optional<std::vector<NamedValues>>& In(const std::filesystem::path& folder) {
    const auto [found, inserted] = tables_.try_emplace(folder);
    if (!inserted) return found->second;
    for (const std::filesystem::path& entry : SortedEntries(folder)) {
      const std::string name = entry.filename().string();
      std::error_code ignored;
      if (!std::filesystem::is_regular_file(entry, ignored)) continue;
      if (name == "dseg.tsv" || (name.ends_with("_dseg.tsv") && !name.starts_with("sub-"))) {
        found->second = ReadTable(entry);
        break;
      }
    }
    return found->second;
  }

  std::map<std::filesystem::path, std::optional<std::vector<NamedValues>>> tables_;
};

Derivative DerivativeOf(const std::filesystem::path& path, const std::filesystem::path& pipeline,
                        Tables& tables) {
  Derivative derivative{.path = path,
                        .pipeline = pipeline.filename().string(),
                        .stem = StemOf(path),
                        .entities = {},
                        .names = {},
                        .is_dseg = false,
                        .values = {}};
  std::vector<std::string> parts = Split(derivative.stem, '_');
  const std::string suffix = parts.empty() || IsEntity(parts.back()) ? "" : parts.back();
  if (!suffix.empty()) parts.pop_back();
  std::vector<std::string> description;
  bool follows_scan_suffix = false;  // sub-01_T2w_label-SC_seg: the scan's whole name comes first.
  for (const std::string& part : parts) {
    if (!IsEntity(part)) {
      follows_scan_suffix = true;
      derivative.entities.insert(part);
    } else if (follows_scan_suffix || Describes(part)) {
      description.push_back(part);
    } else {
      derivative.entities.insert(part);
    }
  }
  if (description.empty() && follows_scan_suffix && !suffix.empty()) description = {suffix};
  derivative.names = NamesOf(description);
  derivative.is_dseg = suffix == "dseg";
  if (derivative.is_dseg) derivative.values = tables.Of(path, pipeline);
  return derivative;
}

/// Masks in another space than the scan's, and probabilities, are no label maps of it.
bool IsLabelFile(const std::filesystem::path& path) {
  const std::string stem = StemOf(path);
  const std::size_t space = stem.find("_space-");
  const bool other_space =
      space != std::string::npos && !stem.substr(space).starts_with("_space-orig");
  return IsNifti(path) && stem.starts_with("sub-") && !stem.ends_with("_probseg") && !other_space;
}

/// Masks and maps that lie beside the scans, where BIDS does not want them.
bool IsDerivedImage(const std::filesystem::path& path) {
  const std::string stem = StemOf(path);
  return stem.ends_with("mask") || stem.ends_with("dseg") || stem.ends_with("probseg") ||
         stem.ends_with("_roi");
}

bool IsFolder(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_directory(path, ignored);
}

/// Files of sub-*/anat and sub-*/ses-*/anat.
std::vector<std::filesystem::path> AnatomyFiles(const std::filesystem::path& subject) {
  std::vector<std::filesystem::path> files = SortedEntries(subject / "anat");
  for (const std::filesystem::path& entry : SortedEntries(subject)) {
    if (!entry.filename().string().starts_with("ses-")) continue;
    const std::vector<std::filesystem::path> more = SortedEntries(entry / "anat");
    files.insert(files.end(), more.begin(), more.end());
  }
  return files;
}

std::vector<std::filesystem::path> SubjectsOf(const std::filesystem::path& dataset) {
  std::vector<std::filesystem::path> subjects;
  for (const std::filesystem::path& entry : SortedEntries(dataset)) {
    if (entry.filename().string().starts_with("sub-") && IsFolder(entry)) subjects.push_back(entry);
  }
  return subjects;
}

std::string SubjectOf(const std::set<std::string>& entities) {
  const auto subject = entities.lower_bound("sub-");
  return subject != entities.end() && subject->starts_with("sub-") ? *subject : "";
}

std::string SessionOf(const std::set<std::string>& entities) {
  const auto session = entities.lower_bound("ses-");
  return session != entities.end() && session->starts_with("ses-") ? *session : "";
}

/// The cohort's files by subject.
struct BidsFiles {
  std::map<std::string, std::vector<Scan>> scans;
  std::map<std::string, std::vector<Derivative>> derivatives;
};

BidsFiles FindFiles(const std::filesystem::path& dataset) {
  BidsFiles files;
  Tables tables;
  for (const std::filesystem::path& subject : SubjectsOf(dataset)) {
    for (const std::filesystem::path& path : AnatomyFiles(subject)) {
      if (!IsNifti(path)) continue;
      Scan scan = ScanOf(path);
      if (!scan.suffix.empty() && scan.suffix != "mask" && scan.suffix != "dseg") {
        files.scans[subject.filename().string()].push_back(std::move(scan));
      }
    }
  }
  for (const std::filesystem::path& pipeline : SortedEntries(dataset / "derivatives")) {
    for (const std::filesystem::path& subject : SubjectsOf(pipeline)) {
      for (const std::filesystem::path& path : AnatomyFiles(subject)) {
        if (!IsLabelFile(path)) continue;
        files.derivatives[subject.filename().string()].push_back(
            DerivativeOf(path, pipeline, tables));
      }
    }
  }
  return files;
}

/// The scans of one case, in the study's order of channels.
struct ScansOfCase {
  std::string name;
  std::vector<const Scan*> scans;
};

/// How many of a derivative's entities the case shares; nullopt when it belongs to another scan.
std::optional<std::size_t> Agreement(const Derivative& derivative, const ScansOfCase& scans) {
  for (const Scan* scan : scans.scans) {
    std::set<std::string> known = scan->entities;
    known.insert(scan->suffix);
    if (std::includes(known.begin(), known.end(), derivative.entities.begin(),
                      derivative.entities.end())) {
      return derivative.entities.size();
    }
  }
  return std::nullopt;
}

/// A name as the configuration writes it: "tumor", "label-tumor_desc-rater1" or "pipeline/tumor".
bool IsCalled(const Derivative& derivative, const std::string& wanted) {
  std::string name = wanted;
  if (const std::size_t slash = wanted.find('/'); slash != std::string::npos) {
    if (wanted.substr(0, slash) != derivative.pipeline) return false;
    name = wanted.substr(slash + 1);
  }
  return std::any_of(derivative.names.begin(), derivative.names.end(),
                     [&name](const std::string& known) { return SameName(known, name); });
}

/// The files that `fits` among those of the case; of several, those that name the scan most closely
/// (a mask of run-1 before one of all runs).
template <typename Fits>
std::vector<const Derivative*> Closest(const std::vector<Derivative>& derivatives,
                                       const ScansOfCase& scans, Fits fits) {
  std::vector<const Derivative*> closest;
  std::size_t best = 0;
  for (const Derivative& derivative : derivatives) {
    const std::optional<std::size_t> agreement = Agreement(derivative, scans);
    if (!agreement.has_value() || !fits(derivative)) continue;
    if (*agreement > best) closest.clear();
    best = std::max(best, *agreement);
    if (*agreement == best) closest.push_back(&derivative);
  }
  return closest;
}

absl::Status Ambiguous(const ScansOfCase& scans, const std::string& what,
                       const std::vector<const Derivative*>& found, const std::string& key) {
  return absl::InvalidArgumentError(fmt::format(
      "case {} has {} files for {}: {} and {}; say which one under [cohort.labels] in client.toml, "
      "such as {} = [\"{}/{}\"]",
      scans.name, found.size(), what, found[0]->path.string(), found[1]->path.string(), key,
      found[0]->pipeline, found[0]->longest_name()));
}

/// Finds the label files of cases and remembers what was never found, for one message about the
/// whole cohort.
class LabelSearch {
 public:
  LabelSearch(const CohortFolder& folder, const Study& study)
      : folder_(folder), study_(study), ever_found_(study.labels.size(), false) {}

  /// Fills `files.labels`. Returns the labels that this case has no file for.
  absl::StatusOr<std::vector<std::string>> Find(const std::vector<Derivative>& derivatives,
                                                const ScansOfCase& scans, CaseFiles& files) {
    std::vector<std::string> missing;
    std::set<const Derivative*> maps;
    for (std::size_t i = 0; i < study_.labels.size(); ++i) {
      const std::string& label = study_.labels[i];
      bool found = false;
      for (const std::string& name : CohortNamesOf(folder_, label)) {
        ASSIGN_OR_RETURN(const Derivative* file, FileOf(label, name, derivatives, scans));
        if (file == nullptr) continue;
        found = true;
        if (file->is_dseg) {
          maps.insert(file);
        } else {
          files.labels.push_back({.path = file->path,
                                  .values = {{1, static_cast<std::uint8_t>(i + 1)}},
                                  .any_positive = true});
        }
      }
      if (found) {
        ever_found_[i] = true;
      } else {
        missing.push_back(label);
      }
    }
    if (maps.size() > 1) {
      return absl::InvalidArgumentError(
          fmt::format("case {} spreads its labels over {} dseg files, {} and {}: Isoscan reads one "
                      "dseg file per case, or one mask per label",
                      scans.name, maps.size(), (*maps.begin())->path.string(),
                      (*maps.rbegin())->path.string()));
    }
    if (maps.size() == 1 && missing.empty()) {
      ASSIGN_OR_RETURN(CaseFiles::LabelFile map, MapOfValues(**maps.begin(), files));
      files.labels.insert(files.labels.begin(), std::move(map));
    }
    return missing;
  }

  /// Errors: INVALID_ARGUMENT when a label was found in no case at all.
  absl::Status Finish(const BidsFiles& files) const {
    for (std::size_t i = 0; i < study_.labels.size(); ++i) {
      if (ever_found_[i]) continue;
      return absl::InvalidArgumentError(fmt::format(
          "{} has no file for the study's label \"{}\" (looked for {} in derivatives/*/sub-*/anat/"
          "*_label-NAME_mask.nii.gz and in *_dseg.tsv): it has {}; set {} = [\"NAME\"] under "
          "[cohort.labels] in client.toml",
          folder_.folder.string(), study_.labels[i],
          Quoted(CohortNamesOf(folder_, study_.labels[i])), Quoted(NamesThere(files)),
          study_.labels[i]));
    }
    return absl::OkStatus();
  }

 private:
  /// The mask that `name` calls, or else the dseg file that lists it; nullptr when there is
  /// neither.
  static absl::StatusOr<const Derivative*> FileOf(const std::string& label, const std::string& name,
                                                  const std::vector<Derivative>& derivatives,
                                                  const ScansOfCase& scans) {
    std::vector<const Derivative*> found =
        Closest(derivatives, scans, [&name](const Derivative& derivative) {
          return !derivative.is_dseg && IsCalled(derivative, name);
        });
    if (found.empty()) {
      found = Closest(derivatives, scans, [&name](const Derivative& derivative) {
        return derivative.is_dseg && Lists(derivative, name);
      });
    }
    if (found.empty()) return nullptr;
    if (found.size() == 1) return found.front();
    return Ambiguous(scans, fmt::format("the label \"{}\"", label), found, label);
  }

  static bool Lists(const Derivative& dseg, const std::string& name) {
    return ToInteger(name).has_value() ||
           std::any_of(dseg.values.begin(), dseg.values.end(),
                       [&name](const NamedValues& label) { return SameName(label.name, name); });
  }

  absl::StatusOr<CaseFiles::LabelFile> MapOfValues(const Derivative& dseg, const CaseFiles& files) {
    CohortFolder folder = folder_;
    for (const CaseFiles::LabelFile& mask : files.labels) {
      // A label that has a mask is not looked up in the table as well.
      folder.labels[study_.labels[mask.values.begin()->second - 1U]] = {};
    }
    ASSIGN_OR_RETURN(auto values, MapValues(folder, study_, dseg.values, dseg.path.string()));
    return CaseFiles::LabelFile{.path = dseg.path, .values = std::move(values)};
  }

  static std::vector<std::string> NamesThere(const BidsFiles& files) {
    std::set<std::string> names;
    for (const auto& [subject, derivatives] : files.derivatives) {
      for (const Derivative& derivative : derivatives) {
        if (!derivative.names.empty() && !derivative.is_dseg)
          names.insert(derivative.names.front());
        for (const NamedValues& label : derivative.values) names.insert(label.name);
      }
    }
    return {names.begin(), names.end()};
  }

  const CohortFolder& folder_;
  const Study& study_;
  std::vector<bool> ever_found_;
};

/// The mask of Mask::kGiven: `mask` under [cohort.labels], or the brain mask.
absl::StatusOr<std::filesystem::path> FindGivenMask(const CohortFolder& folder,
                                                    const std::vector<Derivative>& derivatives,
                                                    const ScansOfCase& scans) {
  const auto configured = folder.labels.find("mask");
  const std::vector<std::string> names =
      configured != folder.labels.end() ? configured->second : std::vector<std::string>{"brain"};
  for (const std::string& name : names) {
    const std::vector<const Derivative*> found =
        Closest(derivatives, scans, [&name](const Derivative& derivative) {
          return !derivative.is_dseg && IsCalled(derivative, name);
        });
    if (found.size() > 1) return Ambiguous(scans, "the mask", found, "mask");
    if (!found.empty()) return found.front()->path;
  }
  return std::filesystem::path();
}

/// "FLAIR", or "acq-mprage_T1w" to choose among several.
bool ShowsChannel(const Scan& scan, const std::string& wanted) {
  std::vector<std::string> parts = Split(wanted, '_');
  if (parts.empty() || !SameName(scan.suffix, parts.back())) return false;
  parts.pop_back();
  return std::all_of(parts.begin(), parts.end(),
                     [&scan](const std::string& entity) { return scan.entities.contains(entity); });
}

/// What the configuration calls a channel of the study, or its own name.
const std::string& NameOfChannel(const CohortFolder& folder, const std::string& channel) {
  const auto configured = folder.channels.find(channel);
  return configured != folder.channels.end() ? configured->second : channel;
}

/// Which of `wanted` a scan shows.
std::optional<std::size_t> IndexOfChannel(const Scan& scan,
                                          const std::vector<std::string>& wanted) {
  for (std::size_t channel = 0; channel < wanted.size(); ++channel) {
    if (ShowsChannel(scan, wanted[channel])) return channel;
  }
  return std::nullopt;
}

/// Per channel of the study, what the cohort calls it.
absl::StatusOr<std::vector<std::string>> CohortChannels(const CohortFolder& folder,
                                                        const Study& study,
                                                        const BidsFiles& files) {
  std::set<std::string> suffixes;
  for (const auto& [subject, scans] : files.scans) {
    for (const Scan& scan : scans) suffixes.insert(scan.suffix);
  }
  std::vector<std::string> wanted;
  for (const std::string& channel : study.channels) {
    wanted.push_back(NameOfChannel(folder, channel));
    bool found = false;
    for (const auto& [subject, scans] : files.scans) {
      for (const Scan& scan : scans) found = found || ShowsChannel(scan, wanted.back());
    }
    if (found) continue;
    if (study.channels.size() == 1 && suffixes.size() == 1 && !folder.channels.contains(channel)) {
      wanted.back() = *suffixes.begin();
      continue;
    }
    return absl::InvalidArgumentError(
        fmt::format("{} has no scan \"{}\" for the study's channel \"{}\": its sub-*/anat folders "
                    "hold {}; set {} "
                    "= \"NAME\" under [cohort.channels] in client.toml",
                    folder.folder.string(), wanted.back(), channel,
                    Quoted({suffixes.begin(), suffixes.end()}), channel));
  }
  return wanted;
}

/// The scan of `wanted` that goes with `first`: the one of the same name, or the session's only
/// one.
const Scan* Companion(const std::vector<Scan>& scans, const Scan& first,
                      const std::string& wanted) {
  const Scan* only = nullptr;
  int found = 0;
  for (const Scan& scan : scans) {
    if (!ShowsChannel(scan, wanted)) continue;
    if (scan.entities == first.entities) return &scan;
    if (SessionOf(scan.entities) != SessionOf(first.entities)) continue;
    only = &scan;
    ++found;
  }
  return found == 1 ? only : nullptr;
}

/// The labels of one derivative under the names that it has here. `taken`: the names that other
/// derivatives of the scan have already.
ScanFiles::LabelFile LabelFileOf(const Derivative& derivative, std::set<std::string>& taken) {
  ScanFiles::LabelFile file{.path = derivative.path, .names = {}};
  if (derivative.is_dseg) {
    for (const NamedValues& label : derivative.values) {
      for (const std::int64_t value : label.values) {
        if (value != 0) file.names[value] = label.name;
      }
    }
    file.closed = !file.names.empty();
    return file;
  }
  std::string name = derivative.names.empty() ? derivative.stem : derivative.names.front();
  // The spinal cord toolbox's seg-manual says what was done, not what is shown.
  if (derivative.longest_name().starts_with("seg-")) name = derivative.longest_name();
  if (!taken.insert(name).second) {
    name = fmt::format("{}/{}", derivative.pipeline, derivative.longest_name());
  }
  file.names = {{1, std::move(name)}};
  file.any_positive = true;
  file.closed = true;
  return file;
}

}  // namespace

absl::StatusOr<std::vector<ScanFiles>> ListBidsScans(const CohortFolder& folder,
                                                     std::vector<std::string>* left_out) {
  const BidsFiles files = FindFiles(folder.folder);
  Sidecars sidecars(folder.folder);
  std::vector<ScanFiles> listed;
  std::set<const Derivative*> used;
  for (const auto& [subject, scans] : files.scans) {
    const auto derivatives = files.derivatives.find(subject);
    for (const Scan& scan : scans) {
      ScanFiles entry;
      entry.name = scan.stem;
      entry.cohort = folder.name;
      entry.patient = SubjectOf(scan.entities);
      entry.images.push_back({.path = scan.path, .channel = scan.suffix});
      entry.sidecar = sidecars.Of(scan.path);
      std::set<std::string> taken;
      if (derivatives != files.derivatives.end()) {
        for (const Derivative& derivative : derivatives->second) {
          if (!Agreement(derivative, {.name = scan.name(), .scans = {&scan}}).has_value()) continue;
          used.insert(&derivative);
          entry.labels.push_back(LabelFileOf(derivative, taken));
        }
      }
      listed.push_back(std::move(entry));
    }
  }
  for (const auto& [subject, derivatives] : files.derivatives) {
    for (const Derivative& derivative : derivatives) {
      if (used.contains(&derivative)) continue;
      left_out->push_back(
          fmt::format("{}: there is no scan that it belongs to", derivative.path.string()));
    }
  }
  return listed;
}

absl::StatusOr<std::vector<CohortImage>> ListBidsImages(const CohortFolder& folder,
                                                        const Study& study) {
  const BidsFiles files = FindFiles(folder.folder);
  ASSIGN_OR_RETURN(const std::vector<std::string> wanted, CohortChannels(folder, study, files));
  std::vector<CohortImage> images;
  for (const std::filesystem::path& subject : SubjectsOf(folder.folder)) {
    const auto derivatives = files.derivatives.find(subject.filename().string());
    const auto scans = files.scans.find(subject.filename().string());
    for (const std::filesystem::path& path : AnatomyFiles(subject)) {
      if (!IsNifti(path) || IsDerivedImage(path)) continue;
      const Scan scan = ScanOf(path);
      CohortImage& image = images.emplace_back();
      image.path = path;
      image.name = scan.suffix.empty() ? scan.stem : scan.name();
      image.channel = IndexOfChannel(scan, wanted);
      if (study.harmonization.mask != HarmonizationPlan::Mask::kGiven ||
          derivatives == files.derivatives.end()) {
        continue;
      }
      ScansOfCase of_case{.name = scan.stem, .scans = {&scan}};
      ASSIGN_OR_RETURN(image.mask, FindGivenMask(folder, derivatives->second, of_case));
      if (!image.mask.empty() || scans == files.scans.end()) continue;
      // The mask of a case may be named after another of its channels.
      for (const Scan& other : scans->second) {
        if (SessionOf(other.entities) == SessionOf(scan.entities)) of_case.scans.push_back(&other);
      }
      ASSIGN_OR_RETURN(image.mask, FindGivenMask(folder, derivatives->second, of_case));
    }
  }
  std::sort(images.begin(), images.end(), [](const CohortImage& left, const CohortImage& right) {
    return left.path < right.path;
  });
  return images;
}

std::optional<std::size_t> ChannelOfBidsName(const CohortFolder& folder, const Study& study,
                                             const std::filesystem::path& image) {
  std::vector<std::string> wanted;
  for (const std::string& channel : study.channels) {
    wanted.push_back(NameOfChannel(folder, channel));
  }
  return IndexOfChannel(ScanOf(image), wanted);
}

absl::StatusOr<std::vector<CaseFiles>> ListBidsCases(const CohortFolder& folder, const Study& study,
                                                     std::vector<std::string>* left_out) {
  const BidsFiles files = FindFiles(folder.folder);
  if (files.scans.empty()) return std::vector<CaseFiles>();
  ASSIGN_OR_RETURN(const std::vector<std::string> wanted, CohortChannels(folder, study, files));

  static const std::vector<Derivative> kNone;
  LabelSearch search(folder, study);
  std::vector<CaseFiles> cases;
  for (const auto& [subject, scans] : files.scans) {
    const auto found = files.derivatives.find(subject);
    const std::vector<Derivative>& derivatives =
        found != files.derivatives.end() ? found->second : kNone;
    for (const Scan& first : scans) {
      if (!ShowsChannel(first, wanted.front())) continue;
      ScansOfCase of_case{.name = first.name(), .scans = {&first}};
      std::string missing;
      for (std::size_t channel = 1; channel < wanted.size(); ++channel) {
        const Scan* companion = Companion(scans, first, wanted[channel]);
        if (companion == nullptr) {
          missing = fmt::format("it has not exactly one scan \"{}\"", wanted[channel]);
          break;
        }
        of_case.scans.push_back(companion);
      }
      CaseFiles of_files{.name = of_case.name,
                         .cohort = folder.name,
                         .images = {},
                         .labels = {},
                         .mask = {},
                         .patient = SubjectOf(first.entities)};
      for (const Scan* scan : of_case.scans) of_files.images.push_back(scan->path);
      ASSIGN_OR_RETURN(const std::vector<std::string> without,
                       search.Find(derivatives, of_case, of_files));
      if (!without.empty()) missing = fmt::format("no label file for {}", Quoted(without));
      if (study.harmonization.mask == HarmonizationPlan::Mask::kGiven) {
        ASSIGN_OR_RETURN(of_files.mask, FindGivenMask(folder, derivatives, of_case));
        if (of_files.mask.empty()) {
          missing =
              "no mask file, which the study normalises over (desc-brain_mask, or `mask` under "
              "[cohort.labels])";
        }
      }
      if (missing.empty()) {
        cases.push_back(std::move(of_files));
      } else {
        left_out->push_back(fmt::format("{}: {}", of_case.name, missing));
      }
    }
  }
  RETURN_IF_ERROR(search.Finish(files));
  return cases;
}

}  // namespace isoscan
