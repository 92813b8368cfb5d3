// A bundle folder: its manifest, and its weights once their hash has been checked (runtime/bundle.py).
#pragma once

#include <string>

#include "manifest.h"
#include "safetensors.h"

namespace deepsim::runtime::detail {

class Bundle {
 public:
  // Read and check the manifest of `folder`; no other file is touched. Raises BundleError and its kinds.
  static Bundle open(const std::string& folder);

  const std::string& path() const { return path_; }
  const Manifest& manifest() const { return manifest_; }

  // weights.safetensors, whose size and SHA-256 match the manifest. Raises BundleError and its kinds.
  Tensors weights() const;
  // The same, or no tensors where no network of the bundle is a table of layers.
  Tensors weights_if_any() const;

 private:
  std::string path_;
  Manifest manifest_;
};

}  // namespace deepsim::runtime::detail
