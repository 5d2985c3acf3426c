// Rows of CSV and text: lines, found again by an index of where every 1,000th begins.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <functional>
#include <unordered_map>

#include "base/check.h"
#include "base/limits.h"
#include "data/bytes.h"
#include "data/file.h"
#include "data/formats.h"
#include "data/records.h"

namespace ganglion::data {
namespace {

using tensor::DataType;

constexpr std::int64_t kIndexRows = 1000;

bool IsBlank(std::string_view line) {
  return std::all_of(line.begin(), line.end(), [](char c) { return c == ' ' || c == '\t'; });
}

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

// Records of one line each; empty lines are none.
class LineRecords : public Records {
 public:
  Status Read(std::int64_t begin, std::int64_t count, std::span<const std::span<std::byte>> out) final {
    GANGLION_CHECK(begin >= 0 && count >= 0 && begin + count <= rows_ && out.size() == fields_.size());
    RETURN_IF_ERROR(GoTo(begin));
    std::string_view line;
    for (std::int64_t i = 0; i < count; ++i) {
      RETURN_IF_ERROR(NextLine(&line));
      if (auto s = Parse(line, i, out); !s.ok()) {
        lines_.reset();  // an error does not move the place
        return s.Within(path_ + " line " + std::to_string(line_number_));
      }
      ++at_;
    }
    return {};
  }
  std::string Where(std::int64_t i) const final {
    // Blank lines are not counted between two marks; where there are none the number is exact.
    const Mark& mark = marks_[static_cast<std::size_t>(i / kIndexRows)];
    return path_ + " line " + std::to_string(mark.line + 1 + i % kIndexRows);
  }

 protected:
  // Writes row `i` of `out` from a line.
  virtual Status Parse(std::string_view line, std::int64_t i, std::span<const std::span<std::byte>> out) = 0;

  // Opens the file, gives `first` its first line that is not blank, and counts lines: those after it, when it takes it.
  Status Scan(const std::string& path, const std::function<bool(std::string_view)>& takes_first) {
    path_ = path;
    ASSIGN_OR_RETURN(bytes_, OpenBytes(path));
    sequential_ = bytes_->sequential();
    ASSIGN_OR_RETURN(fingerprint_, FileFingerprint(path));
    Lines lines(*bytes_);
    std::string_view line;
    std::int64_t number = 0;
    bool first = true;
    for (;;) {
      const std::int64_t begin = lines.offset();
      ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
      if (!more) break;
      ++number;
      if (first && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
      if (IsBlank(line)) continue;
      const bool header = first && takes_first && takes_first(line);
      first = false;
      if (header) continue;
      if (rows_ % kIndexRows == 0) marks_.push_back({begin, number - 1});
      ++rows_;
    }
    if (rows_ == 0) return InvalidArgument(path + " has no rows");
    return {};
  }

 private:
  struct Mark {
    std::int64_t offset = 0;
    std::int64_t line = 0;  // lines before it
  };

  Status GoTo(std::int64_t row) {
    if (row == at_ && lines_ != nullptr) return {};
    // Lines further on within reach are read over; else from the mark before.
    const std::int64_t mark = row / kIndexRows;
    if (lines_ == nullptr || row < at_ || mark * kIndexRows > at_) {
      lines_ = std::make_unique<Lines>(*bytes_, marks_[static_cast<std::size_t>(mark)].offset);
      line_number_ = marks_[static_cast<std::size_t>(mark)].line;
      at_ = mark * kIndexRows;
    }
    std::string_view line;
    for (; at_ < row; ++at_) RETURN_IF_ERROR(NextLine(&line));
    return {};
  }
  Status NextLine(std::string_view* line) {
    do {
      ASSIGN_OR_RETURN(const bool more, lines_->Next(line));
      if (!more) return DataLoss(path_ + " has become shorter while it is read");
      if (line_number_++ == 0 && line->starts_with("\xEF\xBB\xBF")) line->remove_prefix(3);
    } while (IsBlank(*line));
    return {};
  }

  std::unique_ptr<Bytes> bytes_;
  std::vector<Mark> marks_;
  std::unique_ptr<Lines> lines_;
  std::int64_t at_ = -1;  // the row of the next line
  std::int64_t line_number_ = 0;
};

class CsvRecords final : public LineRecords {
 public:
  Status Open(const std::string& path, const RecordOptions& options) {
    Table table;
    std::size_t columns = 0;
    RETURN_IF_ERROR(Scan(path, [&](std::string_view line) {
      const auto fields = CsvFields(line);
      columns = fields.size();
      float ignored = 0;
      if (std::any_of(fields.begin(), fields.end(), [&](const auto& f) { return ParseNumber(f, &ignored); }))
        return false;
      table.columns = fields;
      return true;
    }));
    std::vector<std::size_t> targets;
    for (const auto& name : options.targets) {
      const auto at = std::find(table.columns.begin(), table.columns.end(), name);
      if (at == table.columns.end()) {
        std::string have;
        for (const auto& c : table.columns) have += " " + c;
        return InvalidArgument(path + " has no column \"" + name + "\"" +
                               (table.columns.empty() ? "; it has no header" : "; it has:" + have));
      }
      targets.push_back(static_cast<std::size_t>(at - table.columns.begin()));
    }
    if (targets.empty()) {
      if (const auto label = NamedLabelColumn(table)) {
        if (options.want_target)
          targets.push_back(*label);
        else
          skipped_ = label;
      } else if (options.want_target) {
        targets.push_back(columns - 1);
      }
    }
    place_.assign(columns, 0);
    std::int64_t features = 0;
    for (std::size_t c = 0; c < columns; ++c) {
      const auto at = std::find(targets.begin(), targets.end(), c);
      if (at != targets.end()) {
        place_[c] = -1 - static_cast<std::int64_t>(at - targets.begin());
      } else if (!skipped_ || *skipped_ != c) {
        place_[c] = features++;
      }
    }
    if (features == 0) return InvalidArgument(path + ": CSV needs at least one column of features");
    fields_.push_back({"x", DataType::kFp32, {features}});
    if (!targets.empty()) {
      fields_.push_back({"y", DataType::kFp32, {}});
      if (targets.size() > 1) fields_.back().shape = {static_cast<std::int64_t>(targets.size())};
    }
    fingerprint_ = "csv " + fingerprint_;
    for (const auto place : place_) fingerprint_ += " " + std::to_string(place);
    return {};
  }

 protected:
  Status Parse(std::string_view line, std::int64_t i, std::span<const std::span<std::byte>> out) override {
    float* const x = reinterpret_cast<float*>(out[0].data()) + i * fields_[0].shape[0];
    float* const y = fields_.size() < 2 ? nullptr
                                        : reinterpret_cast<float*>(out[1].data()) +
                                              i * (fields_[1].shape.empty() ? 1 : fields_[1].shape[0]);
    const auto keep = [&](std::size_t column, std::string_view text) -> Status {
      if (column >= place_.size()) return {};  // counted below
      float v = 0;
      if (skipped_ && *skipped_ == column) return {};
      if (!ParseNumber(text, &v)) {
        return InvalidArgument("field " + std::to_string(column + 1) + " \"" + std::string(text.substr(0, 40)) +
                               "\" is no number");
      }
      const std::int64_t place = place_[column];
      if (place >= 0) {
        x[place] = v;
      } else {
        y[-1 - place] = v;
      }
      return {};
    };
    std::size_t column = 0;
    if (line.find('"') != std::string_view::npos) {
      for (const auto& field : CsvFields(line)) RETURN_IF_ERROR(keep(column++, field));
    } else {
      for (std::string_view rest = line;;) {
        const auto comma = rest.find(',');
        std::string_view text = rest.substr(0, comma);
        while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
        while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
        RETURN_IF_ERROR(keep(column++, text));
        if (comma == std::string_view::npos) break;
        rest.remove_prefix(comma + 1);
      }
    }
    if (column != place_.size()) {
      return InvalidArgument("there are " + std::to_string(column) + " fields, the first line has " +
                             std::to_string(place_.size()));
    }
    return {};
  }

 private:
  std::vector<std::int64_t> place_;  // of each column: in x from 0 on, in y from -1 downwards
  std::optional<std::size_t> skipped_;
};

// Words into numbers. Without a file, bytes are the tokens.
class Vocabulary {
 public:
  Status Load(const std::string& path) {
    if (path.empty()) return {};
    path_ = path;
    ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
    std::string_view rest = text;
    while (!rest.empty()) {
      const auto end = rest.find('\n');
      std::string_view word = rest.substr(0, end);
      if (word.ends_with('\r')) word.remove_suffix(1);
      rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
      if (words_.size() >= limits::kMaxVocabulary)
        return ResourceExhausted(path + " has more than " + std::to_string(limits::kMaxVocabulary) + " words");
      if (!words_.emplace(std::string(word), static_cast<std::int64_t>(words_.size())).second) {
        return InvalidArgument(path + " line " + std::to_string(words_.size() + 1) + ": \"" +
                               std::string(word.substr(0, 40)) + "\" is there twice");
      }
    }
    if (words_.empty()) return InvalidArgument(path + " has no words");
    unknown_ = Find("<unk>");
    line_end_ = Find("<eos>");
    pad_ = Find("<pad>").value_or(0);
    return {};
  }
  bool bytes() const { return words_.empty(); }
  std::int64_t pad() const { return pad_; }
  std::optional<std::int64_t> line_end() const { return bytes() ? std::optional<std::int64_t>('\n') : line_end_; }
  std::optional<std::int64_t> Find(std::string_view word) const {
    const auto at = words_.find(std::string(word));
    if (at == words_.end()) return std::nullopt;
    return at->second;
  }

  // Appends the tokens of `text` to `out`, up to `most` of them in all.
  Status Split(std::string_view text, std::size_t most, std::vector<std::int64_t>* out) const {
    if (bytes()) {
      for (const char c : text) {
        if (out->size() >= most) break;
        out->push_back(static_cast<unsigned char>(c));
      }
      return {};
    }
    while (out->size() < most) {
      while (!text.empty() && IsSpace(text.front())) text.remove_prefix(1);
      if (text.empty()) break;
      std::size_t n = 0;
      while (n < text.size() && !IsSpace(text[n])) ++n;
      auto token = Find(text.substr(0, n));
      if (!token) token = unknown_;
      if (!token) {
        return InvalidArgument("\"" + std::string(text.substr(0, std::min<std::size_t>(n, 40))) + "\" is not in " +
                               path_ + ", which has no <unk>");
      }
      out->push_back(*token);
      text.remove_prefix(n);
    }
    return {};
  }

 private:
  std::string path_;
  std::unordered_map<std::string, std::int64_t> words_;
  std::optional<std::int64_t> unknown_;
  std::optional<std::int64_t> line_end_;
  std::int64_t pad_ = 0;
};

Status CheckLength(const RecordOptions& options) {
  if (options.length >= 1 && options.length <= limits::kMaxRowElements) return {};
  return InvalidArgument("text needs the length of a row in tokens, from 1 to " +
                         std::to_string(limits::kMaxRowElements) + ", got " + std::to_string(options.length));
}

Result<std::string> VocabularyFingerprint(const RecordOptions& options) {
  if (options.vocabulary.empty()) return std::string("bytes");
  return FileFingerprint(options.vocabulary);
}

class LabelledText final : public LineRecords {
 public:
  Status Open(const std::string& path, const RecordOptions& options) {
    RETURN_IF_ERROR(CheckLength(options));
    RETURN_IF_ERROR(vocabulary_.Load(options.vocabulary));
    RETURN_IF_ERROR(Scan(path, {}));
    fields_ = {{"x", DataType::kInt64, {options.length}}, {"y", DataType::kInt64, {}}};
    ASSIGN_OR_RETURN(const std::string words, VocabularyFingerprint(options));
    fingerprint_ = "text " + fingerprint_ + " " + words + " length " + std::to_string(options.length);
    return {};
  }

 protected:
  Status Parse(std::string_view line, std::int64_t i, std::span<const std::span<std::byte>> out) override {
    std::size_t n = 0;
    while (n < line.size() && !IsSpace(line[n])) ++n;
    std::int64_t label = 0;
    const auto [end, error] = std::from_chars(line.data(), line.data() + n, label);
    if (error != std::errc() || end != line.data() + n || label < 0) {
      return InvalidArgument("\"" + std::string(line.substr(0, std::min<std::size_t>(n, 40))) +
                             "\" is no class; a line begins with an integer from 0 on, then its text");
    }
    line.remove_prefix(std::min(line.size(), n + 1));
    const auto length = static_cast<std::size_t>(fields_[0].shape[0]);
    tokens_.clear();
    RETURN_IF_ERROR(vocabulary_.Split(line, length, &tokens_));
    tokens_.resize(length, vocabulary_.pad());
    std::memcpy(out[0].data() + static_cast<std::size_t>(i) * length * 8, tokens_.data(), length * 8);
    std::memcpy(out[1].data() + i * 8, &label, 8);
    return {};
  }

 private:
  Vocabulary vocabulary_;
  std::vector<std::int64_t> tokens_;
};

// One long text: row i is tokens [i T, i T + T) and those one further on.
class LanguageText final : public Records {
 public:
  Status Open(const std::string& path, const RecordOptions& options) {
    RETURN_IF_ERROR(CheckLength(options));
    RETURN_IF_ERROR(vocabulary_.Load(options.vocabulary));
    path_ = path;
    length_ = options.length;
    ASSIGN_OR_RETURN(bytes_, OpenBytes(path));
    sequential_ = bytes_->sequential();
    RETURN_IF_ERROR(Count());
    rows_ = tokens_ < 1 ? 0 : (tokens_ - 1) / length_;
    if (rows_ == 0) {
      return InvalidArgument(path + " has " + std::to_string(tokens_) + " tokens, a row takes " +
                             std::to_string(length_ + 1));
    }
    fields_ = {{"x", DataType::kInt64, {length_}}, {"y", DataType::kInt64, {length_}}};
    ASSIGN_OR_RETURN(fingerprint_, FileFingerprint(path));
    ASSIGN_OR_RETURN(const std::string words, VocabularyFingerprint(options));
    fingerprint_ = "language " + fingerprint_ + " " + words + " length " + std::to_string(length_);
    return {};
  }

  Status Read(std::int64_t begin, std::int64_t count, std::span<const std::span<std::byte>> out) override {
    GANGLION_CHECK(begin >= 0 && count >= 0 && begin + count <= rows_ && out.size() == 2);
    const auto need = static_cast<std::size_t>(count * length_ + 1);
    std::vector<std::int64_t> tokens;
    tokens.reserve(need);
    if (vocabulary_.bytes()) {
      std::vector<std::byte> text(need);
      RETURN_IF_ERROR(bytes_->ReadAll(begin * length_, text));
      for (const std::byte b : text) tokens.push_back(static_cast<std::int64_t>(b));
    } else {
      const Mark& mark = marks_[static_cast<std::size_t>(begin / kIndexRows)];
      const auto skip = static_cast<std::size_t>((begin % kIndexRows) * length_) + mark.within;
      RETURN_IF_ERROR(Tokens(mark.offset, mark.line, skip + need, &tokens));
      tokens.erase(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(std::min(skip, tokens.size())));
      if (tokens.size() < need) return DataLoss(path_ + " has become shorter while it is read");
    }
    const auto row = static_cast<std::size_t>(length_);
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      std::memcpy(out[0].data() + i * row * 8, tokens.data() + i * row, row * 8);
      std::memcpy(out[1].data() + i * row * 8, tokens.data() + i * row + 1, row * 8);
    }
    return {};
  }

 private:
  struct Mark {
    std::int64_t offset = 0;  // of a line
    std::int64_t line = 0;    // lines before it
    std::size_t within = 0;   // tokens of that line before the row's first
  };

  Status Count() {
    if (vocabulary_.bytes()) {
      tokens_ = bytes_->size();
      if (tokens_ >= 0) return {};
      std::vector<std::byte> buffer(std::size_t{1} << 18);
      for (tokens_ = 0;;) {
        ASSIGN_OR_RETURN(const std::size_t n, bytes_->Read(tokens_, buffer));
        tokens_ += static_cast<std::int64_t>(n);
        if (n < buffer.size()) return {};
      }
    }
    Lines lines(*bytes_);
    std::vector<std::int64_t> tokens;
    std::string_view line;
    for (std::int64_t number = 0;; ++number) {
      const std::int64_t offset = lines.offset();
      ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
      if (!more) return {};
      RETURN_IF_ERROR(OfLine(line, number, SIZE_MAX, &tokens));
      const std::int64_t after = tokens_ + static_cast<std::int64_t>(tokens.size());
      for (;;) {
        const std::int64_t next = static_cast<std::int64_t>(marks_.size()) * kIndexRows * length_;
        if (next >= after) break;
        marks_.push_back({offset, number, static_cast<std::size_t>(next - tokens_)});
      }
      tokens_ = after;
      tokens.clear();
    }
  }
  Status OfLine(std::string_view line, std::int64_t number, std::size_t most, std::vector<std::int64_t>* tokens) const {
    if (auto s = vocabulary_.Split(line, most, tokens); !s.ok())
      return s.Within(path_ + " line " + std::to_string(number + 1));
    if (const auto end = vocabulary_.line_end(); end && tokens->size() < most) tokens->push_back(*end);
    return {};
  }
  Status Tokens(std::int64_t offset, std::int64_t number, std::size_t most, std::vector<std::int64_t>* tokens) {
    Lines lines(*bytes_, offset);
    std::string_view line;
    while (tokens->size() < most) {
      ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
      if (!more) return {};
      RETURN_IF_ERROR(OfLine(line, number++, most, tokens));
    }
    return {};
  }

  Vocabulary vocabulary_;
  std::unique_ptr<Bytes> bytes_;
  std::int64_t length_ = 0;
  std::int64_t tokens_ = 0;
  std::vector<Mark> marks_;
};

}  // namespace

Result<std::unique_ptr<Records>> OpenCsv(const std::string& path, const RecordOptions& options) {
  auto records = std::make_unique<CsvRecords>();
  RETURN_IF_ERROR(records->Open(path, options));
  return std::unique_ptr<Records>(std::move(records));
}

Result<std::unique_ptr<Records>> OpenText(const std::string& path, const RecordOptions& options) {
  if (options.text == RecordOptions::Text::kLanguage) {
    auto records = std::make_unique<LanguageText>();
    RETURN_IF_ERROR(records->Open(path, options));
    return std::unique_ptr<Records>(std::move(records));
  }
  auto records = std::make_unique<LabelledText>();
  RETURN_IF_ERROR(records->Open(path, options));
  return std::unique_ptr<Records>(std::move(records));
}

}  // namespace ganglion::data
