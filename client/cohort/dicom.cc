#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "absl/status/status.h"

#include "client/cohort/label_names.h"
#include "client/cohort/layouts.h"
#include "client/imaging/dicom_listing.h"
#include "common/status/status_macros.h"

// A folder of DICOM series for each case, labels beside them: docs/dicom.md.

namespace isoscan {
namespace {

constexpr std::size_t kFilesToLookAt = 64;

bool Exists(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

bool IsContrastName(const std::string& name) {
  return std::any_of(std::begin(kContrasts), std::end(kContrasts),
                     [&name](Contrast contrast) { return SameName(ContrastName(contrast), name); });
}

/// Whether a folder on the way to the series' files has this name.
bool LiesIn(const DicomSeries& series, const std::string& name) {
  const std::filesystem::path folder = series.folder;
  return std::any_of(folder.begin(), folder.end(), [&name](const std::filesystem::path& part) {
    return SameName(part.string(), name);
  });
}

/// The series of a case that may be meant by a channel: those in a folder of its name; or else
/// those of its contrast; or else, for a study's only channel that the configuration does not name,
/// those whose contrast does not contradict it. Originals go before derived images.
std::vector<const DicomSeries*> Fitting(const DicomListing& listing, const std::string& channel,
                                        bool any) {
  std::vector<const DicomSeries*> fitting;
  const auto take = [&](auto fits) {
    if (!fitting.empty()) return;
    for (const DicomSeries& series : listing.series) {
      if (fits(series)) fitting.push_back(&series);
    }
  };
  const auto contrast_of = [](const DicomSeries& series) {
    return GuessContrast(series.acquisition);
  };
  take([&](const DicomSeries& series) { return LiesIn(series, channel); });
  take([&](const DicomSeries& series) {
    return contrast_of(series) != Contrast::kUnknown &&
           SameName(ContrastName(contrast_of(series)), channel);
  });
  if (any) {
    take([&](const DicomSeries& series) {
      return series.acquisition.component == ImageComponent::kMagnitude &&
             (contrast_of(series) == Contrast::kUnknown || !IsContrastName(channel));
    });
  }
  const auto is_original = [](const DicomSeries* series) { return !series->derived; };
  if (std::any_of(fitting.begin(), fitting.end(), is_original)) {
    std::erase_if(fitting, [](const DicomSeries* series) { return series->derived; });
  }
  return fitting;
}

/// What a case has, for the message about what it lacks.
std::string WhatIsThere(const DicomListing& listing) {
  std::vector<std::string> parts;
  for (const DicomSeries& series : listing.series) {
    parts.push_back(
        fmt::format("{} ({})", series.key, ContrastName(GuessContrast(series.acquisition))));
  }
  for (const DicomSetAside& aside : listing.set_aside) {
    parts.push_back(fmt::format("{} set aside ({} {}): {}", aside.first.filename().string(),
                                aside.files, aside.files == 1 ? "file" : "files", aside.reason));
  }
  if (parts.empty()) return "no DICOM file";
  const std::size_t shown = std::min<std::size_t>(parts.size(), 4);
  return fmt::format(
      "{}{}", fmt::join(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(shown), "; "),
      shown < parts.size() ? fmt::format("; and {} more", parts.size() - shown) : "");
}

/// The series of each channel; what is wrong, otherwise.
absl::StatusOr<std::vector<DicomSeries>> SeriesOf(const CohortFolder& folder, const Study& study,
                                                  const DicomListing& listing) {
  std::vector<DicomSeries> chosen;
  for (const std::string& channel : study.channels) {
    const auto configured = folder.channels.find(channel);
    const bool is_named = configured != folder.channels.end();
    const std::string& wanted = is_named ? configured->second : channel;
    const std::vector<const DicomSeries*> fitting =
        Fitting(listing, wanted, /*any=*/study.channels.size() == 1 && !is_named);
    if (fitting.empty()) {
      return absl::NotFoundError(fmt::format(
          "no series for \"{}\", neither in a folder of that name nor by its timing; it "
          "has {}",
          wanted, WhatIsThere(listing)));
    }
    if (fitting.size() > 1) {
      return absl::InvalidArgumentError(fmt::format(
          "{} series may be \"{}\" ({} and {}): put the right one into a folder {} of the case",
          fitting.size(), wanted, fitting[0]->key, fitting[1]->key, wanted));
    }
    chosen.push_back(*fitting.front());
  }
  return chosen;
}

absl::StatusOr<CaseFiles::LabelFile> LabelsOf(const CohortFolder& folder, const Study& study) {
  if (study.labels.size() == 1 && !folder.labels.contains(study.labels.front())) {
    return CaseFiles::LabelFile{.path = {}, .values = {{1, 1}}, .any_positive = true};
  }
  ASSIGN_OR_RETURN(auto values, MapValues(folder, study, {}, (folder.folder / "labels").string()));
  return CaseFiles::LabelFile{.path = {}, .values = std::move(values)};
}

}  // namespace

std::string CaseOfSeries(const DicomSeries& series) {
  return series.folder.substr(0, series.folder.find('/'));
}

std::optional<std::filesystem::path> FileOfCase(const std::filesystem::path& folder,
                                                const std::string& name) {
  for (const char* ending : {".nii.gz", ".nii", ".nrrd", ".mha"}) {
    std::filesystem::path path = folder / (name + ending);
    if (Exists(path)) return path;
  }
  return std::nullopt;
}

std::optional<std::size_t> ChannelOfSeries(const CohortFolder& folder, const Study& study,
                                           const DicomSeries& series, const std::string& listed) {
  const auto wanted = [&](std::size_t channel) {
    const auto configured = folder.channels.find(study.channels[channel]);
    return configured != folder.channels.end() ? configured->second : study.channels[channel];
  };
  // A folder's name counts before any contrast.
  for (std::size_t channel = 0; channel < study.channels.size(); ++channel) {
    if (LiesIn(series, wanted(channel))) return channel;
  }
  for (std::size_t channel = 0; channel < study.channels.size(); ++channel) {
    if (!listed.empty() && SameName(listed, wanted(channel))) return channel;
  }
  DicomListing alone;
  alone.series.push_back(series);
  const bool any = study.channels.size() == 1 && folder.channels.empty();
  for (std::size_t channel = 0; channel < study.channels.size(); ++channel) {
    if (!Fitting(alone, wanted(channel), any).empty()) return channel;
  }
  return std::nullopt;
}

std::vector<std::filesystem::path> DicomCaseFolders(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> folders = SortedEntries(folder);
  std::erase_if(folders, [](const std::filesystem::path& entry) {
    std::error_code ignored;
    const std::string name = entry.filename().string();
    return !std::filesystem::is_directory(entry, ignored) || SameName(name, "labels") ||
           SameName(name, "masks");
  });
  return folders;
}

bool LooksLikeDicom(const std::filesystem::path& folder) {
  for (const std::filesystem::path& case_folder : DicomCaseFolders(folder)) {
    std::size_t files = 0;
    std::error_code error;
    using Iterator = std::filesystem::recursive_directory_iterator;
    const auto options = std::filesystem::directory_options::skip_permission_denied;
    for (Iterator entry(case_folder, options, error), end;
         !error && entry != end && files < kFilesToLookAt; entry.increment(error)) {
      std::error_code ignored;
      if (!entry->is_regular_file(ignored)) continue;
      ++files;
      if (MayBeDicom(entry->path())) return true;
    }
  }
  return false;
}

absl::StatusOr<CaseFiles> DicomCase(const CohortFolder& folder, const Study& study,
                                    const std::filesystem::path& case_folder, DicomListing listed) {
  CaseFiles files{.name = case_folder.filename().string(),
                  .cohort = folder.name,
                  .images = {},
                  .labels = {},
                  .mask = {}};
  ASSIGN_OR_RETURN(std::vector<DicomSeries> chosen, SeriesOf(folder, study, listed));
  std::set<std::string> patients;
  for (DicomSeries& series : chosen) {
    files.images.push_back(listed.series.size() == 1 ? case_folder : series.slices.front().file);
    if (!series.patient.empty()) {
      patients.insert(series.patient);
      files.patient_fraction = series.patient_fraction;
    }
    files.series.push_back(std::move(series));
  }
  if (patients.size() > 1) return absl::InvalidArgumentError("its series show different patients");
  if (study.harmonization.mask == HarmonizationPlan::Mask::kGiven) {
    const auto mask = FileOfCase(folder.folder / "masks", files.name);
    if (!mask.has_value()) {
      return absl::NotFoundError(fmt::format(
          "there is no {}", (folder.folder / "masks" / (files.name + ".nii.gz")).string()));
    }
    files.mask = *mask;
  }
  return files;
}

absl::StatusOr<std::vector<CaseFiles>> ListUnlabelledDicomCases(const CohortFolder& folder,
                                                                const Study& study,
                                                                std::vector<std::string>* left_out,
                                                                const ListingControl& control) {
  std::vector<CaseFiles> cases;
  const std::vector<std::filesystem::path> case_folders = DicomCaseFolders(folder.folder);
  std::int64_t listed = 0;
  for (const std::filesystem::path& case_folder : case_folders) {
    ASSIGN_OR_RETURN(DicomListing listing, ListDicomSeries(case_folder, {.threads = control.threads,
                                                                         .stop = control.stop}));
    if (control.observe) control.observe(++listed, std::ssize(case_folders));
    absl::StatusOr<CaseFiles> files = DicomCase(folder, study, case_folder, std::move(listing));
    if (files.ok()) {
      cases.push_back(*std::move(files));
    } else {
      left_out->push_back(fmt::format("{}: {}", case_folder.filename().string(),
                                      std::string(files.status().message())));
    }
  }
  return cases;
}

absl::StatusOr<std::vector<CaseFiles>> ListDicomCases(const CohortFolder& folder,
                                                      const Study& study,
                                                      std::vector<std::string>* left_out,
                                                      const ListingControl& control) {
  ASSIGN_OR_RETURN(const CaseFiles::LabelFile labels, LabelsOf(folder, study));
  ASSIGN_OR_RETURN(std::vector<CaseFiles> cases,
                   ListUnlabelledDicomCases(folder, study, left_out, control));
  std::erase_if(cases, [&](CaseFiles& files) {
    const auto label = FileOfCase(folder.folder / "labels", files.name);
    if (label.has_value()) {
      files.labels = {labels};
      files.labels.front().path = *label;
      return false;
    }
    left_out->push_back(
        fmt::format("{}: there is no {}", files.name,
                    (folder.folder / "labels" / (files.name + ".nii.gz")).string()));
    return true;
  });
  std::map<std::string, std::vector<std::size_t>> of_patient;  // Digest -> cases.
  for (std::size_t i = 0; i < cases.size(); ++i) {
    for (const DicomSeries& series : cases[i].series) {
      if (series.patient.empty()) continue;
      of_patient[series.patient].push_back(i);
      break;
    }
  }
  // One number in all files is an anonymiser's, not a patient's. The digests are of this process
  // alone: a patient is called by the first case's name.
  const bool tells_patients = of_patient.size() > 1;
  for (const auto& [digest, members] : of_patient) {
    for (const std::size_t member : members) {
      if (tells_patients) {
        cases[member].patient = cases[members.front()].name;
      } else {
        cases[member].patient_fraction.reset();
      }
    }
  }
  return cases;
}

}  // namespace isoscan
