#include <deepsim/inverter.h>

#include <iostream>

int main() {
  try {
    deepsim::runtime::Inverter inverter("none.deepsim");
  } catch (const deepsim::Error& error) {
    std::cout << deepsim_version() << " " << error.kind() << "\n";
    return error.kind() == "BundleError" && __cplusplus >= 202002L ? 0 : 1;
  }
  return 1;
}
