// One call that fails: KVOPS_TEST_FAULT is "function:number of the call:error", counted from the
// moment it was set to another text. Included by the libraries that stand in front of the driver.
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The error that this call of the function is to return; 0 for none.
static int fault(const char* name) {
  static int calls = 0;
  static char last[128];
  char wanted[64];
  int number = 0, error = 0;
  const char* text = getenv("KVOPS_TEST_FAULT");
  if (text == NULL) return 0;
  if (strncmp(text, last, sizeof(last) - 1) != 0) {
    calls = 0;
    strncpy(last, text, sizeof(last) - 1);
  }
  if (sscanf(text, "%63[^:]:%d:%d", wanted, &number, &error) != 3) return 0;
  return strcmp(wanted, name) == 0 && calls++ == number ? error : 0;
}
