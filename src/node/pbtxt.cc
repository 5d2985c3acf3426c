#include "node/pbtxt.h"

#include <charconv>
#include <optional>

#include "base/limits.h"

namespace ganglion::node {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

int HexDigit(char c) {
  if (IsDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void AppendUtf8(std::uint32_t c, std::string* out) {
  const auto tail = [&](int shift) { *out += static_cast<char>(0x80 | ((c >> shift) & 0x3f)); };
  if (c < 0x80) {
    *out += static_cast<char>(c);
  } else if (c < 0x800) {
    *out += static_cast<char>(0xc0 | (c >> 6));
    tail(0);
  } else if (c < 0x10000) {
    *out += static_cast<char>(0xe0 | (c >> 12));
    tail(6);
    tail(0);
  } else {
    *out += static_cast<char>(0xf0 | (c >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

Status At(int line, const std::string& what) { return InvalidArgument("line " + std::to_string(line) + ": " + what); }

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  // Fields until `close`, which is consumed; '\0': until the end of the text.
  Status Fields(char close, int depth, std::vector<PbtxtField>* fields) {
    for (;;) {
      SkipBlanks();
      if (at_ == text_.size()) return close == '\0' ? Status() : Wrong(std::string("'") + close + "' is missing");
      if (text_[at_] == close) {
        ++at_;
        return {};
      }
      RETURN_IF_ERROR(Field(depth, fields));
      SkipBlanks();
      if (at_ < text_.size() && (text_[at_] == ',' || text_[at_] == ';')) ++at_;
    }
  }

 private:
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  Status Wrong(const std::string& what) const { return At(line_, what); }
  std::string Here() const {
    if (at_ == text_.size()) return "the end";
    const char c = text_[at_];
    return c >= ' ' && c <= '~' ? std::string("'") + c + "'" : "byte " + std::to_string(static_cast<unsigned char>(c));
  }

  void SkipBlanks() {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\v' || c == '\f') {
        if (c == '\n') ++line_;
        ++at_;
      } else {
        return;
      }
    }
  }

  Status Field(int depth, std::vector<PbtxtField>* fields) {
    std::string name;
    if (Peek() == '[') {
      const std::size_t end = text_.find_first_of("]\n", at_);
      if (end == std::string_view::npos || text_[end] == '\n') return Wrong("'[' has no ']'");
      name = text_.substr(at_, end + 1 - at_);
      at_ = end + 1;
    } else {
      if (!IsLetter(Peek())) return Wrong("want the name of a field, there is " + Here());
      name = Word();
    }
    SkipBlanks();
    const bool colon = Peek() == ':';
    if (colon) {
      ++at_;
      SkipBlanks();
    }
    if (Peek() != '[') return Value(name, colon, depth, fields);
    ++at_;
    SkipBlanks();
    if (Peek() == ']') {
      ++at_;
      return {};
    }
    for (;;) {
      RETURN_IF_ERROR(Value(name, colon, depth, fields));
      SkipBlanks();
      const char c = Peek();
      if (c != ',' && c != ']') return Wrong("want ',' or ']' in the list " + name + ", there is " + Here());
      ++at_;
      if (c == ']') return {};
      SkipBlanks();
    }
  }

  Status Value(const std::string& name, bool colon, int depth, std::vector<PbtxtField>* fields) {
    if (++count_ > kMaxPbtxtFields) return Wrong("more fields than the limit of " + std::to_string(kMaxPbtxtFields));
    PbtxtField field;
    field.name = name;
    field.line = line_;
    const char c = Peek();
    if (c == '{' || c == '<') {
      if (depth == kMaxPbtxtDepth)
        return Wrong("messages are nested deeper than the limit of " + std::to_string(kMaxPbtxtDepth));
      ++at_;
      field.kind = PbtxtField::Kind::kMessage;
      RETURN_IF_ERROR(Fields(c == '{' ? '}' : '>', depth + 1, &field.message));
    } else if (!colon) {
      return Wrong("want ':' or '{' after " + name + ", there is " + Here());
    } else if (c == '"' || c == '\'') {
      field.kind = PbtxtField::Kind::kString;
      while (Peek() == '"' || Peek() == '\'') {  // adjacent strings are one
        RETURN_IF_ERROR(String(&field.text));
        SkipBlanks();
      }
    } else {
      if (c == '-') {
        field.text = "-";
        ++at_;
        SkipBlanks();
      }
      const std::string word = Word();
      if (word.empty()) return Wrong("want a value of " + name + ", there is " + Here());
      field.text += word;
    }
    fields->push_back(std::move(field));
    return {};
  }

  // Letters, digits, '_' and, for numbers, '.' and the sign of an exponent.
  std::string Word() {
    const std::size_t begin = at_;
    const bool number = IsDigit(Peek()) || Peek() == '.';
    while (at_ < text_.size()) {
      const char c = text_[at_];
      const bool exponent = number && (c == '+' || c == '-') && at_ > begin &&
                            (text_[at_ - 1] == 'e' || text_[at_ - 1] == 'E') && text_.substr(begin, 2) != "0x";
      if (!IsLetter(c) && !IsDigit(c) && !(number && c == '.') && !exponent) break;
      ++at_;
    }
    return std::string(text_.substr(begin, at_ - begin));
  }

  Status String(std::string* out) {
    const char quote = text_[at_++];
    for (;;) {
      if (at_ == text_.size() || text_[at_] == '\n') return Wrong("a string does not end on its line");
      const char c = text_[at_++];
      if (c == quote) return {};
      if (c != '\\') {
        *out += c;
      } else {
        RETURN_IF_ERROR(Escape(out));
      }
    }
  }

  // Up to `most` digits of `base`; nothing when there is none, or fewer than `most` where all are needed.
  std::optional<std::uint32_t> Digits(int base, int most, bool all) {
    std::uint32_t value = 0;
    int n = 0;
    for (; n < most && HexDigit(Peek()) >= 0 && HexDigit(Peek()) < base; ++n, ++at_)
      value = value * static_cast<std::uint32_t>(base) + static_cast<std::uint32_t>(HexDigit(text_[at_]));
    if (n == 0 || (all && n < most)) return std::nullopt;
    return value;
  }

  Status Escape(std::string* out) {
    constexpr std::string_view kLetters = "abfnrtv";
    constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v";
    const char c = Peek();
    if (c >= '0' && c <= '7') {
      *out += static_cast<char>(*Digits(8, 3, false) & 0xff);
      return {};
    }
    if (at_ == text_.size() || c == '\n') return Wrong("a string does not end on its line");
    ++at_;
    if (const auto letter = kLetters.find(c); letter != std::string_view::npos) {
      *out += kMeanings[letter];
    } else if (c == '\\' || c == '\'' || c == '"' || c == '?') {
      *out += c;
    } else if (c == 'x' || c == 'X') {
      const auto byte = Digits(16, 2, false);
      if (!byte) return Wrong("\\x has no hexadecimal digit");
      *out += static_cast<char>(*byte);
    } else if (c == 'u' || c == 'U') {
      const auto point = Digits(16, c == 'u' ? 4 : 8, true);
      if (!point || *point > 0x10ffff || (*point >= 0xd800 && *point < 0xe000))
        return Wrong(std::string("\\") + c + " names no character");
      AppendUtf8(*point, out);
    } else {
      return Wrong("a string has an escape that there is not");
    }
    return {};
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int line_ = 1;
  int count_ = 0;
};

}  // namespace

Result<std::vector<PbtxtField>> ParsePbtxt(std::string_view text) {
  if (text.size() > limits::kMaxConfigBytes) {
    return InvalidArgument("has " + std::to_string(text.size()) + " bytes, limit " +
                           std::to_string(limits::kMaxConfigBytes));
  }
  std::vector<PbtxtField> fields;
  RETURN_IF_ERROR(Parser(text).Fields('\0', 0, &fields));
  return fields;
}

Result<std::int64_t> PbtxtInteger(const PbtxtField& field) {
  std::string_view digits = field.text;
  const bool negative = digits.starts_with('-');
  if (negative) digits.remove_prefix(1);
  int base = 10;
  if (digits.starts_with("0x") || digits.starts_with("0X")) {
    base = 16;
    digits.remove_prefix(2);
  } else if (digits.size() > 1 && digits[0] == '0') {
    base = 8;
  }
  // The magnitude: the smallest integer has one that does not fit, and nothing here may be as small.
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (field.kind != PbtxtField::Kind::kWord || digits.starts_with('-') || error != std::errc() ||
      end != digits.data() + digits.size()) {
    return At(field.line, field.name + " must be an integer" +
                              (field.kind == PbtxtField::Kind::kWord ? ", got " + field.text.substr(0, 40) : ""));
  }
  return negative ? -value : value;
}

Result<bool> PbtxtBool(const PbtxtField& field) {
  if (field.kind == PbtxtField::Kind::kWord) {
    for (const char* yes : {"true", "True", "t", "1"}) {
      if (field.text == yes) return true;
    }
    for (const char* no : {"false", "False", "f", "0"}) {
      if (field.text == no) return false;
    }
  }
  return At(field.line, field.name + " must be true or false");
}

Result<std::string> PbtxtString(const PbtxtField& field) {
  if (field.kind == PbtxtField::Kind::kString) return field.text;
  return At(field.line, field.name + " must be a string in quotes");
}

}  // namespace ganglion::node
