// What every benchmark writes: out/bench/NAME.json, one figure for each row of a goal table.
//
//   {"name", "machine", "commit", "figures": [{"id", "value", "unit", "baseline", "ratio", "goal", "holds"}]}
// A goal is a comparison: ">= 0.9" on the value, ">= 2x" or "<= 2x" on the ratio. ratio is value / baseline for figures
// where more is better against a baseline, as each figure's id says; both are in the file.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace ganglion::bench {

struct Figure {
  std::string id;
  double value = 0;
  std::string unit;
  std::optional<double> baseline;
  std::string goal;  // empty: recorded, no goal
};

class Figures {
 public:
  explicit Figures(std::string name) : name_(std::move(name)) {}
  void Add(Figure figure) { figures_.push_back(std::move(figure)); }
  // Prints a table, writes out/bench/NAME.json, and returns 0 when every goal holds, else 1.
  int Finish() const;

 private:
  std::string name_;
  std::vector<Figure> figures_;
};

}  // namespace ganglion::bench
