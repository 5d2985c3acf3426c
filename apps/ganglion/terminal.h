// What a terminal shows: colour where it is one, plain text where output is piped, and a progress bar on its own line.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace ganglion::app {

// Whether standard output (error) is a terminal that wants colour; NO_COLOR turns it off.
bool ColourOut();
bool ColourErr();

enum class Colour { kPlain, kBold, kDim, kGreen, kYellow, kRed, kCyan };
std::string Paint(const std::string& text, Colour colour, bool on);

// A table with right-aligned columns but the first. Cells are plain; `colour` paints a whole row.
class Table {
 public:
  explicit Table(std::vector<std::string> head) : head_(std::move(head)) {}
  void Row(std::vector<std::string> cells, Colour colour = Colour::kPlain) {
    rows_.push_back({std::move(cells), colour});
  }
  std::string Text(bool colour) const;

 private:
  struct Line {
    std::vector<std::string> cells;
    Colour colour;
  };
  std::vector<std::string> head_;
  std::vector<Line> rows_;
};

// "[######....] 46%  edge.onnx  loss .214  accuracy .893  1m12s left" on standard error: redrawn in place on a
// terminal, a line every ten percent elsewhere. Not thread-safe.
class ProgressBar {
 public:
  explicit ProgressBar(bool quiet) : quiet_(quiet) {}
  ~ProgressBar() { Clear(); }
  void Show(double done, const std::string& what);
  // Takes the bar off the line.
  void Clear();

 private:
  const bool quiet_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_{};
  double first_done_ = -1;
  int last_tenth_ = -1;
  bool shown_ = false;
};

// "10,000", "1m12s", "94.2%", "12.3ms", "3.3 MB", "$0.0081"
std::string Thousands(long long n);
std::string Seconds(double s);
std::string Percent(double share, int digits = 1);
std::string Millis(double ms);
std::string Bytes(double n);
std::string Dollars(double d);

}  // namespace ganglion::app
