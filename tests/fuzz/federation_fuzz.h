/// What a hostile peer may send: bytes that whoever has a certificate, an invitation or a study's
/// text in hand could make up. None may crash, hang, or take memory that the bytes do not pay for;
/// they answer whether all was taken for what it claims to be, which is for the seeds' sake. TLS
/// and the messages' framing are gRPC's and not fed here.
#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

#include "tests/fuzz/fuzz_seed.h"

namespace isoscan {

/// A message to the server. The first byte says which: 'c' CohortSummary of a study, 'd' of a draft
/// (which is planned from what was taken), 'u' SubmitUpdateRequest, 's' SiteScores,
/// 'i' InvarianceCertificate; the rest is the message in protobuf's form.
bool FuzzSiteMessage(std::string_view bytes, const std::filesystem::path& folder);

/// A message to a site: 'o' StudyState, whose text the site reads, 'a' Assignment.
bool FuzzServerMessage(std::string_view bytes, const std::filesystem::path& folder);

/// The file of weights that a site uploads ('w'), that one with block sums beside it ('b', parted
/// by kSums), what a site has sealed for itself ('s').
bool FuzzWeights(std::string_view bytes, const std::filesystem::path& folder);
inline constexpr std::string_view kSums = "\nSUMS\n";

/// Text: 't' a study, 'i' an invitation, 'r' a signing request (PEM), 'c' a certificate (PEM),
/// 'j' the record of an update.
bool FuzzText(std::string_view bytes, const std::filesystem::path& folder);

std::vector<FuzzSeed> SiteMessageSeeds();
std::vector<FuzzSeed> ServerMessageSeeds();
std::vector<FuzzSeed> WeightsSeeds();
std::vector<FuzzSeed> TextSeeds();

}  // namespace isoscan
