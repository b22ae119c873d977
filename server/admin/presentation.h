#pragma once

#include <optional>
#include <string>

#include "proto/operations.pb.h"
#include "proto/study.pb.h"

namespace isoscan {

/// How results are printed: tables for people, or JSON (--json) for programs.
enum class Format { kTable, kJson };

std::string Present(const v1::ListSitesResponse& sites, Format format);
std::string Present(const v1::ListOperatorStudiesResponse& studies, Format format);
std::string Present(const v1::ListModelsResponse& models, Format format);
std::string Present(const v1::BestModelResponse& best, Format format);
std::string Present(const v1::StudyState& study, Format format);

/// "created", "running", "paused", "finished", "stopped".
std::string WordOf(v1::StudyPhase phase);

/// One line: "running, round 2/10 | north: training 12/40 | south: done | waiting for north".
std::string ProgressLine(const v1::StudyState& study);

/// True when more than the sites' step counts differ: worth a line of its own at once.
bool DiffersBeyondSteps(const v1::StudyState& left, const v1::StudyState& right);

}  // namespace isoscan
