#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

// AddressSanitizer asks for its settings here. By default it ends a program that asks for more memory than there is;
// what the library answers in that case is what the tests are to see. Without that sanitizer nothing calls it.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {  // NOLINT: the sanitizer's name
  return "allocator_may_return_null=1";
}
