// CSV with a header: one example a row, every column a namespace.
//
// A field that is a number is the column's value; any other text is a feature of its own, as "red" of colour. So the
// row "1,.5,red" under "label,size,colour" is VW's "1 |size :.5 |colour red", feature by feature. An empty field is
// left out. Codes that look like numbers (airports, weekdays) are named in `categorical`, so that 7 is a name.
// The label is the column named, else label, y or class, whichever comes first in this order. Numbers as in example.h;
// classes count from 0. An empty label can be predicted, not learned.
//
// Fields may be quoted, "" inside is a quote; no line breaks inside quotes. Blanks around fields are skipped.
// Refused, with the column's name: another number of fields than the header's, an open quote, a label or weight that
// is no finite number.
// Holds memory between rows; thread-compatible, pure. Cost: about 20 ns a field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "online/example.h"
#include "online/interactions.h"
#include "online/options.h"

namespace ganglion::online {

struct CsvColumns {
  std::string label;   // empty: by the rule above
  std::string weight;  // empty: none
  std::vector<std::string> categorical;
  std::vector<std::string> ignored;
};

class CsvText {
 public:
  // `header`: the first line. Refuses columns that are not there, doubled names and pairs of no columns.
  static Result<CsvText> Create(const LearnerOptions& options, const CsvColumns& columns, std::string_view header);
  Status Parse(std::string_view line, Example* example);
  const std::vector<std::string>& columns() const { return names_; }

 private:
  enum class Use : std::uint8_t { kFeature, kCategory, kLabel, kWeight, kIgnored };
  CsvText() = default;
  Status Split(std::string_view line);

  std::uint32_t mask_ = 0;
  int bits_ = 0;
  bool constant_ = true;
  Interactions interactions_;
  std::vector<std::string> names_;
  std::vector<std::uint32_t> hashes_;
  std::vector<Use> uses_;
  std::vector<Span> spans_;
  std::vector<std::string_view> fields_;
  std::string unquoted_;  // what quoted fields hold
};

}  // namespace ganglion::online
