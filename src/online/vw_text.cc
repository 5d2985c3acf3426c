#include "online/vw_text.h"

#include <array>
#include <cmath>
#include <cstring>

#include "online/hash.h"
#include "online/number.h"

namespace ganglion::online {
namespace {

bool Blank(char c) { return c == ' ' || c == '\t'; }
bool EndsName(char c) { return c == ' ' || c == '\t' || c == ':' || c == '|'; }
bool EndsValue(char c) { return c == ' ' || c == '\t' || c == '|'; }

std::string Shown(std::string_view text) {
  constexpr std::size_t kMost = 40;
  std::string shown(text.substr(0, kMost));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20) c = '?';
  }
  return "\"" + shown + (text.size() > kMost ? "...\"" : "\"");
}

Status At(std::size_t column, const std::string& what) {
  return InvalidArgument("column " + std::to_string(column + 1) + ": " + what);
}

}  // namespace

Result<VwText> VwText::Create(const LearnerOptions& options) {
  VwText text;
  text.bits_ = options.bits;
  text.mask_ = (1u << options.bits) - 1;
  text.classes_ = options.outputs() > 1;
  text.constant_ = options.constant;
  ASSIGN_OR_RETURN(text.interactions_, Interactions::OfLetters(options.interactions));
  return text;
}

// What stands before the first bar.
Status VwText::Head(std::string_view head, bool touches, Example* example) const {
  std::array<std::string_view, 4> words;
  std::size_t count = 0;
  std::size_t last = 0;
  for (std::size_t i = 0; i < head.size();) {
    if (Blank(head[i])) {
      ++i;
      continue;
    }
    std::size_t end = i;
    while (end < head.size() && !Blank(head[end])) ++end;
    if (count == words.size()) return At(i, "more than a label, a weight and a tag stand before the first |");
    words[count++] = head.substr(i, end - i);
    last = end;
    i = end;
  }
  if (count > 0 && ((touches && last == head.size()) || words[count - 1].front() == '\'')) {
    std::string_view tag = words[--count];
    if (tag.front() == '\'') tag.remove_prefix(1);
    example->tag.assign(tag);
  }
  if (count == 0) return {};
  if (!ReadNumber(words[0], &example->label)) return At(0, "label " + Shown(words[0]) + " is no finite number");
  if (classes_) {
    if (example->label < 1 || example->label != std::floor(example->label))
      return At(0, "class " + Shown(words[0]) + " is none; classes count from 1");
    example->label -= 1;
  }
  example->labelled = true;
  if (count > 1 && (!ReadNumber(words[1], &example->weight) || example->weight < 0))
    return At(0, "weight " + Shown(words[1]) + " is no finite number >= 0");
  float initial = 0;
  if (count > 2 && (!ReadNumber(words[2], &initial) || initial != 0))
    return At(0, "initial prediction " + Shown(words[2]) + " is not supported; leave the third number out");
  return {};
}

Status VwText::Body(std::string_view line, std::size_t bar, Example* example) {
  std::vector<Feature>& features = example->features;
  const char* const begin = line.data();
  const char* const end = begin + line.size();
  const char* p = begin + bar;
  while (p != end) {  // at a bar
    ++p;
    std::uint32_t group = ' ';
    std::uint32_t hash = 0;
    float scale = 1;
    if (p != end && !Blank(*p) && *p != '|') {
      const char* const name = p;
      while (p != end && !EndsName(*p)) ++p;
      if (p == name) return At(static_cast<std::size_t>(p - begin), "a scale without a namespace");
      group = static_cast<std::uint8_t>(*name);
      hash = HashName({name, static_cast<std::size_t>(p - name)}, 0);
      if (p != end && *p == ':') {
        const char* const value = ++p;
        while (p != end && !EndsValue(*p)) ++p;
        const std::string_view text(value, static_cast<std::size_t>(p - value));
        if (!ReadNumber(text, &scale))
          return At(static_cast<std::size_t>(value - begin), "scale " + Shown(text) + " is no finite number");
      }
    }
    const auto first = static_cast<std::uint32_t>(features.size());
    std::uint32_t unnamed = 0;
    for (;;) {
      while (p != end && Blank(*p)) ++p;
      if (p == end || *p == '|') break;
      const char* const name = p;
      while (p != end && !EndsName(*p)) ++p;
      const std::string_view word(name, static_cast<std::size_t>(p - name));
      float value = scale;
      if (p != end && *p == ':') {
        const char* const number = ++p;
        while (p != end && !EndsValue(*p)) ++p;
        const std::string_view text(number, static_cast<std::size_t>(p - number));
        if (!ReadNumber(text, &value))
          return At(static_cast<std::size_t>(number - begin),
                    "value " + Shown(text) + " of " + Shown(word) + " is no finite number");
        value *= scale;
        if (!std::isfinite(value))
          return At(static_cast<std::size_t>(number - begin), "value " + Shown(text) + " times the scale is infinite");
      }
      if (value == 0) {
        unnamed += word.empty() ? 1 : 0;  // left out, but counted
        continue;
      }
      if (features.size() >= kMaxFeatures) {
        return At(static_cast<std::size_t>(name - begin),
                  "more than " + std::to_string(kMaxFeatures) + " features, the limit of a line");
      }
      const std::uint32_t place = word.empty() ? hash + unnamed++ : HashName(word, hash);
      features.push_back({place & mask_, value});
    }
    if (features.size() > first) spans_.push_back({group, first, static_cast<std::uint32_t>(features.size())});
  }
  return {};
}

Status VwText::Parse(std::string_view line, Example* example) {
  example->Clear();
  spans_.clear();
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
  const void* const found = line.empty() ? nullptr : std::memchr(line.data(), '|', line.size());
  if (found == nullptr) return At(0, "no | in the line " + Shown(line) + "; features stand behind one");
  const auto bar = static_cast<std::size_t>(static_cast<const char*>(found) - line.data());
  RETURN_IF_ERROR(Head(line.substr(0, bar), bar > 0 && !Blank(line[bar - 1]), example));
  RETURN_IF_ERROR(Body(line, bar, example));
  if (constant_) AppendConstant(bits_, example);
  if (!interactions_.empty()) RETURN_IF_ERROR(interactions_.Expand(spans_, mask_, example));
  return {};
}

}  // namespace ganglion::online
