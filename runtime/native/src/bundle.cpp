#include "bundle.h"

#include <sys/stat.h>

#include <string_view>

#include "error.h"
#include "sha256.h"

namespace deepsim::runtime::detail {

namespace {

constexpr const char* kManifest = "manifest.json";
constexpr const char* kWeights = "weights.safetensors";

}  // namespace

Bundle Bundle::open(const std::string& folder) {
  struct stat status{};
  const bool exists = stat(folder.c_str(), &status) == 0;
  if (!exists || !S_ISDIR(status.st_mode)) {
    throw Failure(ErrorKind::bundle, folder + ": " + (exists ? "a file" : "not found") +
                                         ", expected a bundle folder. Give the folder that deepsim export wrote.");
  }
  const std::shared_ptr<const Bytes> data = map_file(folder, kManifest, std::nullopt, kMaxManifestBytes);
  if (!data) {
    throw Failure(ErrorKind::bundle,
                  folder + ": no " + kManifest + " in it, expected a bundle. Give the folder that deepsim export wrote.");
  }
  Bundle bundle;
  bundle.path_ = folder;
  bundle.manifest_ = parse_manifest(std::string_view(data->data(), data->size()), folder + "/" + kManifest);
  return bundle;
}

Tensors Bundle::weights_if_any() const { return manifest_.can_encode() || manifest_.can_decode() ? weights() : Tensors(); }

Tensors Bundle::weights() const {
  const auto record = manifest_.files.find(kWeights);
  if (record == manifest_.files.end()) {
    throw Failure(ErrorKind::bundle, path_ + ": " + kWeights + " is not in its manifest. Export it again.");
  }
  const std::string path = path_ + "/" + kWeights;
  std::shared_ptr<const Bytes> data = map_file(path_, kWeights, record->second.size, 0);
  if (!data) {
    throw Failure(ErrorKind::bundle_corrupt, path + ": missing, the manifest lists it. Copy or export it again.");
  }
  if (sha256(data->data(), data->size()) != record->second.sha256) {
    throw Failure(ErrorKind::bundle_corrupt, path + ": its SHA-256 does not match the manifest. Copy or export it again.");
  }
  return Tensors::parse(std::move(data), kWeights);
}

}  // namespace deepsim::runtime::detail
