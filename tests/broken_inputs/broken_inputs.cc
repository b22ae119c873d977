#include "tests/broken_inputs/broken_inputs.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "absl/status/status.h"

#include "client/imaging/image_file.h"
#include "client/imaging/volume.h"
#include "common/random/philox.h"
#include "tests/unit/client/imaging/dicom_files.h"
#include "tests/unit/client/imaging/phantom.h"
#include <sys/stat.h>

namespace isoscan {
namespace {

namespace fs = std::filesystem;

void Require(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(std::string(status.message()));
}

std::string TextOf(const fs::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

void WriteText(const fs::path& file, const std::string& text) {
  fs::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

/// A scan and its labels: 1 left, 2 right hippocampus.
struct Head {
  Volume image;
  LabelMap labels;
};

Geometry HeadGrid() {
  Geometry grid;
  grid.size = {32, 40, 28};
  grid.spacing_mm = {5, 5, 6};
  grid.origin_mm = {-77.5, -97.5, -81};
  return grid;
}

/// A head in air with bright scalp, white matter, folded grey matter, dark ventricles and two
/// hippocampi; every patient is a little different. LPS: x grows to the left.
Head MakeHead(std::uint32_t patient) {
  Head head{.image = {.geometry = HeadGrid(), .voxels = {}},
            .labels = {.geometry = HeadGrid(), .voxels = {}}};
  RandomStream random(/*seed=*/7, "head", patient);
  const double scale = 0.97 + 0.06 * random.Uniform();
  const double shift_x = 0.06 * (random.Uniform() - 0.5);
  const double shift_y = 0.06 * (random.Uniform() - 0.5);
  const double phase = 6 * random.Uniform();
  const auto& size = head.image.geometry.size;
  const auto part = [](std::int64_t i, std::int64_t n) {
    return (2.0 * static_cast<double>(i) + 1) / static_cast<double>(n) - 1;
  };
  for (std::int64_t z = 0; z < size[2]; ++z) {
    for (std::int64_t y = 0; y < size[1]; ++y) {
      for (std::int64_t x = 0; x < size[0]; ++x) {
        const double u = part(x, size[0]) / scale - shift_x;
        const double v = part(y, size[1]) / scale - shift_y;
        const double w = part(z, size[2]) / scale;
        const double radius = std::hypot(u / 0.85, v / 0.9, w / 0.95);
        double value = 6;
        std::uint8_t label = 0;
        if (radius < 1) value = 190;
        if (radius < 0.86) value = 90 + 15 * std::sin(9 * u + 7 * v + 5 * w + phase);
        if (radius < 0.72) value = 150;
        if (std::hypot(u / 0.2, (v + 0.05) / 0.35, (w - 0.1) / 0.25) < 1) value = 40;
        for (const double side : {1.0, -1.0}) {
          if (std::hypot((u - 0.4 * side) / 0.16, (v - 0.1) / 0.3, (w + 0.25) / 0.2) >= 1) continue;
          value = 105;
          label = side > 0 ? 1 : 2;
        }
        const double noise = 8 * (random.Uniform() - 0.5);
        head.image.voxels.push_back(static_cast<float>(std::round(value + noise)));
        head.labels.voxels.push_back(label);
      }
    }
  }
  return head;
}

/// The file as bytes whose header can be broken at will; both forms set, as LPS would be.
RawNifti RawOf(const Head& head) {
  RawNifti raw;
  const Geometry& grid = head.image.geometry;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    raw.size.push_back(static_cast<std::int16_t>(grid.size[axis]));
    raw.spacing_mm[axis] = static_cast<float>(grid.spacing_mm[axis]);
    const float towards = axis < 2 ? -1.0f : 1.0f;  // NIfTI is RAS.
    raw.sform[axis] = {};
    raw.sform[axis][axis] = towards * raw.spacing_mm[axis];
    raw.sform[axis][3] = towards * static_cast<float>(grid.origin_mm[axis]);
    raw.qform_offset[axis] = raw.sform[axis][3];
  }
  raw.quaternion = {0, 0, 1};  // Half a turn about z: -x, -y, z.
  for (const float voxel : head.image.voxels) raw.Append(voxel);
  return raw;
}

constexpr std::size_t kHeaderBytes = 352;

/// The cohort, case by case.
class Cohort {
 public:
  explicit Cohort(fs::path folder) : folder_(std::move(folder)) {
    WriteText(folder_ / "dataset_description.json",
              R"({"Name": "broken on purpose", "BIDSVersion": "1.8.0"})");
    WriteText(folder_ / "derivatives/manual/dseg.tsv",
              "index\tname\n1\tLeft-Hippocampus\n2\tRight-Hippocampus\n");
  }

  fs::path Image(const std::string& subject, const std::string& ending = ".nii.gz") const {
    return Made(folder_ / ("sub-" + subject) / "anat" / ("sub-" + subject + "_T1w" + ending));
  }
  fs::path Labels(const std::string& subject) const {
    return Made(folder_ / "derivatives/manual" / ("sub-" + subject) / "anat" /
                ("sub-" + subject + "_dseg.nii.gz"));
  }
  void Sidecar(const std::string& subject, const std::string& json) const {
    WriteText(Image(subject, ".json"), json);
  }

  /// A head of its own, as it should be.
  Head Write(const std::string& subject) {
    Head head = MakeHead(++patients_);
    Write(subject, head);
    return head;
  }
  void Write(const std::string& subject, const Head& head) const {
    Require(WriteVolume(Image(subject), head.image));
    Require(WriteLabelMap(Labels(subject), head.labels));
  }
  /// With one change to what is written.
  void Write(const std::string& subject, const std::function<void(Head&)>& change) {
    Head head = MakeHead(++patients_);
    change(head);
    Write(subject, head);
  }
  /// An uncompressed image whose header is `change`d; the labels are sound.
  void WriteRaw(const std::string& subject, const std::function<void(RawNifti&)>& change) {
    const Head head = MakeHead(++patients_);
    RawNifti raw = RawOf(head);
    change(raw);
    raw.Write(Image(subject, ".nii"));
    Require(WriteLabelMap(Labels(subject), head.labels));
  }
  /// The same for what the header's structure does not hold: bytes of the file.
  void WriteBytes(const std::string& subject, const std::function<void(std::string&)>& change) {
    WriteRaw(subject, [](RawNifti&) {});
    const fs::path file = Image(subject, ".nii");
    std::string bytes = TextOf(file);
    change(bytes);
    WriteText(file, bytes);
  }
  /// A compressed image whose file is `change`d.
  void WritePacked(const std::string& subject, const std::function<void(std::string&)>& change) {
    Write(subject);
    std::string bytes = TextOf(Image(subject));
    change(bytes);
    WriteText(Image(subject), bytes);
  }

  void Expect(const std::string& subject, const std::string& fault, const std::string& words,
              bool quarantined = true) {
    result_.broken.push_back({.name = "sub-" + subject + "_T1w",
                              .fault = fault,
                              .words = words,
                              .quarantined = quarantined});
  }
  void ExpectSound(const std::string& subject) {
    result_.sound.push_back("sub-" + subject + "_T1w");
  }
  BrokenInputs result() const { return result_; }

 private:
  static fs::path Made(const fs::path& file) {
    fs::create_directories(file.parent_path());
    return file;
  }

  fs::path folder_;
  std::uint32_t patients_ = 0;
  BrokenInputs result_;
};

template <typename T>
void Put(std::string& bytes, std::size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(value));
}

void WriteUnreadable(Cohort& cohort) {
  cohort.WritePacked("empty", [](std::string& bytes) { bytes.clear(); });
  cohort.Expect("empty", "unreadable", "sub-empty");
  cohort.WritePacked("text", [](std::string& bytes) { bytes = "This is no scan.\n"; });
  cohort.Expect("text", "unreadable", "");
  cohort.WritePacked("truncated", [](std::string& bytes) { bytes.resize(bytes.size() / 2); });
  cohort.Expect("truncated", "unreadable", "");
  cohort.WriteBytes("truncatedraw", [](std::string& bytes) { bytes.resize(bytes.size() * 2 / 3); });
  cohort.Expect("truncatedraw", "unreadable", "");
  cohort.WriteBytes("headeronly", [](std::string& bytes) { bytes.resize(kHeaderBytes); });
  cohort.Expect("headeronly", "unreadable", "");
  cohort.WriteBytes("halfheader", [](std::string& bytes) { bytes.resize(200); });
  cohort.Expect("halfheader", "unreadable", "");
  cohort.WritePacked("flippedbits", [](std::string& bytes) {
    for (std::size_t i = bytes.size() / 2; i < bytes.size() / 2 + 64; ++i) {
      bytes[i] = static_cast<char>(~bytes[i]);
    }
  });
  cohort.Expect("flippedbits", "unreadable", "");
  cohort.WriteBytes("hugesize", [](std::string& bytes) {
    for (std::size_t axis = 0; axis < 3; ++axis) Put(bytes, 42 + 2 * axis, std::int16_t{32767});
  });
  cohort.Expect("hugesize", "unreadable", "");
  cohort.WriteBytes("negativesize", [](std::string& bytes) { Put(bytes, 42, std::int16_t{-32}); });
  cohort.Expect("negativesize", "unreadable", "");
  cohort.WriteBytes("voxelsbeyond", [](std::string& bytes) { Put(bytes, 108, 1e9f); });
  cohort.Expect("voxelsbeyond", "unreadable", "");
  cohort.WriteBytes("wrongbits", [](std::string& bytes) { Put(bytes, 72, std::int16_t{7}); });
  cohort.Expect("wrongbits", "unreadable", "");

  cohort.Write("folder");
  fs::remove(cohort.Image("folder"));
  fs::create_directory(cohort.Image("folder"));
  cohort.Expect("folder", "unreadable", "");
  cohort.Write("pipe");
  fs::remove(cohort.Image("pipe"));
  if (mkfifo(cohort.Image("pipe").c_str(), 0600) != 0) throw std::runtime_error("no pipe");
  cohort.Expect("pipe", "unreadable", "");
  cohort.Write("dangling");
  fs::remove(cohort.Image("dangling"));
  fs::create_symlink("nowhere.nii.gz", cohort.Image("dangling"));
  cohort.Expect("dangling", "unreadable", "");
  cohort.Write("loop");
  fs::remove(cohort.Image("loop"));
  fs::create_symlink(cohort.Image("loop").filename(), cohort.Image("loop"));
  cohort.Expect("loop", "unreadable", "");
  cohort.Write("labelcut");
  fs::resize_file(cohort.Labels("labelcut"), fs::file_size(cohort.Labels("labelcut")) / 2);
  cohort.Expect("labelcut", "unreadable", "dseg");
}

void WriteWrongShapes(Cohort& cohort) {
  cohort.WriteRaw("4d", [](RawNifti& raw) {
    raw.size.push_back(3);
    const std::string one = raw.voxels;
    raw.voxels += one + one;
  });
  cohort.Expect("4d", "4d", "3 volumes");
  cohort.WriteRaw("2d", [](RawNifti& raw) { raw.size.resize(2); });
  cohort.Expect("2d", "geometry", "");
  cohort.WriteRaw("colour", [](RawNifti& raw) {
    raw.datatype = 128;
    raw.bits = 24;
  });
  cohort.Expect("colour", "geometry", "");
  cohort.WriteRaw("complex", [](RawNifti& raw) {
    raw.datatype = 32;
    raw.bits = 64;
    raw.voxels += raw.voxels;
  });
  cohort.Expect("complex", "geometry", "");
  cohort.WriteRaw("twoplaces", [](RawNifti& raw) {
    raw.sform[0][0] = -raw.sform[0][0];
    raw.sform[0][3] = -raw.sform[0][3];
  });
  cohort.Expect("twoplaces", "geometry", "qform");
  cohort.WriteRaw("sheared", [](RawNifti& raw) {
    raw.qform_code = 0;
    raw.sform[0][1] = 0.5f;
  });
  cohort.Expect("sheared", "geometry", "");
  cohort.WriteRaw("flat", [](RawNifti& raw) {
    raw.qform_code = 0;
    raw.sform[2] = {};
  });
  cohort.Expect("flat", "geometry", "");
  cohort.WriteRaw("nanplace", [](RawNifti& raw) {
    raw.qform_code = 0;
    raw.sform[1][3] = std::numeric_limits<float>::quiet_NaN();
  });
  cohort.Expect("nanplace", "geometry", "");
  cohort.WriteRaw("metres", [](RawNifti& raw) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      raw.spacing_mm[axis] /= 1000;
      raw.qform_offset[axis] /= 1000;
      for (float& entry : raw.sform[axis]) entry /= 1000;
    }
  });
  cohort.Expect("metres", "spacing", "another unit");
}

void WriteWrongVoxels(Cohort& cohort) {
  cohort.Write(
      "nan", [](Head& head) { head.image.voxels[5000] = std::numeric_limits<float>::quiet_NaN(); });
  cohort.Expect("nan", "not_finite", "1 of 35840 voxels");
  cohort.Write("infinite", [](Head& head) {
    head.image.voxels[7] = -std::numeric_limits<float>::infinity();
    head.image.voxels[8] = std::numeric_limits<float>::infinity();
  });
  cohort.Expect("infinite", "not_finite", "2 of 35840 voxels");
  cohort.Write("constant", [](Head& head) {
    for (float& voxel : head.image.voxels) voxel = 42;
  });
  cohort.Expect("constant", "constant", "42");
  cohort.Write("rounding", [](Head& head) {
    for (float& voxel : head.image.voxels) voxel = 1e6f + voxel * 1e-3f;
  });
  cohort.Expect("rounding", "constant", "");
  cohort.Write("negative", [](Head& head) {
    for (float& voxel : head.image.voxels) voxel = 1000 - voxel;
  });
  cohort.Expect("negative", "negative_contrast", "negative of the cohort's");
  cohort.Write("othercontrast", [](Head& head) {
    for (float& voxel : head.image.voxels) voxel = voxel > 25 ? 230 - voxel : voxel;
  });
  cohort.Expect("othercontrast", "modality", "bright where the cohort's are dark", false);
}

void WriteWrongLabels(Cohort& cohort) {
  cohort.Write("shifted", [](Head& head) { head.labels.geometry.origin_mm[2] += 12; });
  cohort.Expect("shifted", "grid", "does not lie on the grid");
  cohort.Write("cropped", [](Head& head) {
    head.labels.geometry.size[2] = 20;
    head.labels.voxels.resize(static_cast<std::size_t>(head.labels.geometry.voxels()));
  });
  cohort.Expect("cropped", "grid", "32x40x20");
  cohort.Write("stranger", [](Head& head) { head.labels.voxels[100] = 77; });
  cohort.Expect("stranger", "label_values", "77 (1 voxels)");
  const Head fractions = cohort.Write("fractions");
  Volume smooth{.geometry = fractions.labels.geometry, .voxels = {}};
  for (const std::uint8_t label : fractions.labels.voxels) smooth.voxels.push_back(0.5f * label);
  Require(WriteVolume(cohort.Labels("fractions"), smooth));
  cohort.Expect("fractions", "label_values", "no whole numbers");
  const Head swapped = cohort.Write("scanaslabel");
  Require(WriteVolume(cohort.Labels("scanaslabel"), swapped.image));
  cohort.Expect("scanaslabel", "label_values", "");
  cohort.Write("unlabelled", [](Head& head) {
    for (std::uint8_t& label : head.labels.voxels) label = 0;
  });
  cohort.Expect("unlabelled", "empty_label", "no labelled voxel", false);
  cohort.Write("onlyleft", [](Head& head) {
    for (std::uint8_t& label : head.labels.voxels) label = label == 2 ? 0 : label;
  });
  cohort.Expect("onlyleft", "empty_label", "Right-Hippocampus", false);
  cohort.Write("nolabel");
  fs::remove(cohort.Labels("nolabel"));
  cohort.Expect("nolabel", "no_label", "no label file", false);
  cohort.Write("swapped", [](Head& head) {
    for (std::uint8_t& label : head.labels.voxels) {
      if (label != 0) label = label == 1 ? 2 : 1;
    }
  });
  cohort.Expect("swapped", "left_right", "further to the patient's right");
  // The header, not the labels: image and labels mirrored together.
  cohort.Write("mirrored", [](Head& head) {
    for (Geometry* grid : {&head.image.geometry, &head.labels.geometry}) {
      grid->direction[0][0] = -1;
      grid->origin_mm[0] = -grid->origin_mm[0];
    }
  });
  cohort.Expect("mirrored", "left_right", "further to the patient's right");
}

void WriteWrongCohort(Cohort& cohort, const Head& first, const Head& second, const Head& third) {
  cohort.Write("zcopy", first);
  cohort.Expect("zcopy", "duplicate", "voxel by voxel");
  Head rescaled = second;
  for (float& voxel : rescaled.image.voxels) voxel = 3.5f * voxel + 100;
  cohort.Write("zrescaled", rescaled);
  cohort.Expect("zrescaled", "duplicate", "in other grey values");
  Head relabelled = MakeHead(900);
  relabelled.labels = third.labels;
  cohort.Write("zsamelabels", relabelled);
  cohort.Expect("zsamelabels", "same_patient", "its labels are those of case", false);
  cohort.Write("pair7Ses1");
  cohort.Write("pair7Ses2");
  cohort.Expect("pair7Ses2", "same_patient", "may be the patient of case sub-pair7Ses1", false);

  cohort.Write("coarse", [](Head& head) {
    Head coarse{.image = {.geometry = head.image.geometry, .voxels = {}},
                .labels = {.geometry = head.image.geometry, .voxels = {}}};
    const auto& size = head.image.geometry.size;
    for (std::size_t i = 0; i < head.image.voxels.size(); ++i) {
      const auto z = static_cast<std::int64_t>(i) / (size[0] * size[1]);
      if (z % 3 != 0) continue;
      coarse.image.voxels.push_back(head.image.voxels[i]);
      coarse.labels.voxels.push_back(head.labels.voxels[i]);
    }
    for (Geometry* grid : {&coarse.image.geometry, &coarse.labels.geometry}) {
      grid->size[2] = (size[2] + 2) / 3;
      grid->spacing_mm[2] *= 3;
    }
    head = coarse;
  });
  cohort.Expect("coarse", "spacing", "18 mm along z", false);

  cohort.Write("ct");
  cohort.Sidecar("ct", R"({"Modality": "CT"})");
  cohort.Expect("ct", "modality", "CT");
  cohort.Write("t2name");
  cohort.Sidecar("t2name", R"({"Modality": "MR", "SeriesDescription": "t2_tse_tra"})");
  cohort.Expect("t2name", "modality", "describes it as T2", false);
  cohort.Write("t2timing");
  cohort.Sidecar("t2timing", R"({"ScanningSequence": "SE", "RepetitionTime": 5, "EchoTime": 0.1})");
  cohort.Expect("t2timing", "modality", "TR 5000 ms", false);
  cohort.Write("nojson");
  cohort.Sidecar("nojson", R"({"Modality": "MR", )");
  cohort.Expect("nojson", "sidecar", "not a JSON object", false);
}

}  // namespace

BrokenInputs MakeBrokenCohort(const fs::path& folder) {
  Cohort cohort(folder);
  std::vector<Head> sound;
  for (int i = 1; i <= 8; ++i) {
    const std::string subject = fmt::format("sound{}", i);
    sound.push_back(cohort.Write(subject));
    cohort.ExpectSound(subject);
  }
  WriteUnreadable(cohort);
  WriteWrongShapes(cohort);
  WriteWrongVoxels(cohort);
  WriteWrongLabels(cohort);
  WriteWrongCohort(cohort, sound[0], sound[1], sound[2]);
  return cohort.result();
}

BrokenInputs MakeBrokenDicom(const fs::path& folder) {
  BrokenInputs result;
  Head head = MakeHead(1);
  head.image.geometry.size = {32, 40, 9};
  head.image.voxels.resize(32 * 40 * 9);
  for (std::size_t i = 0; i < head.image.voxels.size(); ++i) head.image.voxels[i] += 20;
  const Volume& volume = head.image;
  const auto broken = [&](const std::string& name, const std::string& fault) {
    result.broken.push_back({.name = name, .fault = fault, .words = "", .quarantined = true});
  };

  WriteMrSeries(folder / "sound", volume);
  result.sound.push_back("sound");
  WriteText(folder / "sound/README.txt", "No image at all.\n");

  WriteMrSeries(folder / "missing", volume, nullptr, "2");
  fs::remove(folder / "missing/2-022.dcm");  // Slice 4.
  broken("missing", "missing_slices");
  WriteMrSeries(
      folder / "unequal", volume,
      [&](std::int64_t slice, RawDicom& file) {
        if (slice != 4) return;
        file.Text(0x00200032, "DS", Decimals({-77.5, -97.5, -81 + 4.3 * 6}));
      },
      "3");
  broken("unequal", "unequal_gaps");
  WriteMrSeries(
      folder / "ct", volume,
      [](std::int64_t, RawDicom& file) { file.Text(0x00080060, "CS", "CT"); }, "4");
  broken("ct", "not_mr");
  WriteMrSeries(
      folder / "localiser", volume,
      [](std::int64_t, RawDicom& file) {
        file.Text(0x00080008, "CS", "ORIGINAL\\PRIMARY\\LOCALIZER");
      },
      "5");
  broken("localiser", "localiser");
  WriteMrSeries(
      folder / "noposition", volume, [](std::int64_t, RawDicom& file) { file.Remove(0x00200032); },
      "6");
  broken("noposition", "no_position");
  WriteMrSeries(
      folder / "colour", volume,
      [](std::int64_t, RawDicom& file) { file.Text(0x00280004, "CS", "RGB"); }, "7");
  broken("colour", "colour");
  WriteMrSeries(folder / "cut", volume, nullptr, "8");
  fs::resize_file(folder / "cut/8-022.dcm", 1500);
  broken("cut/8-022", "truncated");
  WriteText(folder / "noise/x.dcm", std::string(128, '\0') + "DICM" + std::string(4000, '\x7f'));
  broken("noise", "unreadable");
  return result;
}

}  // namespace isoscan
