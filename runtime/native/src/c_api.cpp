// The C ABI: checks arguments, runs the session, and turns exceptions into codes and messages.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "arguments.h"
#include "cuda/gpu.h"
#include "deepsim/deepsim.h"
#include "session.h"
#include "error.h"
#include "log.h"
#include "operation.h"
#include "thread_count.h"

#ifndef DEEPSIM_VERSION
#define DEEPSIM_VERSION "unknown"
#endif

using deepsim::runtime::ErrorKind;
using namespace deepsim::runtime::detail;

struct deepsim_inverter {
  const pid_t process = getpid();
  Bundle bundle;
  std::unique_ptr<Session> session;
  deepsim_inverter(const std::string& path, const SessionOptions& options)
      : bundle(Bundle::open(path)), session(open_session(bundle, options)) {}
};

namespace {

int report(deepsim_error* error, ErrorKind kind, const char* message) {
  const int code = exit_code(kind);
  if (error != nullptr) {
    *error = {};
    error->code = code;
    std::strncpy(error->kind, kind_name(kind), sizeof error->kind - 1);
    std::strncpy(error->message, message, sizeof error->message - 1);
  }
  return code;
}

// The same for words of another library; takes no memory, which may be what is lacking.
int report(deepsim_error* error, ErrorKind kind, const char* subject, const char* found, const char* advice) {
  char message[sizeof error->message];
  std::snprintf(message, sizeof message, "%s: %s. %s", subject, found, advice);
  return report(error, kind, message);
}

// Run `body`; no exception leaves the library.
template <class Body>
int guarded(deepsim_error* error, const Body& body) {
  try {
    if (error != nullptr) *error = {};
    body();
    return 0;
  } catch (const Failure& failure) {
    return report(error, failure.kind(), failure.what());
  } catch (const std::bad_alloc&) {
    return report(error, ErrorKind::out_of_memory, "memory: exhausted. Use a smaller max_batch, or free memory.");
  } catch (const std::system_error& refused) {
    return report(error, ErrorKind::device, "system", refused.what(), "See the limits of this process.");
  } catch (const std::exception& other) {
    return report(error, ErrorKind::deepsim, "deepsim", other.what(), "Please report it.");
  }
}

std::int64_t feature_size(const deepsim_inverter* inverter) { return inverter->bundle.manifest().features.elements(); }

// For a call that encodes. Raises UsageError for a bundle without an encoder that this library runs.
Session& encoding(deepsim_inverter* inverter) {
  require_encoder(inverter->bundle.manifest());
  return *inverter->session;
}

// For a call that gives raw images. Raises UsageError for a bundle without a generator, or whose images must be enlarged.
Session& decoding(deepsim_inverter* inverter, bool full) {
  require_images(inverter->bundle.manifest(), full);
  return *inverter->session;
}

// For a call that gives pictures. Raises UsageError as well where the bundle's are none of this library's.
Session& picturing(deepsim_inverter* inverter, bool full = false) {
  require_pictures(inverter->bundle.manifest(), full);
  return *inverter->session;
}

}  // namespace

int deepsim_open(const char* bundle, const deepsim_options* options, deepsim_inverter** inverter, deepsim_error* error) {
  return guarded(error, [&] {
    require(inverter, "inverter");
    *inverter = nullptr;
    require(bundle, "bundle");
    auto opened = std::make_unique<deepsim_inverter>(bundle, session_options(options));
    log(Level::information, std::string(bundle) + ": loaded, kernels for " + opened->session->isa());
    *inverter = opened.release();
  });
}

void deepsim_close(deepsim_inverter* inverter) {
  if (inverter == nullptr) return;
  const bool in_child = inverter->process != getpid();
  if (in_child && !inverter->session->may_close_in_child()) (void)inverter->session.release();
  delete inverter;
}

int deepsim_describe(const deepsim_inverter* inverter, deepsim_info* info, deepsim_error* error) {
  return guarded(error, [&] {
    require(inverter, "inverter");
    require(info, "info");
    const Manifest& manifest = inverter->bundle.manifest();
    const Shape& shape = manifest.features;
    *info = {};
    info->feature_rank = shape.flat ? 1 : 3;
    info->feature_shape[0] = shape.channels;
    info->feature_shape[1] = shape.height;
    info->feature_shape[2] = shape.width;
    info->image_size = manifest.side();
    info->full_image_size = manifest.full_side();
    info->threads = inverter->session->threads();
    info->layer = manifest.layer.c_str();
    info->encoder = manifest.encoder.name.c_str();
    info->isa = inverter->session->isa().c_str();
  });
}

int deepsim_describe_bundle(const deepsim_inverter* inverter, deepsim_bundle_info* info, deepsim_error* error) {
  return guarded(error, [&] {
    require(inverter, "inverter");
    require(info, "info");
    const Manifest& manifest = inverter->bundle.manifest();
    const Framing& photograph = manifest.geometry.photograph;
    deepsim_bundle_info found{};
    found.can_encode = manifest.can_encode() ? 1 : 0;
    found.encoder_kind = name_of(manifest.encoder_kind);
    found.image_offset = manifest.geometry.offset;
    found.resized = photograph.size;
    found.resize = photograph.resize == Resize::warp ? "warp" : "shorter";
    found.display = name_of(manifest.display);
    found.can_decode = manifest.can_decode() ? 1 : 0;
    found.generated_size = manifest.generated_side();
    found.interpolation = photograph.interpolation == Interpolation::bilinear ? "bilinear" : "bicubic";
    write_info(found, info);
  });
}

int deepsim_check_device(const char* device, const char* precision, deepsim_error* error) {
  return guarded(error, [&] { check_device(session_options(device, precision)); });
}

int deepsim_describe_kernels(const char* device, const char* precision, char* text, int64_t capacity, deepsim_error* error) {
  return guarded(error, [&] {
    require(text, "text");
    if (capacity < 1) throw Failure(ErrorKind::usage, "capacity: " + std::to_string(capacity) + ", expected 1 or more.");
    const std::string found = describe_kernels(session_options(device, precision));
    text[found.copy(text, static_cast<std::size_t>(capacity - 1))] = '\0';
  });
}

int deepsim_encode(deepsim_inverter* inverter, const uint8_t* images, int64_t n, float* features, deepsim_error* error) {
  return guarded(error, [&] {
    check_buffers(inverter, images, n, features);
    encoding(inverter).encode(images, n, features);
  });
}

int deepsim_decode(deepsim_inverter* inverter, const float* features, int64_t n, int full, uint8_t* images,
                   deepsim_error* error) {
  return guarded(error, [&] {
    check_buffers(inverter, features, n, images);
    check_finite(features, n * feature_size(inverter));
    picturing(inverter, full != 0).decode(features, n, full != 0, images);
  });
}

int deepsim_decode_raw(deepsim_inverter* inverter, const float* features, int64_t n, int full, float* images,
                       deepsim_error* error) {
  return guarded(error, [&] {
    check_buffers(inverter, features, n, images);
    check_finite(features, n * feature_size(inverter));
    decoding(inverter, full != 0).decode_raw(features, n, full != 0, images);
  });
}

int deepsim_reencode(deepsim_inverter* inverter, const uint8_t* images, int64_t n, int32_t iterations, const int32_t* keep,
                     int32_t keep_count, uint8_t* result, deepsim_error* error) {
  return guarded(error, [&] {
    check_buffers(inverter, images, n, result);
    require(keep, "keep");
    check_keep(iterations, keep, keep_count);
    require_pictures(inverter->bundle.manifest());
    encoding(inverter).reencode(images, n, iterations, keep, keep_count, result);
  });
}

int deepsim_interpolate(deepsim_inverter* inverter, const float* start, const float* end, int32_t steps, uint8_t* images,
                        deepsim_error* error) {
  return guarded(error, [&] {
    check_buffers(inverter, start, 1, images);
    require(end, "end");
    check_steps(steps);
    const auto size = static_cast<std::size_t>(feature_size(inverter));
    std::vector<float> line(static_cast<std::size_t>(steps) * size);
    for (std::int32_t step = 0; step < steps; ++step) {
      const float weight = step + 1 == steps ? 1.0f : static_cast<float>(step * (1.0 / (steps - 1)));
      float* to = line.data() + static_cast<std::size_t>(step) * size;
      for (std::size_t i = 0; i < size; ++i) to[i] = (1 - weight) * start[i] + weight * end[i];
    }
    check_finite(line.data(), static_cast<std::int64_t>(line.size()));
    picturing(inverter).decode(line.data(), steps, false, images);
  });
}

int deepsim_encode_on_device(deepsim_inverter* inverter, uint64_t images, int64_t n, uint64_t features, void* stream,
                             deepsim_error* error) {
  return guarded(error, [&] {
    check_memory(inverter, images, n, features);
    encoding(inverter).encode_on_device(images, n, features, stream);
  });
}

int deepsim_decode_on_device(deepsim_inverter* inverter, uint64_t features, int64_t n, int full, uint64_t images, void* stream,
                             deepsim_error* error) {
  return guarded(error, [&] {
    check_memory(inverter, features, n, images);
    picturing(inverter, full != 0).decode_on_device(features, n, full != 0, false, images, stream);
  });
}

int deepsim_decode_raw_on_device(deepsim_inverter* inverter, uint64_t features, int64_t n, int full, uint64_t images,
                                 void* stream, deepsim_error* error) {
  return guarded(error, [&] {
    check_memory(inverter, features, n, images);
    decoding(inverter, full != 0).decode_on_device(features, n, full != 0, true, images, stream);
  });
}

int deepsim_reencode_on_device(deepsim_inverter* inverter, uint64_t images, int64_t n, int32_t iterations, const int32_t* keep,
                               int32_t keep_count, uint64_t result, void* stream, deepsim_error* error) {
  return guarded(error, [&] {
    check_memory(inverter, images, n, result);
    require(keep, "keep");
    check_keep(iterations, keep, keep_count);
    require_pictures(inverter->bundle.manifest());
    encoding(inverter).reencode_on_device(images, n, iterations, keep, keep_count, result, stream);
  });
}

int deepsim_interpolate_on_device(deepsim_inverter* inverter, uint64_t start, uint64_t end, int32_t steps, uint64_t images,
                                  void* stream, deepsim_error* error) {
  return guarded(error, [&] {
    check_memory(inverter, start, 1, images);
    check_memory(inverter, end, 1, images);
    check_steps(steps);
    picturing(inverter).interpolate_on_device(start, end, steps, images, stream);
  });
}

int deepsim_take_on_device(deepsim_inverter* inverter, uint64_t bytes, void* stream, uint64_t* memory, deepsim_error* error) {
  return guarded(error, [&] {
    require(inverter, "inverter");
    require(memory, "memory");
    *memory = inverter->session->take_on_device(bytes, stream);
  });
}

int deepsim_free_on_device(deepsim_inverter* inverter, uint64_t memory, void* stream, deepsim_error* error) {
  return guarded(error, [&] {
    require(inverter, "inverter");
    inverter->session->free_on_device(memory, stream);
  });
}

int deepsim_order_streams(deepsim_inverter* inverter, void* first, void* later, deepsim_error* error) {
  return guarded(error, [&] {
    require(inverter, "inverter");
    inverter->session->order_streams(first, later);
  });
}

int deepsim_copy_from_device(deepsim_inverter* inverter, uint64_t memory, uint64_t bytes, void* to, void* stream,
                             deepsim_error* error) {
  return guarded(error, [&] {
    require(inverter, "inverter");
    if (bytes > 0) require(to, "to");
    inverter->session->copy_from_device(memory, bytes, to, stream);
  });
}

int deepsim_list_kernels(deepsim_inverter* inverter, int decode, int64_t n, int32_t* steps, int64_t capacity, int64_t* count,
                         deepsim_error* error) {
  return guarded(error, [&] {
    require(inverter, "inverter");
    require(count, "count");
    if (capacity > 0) require(steps, "steps");
    const Session& session = decode != 0 ? decoding(inverter, true) : encoding(inverter);
    const std::vector<int> found = session.steps_of_kernels(decode != 0, n);
    *count = static_cast<int64_t>(found.size());
    std::copy_n(found.begin(), std::clamp<int64_t>(capacity, 0, *count), steps);
  });
}

int deepsim_measure_roofs(int32_t threads, const char* isa, double* gmacs, double* gigabytes_per_second, deepsim_error* error) {
  return guarded(error, [&] {
    require(gmacs, "gmacs");
    require(gigabytes_per_second, "gigabytes_per_second");
    const Roofs roofs = measure_roofs(threads, isa == nullptr ? "" : isa);
    *gmacs = roofs.gmacs;
    *gigabytes_per_second = roofs.gigabytes_per_second;
  });
}

const char* deepsim_instruction_sets(void) {
  struct Names {
    char text[64] = {};
  };
  static const Names names = [] {
    Names listed;
    for (const auto* table = deepsim::kernels::available_kernels(); *table != nullptr; ++table) {
      const std::size_t length = std::strlen(listed.text);
      std::snprintf(listed.text + length, sizeof listed.text - length, "%s%s", length > 0 ? "," : "", (*table)->name);
    }
    return listed;
  }();
  return names.text;
}

int32_t deepsim_usable_cpus(void) { return usable_cpus(); }

const char* deepsim_cuda_architectures(void) { return cuda::kernel_architectures(); }

const char* deepsim_version(void) { return DEEPSIM_VERSION; }

void deepsim_set_log(void (*sink)(int, const char*, void*), void* user) { set_log(sink, user); }
