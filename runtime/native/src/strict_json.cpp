#include "strict_json.h"

#include <set>
#include <vector>

namespace deepsim::runtime::detail {

namespace {

using nlohmann::json;

// Walks through the text and keeps nothing but the keys of what is open. The library's own callback for parse() would
// do, but at the end of every object it looks through all of the object's siblings: a header of 1 MiB took a minute.
class Walk final : public nlohmann::json_sax<json> {
 public:
  explicit Walk(std::size_t max_depth) : max_depth_(max_depth) {}
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(json::number_integer_t) override { return true; }
  bool number_unsigned(json::number_unsigned_t) override { return true; }
  bool number_float(json::number_float_t, const std::string&) override { return true; }
  bool string(std::string&) override { return true; }
  bool binary(json::binary_t&) override { return true; }
  bool start_object(std::size_t) override { return open(); }
  bool start_array(std::size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(std::string& name) override {
    if (!keys_.back().insert(name).second) throw JsonFault(JsonFault::key_twice, "a key appears twice");
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    throw JsonFault(JsonFault::syntax, error.what());
  }

 private:
  bool open() {
    if (keys_.size() == max_depth_) throw JsonFault(JsonFault::nested_too_deep, "nested too deep");
    keys_.emplace_back();
    return true;
  }
  bool close() {
    keys_.pop_back();
    return true;
  }
  std::size_t max_depth_;
  std::vector<std::set<std::string>> keys_;  // of every object that is open; of arrays none
};

}  // namespace

json parse_strictly(std::string_view text, std::size_t max_depth) {
  Walk walk(max_depth);
  json::sax_parse(text, &walk);
  return json::parse(text);
}

}  // namespace deepsim::runtime::detail
