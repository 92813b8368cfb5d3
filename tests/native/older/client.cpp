#include "client.h"

#include "older/deepsim.h"

namespace deepsim::tests {

OlderClient run_older_client(const std::string& bundle, const std::vector<std::uint8_t>& images, int n) {
  OlderClient client;
  deepsim_options options{};
  client.options_size = options.size = sizeof options;
  options.max_batch = 3;
  options.threads = 2;
  options.isa = "baseline";
  deepsim_inverter* inverter = nullptr;
  deepsim_error error;
  deepsim_info info{};
  const std::int32_t keep = 1;
  client.reconstructed.resize(images.size());
  const bool done = deepsim_open(bundle.c_str(), &options, &inverter, &error) == 0 &&
                    deepsim_describe(inverter, &info, &error) == 0 &&
                    deepsim_reencode(inverter, images.data(), n, 1, &keep, 1, client.reconstructed.data(), &error) == 0;
  if (!done) client.error = error.message;
  client.image_size = info.image_size;
  client.full_image_size = info.full_image_size;
  client.encoder = info.encoder == nullptr ? "" : info.encoder;
  deepsim_close(inverter);
  return client;
}

}  // namespace deepsim::tests
