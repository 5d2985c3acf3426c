// Load drives one HTTP server over persistent loopback connections and tells of every answer: the client of the
// serving benchmarks, made to cost as little as it can beside the server it shares two cores with.
//
// Intuition: requests are bytes made beforehand; one thread sends them and looks at what comes back, with one epoll, a
// buffer a connection, and no parsing but status line, length and body.
//
// Closed loop (rate 0): each connection sends its next request when it has its answer; measures what a server can do.
// Open loop (a rate): requests have intended times that do not wait for answers, as users do not; a latency counts from
// the intended time. Measured from the moment of sending, a server that stalls would look well: the requests that it
// kept from being sent would be missing (G. Tene, "coordinated omission").
//
// An answer with status 0 is none: the connection broke, or nothing came within `patience`.
// Units: nanoseconds. Threads: a run stays on the calling thread; several may run at once. Cost: about two system calls
// a request.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace ganglion::bench {

// A request as it goes over the wire.
struct Shot {
  std::string bytes;
  std::optional<std::size_t> stamp;  // where a float is put that no other request of the run has (of 16 million)
};
// POST TARGET with these bytes as its body; `json_bytes`: how many of them are JSON, when tensors follow.
Shot Post(const std::string& target, const std::string& body, std::optional<std::size_t> json_bytes = {});

// One row of FP32 for an input of a model, in binary; `parameters` is the inside of a JSON object:
// "\"deadline_ms\":20". binary_answer: the outputs come in binary too. unique: the first value differs in every request
// sent.
struct Row {
  std::string model;
  std::string input;
  std::vector<float> values;
  std::string parameters;
  bool binary_answer = false;
  bool unique = false;
};
Shot InferShot(const Row& row);

struct Reply {
  std::size_t shot = 0;  // which of the requests
  int status = 0;
  std::string_view head;  // head and body live for the call only
  std::string_view body;
  TimePoint intended{};
  TimePoint sent{};
  TimePoint received{};
  Duration latency() const { return received - intended; }
};

struct LoadOptions {
  int port = 0;
  std::vector<Shot> shots;  // drawn at random, each as likely as the others
  int connections = 16;
  int depth = 1;          // requests a connection may have under way (pipelining)
  double rate_per_s = 0;  // 0: closed loop
  bool poisson = false;   // open loop: exponential gaps in place of equal ones
  Duration lasts = Duration::max();
  std::uint64_t count = UINT64_MAX;
  Duration patience = std::chrono::seconds(10);
  std::uint64_t seed = 1;
  std::function<void(const Reply&)> on_reply;  // on the thread of the run
};

struct LoadResult {
  std::uint64_t sent = 0;
  std::uint64_t answered = 0;    // with any status
  std::uint64_t lost = 0;        // the connection ended before the answer
  std::uint64_t hung = 0;        // no answer within patience
  std::uint64_t late_sends = 0;  // open loop: sent more than a millisecond after the intended time
  Duration took{};
};
// An error only when no connection can be made at the start.
Result<LoadResult> RunLoad(const LoadOptions& options);

// The q-quantile, q in [0, 1]; 0 of nothing. Sorts.
double Quantile(std::vector<double>* values, double q);

}  // namespace ganglion::bench
