#include "online/csv_text.h"

#include <algorithm>

#include "online/hash.h"
#include "online/number.h"

namespace ganglion::online {
namespace {

std::string_view Trimmed(std::string_view s) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!s.empty() && blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && blank(s.back())) s.remove_suffix(1);
  return s;
}

std::string Shown(std::string_view text) {
  constexpr std::size_t kMost = 40;
  return "\"" + std::string(text.substr(0, kMost)) + (text.size() > kMost ? "...\"" : "\"");
}

}  // namespace

Status CsvText::Split(std::string_view line) {
  fields_.clear();
  unquoted_.clear();
  unquoted_.reserve(line.size());  // so that views into it stay
  line = Trimmed(line);
  for (;;) {
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    if (line.empty() || line.front() != '"') {
      const auto comma = line.find(',');
      fields_.push_back(Trimmed(line.substr(0, comma)));
      if (comma == std::string_view::npos) return {};
      line.remove_prefix(comma + 1);
      continue;
    }
    const std::size_t from = unquoted_.size();
    std::size_t i = 1;
    for (;; ++i) {
      if (i >= line.size()) return InvalidArgument("a quote is not closed on its line");
      if (line[i] == '"' && (++i >= line.size() || line[i] != '"')) break;
      unquoted_ += line[i];
    }
    fields_.push_back(std::string_view(unquoted_).substr(from));
    line.remove_prefix(i);
    line = Trimmed(line);
    if (line.empty()) return {};
    if (line.front() != ',') return InvalidArgument("text stands behind a closing quote");
    line.remove_prefix(1);
  }
}

Result<CsvText> CsvText::Create(const LearnerOptions& options, const CsvColumns& columns, std::string_view header) {
  CsvText csv;
  csv.bits_ = options.bits;
  csv.mask_ = (1u << options.bits) - 1;
  csv.constant_ = options.constant;
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (header.substr(0, kByteOrderMark.size()) == kByteOrderMark) header.remove_prefix(kByteOrderMark.size());
  RETURN_IF_ERROR(csv.Split(header));
  if (csv.fields_.size() > kMaxFeatures) return InvalidArgument("the header has more than 1048576 columns, the limit");
  csv.names_.assign(csv.fields_.begin(), csv.fields_.end());
  const auto find = [&csv](const std::string& name) -> Result<std::size_t> {
    const auto at = std::find(csv.names_.begin(), csv.names_.end(), name);
    if (at == csv.names_.end()) {
      std::string there;
      for (const std::string& n : csv.names_) there += (there.empty() ? "" : ", ") + n;
      return InvalidArgument("there is no column " + Shown(name) + "; there are: " + there.substr(0, 400));
    }
    return static_cast<std::size_t>(at - csv.names_.begin());
  };
  std::vector<std::string> sorted = csv.names_;
  std::sort(sorted.begin(), sorted.end());
  if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end())
    return InvalidArgument("two columns are called " + Shown(*twice));
  csv.uses_.assign(csv.names_.size(), Use::kFeature);
  csv.hashes_.reserve(csv.names_.size());
  for (const std::string& name : csv.names_) csv.hashes_.push_back(HashName(name, 0));
  for (const std::string& name : columns.categorical) {
    ASSIGN_OR_RETURN(const std::size_t at, find(name));
    csv.uses_[at] = Use::kCategory;
  }
  for (const std::string& name : columns.ignored) {
    ASSIGN_OR_RETURN(const std::size_t at, find(name));
    csv.uses_[at] = Use::kIgnored;
  }
  std::string label = columns.label;
  for (const char* name : {"label", "y", "class"}) {
    if (label.empty() && find(name).ok()) label = name;
  }
  if (label.empty())
    return InvalidArgument("no column is called label, y or class; name the one to learn with --label");
  ASSIGN_OR_RETURN(const std::size_t label_at, find(label));
  csv.uses_[label_at] = Use::kLabel;
  if (!columns.weight.empty()) {
    ASSIGN_OR_RETURN(const std::size_t at, find(columns.weight));
    csv.uses_[at] = Use::kWeight;
  }
  ASSIGN_OR_RETURN(csv.interactions_, Interactions::OfColumns(options.interactions, csv.names_));
  return csv;
}

Status CsvText::Parse(std::string_view line, Example* example) {
  example->Clear();
  spans_.clear();
  RETURN_IF_ERROR(Split(line));
  if (fields_.size() != names_.size()) {
    return InvalidArgument(std::to_string(fields_.size()) + " fields, the header has " + std::to_string(names_.size()));
  }
  std::vector<Feature>& features = example->features;
  for (std::size_t i = 0; i < fields_.size(); ++i) {
    const std::string_view field = fields_[i];
    const Use use = uses_[i];
    if (use == Use::kIgnored || field.empty()) continue;
    float value = 0;
    const bool number = use != Use::kCategory && ReadNumber(field, &value);
    if (use == Use::kLabel || use == Use::kWeight) {
      if (!number || (use == Use::kWeight && value < 0)) {
        return InvalidArgument(names_[i] + " is " + Shown(field) +
                               (use == Use::kLabel ? ", no finite number" : ", no finite number >= 0"));
      }
      if (use == Use::kLabel) {
        example->label = value;
        example->labelled = true;
      } else {
        example->weight = value;
      }
      continue;
    }
    if (number && value == 0) continue;
    const std::uint32_t place = number ? hashes_[i] : HashName(field, hashes_[i]);
    const auto at = static_cast<std::uint32_t>(features.size());
    features.push_back({place & mask_, number ? value : 1.f});
    spans_.push_back({static_cast<std::uint32_t>(i), at, at + 1});
  }
  if (constant_) AppendConstant(bits_, example);
  if (!interactions_.empty()) RETURN_IF_ERROR(interactions_.Expand(spans_, mask_, example));
  return {};
}

}  // namespace ganglion::online
