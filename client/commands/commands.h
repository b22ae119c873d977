#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "client/client_config.h"
#include "client/evaluation/surface_metrics.h"
#include "client/imaging/image_file.h"
#include "common/process/exit_code.h"
#include "common/study/study.h"

namespace isoscan {

/// The commands of isoscan-client. Results go to standard output, all else to standard error. Each
/// error is one line that says what to do; its code is the program's exit code.

/// Makes a site's folder from an invitation: private key, certificate, authority, client.toml. The
/// key is made here and stays here. Repeating after a failure uses the same key; an existing
/// client.toml is kept.
/// Errors: ALREADY_EXISTS the folder has a certificate; those of RequestCertificate.
absl::Status Enrol(const std::filesystem::path& invitation, const std::filesystem::path& folder,
                   const std::string& server, std::stop_token stop);

/// Tries everything that a study will need and prints a line for each: OK, WARN or FAIL with what
/// to do. Answers with the exit code of the first FAIL.
ExitCode CheckSite(const std::filesystem::path& config_path, std::stop_token stop);

/// What `inspect` looks at, and how.
struct InspectRequest {
  std::filesystem::path config;  ///< client.toml; read only where it is needed.
  std::filesystem::path folder;  ///< Empty: the cohorts of client.toml.
  /// A file, or the name of an approved study; empty: the only approved one, or, of a folder, what
  /// lies there.
  std::string study;
  bool json = false;
  bool headers_only = false;
  int threads = 0;                         ///< 0: every available core.
  std::optional<GeometrySource> geometry;  ///< Instead of the cohort's own.
};

/// Reads every case once and prints what it holds and what is wrong with it (docs/intake.md). Cases
/// that cannot be used are quarantined and named; they never end the run.
/// Errors: NOT_FOUND no cohort there; DATA_LOSS no case can be used, after everything was printed.
absl::Status Inspect(const InspectRequest& request, std::stop_token stop);

/// Where the results of `evaluate` go.
struct EvaluationOutput {
  std::filesystem::path out;  ///< JSON file; empty: none.
  std::filesystem::path csv;  ///< CSV file with a row per case and label; empty: none.
  bool json = false;          ///< Print JSON instead of tables.
};

struct EvaluationRequest {
  std::string study;            ///< As ChooseStudy() takes it.
  std::filesystem::path model;  ///< A global model, safetensors.
  std::vector<std::filesystem::path> folders;
  SurfaceOptions surface;
  EvaluationOutput output;
};

/// Scores a model on cohort folders (every case of theirs) or, without any, on the held-out cases
/// of the site's own cohorts. Prints a row per case and label and each label's means with its
/// numbers of misses and false alarms (docs/evaluation.md). Nothing leaves this machine.
///
/// A case that cannot be used is named with its reason and the rest goes on.
/// Errors: DATA_LOSS no case can be scored; those of ChooseStudy, LoadStudyModel, ListCases and
/// Trainer::Create; CANCELLED.
absl::Status EvaluateCases(const ClientConfig& config, const EvaluationRequest& request,
                           std::stop_token stop);

/// Masks that are compared with others; no study and no model has a part in it.
struct MaskEvaluationRequest {
  std::filesystem::path predictions;  ///< As PairMasks() takes them.
  std::filesystem::path references;
  /// VALUE or VALUE=NAME each; empty: every value but 0 that one of the masks holds.
  std::vector<std::string> labels;
  SurfaceOptions surface;
  GeometrySource geometry = GeometrySource::kAgreed;
  int threads = 0;  ///< 0: every available core.
  EvaluationOutput output;
};

/// The same of masks in files. A file without a counterpart, a pair whose grids differ and what is
/// no label map are refused by name; all others are scored and printed first.
/// Errors: DATA_LOSS some were refused; INVALID_ARGUMENT labels that are none; those of PairMasks;
/// CANCELLED.
absl::Status EvaluateMasks(const MaskEvaluationRequest& request, std::stop_token stop);

/// Which program an exported model is for.
enum class ExportFormat { kNnunet, kDynUnet };

struct ExportRequest {
  std::string study;             ///< As ChooseStudy() takes it.
  std::filesystem::path model;   ///< A global model, safetensors.
  std::filesystem::path folder;  ///< To write into.
  ExportFormat format = ExportFormat::kNnunet;
};

/// Writes a model as nnU-Net or MONAI reads it (client/interop/model_export.h), and prints how it
/// is run there. Errors: those of ChooseStudy, LoadStudyModel and the export.
absl::Status ExportModel(const ClientConfig& config, const ExportRequest& request);

struct ImportRequest {
  std::string study;              ///< As ChooseStudy() takes it.
  std::filesystem::path weights;  ///< As deploy/convert_model.py has written them.
  std::filesystem::path model;    ///< To write.
};

/// Makes a model of the study, of round 0, of weights that come from elsewhere, and prints the line
/// by which a study starts from them.
/// Errors: those of ChooseStudy, SafetensorsFile::Open, CheckStartingWeights and WriteSafetensors.
absl::Status ImportModel(const ClientConfig& config, const ImportRequest& request);

/// What `harmonize` is to do: a study's plan, or the flags' one.
struct HarmonizeRequest {
  std::filesystem::path config;  ///< client.toml; what it says of the input's folder counts.
  std::filesystem::path input;
  std::filesystem::path output;
  std::string study;            ///< As ChooseStudy() takes it; empty: `plan`.
  std::filesystem::path model;  ///< A global model, for a standard that the study leaves to it.
  HarmonizationPlan plan;
  std::optional<GeometrySource> geometry;  ///< Instead of the cohort's own.
  std::string channel;                     ///< Of the study, that a single image shows.
  bool for_nnunet = false;                 ///< CopyRequest::for_nnunet.
  bool json = false;
};
/// Copies an image or a cohort with harmonised images (client/cohort/harmonized_copy.h); prints
/// what became of them.
/// Errors: DATA_LOSS some were refused: they are named, the others are done; INVALID_ARGUMENT a
/// model of another plan, or a geometry that contradicts client.toml where a study's copy is made;
/// FAILED_PRECONDITION a standard that nobody has given; those of ChooseStudy and
/// MakeHarmonizedCopy.
absl::Status HarmonizeImages(const HarmonizeRequest& request, std::stop_token stop);

/// What `predict` is to do.
struct PredictRequest {
  std::filesystem::path config;  ///< client.toml; what it says of the input's folder counts.
  std::filesystem::path input;
  std::filesystem::path output;
  std::string study;                           ///< As ChooseStudy() takes it.
  std::filesystem::path model;                 ///< A global model, safetensors.
  std::optional<GeometrySource> geometry;      ///< Instead of the cohort's own.
  bool mirror = false;                         ///< Along the study's mirror axes.
  bool dicom_seg = false;                      ///< Of DICOM series also DICOM segmentations.
  std::optional<ClientConfig::Device> device;  ///< Instead of that of client.toml.
  bool json = false;
};
/// Applies a model to an image or a cohort, labelled or not (client/prediction/prediction.h);
/// prints what became of the cases, and first what memory it takes.
/// Errors: DATA_LOSS some were refused: they are named, the others are done; INVALID_ARGUMENT a
/// model of another network or plan, or a geometry that contradicts client.toml; RESOURCE_EXHAUSTED
/// less memory than the network takes; those of ChooseStudy, Predictor::Create and PredictCases.
absl::Status Predict(const PredictRequest& request, std::stop_token stop);

/// What `harmonize --certify` was asked for. Empty paths: that file is not written.
struct CertificateRequest {
  std::string study;            ///< As ChooseStudy() takes it.
  std::filesystem::path model;  ///< A global model, safetensors.
  /// A cohort, of which every case is taken; empty: the held-out ones of the site's own.
  std::filesystem::path folder;
  std::int64_t cases = 0;     ///< At most so many of them; 0: all.
  std::filesystem::path out;  ///< JSON file.
  std::filesystem::path svg;
  bool json = false;  ///< Print JSON.
};

/// Measures what a positive scale and a bias change of the model's answers on those cases (rounding
/// alone, or harmonisation is broken), and how it degrades under what harmonisation does not
/// remove. Prints a table. Errors: those of ChooseStudy, LoadStudyModel, ListSiteCases, ListCases
/// and CertifyHeldOut; CANCELLED.
absl::Status Certify(const ClientConfig& config, const CertificateRequest& request,
                     std::stop_token stop);

absl::Status ListStudies(const ClientConfig& config, bool json, std::stop_token stop);
/// `text_only`: the study's TOML alone, as it is stored.
absl::Status ShowStudy(const ClientConfig& config, const std::string& name, bool text_only,
                       std::stop_token stop);
/// Reads the cohort, shows what the study is and takes, and what will be sent; asks unless `yes`.
absl::Status ApproveStudy(const ClientConfig& config, const std::string& name, bool yes,
                          std::stop_token stop);
absl::Status WithdrawFromStudy(const ClientConfig& config, const std::string& name,
                               std::stop_token stop);

/// Works on approved studies until `stop` or, with `until_ended`, until all have ended. Started as
/// one of several PyTorch processes (LaunchOf), rank 0 does so and the others train with it, until
/// rank 0 ends.
absl::Status RunClient(const ClientConfig& config, bool until_ended, std::stop_token stop);

}  // namespace isoscan
