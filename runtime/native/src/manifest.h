// manifest.json: what a bundle holds (runtime/manifest.py), read with every check of runtime/bundle.py.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "geometry.h"
#include "layer.h"

namespace deepsim::runtime::detail {

constexpr std::uint64_t kMaxManifestBytes = 4 << 20;
constexpr std::uint64_t kMaxFileBytes = std::uint64_t{8} << 30;

struct FileRecord {
  std::uint64_t size = 0;
  std::string sha256;
};

enum class EncoderKind { none, table, graph };

const char* name_of(EncoderKind kind);  // "none", "table", "graph"

// How raw images become pictures: clipped and rounded, or stretched as in some published ones (runtime/pixels.py).
enum class Display { clip, stretch };

const char* name_of(Display display);  // "clip", "stretch"

struct Manifest {
  std::string name, layer;
  Geometry geometry;
  EncoderKind encoder_kind = EncoderKind::none;
  Network encoder;    // of a graph without layers; of none empty
  Network generator;  // empty where the bundle has none
  Shape features{};   // of one
  Display display = Display::clip;
  std::map<std::string, FileRecord> files;

  bool can_encode() const { return encoder_kind == EncoderKind::table; }  // by a library that runs tables of layers
  bool can_decode() const { return !generator.layers.empty(); }
  int side() const { return geometry.photograph.side; }                  // of what is encoded and reconstructed, in pixels
  // Of the square that the losses scored in the generator's output; a smaller one than side() is enlarged for pictures.
  int generated_side() const { return geometry.generated_side > 0 ? geometry.generated_side : side(); }
  // Of the generator's whole output; without a generator, side().
  int full_side() const { return can_decode() ? generator.shapes().back().height : side(); }
};

// Raises UsageError naming what the bundle has instead of an encoder that this library runs.
void require_encoder(const Manifest& manifest);
// Raises UsageError for a bundle without a generator.
void require_generator(const Manifest& manifest);
// Raises UsageError for a bundle without a generator, and unless `full` for one whose images must be enlarged.
void require_images(const Manifest& manifest, bool full);
// Raises UsageError as well for a bundle whose pictures this library does not make.
void require_pictures(const Manifest& manifest, bool full = false);

// Schemas 1 and 2. `source` names the file in messages. Raises BundleCorrupt (not JSON, a changed byte), BundleError (unknown
// schema, missing fields), BundleUnsafe (keys twice, names that leave the bundle, absurd values).
Manifest parse_manifest(std::string_view bytes, const std::string& source);

}  // namespace deepsim::runtime::detail
