// Every call of the C ABI with what it must refuse, what it says of the machine, and where its notes go.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "deepsim/inverter.h"
#include "random_bundle.h"

using namespace deepsim::tests;
using deepsim::runtime::detail::Activation;
using deepsim::runtime::detail::EncoderKind;
using deepsim::runtime::detail::Kind;

namespace {

// A bundle that decodes 4 maps of 6 x 6 to as many pixels, opened on the CPU.
struct Opened {
  RandomBundle bundle{Recipe{
      {}, {layer("image", Kind::conv, 4, 3, 3, 1, 1, Activation::none)}, 6, 0, false, 1, EncoderKind::none, {4, 6, 6, false}}};
  deepsim_inverter* inverter = nullptr;
  deepsim_error error{};
  Opened() { REQUIRE(deepsim_open(bundle.path().c_str(), nullptr, &inverter, &error) == 0); }
  ~Opened() { deepsim_close(inverter); }

  // "done", or the error's name and message.
  std::string says(const std::function<int(deepsim_error*)>& call) {
    const int code = call(&error);
    CHECK(code == error.code);
    CHECK(call(nullptr) == code);  // who does not ask for words gets the code
    return code == 0 ? "done" : std::string(error.kind) + ": " + error.message;
  }
};

}  // namespace

TEST_CASE("null pointers and impossible numbers are refused by name") {
  Opened opened;
  deepsim_inverter* const inverter = opened.inverter;
  std::vector<float> features(2 * 4 * 6 * 6, 0.5f);
  std::vector<std::uint8_t> images(2 * 6 * 6 * 3);
  const auto decoding = [&](deepsim_inverter* with, const float* from, std::int64_t n, std::uint8_t* to) {
    return opened.says([&](deepsim_error* error) { return deepsim_decode(with, from, n, 0, to, error); });
  };
  CHECK(decoding(inverter, features.data(), 2, images.data()) == "done");
  CHECK(decoding(inverter, nullptr, 0, nullptr) == "done");
  CHECK(decoding(nullptr, features.data(), 2, images.data()) == "UsageError: inverter: a null pointer, expected memory.");
  CHECK(decoding(inverter, nullptr, 2, images.data()) == "UsageError: input: a null pointer, expected memory.");
  CHECK(decoding(inverter, features.data(), 2, nullptr) == "UsageError: output: a null pointer, expected memory.");
  CHECK(decoding(inverter, features.data(), -1, images.data()) == "ShapeError: n: -1, expected 0 to 2147483648 images.");
  features[100] = -INFINITY;
  CHECK(decoding(inverter, features.data(), 2, images.data()) ==
        "DataError: features: infinite values, expected finite float32. Look where they come from.");
  std::vector<float> raw(2 * 6 * 6 * 3);
  const auto raw_of = [&](const float* from, std::int64_t n, float* to) {
    return opened.says([&](deepsim_error* error) { return deepsim_decode_raw(inverter, from, n, 1, to, error); });
  };
  CHECK(raw_of(features.data(), 2, raw.data()).find("DataError: features: infinite values") == 0);
  features[100] = 0.5f;
  CHECK(raw_of(features.data(), 2, raw.data()) == "done");
  CHECK(raw_of(nullptr, 0, nullptr) == "done");
  CHECK(raw_of(features.data(), 2, nullptr) == "UsageError: output: a null pointer, expected memory.");
  const auto line = [&](int steps) {
    return opened.says([&](deepsim_error* error) {
      return deepsim_interpolate(inverter, features.data(), features.data() + 144, steps, images.data(), error);
    });
  };
  CHECK(line(2) == "done");
  for (const int steps : {1, 0, -5, (1 << 20) + 1})
    CHECK(line(steps) == "UsageError: steps: " + std::to_string(steps) + ", expected a whole number from 2 to 1,048,576.");
  CHECK(opened.says([&](deepsim_error* error) { return deepsim_describe(inverter, nullptr, error); }) ==
        "UsageError: info: a null pointer, expected memory.");
  CHECK(opened.says([&](deepsim_error* error) { return deepsim_open("/nowhere", nullptr, nullptr, error); }) ==
        "UsageError: inverter: a null pointer, expected memory.");
  deepsim_close(nullptr);
}

TEST_CASE("an inverter on the CPU refuses memory of a GPU in every call for one") {
  const RandomBundle bundle(false);
  deepsim_inverter* inverter = nullptr;
  REQUIRE(deepsim_open(bundle.path().c_str(), nullptr, &inverter, nullptr) == 0);
  const std::int32_t keep = 1;
  std::int64_t count = 0;
  std::uint64_t memory = 0;
  char byte = 0;
  using Call = std::function<int(deepsim_error*)>;
  const Call calls[] = {
      [&](deepsim_error* e) { return deepsim_encode_on_device(inverter, 64, 1, 64, nullptr, e); },
      [&](deepsim_error* e) { return deepsim_decode_on_device(inverter, 64, 1, 0, 64, nullptr, e); },
      [&](deepsim_error* e) { return deepsim_decode_raw_on_device(inverter, 64, 1, 0, 64, nullptr, e); },
      [&](deepsim_error* e) { return deepsim_reencode_on_device(inverter, 64, 1, 1, &keep, 1, 64, nullptr, e); },
      [&](deepsim_error* e) { return deepsim_interpolate_on_device(inverter, 64, 64, 3, 64, nullptr, e); },
      [&](deepsim_error* e) { return deepsim_take_on_device(inverter, 8, nullptr, &memory, e); },
      [&](deepsim_error* e) { return deepsim_free_on_device(inverter, 64, nullptr, e); },
      [&](deepsim_error* e) { return deepsim_order_streams(inverter, nullptr, nullptr, e); },
      [&](deepsim_error* e) { return deepsim_copy_from_device(inverter, 64, 1, &byte, nullptr, e); },
      [&](deepsim_error* e) { return deepsim_list_kernels(inverter, 0, 1, nullptr, 0, &count, e); }};
  for (const Call& call : calls) {
    deepsim_error error;
    CHECK(call(&error) == 2);
    CHECK(std::string(error.message) ==
          "inverter: on the CPU, expected one on a GPU for memory of a GPU. Open it with device cuda:0.");
  }
  deepsim_close(inverter);
}

TEST_CASE("what the library says of itself and of this machine") {
  deepsim_error error;
  CHECK(deepsim_check_device("cpu", nullptr, &error) == 0);
  for (const char* device : {"gpu", "cuda:", "cuda:x", "cuda:1234", "cuda:-1", "CPU"}) {
    CHECK(deepsim_check_device(device, nullptr, &error) == 2);
    CHECK(std::string(error.message).find("device '" + std::string(device) + "': unknown") == 0);
  }
  char text[64];
  std::memset(text, 'x', sizeof text);
  REQUIRE(deepsim_describe_kernels("cpu", nullptr, text, sizeof text, &error) == 0);
  const std::string kernels = text, all = deepsim_instruction_sets();
  CHECK(all.substr(0, all.find(',')) == kernels);
  CHECK(all.find("baseline") != std::string::npos);
  std::memset(text, 'x', sizeof text);
  REQUIRE(deepsim_describe_kernels("cpu", nullptr, text, 3, &error) == 0);
  CHECK(std::string(text) == kernels.substr(0, 2));
  CHECK(text[3] == 'x');
  CHECK(deepsim_describe_kernels("cpu", nullptr, text, 0, &error) == 2);
  CHECK(deepsim_usable_cpus() >= 1);
  double gmacs = 0, bytes = 0;
  CHECK(deepsim_measure_roofs(1, "mmx", &gmacs, &bytes, &error) == 4);
  CHECK(deepsim_measure_roofs(1, nullptr, nullptr, &bytes, &error) == 2);
  CHECK(std::string(deepsim_version()).find('.') != std::string::npos);
}

TEST_CASE("notes go where the application wants them, and nowhere once it wants none") {
  static std::vector<std::string> notes;
  notes.clear();
  deepsim_set_log([](int level, const char* message,
                     void* user) { notes.push_back(std::to_string(level) + message + *static_cast<const char*>(user)); },
                  const_cast<char*>("!"));
  {
    const Opened opened;
  }
  const std::vector<std::string> heard = notes;
  deepsim_set_log(nullptr, nullptr);
  {
    const Opened opened;
  }
  REQUIRE(heard.size() >= 1);
  CHECK(heard.back().find(": loaded, kernels for ") != std::string::npos);
  CHECK(heard.back().front() == '0');
  CHECK(heard.back().back() == '!');
  CHECK(notes == heard);
}
