#include "telemetry/log.h"

#include <spdlog/logger.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/guarded.h"

namespace ganglion::telemetry {
namespace {

struct LeftOut {
  std::string event;
  Level level = Level::kInfo;
  std::uint64_t count = 0;
};

// How many lines each event has had in its second. A state machine; `now` is an argument.
class Limiter {
 public:
  // Whether this line is written.
  bool Admit(Level level, std::string_view event, TimePoint now) {
    Entry& entry = Find(event);
    if (now >= entry.begin + kSecond) {
      entry.begin = now;
      entry.lines = 0;
    }
    if (entry.lines < kLinesASecond) {
      ++entry.lines;
      return true;
    }
    ++entry.left_out;
    entry.level = std::max(entry.level, level);
    next_report_ = std::min(next_report_, entry.begin + kSecond);
    return false;
  }

  // What was left out in seconds that are over by `now`, and forgets it.
  std::vector<LeftOut> Report(TimePoint now) {
    std::vector<LeftOut> reports;
    if (now < next_report_) return reports;
    next_report_ = TimePoint::max();
    for (auto& [event, entry] : entries_) {
      if (entry.left_out == 0) continue;
      // Subtracted, because Flush asks at the end of all time.
      if (now - kSecond >= entry.begin) {
        reports.push_back({event, entry.level, std::exchange(entry.left_out, 0)});
        entry.level = Level::kDebug;
      } else {
        next_report_ = std::min(next_report_, entry.begin + kSecond);
      }
    }
    return reports;
  }

 private:
  static constexpr Duration kSecond = std::chrono::seconds(1);
  struct Entry {
    TimePoint begin{};
    int lines = 0;
    std::uint64_t left_out = 0;
    Level level = Level::kDebug;  // the highest left out
  };

  Entry& Find(std::string_view event) {
    const auto found = entries_.find(event);
    if (found != entries_.end()) return found->second;
    return entries_[entries_.size() < kMaxEventNames ? std::string(event) : "(other events)"];
  }

  std::map<std::string, Entry, std::less<>> entries_;
  TimePoint next_report_ = TimePoint::max();
};

spdlog::level::level_enum ToSpdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

// At most kMaxValueBytes, the cut not inside a character, and marked.
std::string Cut(std::string_view text) {
  if (text.size() <= kMaxValueBytes) return std::string(text);
  std::size_t end = kMaxValueBytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u) --end;
  return std::string(text.substr(0, end)) + "...";
}

std::string Quoted(const std::string& text) {
  // replace: what is no UTF-8 becomes U+FFFD instead of an exception.
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// As it is where that is unambiguous, else in quotes.
std::string Plain(const std::string& text, bool spaces_allowed) {
  const bool plain = !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c > ' ' && c < 0x7F && c != '"' && c != '\\' && c != '=') || (c == ' ' && spaces_allowed);
  });
  return plain ? text : Quoted(text);
}

std::string Number(double number) { return nlohmann::json(number).dump(); }

struct TextOf {
  LogFormat format;
  std::string operator()(std::string_view text) const {
    return format == LogFormat::kJson ? Quoted(Cut(text)) : Plain(Cut(text), false);
  }
  std::string operator()(std::int64_t integer) const { return std::to_string(integer); }
  std::string operator()(bool b) const { return b ? "true" : "false"; }
  std::string operator()(double number) const {
    if (std::isfinite(number)) return Number(number);
    // JSON has no such numbers.
    const std::string name = std::isnan(number) ? "NaN" : number > 0 ? "Infinity" : "-Infinity";
    return format == LogFormat::kJson ? "\"" + name + "\"" : name;
  }
};

std::string Key(std::string_view key) {
  std::string text(key);
  if (key == "ts" || key == "level" || key == "event") text += "_";
  return text;
}

// What follows the time and the level.
std::string Line(LogFormat format, std::string_view event, std::span<const Field> fields) {
  const bool json = format == LogFormat::kJson;
  std::string line = json ? "\"event\":" + Quoted(Cut(event)) : Plain(Cut(event), true);
  for (const Field& field : fields) {
    const std::string key = Key(field.key);
    line += json ? "," + Quoted(key) + ":" : " " + Plain(key, false) + "=";
    line += std::visit(TextOf{format}, field.value.variant());
  }
  return line;
}

template <typename Names>
auto Find(const Names& names, std::string_view name) {
  for (const auto& [known, value] : names) {
    if (known == name) return std::optional(value);
  }
  return decltype(std::optional(names[0].second)){};
}

}  // namespace

std::optional<Level> LevelFromName(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, Level>, 4> kNames{
      {{"debug", Level::kDebug}, {"info", Level::kInfo}, {"warning", Level::kWarning}, {"error", Level::kError}}};
  return Find(kNames, name);
}

std::optional<LogFormat> LogFormatFromName(std::string_view name) {
  static constexpr std::array<std::pair<std::string_view, LogFormat>, 2> kNames{
      {{"text", LogFormat::kText}, {"json", LogFormat::kJson}}};
  return Find(kNames, name);
}

struct Log::Impl {
  Impl(const LogOptions& options, const Clock& the_clock)
      : format(options.format), clock(the_clock), logger("ganglion", MakeSink(options.out)) {
    // Everything that reaches the logger is written; levels were looked at before.
    logger.set_level(spdlog::level::trace);
    logger.flush_on(spdlog::level::trace);
    logger.set_formatter(std::make_unique<spdlog::pattern_formatter>(
        format == LogFormat::kJson ? R"({"ts":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})"
                                   : "%Y-%m-%dT%H:%M:%S.%eZ %l %v",
        spdlog::pattern_time_type::utc, "\n"));
  }

  static spdlog::sink_ptr MakeSink(std::ostream* out) {
    if (out != nullptr) return std::make_shared<spdlog::sinks::ostream_sink_mt>(*out, true);
    return std::make_shared<spdlog::sinks::stderr_sink_mt>();
  }

  // spdlog catches what goes wrong while writing and says so on standard error, at most once a second.
  void Put(Level level, std::string_view event, std::span<const Field> fields) {
    const std::string line = Line(format, event, fields);
    logger.log(ToSpdlog(level), spdlog::string_view_t(line.data(), line.size()));
  }

  void Tell(const std::vector<LeftOut>& reports) {
    for (const LeftOut& left_out : reports) {
      const std::array<Field, 2> fields{Field{"of", left_out.event}, Field{"count", left_out.count}};
      Put(left_out.level, "lines left out", fields);
    }
  }

  const LogFormat format;
  const Clock& clock;
  spdlog::logger logger;
  Guarded<Limiter> limiter;
};

Log::Log(const LogOptions& options, const Clock& clock)
    : level_(options.level), impl_(std::make_unique<Impl>(options, clock)) {}

Log::~Log() { Flush(); }

void Log::Write(Level level, std::string_view event, std::span<const Field> fields) {
  if (!Writes(level)) return;
  const TimePoint now = impl_->clock.Now();
  bool admitted = false;
  std::vector<LeftOut> reports;
  impl_->limiter.With([&](Limiter& limiter) {
    reports = limiter.Report(now);
    admitted = limiter.Admit(level, event, now);
  });
  impl_->Tell(reports);
  if (admitted) impl_->Put(level, event, fields);
}

void Log::Flush() {
  std::vector<LeftOut> reports;
  impl_->limiter.With([&](Limiter& limiter) { reports = limiter.Report(TimePoint::max()); });
  impl_->Tell(reports);
}

}  // namespace ganglion::telemetry
