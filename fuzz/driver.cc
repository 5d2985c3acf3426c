// Runs a fuzz target over its seeds, every truncation of short ones, and random changes of them. For the test suite;
// `make fuzz` uses libFuzzer, which knows what it has covered. Usage: fuzz_NAME RUNS [SEED] | fuzz_NAME write DIR
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "base/random.h"
#include "target.h"

namespace {

void RunOne(const std::string& s) { LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(s.data()), s.size()); }

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "write") {  // the seeds as files, for libFuzzer to begin with
    int n = 0;
    for (const auto& seed : Seeds()) {
      std::ofstream(std::string(argv[2]) + "/seed" + std::to_string(n++), std::ios::binary) << seed;
    }
    return 0;
  }
  const long runs = argc > 1 ? std::atol(argv[1]) : 1000;
  const std::uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  std::printf("seed %llu, %ld runs\n", static_cast<unsigned long long>(seed), runs);
  ganglion::Random random(seed);
  const auto seeds = Seeds();
  RunOne("");
  for (const auto& s : seeds) {
    RunOne(s);
    for (std::size_t n = 0; n < s.size() && s.size() < 2000; ++n) RunOne(s.substr(0, n));
  }
  for (long i = 0; i < runs; ++i) {
    std::string s = seeds[random.Below(seeds.size())];
    const auto changes = 1 + random.Below(6);
    for (std::uint64_t c = 0; c < changes && !s.empty(); ++c) {
      const std::size_t at = random.Below(s.size());
      switch (random.Below(5)) {
        case 0:
          s[at] = static_cast<char>(random.Below(256));
          break;
        case 1:
          s[at] = static_cast<char>(s[at] ^ (1 << random.Below(8)));
          break;
        case 2:
          s.erase(at, 1 + random.Below(8));
          break;
        case 3:
          s.insert(at, s.substr(random.Below(s.size()), random.Below(32)));
          break;
        case 4:
          s[at] = random.Below(2) == 0 ? '\xff' : '\0';
          break;
      }
    }
    RunOne(s);
  }
  std::printf("done\n");
  return 0;
}
