#include "client/intake/cohort_findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstddef>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "client/imaging/orientation.h"

namespace isoscan {
namespace {

/// Below this a cohort has no "usual".
constexpr std::size_t kFewest = 5;

/// One image among those that it is compared with.
struct Member {
  CaseSight* sight = nullptr;
  ImageSight* image = nullptr;
};
using Group = std::vector<Member>;

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Images of one channel of one cohort, those that were read and can be used.
std::vector<Group> GroupsOf(std::vector<CaseSight>& sights, bool voxels) {
  std::map<std::pair<std::string, std::string>, Group> groups;
  for (CaseSight& sight : sights) {
    if (sight.quarantined()) continue;
    for (ImageSight& image : sight.images) {
      if (voxels && !image.read) continue;
      groups[{sight.files.cohort, image.file.channel}].push_back({&sight, &image});
    }
  }
  std::vector<Group> found;
  for (auto& [key, group] : groups) found.push_back(std::move(group));
  return found;
}

// --- Duplicates and patients --------------------------------------------------------------------

void FindEqualImages(std::vector<CaseSight>& sights) {
  std::map<std::string, const CaseSight*> first;
  for (CaseSight& sight : sights) {
    for (const ImageSight& image : sight.images) {
      if (image.digest.empty() || sight.quarantined()) continue;
      const auto [known, inserted] = first.emplace(image.digest, &sight);
      if (inserted) continue;
      sight.Quarantine(
          Fault::kDuplicate, image.file.path,
          known->second == &sight
              ? std::string("two channels of the case are the same image, voxel by voxel")
              : fmt::format(
                    "it is the image of case {}, voxel by voxel: a patient in two cases can "
                    "be trained on and scored",
                    known->second->files.name));
    }
  }
}

/// The same image under another scale, bias or rounding: correlated far above what two scans of one
/// person reach.
constexpr double kSamePicture = 0.9999;

/// The pictures as unit vectors. Along one of them, those of equal images lie within a narrow band,
/// so that few pairs are compared.
void FindRescaledImages(const Group& group) {
  struct Entry {
    const Picture* picture;
    Member member;
    double key;
  };
  std::vector<Entry> entries;
  for (const Member& member : group) {
    if (member.sight->quarantined() || std::isnan(member.image->picture.front())) continue;
    entries.push_back({&member.image->picture, member, 0});
  }
  if (entries.size() < 2) return;
  for (Entry& entry : entries) {
    entry.key = std::abs(Correlation(*entry.picture, *entries.front().picture));
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const Entry& left, const Entry& right) { return left.key < right.key; });
  // Unit vectors this close differ by at most this much in any direction.
  const double band = std::sqrt(2 * (1 - kSamePicture));
  std::set<const CaseSight*> told;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    for (std::size_t j = i + 1; j < entries.size() && entries[j].key - entries[i].key <= band;
         ++j) {
      const double correlation = Correlation(*entries[i].picture, *entries[j].picture);
      if (std::abs(correlation) < kSamePicture) continue;
      // Of a pair the later case is told.
      const bool swap = entries[j].member.sight < entries[i].member.sight;
      const Member& earlier = entries[swap ? j : i].member;
      const Member& later = entries[swap ? i : j].member;
      if (later.sight == earlier.sight || !told.insert(later.sight).second) continue;
      later.sight->Quarantine(
          Fault::kDuplicate, later.image->file.path,
          fmt::format("it is the image of case {} in other grey values{} (correlation {:.6f} over "
                      "512 blocks): a patient in two cases can be trained on and scored",
                      earlier.sight->files.name, correlation < 0 ? ", inverted" : "", correlation));
    }
  }
}

void FindEqualLabels(std::vector<CaseSight>& sights) {
  std::map<std::string, const CaseSight*> first;
  for (CaseSight& sight : sights) {
    if (sight.label_digest.empty() || sight.quarantined()) continue;
    const auto [known, inserted] = first.emplace(sight.label_digest, &sight);
    if (inserted) continue;
    const ScanFiles& files = sight.files;
    const ScanFiles& other = known->second->files;
    if (!files.patient.empty() && other.patient == files.patient) continue;
    // Two series of one DICOM case, on one grid.
    if (other.labels.front().path == files.labels.front().path) continue;
    sight.Flag(Fault::kSamePatient, sight.files.labels.front().path,
               fmt::format("its labels are those of case {}, voxel by voxel, and its image is not: "
                           "two scans of one patient, or labels of the wrong case",
                           other.name));
  }
}

/// "sub-9611Ses2" -> "sub-9611": a name without what tells the scans of one patient apart.
std::string PatientStem(std::string name) {
  constexpr std::array<std::string_view, 15> kVisits{
      "session", "ses", "visit", "scan",   "timepoint", "time",     "frame", "followup",
      "repeat",  "rep", "tp",    "retest", "rescan",    "baseline", "run"};
  const std::string original = name;
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  const auto trim = [&name](auto drop) {
    while (!name.empty() && drop(static_cast<unsigned char>(name.back()))) name.pop_back();
  };
  const std::size_t whole = name.size();
  trim([](unsigned char letter) { return std::isdigit(letter) != 0; });
  const bool numbered = name.size() < whole;
  trim([](unsigned char letter) { return letter == '-' || letter == '_'; });
  for (const std::string_view visit : kVisits) {
    if (!name.ends_with(visit)) continue;
    // "sub-01ses2", "patSes2", but no "strep2".
    const std::size_t place = name.size() - visit.size();
    const bool apart = place == 0 ||
                       std::isalpha(static_cast<unsigned char>(original[place - 1])) == 0 ||
                       std::isupper(static_cast<unsigned char>(original[place])) != 0;
    if (!apart) continue;
    if (!numbered && visit != "followup" && visit != "baseline" && visit != "retest" &&
        visit != "rescan") {
      continue;
    }
    name.resize(name.size() - visit.size());
    trim([](unsigned char letter) { return letter == '-' || letter == '_' || letter == ' '; });
    // "scan_01" names no patient.
    return name.empty() || name == "sub" ? original : original.substr(0, name.size());
  }
  return original;
}

void FindPatientsByName(std::vector<CaseSight>& sights) {
  struct Known {
    const CaseSight* sight;
    std::string patient;
  };
  std::map<std::string, Known> first;
  for (CaseSight& sight : sights) {
    if (sight.quarantined() || !sight.files.patient_digest.empty()) continue;
    const std::string& patient =
        sight.files.patient.empty() ? sight.files.name : sight.files.patient;
    const auto [known, inserted] = first.emplace(PatientStem(patient), Known{&sight, patient});
    if (inserted) continue;
    const bool other_cohort = known->second.sight->files.cohort != sight.files.cohort;
    if (known->second.patient == patient && !other_cohort) continue;
    sight.Flag(
        Fault::kSamePatient, sight.images.front().file.path,
        fmt::format("{} may be the patient of case {}, by name{}: a study must hold out both "
                    "or neither; give both one `sub-`, or list both under [held_out]",
                    patient, known->second.sight->files.name,
                    other_cohort ? ", in another cohort" : ""));
  }
}

/// Two folders of DICOM that hold the same patient.
void FindPatientsByDigest(std::vector<CaseSight>& sights) {
  std::map<std::string, const CaseSight*> first;
  std::set<std::string> patients;
  for (const CaseSight& sight : sights) patients.insert(sight.files.patient_digest);
  patients.erase("");
  // One number in all files is an anonymiser's and says nothing (docs/dicom.md).
  if (patients.size() < 2) return;
  for (CaseSight& sight : sights) {
    if (sight.quarantined() || sight.files.patient_digest.empty()) continue;
    const auto [known, inserted] = first.emplace(sight.files.patient_digest, &sight);
    if (inserted) continue;
    const ScanFiles& other = known->second->files;
    if (other.dicom_case == sight.files.dicom_case && other.cohort == sight.files.cohort) continue;
    // A study's list of cases knows them for one patient already.
    if (!sight.files.patient.empty() && known->second->files.patient == sight.files.patient &&
        known->second->files.cohort == sight.files.cohort) {
      continue;
    }
    sight.Flag(Fault::kSamePatient, sight.images.front().file.path,
               fmt::format("its DICOM names the patient of case {}: a study must hold out both or "
                           "neither",
                           other.name));
  }
}

// --- Spacing ------------------------------------------------------------------------------------

void CheckSpacing(const Group& group) {
  if (group.size() < kFewest) return;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    std::vector<double> logarithms;
    for (const Member& member : group) {
      logarithms.push_back(std::log(CanonicalGeometry(member.image->stored).spacing_mm[axis]));
    }
    const double median = Median(logarithms);
    std::vector<double> distances;
    for (const double value : logarithms) distances.push_back(std::abs(value - median));
    // Half or double the usual voxel, in a cohort whose own spread is smaller than that.
    const double limit = std::max(std::log(1.9), 4 * 1.4826 * Median(distances));
    for (std::size_t i = 0; i < group.size(); ++i) {
      if (distances[i] <= limit) continue;
      group[i].sight->Flag(
          Fault::kSpacing, group[i].image->file.path,
          fmt::format("its voxels are {:.3g} mm along {}, the cohort's usually {:.3g} mm",
                      std::exp(logarithms[i]), "xyz"[axis], std::exp(median)));
    }
  }
}

// --- Contrast -----------------------------------------------------------------------------------

/// Correlation of each picture with the median picture of the group.
struct Agreement {
  std::vector<double> correlations;
  double usual = 0;  ///< Their median.
};

Agreement AgreementOf(const Group& group, Picture ImageSight::*picture) {
  std::vector<const Picture*> pictures;
  for (const Member& member : group) pictures.push_back(&(member.image->*picture));
  const Picture median = MedianPicture(pictures);
  Agreement agreement;
  for (const Picture* one : pictures) agreement.correlations.push_back(Correlation(*one, median));
  agreement.usual = Median(agreement.correlations);
  return agreement;
}

/// What a group's labels usually look like beside their surroundings: -1 darker, 1 brighter, 0 not
/// told.
struct UsualContrast {
  int sign = 0;
  double share = 0;  ///< Of the cases that show a contrast at all.
};

constexpr double kVisibleContrast = 0.25;

std::map<std::string, UsualContrast> UsualContrasts(const Group& group) {
  std::map<std::string, std::array<double, 2>> signs;
  for (const Member& member : group) {
    if (member.image != &member.sight->images.front()) continue;
    for (const LabelSight& label : member.sight->labels) {
      if (!label.contrast.has_value() || std::abs(*label.contrast) < kVisibleContrast) continue;
      ++signs[label.name][*label.contrast > 0 ? 1 : 0];
    }
  }
  std::map<std::string, UsualContrast> usual;
  for (const auto& [name, counts] : signs) {
    const double total = counts[0] + counts[1];
    const double share = std::max(counts[0], counts[1]) / total;
    if (total < static_cast<double>(kFewest) || share < 0.8) continue;
    usual[name] = {.sign = counts[1] > counts[0] ? 1 : -1, .share = share};
  }
  return usual;
}

/// In words, how a label of the case contradicts the cohort's; empty: none does.
std::string Contradiction(const Member& member, const std::map<std::string, UsualContrast>& usual) {
  if (member.image != &member.sight->images.front()) return "";
  for (const LabelSight& label : member.sight->labels) {
    const auto known = usual.find(label.name);
    if (known == usual.end() || !label.contrast.has_value() ||
        *label.contrast * known->second.sign > -kVisibleContrast) {
      continue;
    }
    return fmt::format(
        "{} is {:.1f} standard deviations {} than what is around it, and {} in {:.0f} "
        "% of the cohort",
        label.name, std::abs(*label.contrast), *label.contrast > 0 ? "brighter" : "darker",
        known->second.sign > 0 ? "brighter" : "darker", 100 * known->second.share);
  }
  return "";
}

/// Correlations beyond this are a likeness, or its opposite.
constexpr double kLikeness = 0.3;
constexpr double kClearLikeness = 0.5;

void CheckContrast(const Group& group) {
  if (group.size() < kFewest) return;
  const Agreement whole = AgreementOf(group, &ImageSight::picture);
  const Agreement inside = AgreementOf(group, &ImageSight::inside);
  const std::map<std::string, UsualContrast> usual = UsualContrasts(group);
  for (std::size_t i = 0; i < group.size(); ++i) {
    const Member& member = group[i];
    const std::string contradiction = Contradiction(member, usual);
    const double correlation = whole.correlations[i];
    if (whole.usual >= kLikeness && correlation <= -kLikeness) {
      const bool certain = (whole.usual >= kClearLikeness && correlation <= -kClearLikeness) ||
                           !contradiction.empty();
      const std::string reason = fmt::format(
          "its contrast is the negative of the cohort's{}: its picture correlates with the "
          "cohort's median by {:.2f}, the others usually by {:.2f}{}{}. Invert it, or leave it "
          "out: "
          "normalisation cannot",
          certain ? "" : ", probably", correlation, whole.usual, contradiction.empty() ? "" : "; ",
          contradiction);
      if (certain) {
        member.sight->Quarantine(Fault::kNegativeContrast, member.image->file.path, reason);
      } else {
        member.sight->Flag(Fault::kNegativeContrast, member.image->file.path, reason);
      }
    } else if (inside.usual >= kLikeness && inside.correlations[i] <= -kLikeness) {
      member.sight->Flag(
          Fault::kModality, member.image->file.path,
          fmt::format("its tissues are bright where the cohort's are dark, within an equal outline "
                      "(correlation {:.2f}, the others usually {:.2f}){}{}: another contrast, such "
                      "as T2 among T1, or inverted inside its mask",
                      inside.correlations[i], inside.usual, contradiction.empty() ? "" : "; ",
                      contradiction));
    } else if (!contradiction.empty()) {
      member.sight->Flag(Fault::kNegativeContrast, member.image->file.path,
                         contradiction +
                             ": perhaps negative or another contrast, perhaps only an "
                             "unusual patient");
    }
  }
}

// --- Modality -----------------------------------------------------------------------------------

/// Mean distance of a histogram's shape from the cohort's median shape, in the cohort's own spread.
void CheckShape(const Group& group) {
  std::vector<std::size_t> with_shape;
  for (std::size_t i = 0; i < group.size(); ++i) {
    if (!group[i].image->shape.empty()) with_shape.push_back(i);
  }
  if (with_shape.size() < 2 * kFewest) return;
  const std::size_t steps = group[with_shape.front()].image->shape.size();
  std::vector<double> distances(with_shape.size());
  for (std::size_t step = 0; step < steps; ++step) {
    std::vector<double> values;
    for (const std::size_t i : with_shape) values.push_back(group[i].image->shape[step]);
    const double median = Median(values);
    std::vector<double> deviations;
    for (const double value : values) deviations.push_back(std::abs(value - median));
    constexpr double kLeastSpread = 0.02;
    const double spread = 1.4826 * Median(deviations) + kLeastSpread;
    for (std::size_t i = 0; i < values.size(); ++i) {
      distances[i] += deviations[i] / spread / static_cast<double>(steps);
    }
  }
  const double usual = Median(distances);
  for (std::size_t i = 0; i < distances.size(); ++i) {
    const Member& member = group[with_shape[i]];
    if (distances[i] < 5 || distances[i] < 5 * usual || member.sight->quarantined()) continue;
    member.sight->Flag(
        Fault::kModality, member.image->file.path,
        fmt::format("its histogram has another shape than the cohort's ({:.1f} spreads away, the "
                    "others usually {:.1f}): perhaps another contrast or kind of scan",
                    distances[i], usual));
  }
}

/// Words that name a contrast, in a channel's name or a series' description.
std::string_view ContrastIn(std::string_view text) {
  struct Word {
    std::string_view word;
    std::string_view contrast;
  };
  // The longer word first: T2-FLAIR is no T2.
  constexpr std::array<Word, 12> kWords{{{"flair", "FLAIR"},
                                         {"t2star", "T2*"},
                                         {"t2*", "T2*"},
                                         {"t2_star", "T2*"},
                                         {"swi", "SWI"},
                                         {"adc", "ADC"},
                                         {"dwi", "DWI"},
                                         {"mprage", "T1"},
                                         {"bravo", "T1"},
                                         {"t1", "T1"},
                                         {"t2", "T2"},
                                         {"pd", "PD"}}};
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
  for (const Word& word : kWords) {
    const std::size_t place = lower.find(word.word);
    if (place == std::string::npos) continue;
    // Words of their own, but for the w of T1w: a pdf is no PD.
    const auto letter = [&lower](std::size_t i) {
      return i < lower.size() && std::isalpha(static_cast<unsigned char>(lower[i])) != 0;
    };
    const std::size_t end = place + word.word.size();
    const bool weighted = end < lower.size() && lower[end] == 'w' && !letter(end + 1);
    const bool starts = place == 0 || !letter(place - 1);
    if (starts && (weighted || !letter(end))) return word.contrast;
  }
  return "";
}

void CheckSidecar(CaseSight& sight) {
  const Acquisition& acquisition = sight.files.sidecar.acquisition;
  const ImageSight& image = sight.images.front();
  if (!acquisition.modality.empty() && acquisition.modality != "MR" &&
      acquisition.modality != "MRI") {
    sight.Quarantine(Fault::kModality, image.file.path,
                     fmt::format("its sidecar says that it is {}, Isoscan's studies are of MR",
                                 acquisition.modality));
    return;
  }
  const std::string_view channel = ContrastIn(image.file.channel);
  const std::string_view described = ContrastIn(sight.files.sidecar.description);
  if (!channel.empty() && !described.empty() && channel != described) {
    sight.Flag(Fault::kModality, image.file.path,
               fmt::format("it stands for {}, and its sidecar describes it as {}",
                           image.file.channel, described));
    return;
  }
  const Contrast timed = GuessContrast(acquisition);
  const std::string_view by_timing = ContrastIn(ContrastName(timed));
  if (!channel.empty() && !by_timing.empty() && channel != by_timing) {
    sight.Flag(
        Fault::kModality, image.file.path,
        fmt::format("it stands for {}, and its timing (TR {:g} ms, TE {:g} ms) is that of {}",
                    image.file.channel, acquisition.repetition_ms.value_or(0),
                    acquisition.echo_ms.value_or(0), ContrastName(timed)));
  }
}

// --- Labels -------------------------------------------------------------------------------------

void CheckLabels(std::vector<CaseSight>& sights) {
  struct Cohort {
    std::size_t cases = 0;
    std::map<std::string, std::size_t> cases_with;
  };
  std::map<std::string, Cohort> cohorts;
  for (const CaseSight& sight : sights) {
    if (sight.quarantined()) continue;
    Cohort& cohort = cohorts[sight.files.cohort];
    if (sight.files.labels.empty()) continue;
    ++cohort.cases;
    for (const LabelSight& label : sight.labels) {
      if (label.voxels > 0) ++cohort.cases_with[label.name];
    }
  }
  for (CaseSight& sight : sights) {
    if (sight.quarantined()) continue;
    const Cohort& cohort = cohorts[sight.files.cohort];
    if (sight.files.labels.empty()) {
      if (cohort.cases > 0 && !sight.files.label_elsewhere) {
        sight.Flag(Fault::kNoLabel, sight.images.front().file.path,
                   "there is no label file for it: no study can train on it");
      }
      continue;
    }
    const bool empty =
        std::any_of(sight.findings.begin(), sight.findings.end(),
                    [](const Finding& finding) { return finding.fault == Fault::kEmptyLabel; });
    for (const LabelSight& label : sight.labels) {
      const auto known = cohort.cases_with.find(label.name);
      if (empty || label.voxels > 0 || known == cohort.cases_with.end()) continue;
      if (cohort.cases < kFewest || 10 * known->second < 8 * cohort.cases) continue;
      sight.Flag(Fault::kEmptyLabel, sight.files.labels.front().path,
                 fmt::format("it has no voxel of {}, which {} of {} cases have", label.name,
                             known->second, cohort.cases));
    }
  }
}

}  // namespace

void CompareCases(std::vector<CaseSight>& sights) {
  for (CaseSight& sight : sights) {
    if (!sight.quarantined()) CheckSidecar(sight);
  }
  for (const Group& group : GroupsOf(sights, /*voxels=*/false)) CheckSpacing(group);
  // Against the cohort as it lies there, copies included: each keeps its own verdict.
  for (const Group& group : GroupsOf(sights, /*voxels=*/true)) {
    CheckContrast(group);
    CheckShape(group);
  }
  FindEqualImages(sights);
  for (const Group& group : GroupsOf(sights, /*voxels=*/true)) FindRescaledImages(group);
  FindEqualLabels(sights);
  FindPatientsByName(sights);
  FindPatientsByDigest(sights);
  CheckLabels(sights);
}

}  // namespace isoscan
