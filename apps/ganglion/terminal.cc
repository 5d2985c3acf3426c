#include "terminal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace ganglion::app {
namespace {

bool Colourful(int fd) {
  const char* term = std::getenv("TERM");
  return isatty(fd) == 1 && std::getenv("NO_COLOR") == nullptr && (term == nullptr || std::string(term) != "dumb");
}

const char* Code(Colour c) {
  switch (c) {
    case Colour::kPlain:
      return "";
    case Colour::kBold:
      return "\x1b[1m";
    case Colour::kDim:
      return "\x1b[2m";
    case Colour::kGreen:
      return "\x1b[32m";
    case Colour::kYellow:
      return "\x1b[33m";
    case Colour::kRed:
      return "\x1b[31m";
    case Colour::kCyan:
      return "\x1b[36m";
  }
  return "";
}

}  // namespace

bool ColourOut() { return Colourful(STDOUT_FILENO); }
bool ColourErr() { return Colourful(STDERR_FILENO); }

std::string Paint(const std::string& text, Colour colour, bool on) {
  return on && colour != Colour::kPlain ? Code(colour) + text + "\x1b[0m" : text;
}

std::string Table::Text(bool colour) const {
  std::vector<std::size_t> width;
  const auto widen = [&](const std::vector<std::string>& cells) {
    width.resize(std::max(width.size(), cells.size()));
    for (std::size_t i = 0; i < cells.size(); ++i) width[i] = std::max(width[i], cells[i].size());
  };
  widen(head_);
  for (const auto& r : rows_) widen(r.cells);
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      text += i == 0 ? fmt::format("{:<{}}", cells[i], width[i]) : fmt::format("  {:>{}}", cells[i], width[i]);
    }
    return text;
  };
  std::string text = Paint(line(head_), Colour::kDim, colour) + "\n";
  for (const auto& r : rows_) text += Paint(line(r.cells), r.colour, colour) + "\n";
  return text;
}

void ProgressBar::Show(double done, const std::string& what) {
  if (quiet_) return;
  const auto now = std::chrono::steady_clock::now();
  if (first_done_ < 0) first_done_ = done;
  std::string left;
  const double elapsed = std::chrono::duration<double>(now - begin_).count();
  if (done > first_done_ + .005) left = "  " + Seconds(elapsed * (1 - done) / (done - first_done_)) + " left";
  if (isatty(STDERR_FILENO) == 1) {
    if (shown_ && now - last_ < std::chrono::milliseconds(100) && done < 1) return;
    last_ = now;
    const int filled = static_cast<int>(std::lround(done * 24));
    std::fprintf(stderr, "\r\x1b[K[%s%s] %3.0f%%  %s%s", std::string(static_cast<std::size_t>(filled), '#').c_str(),
                 std::string(static_cast<std::size_t>(24 - filled), '.').c_str(), done * 100, what.c_str(),
                 left.c_str());
    std::fflush(stderr);
    shown_ = true;
  } else if (const int tenth = static_cast<int>(done * 10); tenth > last_tenth_) {
    last_tenth_ = tenth;
    std::fprintf(stderr, "%3.0f%%  %s%s\n", done * 100, what.c_str(), left.c_str());
  }
}

void ProgressBar::Clear() {
  if (shown_) std::fprintf(stderr, "\r\x1b[K");
  shown_ = false;
}

std::string Thousands(long long n) {
  std::string digits = std::to_string(n < 0 ? -n : n);
  for (int i = static_cast<int>(digits.size()) - 3; i > 0; i -= 3) digits.insert(static_cast<std::size_t>(i), ",");
  return (n < 0 ? "-" : "") + digits;
}

std::string Seconds(double s) {
  if (s < 60) return fmt::format("{:.0f}s", s);
  const auto whole = static_cast<long long>(std::llround(s));
  return whole < 3600 ? fmt::format("{}m{:02}s", whole / 60, whole % 60)
                      : fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
}

std::string Percent(double share, int digits) { return fmt::format("{:.{}f}%", share * 100, digits); }

std::string Millis(double ms) {
  if (ms < 1) return fmt::format("{:.0f}us", ms * 1000);
  return ms < 100 ? fmt::format("{:.1f}ms", ms) : fmt::format("{:.0f}ms", ms);
}

std::string Bytes(double n) {
  if (n < 1e3) return fmt::format("{:.0f} B", n);
  if (n < 1e6) return fmt::format("{:.1f} KB", n / 1e3);
  return fmt::format("{:.1f} MB", n / 1e6);
}

std::string Dollars(double d) {
  return d < .01 ? fmt::format("${:.5f}", d) : d < 1 ? fmt::format("${:.4f}", d) : fmt::format("${:.2f}", d);
}

}  // namespace ganglion::app
