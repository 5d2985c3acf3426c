/* The same from C: decide one row of zeros, or say that a tier above must.  device_c DIRECTORY */
#include <stdio.h>
#include <stdlib.h>

#include "ganglion/ganglion.h"

int main(int argc, char** argv) {
  char error[256];
  char label[64];
  ganglion_answer answer;
  if (argc != 2) {
    fprintf(stderr, "usage: device_c DIRECTORY\n");
    return 2;
  }
  ganglion_decider* decider = ganglion_open(argv[1], "device", 0, error, sizeof error);
  if (decider == NULL) {
    fprintf(stderr, "%s\n", error);
    return 1;
  }
  size_t count = ganglion_input_size(decider);
  float* input = calloc(count, sizeof *input);
  int done = input != NULL && ganglion_decide(decider, input, count, &answer, error, sizeof error);
  if (done) {
    ganglion_label_text(decider, answer.label, label, sizeof label);
    printf("%s %.2f %s%s\n", label, answer.confidence, answer.tier,
           answer.kind == GANGLION_DEFERRED ? " deferred" : "");
  } else {
    fprintf(stderr, "%s\n", error);
  }
  free(input);
  ganglion_close(decider);
  return done ? 0 : 1;
}
