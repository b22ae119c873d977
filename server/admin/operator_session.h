#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "proto/operations.grpc.pb.h"
#include "server/admin/operator_config.h"

namespace isoscan {

/// The coordinator's conversation with the server (proto/operations.proto).
///
/// Every call blocks until it has an answer; a stop request ends it with CANCELLED. UNAVAILABLE and
/// DEADLINE_EXCEEDED say what to check.
class OperatorSession {
 public:
  OperatorSession(const OperatorConfig& config, std::stop_token stop);

  absl::StatusOr<v1::InviteSiteResponse> InviteSite(const v1::InviteSiteRequest& request);
  absl::StatusOr<v1::ListSitesResponse> ListSites();
  absl::StatusOr<v1::CreateStudyResponse> CreateStudy(const std::string& toml);
  absl::StatusOr<v1::StudyState> PlanStudy(const std::string& study);
  absl::StatusOr<v1::StudyState> StartStudy(const std::string& study);
  absl::StatusOr<v1::StudyState> PauseStudy(const std::string& study);
  absl::StatusOr<v1::StudyState> ResumeStudy(const std::string& study);
  absl::StatusOr<v1::StudyState> StopStudy(const std::string& study);
  absl::StatusOr<v1::ListOperatorStudiesResponse> ListStudies();
  absl::StatusOr<v1::ListModelsResponse> ListModels(const std::string& study);
  absl::StatusOr<v1::BestModelResponse> GetBestModel(const std::string& study);

  /// Calls `seen` with the state at once and after every change, until the study has ended.
  absl::Status WatchStudy(const std::string& study,
                          const std::function<void(const v1::StudyState&)>& seen);

  struct Report {
    std::string html;
    std::string json;
  };
  absl::StatusOr<Report> GetReport(const std::string& study);

  /// Writes the model to `path`, whole or not at all, and answers with its SHA-256.
  /// Errors also: DATA_LOSS when the bytes do not fit the digest; RESOURCE_EXHAUSTED disk full.
  absl::StatusOr<std::string> DownloadModel(const std::string& study, int round,
                                            const std::filesystem::path& path);

 private:
  template <typename Request, typename Response>
  using Method = grpc::Status (v1::Operations::Stub::*)(grpc::ClientContext*, const Request&,
                                                        Response*);
  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(Method<Request, Response> method, const Request& request);

  /// What a call ended with, in the operator's words.
  absl::Status Outcome(const grpc::Status& status) const;

  const std::string server_;
  const std::stop_token stop_;
  const std::unique_ptr<v1::Operations::Stub> stub_;
};

}  // namespace isoscan
