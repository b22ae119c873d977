#pragma once

#include <string>

#include "server/fairness/page.h"

namespace isoscan {

/// The page's twin; docs/fairness.md describes every key. A number that does not exist is null.
std::string RenderJson(const ReportContent& content);

}  // namespace isoscan
