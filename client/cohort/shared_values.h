#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace isoscan {

/// Values that nobody changes, in memory or in a file that is mapped; copies share them. What they
/// lie in goes with the last copy.
///
/// Thread safety: may be read by several threads.
template <typename Value>
class SharedValues {
 public:
  SharedValues() = default;
  /// Takes them over.
  SharedValues(std::vector<Value> values)  // NOLINT(google-explicit-constructor): a change of place
      : SharedValues(std::make_shared<const std::vector<Value>>(std::move(values))) {}
  /// `values` stay where they are as long as `owner` lives.
  SharedValues(std::span<const Value> values, std::shared_ptr<const void> owner)
      : values_(values), owner_(std::move(owner)) {}

  const Value* data() const { return values_.data(); }
  std::size_t size() const { return values_.size(); }
  bool empty() const { return values_.empty(); }
  const Value* begin() const { return values_.data(); }
  const Value* end() const { return values_.data() + values_.size(); }
  const Value& operator[](std::size_t index) const { return values_[index]; }
  std::vector<Value> Copy() const { return {begin(), end()}; }
  using value_type = Value;
  using const_iterator = const Value*;

  friend bool operator==(const SharedValues& left, const SharedValues& right) {
    return std::equal(left.begin(), left.end(), right.begin(), right.end());
  }

 private:
  explicit SharedValues(std::shared_ptr<const std::vector<Value>> values)
      : values_(*values), owner_(std::move(values)) {}

  std::span<const Value> values_;
  std::shared_ptr<const void> owner_;
};

}  // namespace isoscan
