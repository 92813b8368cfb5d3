// manifest.json: what a bundle holds (runtime/manifest.py), read with every check of runtime/bundle.py.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "layer.h"

namespace deepsim::runtime::detail {

constexpr std::uint64_t kMaxManifestBytes = 4 << 20;
constexpr std::uint64_t kMaxFileBytes = std::uint64_t{8} << 30;

struct FileRecord {
  std::uint64_t size = 0;
  std::string sha256;
};

struct Manifest {
  std::string name, layer;
  Network encoder, generator;
  std::map<std::string, FileRecord> files;
};

// `source` names the file in messages. Raises BundleCorrupt (not JSON, a changed byte), BundleError (unknown schema,
// missing fields), BundleUnsafe (keys twice, names that leave the bundle, absurd values).
Manifest parse_manifest(std::string_view bytes, const std::string& source);

}  // namespace deepsim::runtime::detail
