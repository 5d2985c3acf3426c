/* The device tier for C: the Decider of ganglion/decider.h behind plain functions.
 *
 * Strings written to `error` are cut to error_size and always end in '\0'. Functions that return int give 1 for done
 * and 0 for refused. A decider may be used from many threads; close it once, when no call is under way. */
#ifndef GANGLION_GANGLION_H_
#define GANGLION_GANGLION_H_

#include <stddef.h>
#include <stdint.h>

#define GANGLION_C_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ganglion_decider ganglion_decider;

enum ganglion_kind { GANGLION_ACCEPTED = 0, GANGLION_DEGRADED = 1, GANGLION_DEFERRED = 2 };

typedef struct ganglion_answer {
  enum ganglion_kind kind;
  int label;          /* -1: none */
  float confidence;   /* in [0, 1] */
  int stage;          /* index in decision.yaml */
  const char* tier;   /* "device", ...; lives as long as the program */
  const char* reason; /* of a degraded answer, else ""; lives as long as the program */
  int64_t took_ns;
} ganglion_answer;

/* NULL when refused. highest_tier NULL: "device". deadline_ns 0: the decision file's. */
GANGLION_C_API ganglion_decider* ganglion_open(const char* directory, const char* highest_tier, int64_t deadline_ns,
                                               char* error, size_t error_size);
/* Decides one row of a decision with one FP32 input: `count` numbers, row-major. */
GANGLION_C_API int ganglion_decide(const ganglion_decider* decider, const float* input, size_t count,
                                   ganglion_answer* answer, char* error, size_t error_size);
GANGLION_C_API size_t ganglion_input_size(const ganglion_decider* decider);
/* Writes the label's name, cut to size. */
GANGLION_C_API void ganglion_label_text(const ganglion_decider* decider, int label, char* text, size_t size);
GANGLION_C_API void ganglion_close(ganglion_decider* decider);

#ifdef __cplusplus
}
#endif

#endif /* GANGLION_GANGLION_H_ */
