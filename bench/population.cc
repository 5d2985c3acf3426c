#include "population.h"

#include <cstdlib>
#include <filesystem>
#include <string>

#include "data/dataset.h"

namespace ganglion::bench {

Status EnsureDemo() {
  // The demo trains only what its recipe does not find.
  const std::string binary = (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "ganglion").string();
  if (std::system((binary + " demo --json out/demo.json > out/bench-demo.txt").c_str()) != 0)
    return Internal("ganglion demo failed");
  return {};
}

Result<Population> LoadPopulation(const node::Decision& decision) {
  Population p;
  p.classes = decision.classes();
  for (const auto& [file, begin] : {std::pair(std::string(kFashion) + "/train", std::int64_t{50'000}),
                                    std::pair(std::string(kFashion) + "/t10k", std::int64_t{0})}) {
    ASSIGN_OR_RETURN(const auto rows, data::LoadDataset(file, {.begin = begin}));
    const tensor::View view = rows.x.View();
    ASSIGN_OR_RETURN(auto scores, decision.ScoreAll({&view, 1}));
    if (p.stages.empty()) p.stages.resize(scores.size());
    for (std::size_t s = 0; s < scores.size(); ++s) {
      p.stages[s].rows += scores[s].rows;
      p.stages[s].z.insert(p.stages[s].z.end(), scores[s].z.begin(), scores[s].z.end());
    }
    p.labels.insert(p.labels.end(), rows.labels.begin(), rows.labels.end());
  }
  return p;
}

}  // namespace ganglion::bench
