#include "common/weights/named_tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/status_matchers.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::AllOf;
using testing::HasSubstr;

TEST(ElementCount, CountsAScalarAsOneValueAndAnEmptyAxisAsNone) {
  EXPECT_EQ(ElementCount({}), 1);
  EXPECT_EQ(ElementCount({32, 1, 3, 3, 3}), 864);
  EXPECT_EQ(ElementCount({32, 0, 3}), 0);
}

TEST(ShapeToString, LooksAsLibTorchPrintsIt) {
  EXPECT_EQ(ToString(Shape{32, 1, 3, 3, 3}), "[32, 1, 3, 3, 3]");
  EXPECT_EQ(ToString(Shape{}), "[]");
}

TEST(CheckShapes, AcceptsExactlyTheExpectedTensors) {
  const TensorShapes shapes = {{"head.weight", {2, 3}}, {"head.bias", {2}}};
  EXPECT_OK(CheckShapes("st-marys", shapes, shapes));
}

TEST(CheckShapes, NamesTheTensorThatIsMissing) {
  EXPECT_THAT(CheckShapes("st-marys", {{"head.weight", {2, 3}}},
                          {{"head.weight", {2, 3}}, {"head.bias", {2}}}),
              StatusIs(StatusCode::kInvalidArgument,
                       "st-marys sent 1 tensors, expected 2: head.bias is missing"));
}

TEST(CheckShapes, NamesTheTensorThatDoesNotBelong) {
  EXPECT_THAT(
      CheckShapes("st-marys", {{"head.bias", {2}}, {"tail.bias", {2}}}, {{"head.bias", {2}}}),
      StatusIs(StatusCode::kInvalidArgument,
               AllOf(HasSubstr("2 tensors, expected 1"), HasSubstr("tail.bias is not part"))));
}

TEST(CheckShapes, NamesBothShapesAndNeverBroadcasts) {
  EXPECT_THAT(
      CheckShapes("st-marys", {{"head.bias", {1}}}, {{"head.bias", {2}}}),
      StatusIs(StatusCode::kInvalidArgument, "st-marys sent head.bias of shape [1], expected [2]"));
  EXPECT_THAT(
      CheckShapes("st-marys", {{"head.weight", {3, 2}}}, {{"head.weight", {2, 3}}}),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("of shape [3, 2], expected [2, 3]")));
}

}  // namespace
}  // namespace isoscan
