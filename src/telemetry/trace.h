// A trace follows one request through all nodes; a Span is what one of them did for it and when.
//
// Intuition: whoever is asked gets a header that says "this belongs to trace T, and was asked by span S"; it makes a
// span of its own below S, and passes T and its own span on to whom it asks. A collector puts the spans together by T.
//
//   std::optional<TraceContext> asked = ParseTraceparent(header);
//   TraceContext mine = asked ? Child(*asked, bits) : NewTrace({bits, bits2, bits3}, sampled);
//   ... FormatTraceparent(mine) goes up with the question ...
//   exporter->Add({.trace = mine, .parent_span_id = asked ? asked->span_id : SpanId{}, .name = "infer", ...});
//
// Random bits are arguments; they need not be secret, but differ between nodes. `sampled` travels along: whoever began
// the trace decided for all.
// Why not the OpenTelemetry library: it brings its own HTTP client, threads and global state for what is one JSON
// document.
//
// Source: W3C Trace Context, Recommendation of 23 November 2021, section 3.2 (of the flags only `sampled` is kept; the
// header tracestate is not read). OpenTelemetry protocol (OTLP) 1.0, ExportTraceServiceRequest in its JSON mapping: ids
// as lower-case hex, 64-bit numbers as strings, enumerations as integers. TraceContext and Span are values, the
// functions pure. TraceExporter is a service; thread-safe, owns a thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace ganglion::telemetry {

using TraceId = std::array<std::uint8_t, 16>;
using SpanId = std::array<std::uint8_t, 8>;

struct TraceContext {
  TraceId trace_id{};  // never all zero in a valid context, nor the other
  SpanId span_id{};
  bool sampled = false;
  bool operator==(const TraceContext&) const = default;
};

// "00-<32 hex>-<16 hex>-<2 hex>". Nothing where it is not valid: upper-case hex, an id of zeros, version ff, version 00
// of another length. Of a higher version the parts of version 00 are read, as the Recommendation says. A caller that
// gets nothing begins a new trace.
std::optional<TraceContext> ParseTraceparent(std::string_view header);
std::string FormatTraceparent(const TraceContext& context);  // version 00

TraceContext NewTrace(const std::array<std::uint64_t, 3>& random_bits, bool sampled);
// Another span of the same trace.
TraceContext Child(const TraceContext& context, std::uint64_t random_bits);

std::string TraceIdText(const TraceId& id);  // 32 hex digits: what a log line carries

struct Attribute {
  std::string key;
  std::variant<std::string, std::int64_t, double, bool> value;
};

enum class SpanKind { kInternal = 1, kServer = 2, kClient = 3 };  // OTLP's numbers

struct Span {
  TraceContext trace;       // its own id is trace.span_id
  SpanId parent_span_id{};  // zeros: the first of its trace
  std::string name;
  SpanKind kind = SpanKind::kInternal;
  std::uint64_t start_unix_ns = 0;
  std::uint64_t end_unix_ns = 0;
  std::vector<Attribute> attributes;
  bool ok = true;
  std::string error;  // what went wrong, where not ok
};

// The body of a POST to /v1/traces. Bytes that are no UTF-8 are replaced.
std::string EncodeOtlp(std::span<const Span> spans, const std::string& service_name, const std::string& node);

struct TraceExporterOptions {
  std::string service_name = "ganglion";
  std::string node;
  std::size_t queue = 4096;                  // spans; what comes when it is full is dropped
  std::size_t batch = 512;                   // spans in one post; as many wake the thread early
  Duration every = std::chrono::seconds(1);  // what is there is posted at the latest after this
  Duration stop_within = std::chrono::seconds(2);
};

struct TraceCounts {
  std::uint64_t exported = 0;
  std::uint64_t dropped = 0;  // the queue was full, the collector refused, or stopping took too long
};

// Collects finished spans and posts them in batches from a thread of its own.
//
// A post that fails for a while (UNAVAILABLE, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED) is repeated every `every`,
// kAttempts times in all, while the queue fills; any other refusal drops its batch at once. Requests never wait for it.
class TraceExporter {
 public:
  static constexpr int kAttempts = 3;
  // Called on the exporter's thread, one call at a time. It must end within a time limit of its own: that is what Stop
  // may have to wait for.
  using Post = std::function<Status(const std::string& body)>;

  // The clock is for the bound of Stop and must outlive the exporter.
  static Result<std::unique_ptr<TraceExporter>> Create(TraceExporterOptions options, Post post, const Clock& clock);
  ~TraceExporter();  // stops

  // A span whose trace is not sampled is left out. After Stop everything is dropped.
  void Add(Span span);

  // Posts what is queued, each batch once. No post begins later than `stop_within`; what is left then is dropped.
  void Stop();

  TraceCounts Counts() const;

 private:
  struct Impl;
  explicit TraceExporter(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace ganglion::telemetry
