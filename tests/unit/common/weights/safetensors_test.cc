#include "common/weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "common/random/philox.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace isoscan {
namespace {

using absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

NamedTensors SmallNetwork() {
  return {{"head.weight", {{2, 3}, {1, 2, 3, 4, 5, 6}}},
          {"head.bias", {{2}, {-0.0F, std::numeric_limits<float>::denorm_min()}}},
          {"step", {{}, {7}}},
          {"empty", {{0, 4}, {}}}};
}

// A file from its parts, so that each can be wrong.
std::string FileOf(const std::string& header, const std::string& values) {
  std::string bytes(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + values;
}

std::string Padded(std::string header) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return header;
}

std::filesystem::path WriteBytes(const TemporaryDirectory& folder, const std::string& bytes) {
  const auto path = folder.path() / "weights.safetensors";
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

TEST(Safetensors, GivesBackWhatWasWritten) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "weights.safetensors";
  const WeightsMetadata metadata = {{"study", "hippocampus"}, {"round", "3"}};

  ASSERT_OK(WriteSafetensors(path, SmallNetwork(), metadata));
  const auto file = SafetensorsFile::Open(path);

  ASSERT_OK(file);
  EXPECT_EQ(file->ReadAll(), SmallNetwork());
  EXPECT_TRUE(std::signbit(file->Values("head.bias")[0]));
  EXPECT_EQ(file->shapes(), ShapesOf(SmallNetwork()));
  EXPECT_EQ(file->metadata(), metadata);
  EXPECT_THAT(file->Values("head.weight"), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(file->Values("empty"), IsEmpty());
}

TEST(Safetensors, ReadsPartsOfATensor) {
  const TemporaryDirectory folder;
  const auto path = WriteBytes(folder, EncodeSafetensors(SmallNetwork(), {}));
  const auto file = SafetensorsFile::Open(path);
  ASSERT_OK(file);

  std::vector<float> values(3);
  ASSERT_OK(file->Read("head.weight", 2, values));

  EXPECT_THAT(values, ElementsAre(3, 4, 5));
}

TEST(Safetensors, SaysWhenTheFileHasBecomeShorterSinceItWasOpened) {
  const TemporaryDirectory folder;
  const auto path = WriteBytes(folder, EncodeSafetensors({{"w", {{4}, {1, 2, 3, 4}}}}, {}));
  const auto file = SafetensorsFile::Open(path);
  ASSERT_OK(file);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 4);

  std::vector<float> values(4);
  EXPECT_THAT(file->Read("w", 0, values), StatusIs(StatusCode::kDataLoss, HasSubstr("shorter")));
}

// The format's own example of bytes: what is on disk today must be readable for ever.
TEST(Safetensors, HasTheBytesThatTheFormatPrescribes) {
  const std::string header = R"({"__metadata__":{"round":"1"},)"
                             R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                             R"("b":{"dtype":"F32","shape":[],"data_offsets":[8,12]}})";
  const std::string values("\0\0\x80\x3f\0\0\0\xc0\0\0\0\x3f", 12);  // 1, -2, 0.5.

  const std::string bytes =
      EncodeSafetensors({{"b", {{}, {0.5F}}}, {"a", {{2}, {1, -2}}}}, {{"round", "1"}});

  EXPECT_EQ(bytes, FileOf(Padded(header), values));
}

TEST(Safetensors, WritesTheSameBytesToDiskAndToMemory) {
  const TemporaryDirectory folder;
  const auto path = folder.path() / "weights.safetensors";
  ASSERT_OK(WriteSafetensors(path, SmallNetwork(), {{"study", "s"}}));

  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});

  EXPECT_EQ(bytes, EncodeSafetensors(SmallNetwork(), {{"study", "s"}}));
}

TEST(Safetensors, KeepsTextThatNeedsEscapes) {
  const WeightsMetadata metadata = {{"text", "tab\t, \"quotes\", ümlaut, \\ and a line\n"}};
  const TemporaryDirectory folder;

  const auto file = SafetensorsFile::Open(WriteBytes(folder, EncodeSafetensors({}, metadata)));

  ASSERT_OK(file);
  EXPECT_EQ(file->metadata(), metadata);
}

TEST(Safetensors, ReadsTensorsInAnyOrderOfTheFile) {
  const std::string header = Padded(R"({"a":{"shape":[1],"data_offsets":[4,8],"dtype":"F32"},)"
                                    R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})");
  const std::string values("\0\0\x80\x3f\0\0\0\xc0", 8);

  const auto tensors = DecodeSafetensors(FileOf(header, values));

  ASSERT_OK(tensors);
  EXPECT_THAT(tensors->at("a").values, ElementsAre(-2));
  EXPECT_THAT(tensors->at("b").values, ElementsAre(1));
}

TEST(Safetensors, LeavesNothingBehindWhenItCannotWrite) {
  const TemporaryDirectory folder;
  EXPECT_THAT(WriteSafetensors(folder.path() / "missing" / "weights", SmallNetwork(), {}),
              StatusIs(StatusCode::kNotFound, HasSubstr("cannot write weights")));
  // A folder stands where the file should be: the rename fails after all was written.
  std::filesystem::create_directories(folder.path() / "weights" / "occupied");
  EXPECT_THAT(WriteSafetensors(folder.path() / "weights", SmallNetwork(), {}),
              StatusIs(StatusCode::kNotFound, HasSubstr("cannot write weights")));

  int entries = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    ++entries;
  }
  EXPECT_EQ(entries, 1);
}

TEST(Safetensors, SaysWhenThereIsNoFile) {
  EXPECT_THAT(SafetensorsFile::Open("/nowhere/w.safetensors"),
              StatusIs(StatusCode::kNotFound, HasSubstr("w.safetensors")));
}

TEST(Safetensors, RefusesAFolder) {
  const TemporaryDirectory folder;
  EXPECT_THAT(SafetensorsFile::Open(folder.path()),
              StatusIs(StatusCode::kNotFound, HasSubstr("is not a file")));
}

// Every file that is refused, by what is wrong with it and what the message must say.
struct Malformed {
  std::string name;
  std::string bytes;
  StatusCode code;
  std::string words;

  friend void PrintTo(const Malformed& malformed, std::ostream* out) { *out << malformed.name; }
};

std::string OneTensor(const std::string& properties, std::size_t value_bytes = 8) {
  return FileOf(Padded("{\"w\":{" + properties + "}}"), std::string(value_bytes, '\0'));
}

std::vector<Malformed> MalformedFiles() {
  const auto loss = StatusCode::kDataLoss;
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  std::string huge_length = OneTensor(good);
  huge_length[7] = '\x7f';
  std::string long_length = OneTensor(good);
  long_length[1] = '\x01';
  return {
      {"Empty", "", loss, "0 bytes are no safetensors file"},
      {"Short", "1234567", loss, "7 bytes are no safetensors file"},
      {"Pth", std::string("PK\x03\x04\0\0\x08\x08\0\0", 10), absl::StatusCode::kInvalidArgument,
       "convert_model.py"},
      {"OlderPth", "\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j", absl::StatusCode::kInvalidArgument,
       "convert_model.py"},
      {"LengthOfExabytes", huge_length, loss, "the header claims 9151"},
      {"LengthBeyondTheFile", long_length, loss, "the file is truncated"},
      {"NoHeader", FileOf("", ""), loss, "is not JSON"},
      {"NotAligned", FileOf("{} ", "12345"), loss, "not a multiple of 8"},
      {"NotJson", FileOf("pickled!", ""), loss, "is not JSON at byte"},
      {"CutJson", FileOf("{\"w\":{  ", ""), loss, "is not JSON"},
      {"TwoValues", FileOf("{} {}   ", ""), loss, "is not JSON"},
      {"AnArray", FileOf("[]      ", ""), loss, "an array where none belongs"},
      {"ANumber", FileOf("12345678", ""), loss, "a number where none belongs"},
      {"Text", FileOf("\"hello\" ", ""), loss, "text where none belongs"},
      {"Null", FileOf(Padded("{\"w\":null}"), ""), loss, "null where none belongs"},
      {"DeepNesting", FileOf(std::string(1 << 20, '['), ""), loss, "an array where none belongs"},
      {"DeepObjects", FileOf(Padded(R"({"w":{"dtype":{"a":{}}}})"), ""), loss, "an object where"},
      {"TensorOfText", FileOf(Padded(R"({"w":"F32"})"), ""), loss, "text where none belongs"},
      {"NoDtype", OneTensor(R"("shape":[2],"data_offsets":[0,8])"), loss, "lacks dtype"},
      {"NoShape", OneTensor(R"("dtype":"F32","data_offsets":[0,8])"), loss, "lacks dtype, shape"},
      {"UnknownProperty", OneTensor(good + R"(,"stride":[1])"), loss, "unknown property stride"},
      {"PropertyTwice", OneTensor(good + R"(,"shape":[2])"), loss, "property shape twice"},
      {"TensorTwice",
       FileOf(Padded("{\"w\":{" + good + "},\"w\":{" + good + "}}"), std::string(8, '\0')), loss,
       "names w twice"},
      {"MetadataTwice", FileOf(Padded(R"({"__metadata__":{"a":"1","a":"2"}})"), ""), loss,
       "metadata a twice"},
      {"MetadataOfNumbers", FileOf(Padded(R"({"__metadata__":{"a":1}})"), ""), loss,
       "a number where none belongs"},
      {"MetadataOfLists", FileOf(Padded(R"({"__metadata__":{"a":["b"]}})"), ""), loss,
       "an array where none belongs"},
      {"ForgedLineInDtype",
       OneTensor(R"("dtype":"F16\n2026-01-01 forged","shape":[2],"data_offsets":[0,8])"), loss,
       "dtype with control characters"},
      {"HalfPrecision", OneTensor(R"("dtype":"F16","shape":[4],"data_offsets":[0,8])"),
       StatusCode::kInvalidArgument, "w has dtype F16, only F32 is read"},
      {"NegativeShape", OneTensor(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), loss,
       "the negative number -2 at w"},
      {"FractionalShape", OneTensor(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), loss,
       "2.0 at w"},
      {"ShapeBeyond64Bits",
       OneTensor(R"("dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8])"), loss,
       "which is no size"},
      {"ShapeThatWrapsToTwo",
       OneTensor(R"("dtype":"F32","shape":[4611686018427387906,4],"data_offsets":[0,8])"), loss,
       "larger than any file"},
      {"ShapeThatWrapsInBytes",
       OneTensor(R"("dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8])"), loss,
       "larger than any file"},
      {"NineAxes", OneTensor(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,2],"data_offsets":[0,8])"),
       loss, "more than 8 numbers in shape"},
      {"NestedShape", OneTensor(R"("dtype":"F32","shape":[[2]],"data_offsets":[0,8])"), loss,
       "an array where none belongs"},
      {"ShapeLargerThanItsBytes", OneTensor(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"),
       loss, "w of shape [3] needs 12 bytes and has 8"},
      {"OneOffset", OneTensor(R"("dtype":"F32","shape":[2],"data_offsets":[8])"), loss,
       "1 data_offsets, expected 2"},
      {"ThreeOffsets", OneTensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,8,8])"), loss,
       "more than 2 numbers in data_offsets"},
      {"OffsetsBackwards", OneTensor(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), loss,
       "w lies at bytes 8 to 0"},
      {"OffsetsBeyondTheEnd", OneTensor(R"("dtype":"F32","shape":[2],"data_offsets":[4,12])"), loss,
       "w lies at bytes 4 to 12 of 8"},
      {"Truncated", OneTensor(good, 7), loss, "of 7 bytes of values: the file is truncated"},
      {"TrailingBytes", OneTensor(good, 9), loss, "1 bytes follow the last tensor"},
      {"Gap", OneTensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), loss, "a gap or"},
      {"Overlap",
       FileOf(Padded(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                     R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"),
              std::string(8, '\0')),
       loss, "b begins at byte 4 where 8 was expected"},
      {"LineBreakInAName", FileOf(Padded(R"({"w\nforged log line":{}})"), ""), loss,
       "control characters"},
      {"EndlessName", FileOf(Padded("{\"" + std::string(1000, 'w') + "\":{}}"), ""), loss,
       "a name of 1000 bytes"},
      {"NotUtf8", FileOf(Padded("{\"\xff\xfe\":{}}"), ""), loss, "is not JSON"},
  };
}

class MalformedSafetensors : public testing::TestWithParam<Malformed> {};

TEST_P(MalformedSafetensors, IsRefusedWithTheReason) {
  const Malformed& malformed = GetParam();
  const TemporaryDirectory folder;

  EXPECT_THAT(DecodeSafetensors(malformed.bytes),
              StatusIs(malformed.code, HasSubstr(malformed.words)));
  EXPECT_THAT(SafetensorsFile::Open(WriteBytes(folder, malformed.bytes)),
              StatusIs(malformed.code, testing::AllOf(HasSubstr("weights.safetensors: "),
                                                      HasSubstr(malformed.words))));
}

INSTANTIATE_TEST_SUITE_P(All, MalformedSafetensors, testing::ValuesIn(MalformedFiles()),
                         [](const auto& test) { return test.param.name; });

TEST(Safetensors, RefusesEveryTruncation) {
  const std::string bytes = EncodeSafetensors(SmallNetwork(), {{"round", "1"}});
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THAT(DecodeSafetensors(bytes.substr(0, length)), StatusIs(StatusCode::kDataLoss))
        << length;
  }
}

TEST(Safetensors, SurvivesEveryChangedByteOfTheHeader) {
  const std::string bytes = EncodeSafetensors(SmallNetwork(), {{"round", "1"}});
  const std::size_t values = bytes.size() - 9 * sizeof(float);
  RandomStream random(1, "mutations");
  for (std::size_t i = 0; i < values; ++i) {
    for (int repeat = 0; repeat < 8; ++repeat) {
      std::string changed = bytes;
      changed[i] = static_cast<char>(random.Below(256));
      // Whatever is accepted describes exactly the values that there are.
      const auto tensors = DecodeSafetensors(changed);
      if (!tensors.ok()) continue;
      std::int64_t count = 0;
      for (const auto& [name, shape] : ShapesOf(*tensors)) count += ElementCount(shape);
      EXPECT_EQ(count, 9) << "byte " << i << " became " << int{changed[i]};
    }
  }
}

}  // namespace
}  // namespace isoscan
