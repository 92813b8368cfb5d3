// JSON of a file that may be hostile: nesting is bounded and no key appears twice.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace deepsim::runtime::detail {

struct JsonFault : std::runtime_error {
  enum Kind { syntax, nested_too_deep, key_twice };
  JsonFault(Kind fault, const std::string& message) : std::runtime_error(message), kind(fault) {}
  Kind kind;
};

// Takes time in proportion to the text. Raises JsonFault, what() of which names the place for a fault of syntax.
nlohmann::json parse_strictly(std::string_view text, std::size_t max_depth);

}  // namespace deepsim::runtime::detail
