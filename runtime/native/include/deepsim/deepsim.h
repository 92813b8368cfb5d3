/* deepsim's C ABI: a bundle folder, loaded for this machine's CPU, that turns photographs into features and features
 * into images. C++ programs use <deepsim/inverter.h>, which is these functions with classes and exceptions.
 *
 * Images are uint8 RGB, 0-255, rows of pixels, (n, side, side, 3); the bundle says which side (deepsim_info.image_size).
 * Features are fp32 (n, C, H, W) or (n, C).
 * Every function returns 0 or the error's exit code, and then fills in *error unless that is NULL. After any error an
 * inverter is usable as before. One inverter may be shared by threads; calls wait for each other, because each uses
 * all of the library's threads. It must not be used in a process forked after it was opened. */
#ifndef DEEPSIM_DEEPSIM_H
#define DEEPSIM_DEEPSIM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef struct deepsim_inverter deepsim_inverter;

/* code: 1 our bug, 2 usage, 3 bad input, 4 environment, 5 a numeric check failed. kind: the name of the error in
 * Python, such as "BundleCorrupt". message: one line, "subject: found, expected. What to do." */
typedef struct {
  int32_t code;
  char kind[32];
  char message[1024];
} deepsim_error;

/* Set size to sizeof(deepsim_options); zeros elsewhere are the defaults. The struct grows from version to version: what a
 * program that was compiled for an older one does not have, has its default. One that was compiled for a newer version is
 * refused where it sets what this one does not know. */
typedef struct {
  uint32_t size;
  int32_t max_batch;       /* images computed together, at most; 0: 64. A CPU takes at most 64, a GPU 1024 */
  int32_t threads;         /* 0: DEEPSIM_NUM_THREADS, else deepsim_usable_cpus, or fewer where a limit on processes or
                              memory grants no more; a number that was asked for is had or refused */
  int32_t half_fc_weights; /* 1: store fully connected weights as fp16 (arithmetic stays fp32) */
  const char* isa;         /* of the CPU: NULL: the best; or "avx512", "avx2", "baseline" */
  const char* device;      /* NULL: "cpu"; or a GPU: "cuda:0" ... */
  const char* precision;   /* of a GPU: NULL: "fp16"; "bf16", for values beyond 65504; "fp32". Sums are fp32 */
  int32_t stable;          /* on a GPU, 1: an image's result has the same bits in every batch; slower for few images,
                              and always by mma.sync */
  int32_t unused;          /* not read: compilers of older clients left a gap here, which may hold anything */
} deepsim_options;

/* Strings live as long as the inverter. */
typedef struct {
  int32_t feature_rank;     /* 1 or 3 */
  int32_t feature_shape[3]; /* (C, H, W) or (C, 1, 1) */
  int32_t image_size;       /* pixels of a side: of what is encoded, and of what is decoded unless `full` */
  int32_t full_image_size;  /* of the generator's whole output, which is as large or larger; without a generator the same */
  int32_t threads;
  const char* layer;   /* "fc6" */
  const char* encoder; /* "caffenet"; "" where the bundle has none */
  const char* isa;     /* "avx512" */
} deepsim_info;

/* Set size to sizeof(deepsim_bundle_info), which grows like the options: a program gets the fields that it was compiled
 * with, and zeros for those that this version does not know. Strings live as long as the inverter. */
typedef struct {
  uint32_t size;
  int32_t can_encode;        /* 0: functions that encode refuse; see encoder_kind */
  const char* encoder_kind;  /* "table": of layers, which this library runs; "graph": in encoder.onnx; "none" */
  int32_t image_offset;      /* row and column of the full image where an image begins */
  int32_t resized;           /* how a photograph becomes an image: it is resized to so many pixels ... */
  const char* resize;        /* "warp": of both sides; "shorter": of the shorter side, the aspect ratio kept ... */
  const char* interpolation; /* "bilinear" or "bicubic", antialiased; the central image_size x image_size are the image */
  const char* display;       /* how raw images become pictures: "clip", clipped to 0-255 and rounded; "stretch": see
                                deepsim_decode */
  int32_t can_decode;        /* 0: the bundle has no generator, and functions that decode refuse */
  int32_t generated_size;    /* pixels of a side of the square at image_offset of the full image. Where it is smaller than
                                image_size, images are that square, enlarged: functions that decode refuse unless `full` */
} deepsim_bundle_info;

int deepsim_open(const char* bundle, const deepsim_options* options, deepsim_inverter** inverter, deepsim_error* error);
/* NULL is fine. The last inverter that is closed ends the library's threads, as does unloading the library. A process that
 * was forked after an inverter was opened may close it too. */
void deepsim_close(deepsim_inverter* inverter);
int deepsim_describe(const deepsim_inverter* inverter, deepsim_info* info, deepsim_error* error);
int deepsim_describe_bundle(const deepsim_inverter* inverter, deepsim_bundle_info* info, deepsim_error* error);

/* Whether inverters can be opened on a device with a precision (of deepsim_options): 0, or the error that says why not. */
int deepsim_check_device(const char* device, const char* precision, deepsim_error* error);

/* Which kernels would run there, and why, in words. The text ends with a 0 and is cut off at `capacity` bytes. */
int deepsim_describe_kernels(const char* device, const char* precision, char* text, int64_t capacity, deepsim_error* error);

/* Features of n images. This and re-encoding are a UsageError for a bundle that cannot encode (deepsim_bundle_info). */
int deepsim_encode(deepsim_inverter* inverter, const uint8_t* images, int64_t n, float* features, deepsim_error* error);
/* Images from n features, which must be finite; full: the whole (n, S, S, 3), S = full_image_size. This, re-encoding and
 * interpolating are a UsageError for a bundle that cannot decode, and for one whose display is not "clip": then the caller
 * makes pictures of raw images. */
int deepsim_decode(deepsim_inverter* inverter, const float* features, int64_t n, int full, uint8_t* images,
                   deepsim_error* error);
/* The same images as fp32 RGB, in grey levels with the mean added, before they are clipped to 0-255 and rounded: rounded half
 * to even and clipped, they are what deepsim_decode gives. */
int deepsim_decode_raw(deepsim_inverter* inverter, const float* features, int64_t n, int full, float* images,
                       deepsim_error* error);
/* Iteration k is decode(encode(.)) k times over its own uint8 output. keep: increasing, from 1 to iterations.
 * result: (n, keep_count, side, side, 3). iterations = 1, keep = {1} reconstructs. */
int deepsim_reencode(deepsim_inverter* inverter, const uint8_t* images, int64_t n, int32_t iterations, const int32_t* keep,
                     int32_t keep_count, uint8_t* result, deepsim_error* error);
/* Images of `steps` (2 or more) features on the straight line from one feature to another, both included. */
int deepsim_interpolate(deepsim_inverter* inverter, const float* start, const float* end, int32_t steps, uint8_t* images,
                        deepsim_error* error);

/* The same on memory of the inverter's GPU: addresses as the CUDA driver and runtime give them, contiguous arrays of the same
 * shapes and types. The work is queued on `stream` (a CUstream or cudaStream_t; NULL is the default stream) and the
 * functions return at once. What is written must not overlap with what is read; only a re-encoding of which one iteration is
 * kept may have its result where the images are. Features are not checked for NaN; they, and raw images, lie at a multiple of
 * 4. An inverter on the CPU refuses, as does one on a GPU where `stream` is being captured into a CUDA graph. */
int deepsim_encode_on_device(deepsim_inverter* inverter, uint64_t images, int64_t n, uint64_t features, void* stream,
                             deepsim_error* error);
int deepsim_decode_on_device(deepsim_inverter* inverter, uint64_t features, int64_t n, int full, uint64_t images, void* stream,
                             deepsim_error* error);
int deepsim_decode_raw_on_device(deepsim_inverter* inverter, uint64_t features, int64_t n, int full, uint64_t images,
                                 void* stream, deepsim_error* error);
int deepsim_reencode_on_device(deepsim_inverter* inverter, uint64_t images, int64_t n, int32_t iterations, const int32_t* keep,
                               int32_t keep_count, uint64_t result, void* stream, deepsim_error* error);
int deepsim_interpolate_on_device(deepsim_inverter* inverter, uint64_t start, uint64_t end, int32_t steps, uint64_t images,
                                  void* stream, deepsim_error* error);
/* Memory of the inverter's GPU, from a pool that the driver keeps; taken and freed in the order of `stream`, which must
 * exist then. What is freed while `stream` is being captured into a CUDA graph goes back at a later call. */
int deepsim_take_on_device(deepsim_inverter* inverter, uint64_t bytes, void* stream, uint64_t* memory, deepsim_error* error);
int deepsim_free_on_device(deepsim_inverter* inverter, uint64_t memory, void* stream, deepsim_error* error);
/* What stream `later` is given from now on begins after what stream `first` holds now; returns at once. */
int deepsim_order_streams(deepsim_inverter* inverter, void* first, void* later, deepsim_error* error);
/* Copy to host memory after all work that `stream` holds; returns when it is there. */
int deepsim_copy_from_device(deepsim_inverter* inverter, uint64_t memory, uint64_t bytes, void* to, void* stream,
                             deepsim_error* error);
/* Which step of its network each kernel of a call is of, in the order in which the GPU runs them; for reading profiles.
 * decode: 0 for a call that encodes n images, else for one that decodes them. Writes no more than `capacity` numbers to
 * `steps`; `count` is how many there are. */
int deepsim_list_kernels(deepsim_inverter* inverter, int decode, int64_t n, int32_t* steps, int64_t capacity, int64_t* count,
                         deepsim_error* error);

/* Measure, in about half a second, 1e9 fp32 multiply-adds and 1e9 bytes read from memory per second, of all threads. */
int deepsim_measure_roofs(int32_t threads, const char* isa, double* gmacs, double* gigabytes_per_second, deepsim_error* error);

/* The threads that an inverter on the CPU has by default, without DEEPSIM_NUM_THREADS: the CPUs of this process's affinity
 * mask, or fewer where its control groups have a quota of CPU time (containers). */
int32_t deepsim_usable_cpus(void);
/* The instruction sets that can run here, best first, with commas between. */
const char* deepsim_instruction_sets(void);
/* The compute capabilities that the CUDA kernels were compiled for, "75,80,90"; newer GPUs compile them when they are
 * loaded. "" for a library that was built without nvcc. */
const char* deepsim_cuda_architectures(void);
const char* deepsim_version(void);

/* Where notes for people go (level 0 information, 1 warning); NULL, the default, drops them. */
void deepsim_set_log(void (*sink)(int level, const char* message, void* user), void* user);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
