#include "client/interop/torch_file.h"

#include <torch/csrc/jit/serialization/pickler.h>

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "common/status/status_macros.h"
#include "common/weights/atomic_file.h"
#include <ATen/ATen.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/jit_type.h>
#include <caffe2/serialize/inline_container.h>

namespace isoscan {
namespace {

using AnyDict = c10::impl::GenericDict;

AnyDict MakeDict() { return AnyDict(c10::StringType::get(), c10::AnyType::get()); }

/// A state dict whose tensors are views of `weights`.
AnyDict TensorsOf(const StateDict& keys, const NamedTensors& weights) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& [name, tensor] : weights) {
    // from_blob takes no const pointer; the values are only read.
    tensors.emplace(name, at::from_blob(const_cast<float*>(tensor.values.data()), tensor.shape));
  }
  AnyDict dict = MakeDict();
  for (const auto& [key, name] : keys.tensors) dict.insert(key, tensors.at(name));
  for (const std::string& key : keys.counters) dict.insert(key, at::zeros({}, at::kLong));
  return dict;
}

/// The pickle of torch.save and, apart from it, the values of each storage.
class Pickled {
 public:
  explicit Pickled(const c10::IValue& value) {
    torch::jit::Pickler pickler(
        [this](const char* bytes, std::size_t size) { pickle_.append(bytes, size); },
        /*tensor_table=*/nullptr, /*type_renamer=*/nullptr, /*memoized_class_types=*/nullptr,
        [this](const at::Tensor& tensor) { return NumberOf(tensor); },
        // TorchScript's tags of types are what weights_only=True refuses.
        /*tag_aggregates=*/false);
    pickler.protocol();
    pickler.pushIValue(value);
    pickler.stop();
  }

  void WriteTo(caffe2::serialize::PyTorchStreamWriter& writer) const {
    writer.writeRecord("data.pkl", pickle_.data(), pickle_.size());
    for (std::size_t i = 0; i < storages_.size(); ++i) {
      writer.writeRecord("data/" + std::to_string(i), storages_[i].data_ptr(),
                         storages_[i].nbytes());
    }
    writer.writeEndOfFile();
  }

 private:
  std::string NumberOf(const at::Tensor& tensor) {
    const auto [found, added] = numbers_.try_emplace(tensor.data_ptr(), storages_.size());
    if (added) storages_.push_back(tensor);
    return std::to_string(found->second);
  }

  std::string pickle_;
  std::map<const void*, std::size_t> numbers_;
  std::vector<at::Tensor> storages_;  ///< Contiguous, so each is its whole storage.
};

absl::Status WriteTorchFile(const std::filesystem::path& path, const c10::IValue& value) {
  const Pickled pickled(value);
  ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  absl::Status written;
  std::int64_t offset = 0;
  {
    // The writer's destructor would throw after an error: it is told that all went well.
    caffe2::serialize::PyTorchStreamWriter writer([&](const void* bytes, std::size_t size) {
      if (written.ok()) {
        written = file.WriteAt(offset, std::string_view(static_cast<const char*>(bytes), size));
      }
      offset += static_cast<std::int64_t>(size);
      return size;
    });
    pickled.WriteTo(writer);
  }
  RETURN_IF_ERROR(written);
  return file.Commit();
}

}  // namespace

absl::Status WriteStateDict(const std::filesystem::path& path, const StateDict& keys,
                            const NamedTensors& weights) {
  return WriteTorchFile(path, TensorsOf(keys, weights));
}

absl::Status WriteNnunetCheckpoint(const std::filesystem::path& path, const StateDict& keys,
                                   const NamedTensors& weights,
                                   const std::vector<std::int64_t>& mirror_axes) {
  AnyDict init_args = MakeDict();
  init_args.insert("configuration", "3d_fullres");
  c10::IValue mirroring;  // None
  if (!mirror_axes.empty()) {
    mirroring = c10::ivalue::Tuple::create(
        std::vector<c10::IValue>(mirror_axes.begin(), mirror_axes.end()));
  }
  AnyDict checkpoint = MakeDict();
  checkpoint.insert("network_weights", TensorsOf(keys, weights));
  checkpoint.insert("trainer_name", "nnUNetTrainer");
  checkpoint.insert("init_args", init_args);
  checkpoint.insert("inference_allowed_mirroring_axes", mirroring);
  return WriteTorchFile(path, checkpoint);
}

}  // namespace isoscan
