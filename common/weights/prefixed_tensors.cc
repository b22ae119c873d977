#include "common/weights/prefixed_tensors.h"

#include <utility>

namespace isoscan {

void MoveUnder(std::string_view prefix, NamedTensors source, NamedTensors& target) {
  while (!source.empty()) {
    auto node = source.extract(source.begin());
    node.key().insert(0, prefix);
    target.insert(std::move(node));
  }
}

NamedTensors TakeFrom(std::string_view prefix, NamedTensors& source) {
  NamedTensors taken;
  auto tensor = source.lower_bound(std::string(prefix));
  while (tensor != source.end() && tensor->first.starts_with(prefix)) {
    auto node = source.extract(tensor++);
    node.key().erase(0, prefix.size());
    taken.insert(std::move(node));
  }
  return taken;
}

}  // namespace isoscan
