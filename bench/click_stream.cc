#include "click_stream.h"

#include <charconv>
#include <cmath>

namespace ganglion::bench {
namespace {

constexpr std::array<std::uint32_t, 10> kWords{4, 12, 24, 60, 300, 1000, 5000, 20'000, 50'000, 200'000};

}  // namespace

// The sum of four uniform numbers of 16 bits, which is nearly normal.
double ClickStream::Weight(std::uint64_t field, std::uint64_t word) const {
  std::uint64_t z = seed_ + 0x9e3779b97f4a7c15u * (field << 40 | (word + 1));
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  double sum = 0;
  for (int i = 0; i < 4; ++i, z >>= 16) sum += static_cast<double>(z & 0xffff) / 65536 - .5;
  return .5 * sum * std::sqrt(3.);
}

void ClickStream::Append(std::string* text) {
  std::array<std::uint32_t, kWords.size()> words{};
  double z = -1.5;
  for (std::size_t i = 0; i < kWords.size(); ++i) {
    const double u = random_.Uniform();
    words[i] = static_cast<std::uint32_t>(kWords[i] * u * u * u);
    z += Weight(i, words[i]);
  }
  z += Weight(20, std::uint64_t{words[4]} << 20 | words[5]);
  const double k = std::exp(.5 * random_.Normal());
  const double l = std::exp(.5 * random_.Normal());
  z += .3 * k - .2 * l;
  std::array<char, 16> number{};
  *text += random_.Uniform() < 1 / (1 + std::exp(-z)) ? "1" : "-1";
  for (std::size_t i = 0; i < kWords.size(); ++i) {
    const char name = static_cast<char>('a' + i);
    const auto end = std::to_chars(number.data(), number.data() + number.size(), words[i], 16).ptr;
    *text += " |";
    *text += name;
    *text += ' ';
    *text += name;
    text->append(number.data(), end);
  }
  for (const auto& [name, value] : {std::pair('k', k), std::pair('l', l)}) {
    const auto end =
        std::to_chars(number.data(), number.data() + number.size(), value, std::chars_format::fixed, 3).ptr;
    *text += " |";
    *text += name;
    *text += " :";
    text->append(number.data(), end);
  }
  *text += '\n';
}

}  // namespace ganglion::bench
