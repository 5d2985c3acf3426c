// A training step (gradients and update) of the 784-200-200-10 perceptron against PyTorch, paired (make bench-train).
//
// PyTorch (Debian python3-torch, installed by this target alone) runs in a process of its own and takes turns with this
// one, a hundred steps each, so that both see the same machine. One thread each. Medians over all turns.
// Where PyTorch is not there, the figures are recorded without a ratio and the goals are not judged.
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>

#include "base/random.h"
#include "figures.h"
#include "training/training.h"

namespace ganglion::bench {
namespace {

// The peer process: a line in, a line out.
class Torch {
 public:
  static std::optional<Torch> Start(const std::string& script) {
    int in[2];
    int out[2];
    if (pipe(in) != 0 || pipe(out) != 0) return std::nullopt;
    const pid_t pid = fork();
    if (pid == 0) {
      dup2(in[0], 0);
      dup2(out[1], 1);
      close(in[1]);
      close(out[0]);
      execl("/usr/bin/python3", "python3", script.c_str(), nullptr);
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    Torch t(pid, fdopen(in[1], "w"), fdopen(out[0], "r"));
    const auto hello = t.Line();
    if (hello.rfind("torch", 0) != 0) {
      t.Stop();
      return std::nullopt;
    }
    fmt::print("peer: {}\n", hello);
    return t;
  }
  double Milliseconds(int batch, int steps, const std::string& kind) {
    std::fprintf(in_, "%d %d %s\n", batch, steps, kind.c_str());
    std::fflush(in_);
    return std::stod(Line());
  }
  void Stop() {
    std::fclose(in_);
    std::fclose(out_);
    waitpid(pid_, nullptr, 0);
  }

 private:
  Torch(pid_t pid, FILE* in, FILE* out) : pid_(pid), in_(in), out_(out) {}
  std::string Line() {
    char line[128] = "";
    if (std::fgets(line, sizeof line, out_) == nullptr) return "";
    line[std::strcspn(line, "\n")] = '\0';
    return line;
  }
  pid_t pid_;
  FILE* in_;
  FILE* out_;
};

double Median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

int Run() {
  Figures figures("train");
  const std::string script = GANGLION_SOURCE_DIR "/bench/peers/torch_step.py";
  auto torch = Torch::Start(script);
  if (!torch) fmt::print("PyTorch is not here: ratios are skipped (make bench-train installs python3-torch)\n");
  const auto engine = runtime::Engine::Create().value();
  const auto model =
      model::Model::FromBytes("perceptron.onnx", training::MakePerceptron({784, 200, 200, 10}, 1)).value();
  struct Case {
    int batch;
    optimizer::Kind kind;
    const char* goal;
  };
  for (const Case& c : {Case{10, optimizer::Kind::kSgd, ">= 2x"}, Case{32, optimizer::Kind::kSgd, ">= 1.3x"},
                        Case{10, optimizer::Kind::kAdam, ""}, Case{32, optimizer::Kind::kAdam, ""}}) {
    const auto step = training::Step::Create(engine, model, gradient::Loss::kSoftmaxCrossEntropy, c.batch).value();
    auto optimiser =
        optimizer::Optimizer::Create({.kind = c.kind, .rate = c.kind == optimizer::Kind::kSgd ? .01 : .001},
                                     step->parameters().size())
            .value();
    Random random(1);
    for (float& v : step->x()) v = static_cast<float>(random.Uniform());
    for (long& y : step->target().As<long>()) y = static_cast<long>(random.Below(10));
    constexpr int kTurns = 15;
    constexpr int kSteps = 100;
    std::vector<double> ours;
    std::vector<double> theirs;
    const std::string kind(optimizer::Name(c.kind));
    for (int turn = 0; turn < kTurns + 1; ++turn) {
      std::vector<double> times;
      for (int s = 0; s < kSteps; ++s) {
        const auto begin = std::chrono::steady_clock::now();
        if (!step->Run().ok()) return 1;
        optimiser.Step(step->parameters(), step->gradients());
        times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
      }
      const double peer = torch ? torch->Milliseconds(c.batch, kSteps, kind) : 0;
      if (turn == 0) continue;  // warm-up
      ours.push_back(Median(times));
      theirs.push_back(peer);
    }
    const double mine = Median(ours);
    figures.Add({fmt::format("784-200-200-10 {}, batch {}: step", kind, c.batch), mine, "ms", std::nullopt, ""});
    // More is better as PyTorch's time over ours.
    if (torch)
      figures.Add({fmt::format("784-200-200-10 {}, batch {}: PyTorch's step over ours", kind, c.batch), Median(theirs),
                   "ms", mine, c.goal});
  }
  if (torch) torch->Stop();
  return figures.Finish();
}

}  // namespace
}  // namespace ganglion::bench

int main() { return ganglion::bench::Run(); }
