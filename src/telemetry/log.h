// A Log writes what happened as lines on standard error: an event's name and fields, as text for people or as JSON.
//
//   log.Warning("parent down", {{"parent", "edge:8001"}, {"average", 0.52}});
//
//   2026-03-01T12:00:00.123Z warning parent down parent=edge:8001 average=0.52
//   {"ts":"2026-03-01T12:00:00.123Z","level":"warning","event":"parent down","parent":"edge:8001","average":0.52}
//
// An event is a literal: what varies goes into fields, so that events can be counted and searched.
// Secrets are never fields: no token, no key, no header, no input of a request. Nothing here could tell one and blot it
// out, so the rule is the caller's.
// A fault that hits every request must not become a line for every request: each event may have kLinesASecond lines in
// a second; what is more is counted and told in one line when the second is over:
//   {...,"event":"lines left out","of":"parent down","count":8123}
// It comes with the next line of any event, at Flush, or when the log ends.
// Why not the asynchronous mode of spdlog: a queue would lose the last lines of a process that dies, the ones that
// matter, and the limit above bounds what a call can cost. A reader of standard error that stops reading does stop us.
//
// Values are cut at kMaxValueBytes and bytes that are no UTF-8 are replaced; line feeds and quotes are escaped, so a
// value cannot forge a line. A field called ts, level or event is written as ts_, level_, event_. A service;
// thread-safe. Cost: a line below the level is a comparison; one that is left out a short lock, no allocation; one that
// is written a few microseconds and a write.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/clock.h"

namespace ganglion::telemetry {

inline constexpr int kLinesASecond = 10;             // of one event
inline constexpr std::size_t kMaxEventNames = 1000;  // names beyond that share one limit
inline constexpr std::size_t kMaxValueBytes = 2048;

enum class Level { kDebug, kInfo, kWarning, kError };
std::optional<Level> LevelFromName(std::string_view name);  // "debug", "info", "warning", "error"

enum class LogFormat { kText, kJson };
std::optional<LogFormat> LogFormatFromName(std::string_view name);  // "text", "json"

// A text, a whole number, a real number or a truth. Refers to its text; lives for one call.
class Value {
 public:
  using Variant = std::variant<std::string_view, std::int64_t, double, bool>;

  Value(std::string_view text) : value_(text) {}    // NOLINT: what a field holds is a value
  Value(const char* text) : value_(text) {}         // NOLINT
  Value(const std::string& text) : value_(text) {}  // NOLINT
  Value(double number) : value_(number) {}          // NOLINT
  template <std::integral T>                        // bool too; a template, so that no pointer becomes one
  Value(T integer) : value_(Whole(integer)) {}      // NOLINT

  const Variant& variant() const { return value_; }

 private:
  template <typename T>
  static Variant Whole(T integer) {
    if constexpr (std::same_as<T, bool>) {
      return integer;
    } else {
      return std::int64_t{std::cmp_greater(integer, INT64_MAX) ? INT64_MAX : static_cast<std::int64_t>(integer)};
    }
  }
  Variant value_;
};

struct Field {
  std::string_view key;  // a literal
  Value value;
};

struct LogOptions {
  Level level = Level::kInfo;  // what is below it is not written
  LogFormat format = LogFormat::kText;
  std::ostream* out = nullptr;  // instead of standard error; must outlive the log
};

class Log {
 public:
  // The clock is for the limit; the time in a line is the machine's, in UTC. It must outlive the log.
  Log(const LogOptions& options, const Clock& clock);
  ~Log();  // flushes

  using Fields = std::initializer_list<Field>;
  void Debug(std::string_view event, Fields fields = {}) {
    Write(Level::kDebug, event, {fields.begin(), fields.end()});
  }
  void Info(std::string_view event, Fields fields = {}) { Write(Level::kInfo, event, {fields.begin(), fields.end()}); }
  void Warning(std::string_view event, Fields fields = {}) {
    Write(Level::kWarning, event, {fields.begin(), fields.end()});
  }
  void Error(std::string_view event, Fields fields = {}) {
    Write(Level::kError, event, {fields.begin(), fields.end()});
  }
  void Write(Level level, std::string_view event, std::span<const Field> fields);

  bool Writes(Level level) const { return level >= level_; }
  // Tells what was left out so far, without waiting for the second to end.
  void Flush();

 private:
  struct Impl;
  const Level level_;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace ganglion::telemetry
