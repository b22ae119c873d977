#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "client/cohort/cohort.h"
#include "client/imaging/dicom_listing.h"
#include "common/study/study.h"

namespace isoscan {

/// Every case that a model of the study can be asked about, sorted by name; labels are not looked
/// for. `folder.folder`, a path, is
///
///   a cohort's folder, as ListCases knows it: of dataset.json also imagesTs;
///   a folder of image files: each is a case, named without its ending and a "_0000"; for a study
///   of
///     several channels CASE_0000, CASE_0001, ... in the study's order;
///   a folder of DICOM files: one case, whose series may lie in folders below it;
///   one image, or one file of a DICOM series. For a study of several channels CASE_0000, beside
///     which the others lie.
///
/// A case that lacks a channel or a given mask gets a line in `left_out`.
/// Errors: as those of ListCases; INVALID_ARGUMENT a single image that is no whole case.
absl::StatusOr<std::vector<CaseFiles>> ListCasesToPredict(const CohortFolder& folder,
                                                          const Study& study,
                                                          std::vector<std::string>* left_out,
                                                          const ListingControl& control = {});

}  // namespace isoscan
