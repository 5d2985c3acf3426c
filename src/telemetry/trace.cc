#include "telemetry/trace.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <iterator>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

namespace ganglion::telemetry {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kDigits = "0123456789abcdef";

template <std::size_t N>
void AppendHex(const std::array<std::uint8_t, N>& bytes, std::string* text) {
  for (const std::uint8_t byte : bytes) {
    *text += kDigits[byte >> 4];
    *text += kDigits[byte & 15];
  }
}

template <std::size_t N>
std::string Hex(const std::array<std::uint8_t, N>& bytes) {
  std::string text;
  AppendHex(bytes, &text);
  return text;
}

// Reads 2 N lower-case digits.
template <std::size_t N>
bool ReadHex(std::string_view text, std::array<std::uint8_t, N>* bytes) {
  for (std::size_t i = 0; i < N; ++i) {
    const auto high = kDigits.find(text[2 * i]);
    const auto low = kDigits.find(text[2 * i + 1]);
    if (high == std::string_view::npos || low == std::string_view::npos) return false;
    (*bytes)[i] = static_cast<std::uint8_t>(high << 4 | low);
  }
  return true;
}

template <std::size_t N>
bool IsZero(const std::array<std::uint8_t, N>& bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b == 0; });
}

// Big-endian, so that an id reads as its number does.
void Put(std::uint64_t bits, std::uint8_t* bytes) {
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<std::uint8_t>(bits >> (56 - 8 * i));
}

SpanId MakeSpanId(std::uint64_t bits) {
  SpanId id{};
  Put(bits == 0 ? 1 : bits, id.data());  // an id of zeros is invalid
  return id;
}

struct ValueOf {
  Json operator()(const std::string& text) const { return {{"stringValue", text}}; }
  Json operator()(std::int64_t integer) const { return {{"intValue", std::to_string(integer)}}; }
  Json operator()(bool b) const { return {{"boolValue", b}}; }
  Json operator()(double number) const {
    if (std::isfinite(number)) return {{"doubleValue", number}};
    return {{"doubleValue", std::isnan(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity"}};
  }
};

Json EncodeAttributes(const std::vector<Attribute>& attributes) {
  Json array = Json::array();
  for (const Attribute& attribute : attributes) {
    Json item;
    item["key"] = attribute.key;
    item["value"] = std::visit(ValueOf{}, attribute.value);
    array.push_back(std::move(item));
  }
  return array;
}

Json EncodeSpan(const Span& span) {
  Json json;
  json["traceId"] = Hex(span.trace.trace_id);
  json["spanId"] = Hex(span.trace.span_id);
  if (!IsZero(span.parent_span_id)) json["parentSpanId"] = Hex(span.parent_span_id);
  json["name"] = span.name;
  json["kind"] = static_cast<int>(span.kind);
  json["startTimeUnixNano"] = std::to_string(span.start_unix_ns);
  json["endTimeUnixNano"] = std::to_string(span.end_unix_ns);
  if (!span.attributes.empty()) json["attributes"] = EncodeAttributes(span.attributes);
  Json status;
  status["code"] = span.ok ? 1 : 2;  // STATUS_CODE_OK, STATUS_CODE_ERROR
  if (!span.ok && !span.error.empty()) status["message"] = span.error;
  json["status"] = std::move(status);
  return json;
}

bool WorthAnotherTry(Code code) {
  return code == Code::kUnavailable || code == Code::kResourceExhausted || code == Code::kDeadlineExceeded;
}

}  // namespace

std::optional<TraceContext> ParseTraceparent(std::string_view header) {
  constexpr std::size_t kLength = 55;
  if (header.size() < kLength || header[2] != '-' || header[35] != '-' || header[52] != '-') return std::nullopt;
  std::array<std::uint8_t, 1> version{}, flags{};
  if (!ReadHex(header, &version) || version[0] == 0xFF) return std::nullopt;
  if (header.size() > kLength && (version[0] == 0 || header[kLength] != '-')) return std::nullopt;
  TraceContext context;
  if (!ReadHex(header.substr(3), &context.trace_id) || IsZero(context.trace_id)) return std::nullopt;
  if (!ReadHex(header.substr(36), &context.span_id) || IsZero(context.span_id)) return std::nullopt;
  if (!ReadHex(header.substr(53), &flags)) return std::nullopt;
  context.sampled = (flags[0] & 1) != 0;
  return context;
}

std::string FormatTraceparent(const TraceContext& context) {
  std::string text = "00-";
  AppendHex(context.trace_id, &text);
  text += '-';
  AppendHex(context.span_id, &text);
  text += context.sampled ? "-01" : "-00";
  return text;
}

TraceContext NewTrace(const std::array<std::uint64_t, 3>& random_bits, bool sampled) {
  TraceContext context;
  const bool zero = random_bits[0] == 0 && random_bits[1] == 0;
  Put(random_bits[0], context.trace_id.data());
  Put(zero ? 1 : random_bits[1], context.trace_id.data() + 8);
  context.span_id = MakeSpanId(random_bits[2]);
  context.sampled = sampled;
  return context;
}

TraceContext Child(const TraceContext& context, std::uint64_t random_bits) {
  TraceContext child = context;
  child.span_id = MakeSpanId(random_bits);
  return child;
}

std::string TraceIdText(const TraceId& id) { return Hex(id); }

std::string EncodeOtlp(std::span<const Span> spans, const std::string& service_name, const std::string& node) {
  Json encoded = Json::array();
  for (const Span& span : spans) encoded.push_back(EncodeSpan(span));
  Json scope;
  scope["scope"]["name"] = "ganglion";
  scope["spans"] = std::move(encoded);
  Json resource;
  resource["resource"]["attributes"] =
      EncodeAttributes({{"service.name", service_name}, {"service.instance.id", node}});
  resource["scopeSpans"] = Json::array({std::move(scope)});
  Json request;
  request["resourceSpans"] = Json::array({std::move(resource)});
  return request.dump(-1, ' ', false, Json::error_handler_t::replace);
}

struct TraceExporter::Impl {
  Impl(TraceExporterOptions the_options, Post the_post, const Clock& the_clock)
      : options(std::move(the_options)), post(std::move(the_post)), clock(the_clock) {}

  const TraceExporterOptions options;
  const Post post;
  const Clock& clock;

  std::mutex mutex;  // over what follows
  std::condition_variable wake;
  std::deque<Span> queue;
  TraceCounts counts;
  bool stopping = false;
  TimePoint stop_by{};

  std::mutex joining;  // so that two calls of Stop both return after the end
  std::thread thread;

  struct Batch {
    std::size_t spans = 0;  // 0: none
    int attempts = 0;
    std::string body;
  };

  // Takes the next spans off the queue; empty when there are none. REQUIRES: mutex held.
  std::vector<Span> Take() {
    const auto end = queue.begin() + static_cast<std::ptrdiff_t>(std::min(queue.size(), options.batch));
    std::vector<Span> spans(std::make_move_iterator(queue.begin()), std::make_move_iterator(end));
    queue.erase(queue.begin(), end);
    return spans;
  }

  void Run() {
    Batch batch;
    std::unique_lock lock(mutex);
    while (true) {
      // A batch that waits for another try waits the whole time.
      wake.wait_for(lock, options.every,
                    [&] { return stopping || (batch.spans == 0 && queue.size() >= options.batch); });
      if (batch.spans == 0 && queue.empty()) {
        if (stopping) return;
        continue;
      }
      if (stopping && clock.Now() >= stop_by) {
        counts.dropped += batch.spans + queue.size();
        queue.clear();
        return;
      }
      std::vector<Span> spans;
      if (batch.spans == 0) spans = Take();
      const bool last_try = stopping;
      lock.unlock();
      if (!spans.empty()) batch = {spans.size(), 0, EncodeOtlp(spans, options.service_name, options.node)};
      const Status status = post(batch.body);
      ++batch.attempts;
      lock.lock();
      if (!status.ok() && !last_try && batch.attempts < kAttempts && WorthAnotherTry(status.code())) continue;
      (status.ok() ? counts.exported : counts.dropped) += batch.spans;
      batch = {};
    }
  }
};

Result<std::unique_ptr<TraceExporter>> TraceExporter::Create(TraceExporterOptions options, Post post,
                                                             const Clock& clock) {
  if (options.batch == 0 || options.queue < options.batch) {
    return InvalidArgument("trace batch must be at least 1 and at most the queue, got " +
                           std::to_string(options.batch) + " and " + std::to_string(options.queue));
  }
  if (options.every <= Duration::zero() || options.stop_within < Duration::zero()) {
    return InvalidArgument("trace intervals must be positive, got " + std::to_string(options.every.count()) +
                           "ns and " + std::to_string(options.stop_within.count()) + "ns");
  }
  if (!post) return InvalidArgument("trace exporter has nowhere to post to");
  auto impl = std::make_unique<Impl>(std::move(options), std::move(post), clock);
  try {
    impl->thread = std::thread([raw = impl.get()] { raw->Run(); });
  } catch (const std::system_error& e) {
    return Unavailable(std::string("no thread for the trace exporter: ") + e.what());
  }
  return std::unique_ptr<TraceExporter>(new TraceExporter(std::move(impl)));
}

TraceExporter::TraceExporter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

TraceExporter::~TraceExporter() { Stop(); }

void TraceExporter::Add(Span span) {
  if (!span.trace.sampled) return;
  std::lock_guard lock(impl_->mutex);
  if (impl_->stopping || impl_->queue.size() >= impl_->options.queue) {
    ++impl_->counts.dropped;
    return;
  }
  impl_->queue.push_back(std::move(span));
  if (impl_->queue.size() == impl_->options.batch) impl_->wake.notify_one();
}

void TraceExporter::Stop() {
  {
    std::lock_guard lock(impl_->mutex);
    if (!impl_->stopping) {
      impl_->stopping = true;
      impl_->stop_by = impl_->clock.Now() + impl_->options.stop_within;
    }
    impl_->wake.notify_one();
  }
  std::lock_guard lock(impl_->joining);
  if (impl_->thread.joinable()) impl_->thread.join();
}

TraceCounts TraceExporter::Counts() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->counts;
}

}  // namespace ganglion::telemetry
