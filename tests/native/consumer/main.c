#include <deepsim/deepsim.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  deepsim_inverter* inverter = NULL;
  deepsim_error error;
  const int code = deepsim_open("none.deepsim", NULL, &inverter, &error);
  printf("%s %s\n", deepsim_version(), error.kind);
  return code == 3 && strcmp(error.kind, "BundleError") == 0 ? 0 : 1;
}
