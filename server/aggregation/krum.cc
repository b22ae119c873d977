#include "server/aggregation/krum.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace isoscan {
namespace {

std::vector<std::size_t> All(std::size_t count) {
  std::vector<std::size_t> indices(count);
  std::iota(indices.begin(), indices.end(), std::size_t{0});
  return indices;
}

// How many nearest count among so many.
std::size_t Neighbours(std::size_t among, std::size_t faulty) {
  return among > faulty + 3 ? among - faulty - 2 : 1;
}

// A score as a distance: the root of the mean square.
double Distance(double score, std::size_t neighbours) {
  return std::sqrt(score / static_cast<double>(neighbours));
}

}  // namespace

std::vector<double> KrumScores(const Distances& distances, const std::vector<std::size_t>& among,
                               std::size_t neighbours) {
  std::vector<double> scores;
  for (const std::size_t i : among) {
    std::vector<double> squares;
    for (const std::size_t j : among) {
      if (j != i) squares.push_back(distances.Between(i, j));
    }
    std::sort(squares.begin(), squares.end());
    squares.resize(std::min(neighbours, squares.size()));
    scores.push_back(std::accumulate(squares.begin(), squares.end(), 0.0));
  }
  return scores;
}

Selection SelectByKrum(const Distances& distances, std::size_t faulty, std::size_t kept) {
  const std::size_t neighbours = Neighbours(distances.size(), faulty);
  const std::vector<double> scores = KrumScores(distances, All(distances.size()), neighbours);
  std::vector<std::size_t> order = All(distances.size());
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t i, std::size_t j) { return scores[i] < scores[j]; });

  Selection selection{.chosen = {order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept)},
                      .left_out = std::vector<std::string>(distances.size())};
  const double farthest = Distance(scores[selection.chosen.back()], neighbours);
  for (std::size_t place = kept; place < order.size(); ++place) {
    selection.left_out[order[place]] =
        fmt::format("distance {:.3g} to its {} nearest, chosen were up to {:.3g}",
                    Distance(scores[order[place]], neighbours), neighbours, farthest);
  }
  std::sort(selection.chosen.begin(), selection.chosen.end());
  return selection;
}

Selection SelectForBulyan(const Distances& distances, std::size_t faulty) {
  Selection selection{.chosen = {}, .left_out = std::vector<std::string>(distances.size())};
  std::vector<std::size_t> rest = All(distances.size());
  while (true) {
    const std::size_t neighbours = Neighbours(rest.size(), faulty);
    const std::vector<double> scores = KrumScores(distances, rest, neighbours);
    const auto best = std::min_element(scores.begin(), scores.end()) - scores.begin();
    selection.chosen.push_back(rest[static_cast<std::size_t>(best)]);
    if (selection.chosen.size() == distances.size() - 2 * faulty) {
      for (std::size_t i = 0; i < rest.size(); ++i) {
        if (rest[i] == selection.chosen.back()) continue;
        selection.left_out[rest[i]] =
            fmt::format("distance {:.3g} to its {} nearest of the last {}, chosen was {:.3g}",
                        Distance(scores[i], neighbours), neighbours, rest.size(),
                        Distance(scores[static_cast<std::size_t>(best)], neighbours));
      }
      break;
    }
    rest.erase(rest.begin() + best);
  }
  std::sort(selection.chosen.begin(), selection.chosen.end());
  return selection;
}

}  // namespace isoscan
