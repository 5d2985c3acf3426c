#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <filesystem>

#include "data/file.h"
#include "model/model.h"
#include "node/node.h"
#include "node/node_file.h"
#include "node/remote_stage.h"
#include "verbs.h"

namespace ganglion::app {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string name;
  std::vector<std::string> stages;
  std::vector<std::string> pre;
  std::vector<std::string> post;
  std::string labels;
  bool force = false;
};

// Copies a file into the decision's directory and returns its name there.
Result<std::string> CopyIn(const fs::path& from, const fs::path& dir) {
  ASSIGN_OR_RETURN(const std::string bytes, data::ReadFile(from, limits::kMaxModelBytes));
  const fs::path to = dir / from.filename();
  std::error_code ignored;
  if (!fs::equivalent(from, to, ignored)) {
    const auto there = data::ReadFile(to, limits::kMaxModelBytes);
    if (there.ok() && *there != bytes)
      return Status(
          Code::kAlreadyExists,
          to.string() + " exists with other content; rename one of the two files called " + from.filename().string());
    RETURN_IF_ERROR(data::WriteFileAtomically(to, bytes));
  }
  return from.filename().string();
}

// "tier=file,file" into its parts.
Result<std::pair<topology::Tier, std::vector<std::string>>> ParseStage(const std::string& text, const char* option) {
  const auto equals = text.find('=');
  const auto tier = topology::TierFromName(text.substr(0, equals));
  if (equals == std::string::npos || equals + 1 == text.size())
    return InvalidArgument(fmt::format("{} \"{}\" is no TIER=FILE; write for example device=small.onnx", option, text));
  if (!tier)
    return InvalidArgument(fmt::format("{} \"{}\": \"{}\" is no tier; one of device, edge, region, global", option,
                                       text, text.substr(0, equals)));
  std::vector<std::string> files;
  std::string file;
  for (const char c : text.substr(equals + 1) + ",") {
    if (c != ',') {
      file += c;
    } else if (!file.empty()) {
      files.push_back(std::exchange(file, ""));
    }
  }
  if (files.empty()) return InvalidArgument(fmt::format("{} \"{}\" names no file", option, text));
  return std::make_pair(*tier, files);
}

// A node file for each tier that computes something, asking the next one up: on one machine as it is, apart once the
// hosts are put in.
Result<std::string> WriteNodes(const node::Decision& decision, const fs::path& dir, bool force) {
  struct Place {
    topology::Tier tier;
    const node::Stage* server = nullptr;
  };
  std::vector<Place> places;
  const auto& stages = decision.config().stages;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    if (places.empty() || places.back().tier != stages[i].tier) places.push_back({stages[i].tier});
    if (decision.stage(i).remote() != nullptr) places.back().server = &decision.stage(i);
  }
  std::string written;
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (places[i].server != nullptr) continue;
    const auto ports = [](topology::Tier tier) { return 8000 + 100 * static_cast<int>(tier); };
    node::NodeConfig c;
    c.name = std::string(topology::Name(places[i].tier));
    c.tier = places[i].tier;
    c.dir = dir;
    c.decisions = {"."};
    const int port = ports(places[i].tier);
    c.listen.http = node::Address{"127.0.0.1", port};
    c.listen.grpc = node::Address{"127.0.0.1", port + 1};
    c.listen.metrics = node::Address{"127.0.0.1", port + 2};
    if (i + 1 < places.size()) {
      node::ParentConfig parent;
      if (const node::Stage* server = places[i + 1].server) {
        ASSIGN_OR_RETURN(const auto url, node::ParseRemoteUrl(server->config().server));
        parent.url = fmt::format("{}://{}", url.tls ? "grpcs" : "grpc", url.target);
        ASSIGN_OR_RETURN(parent.address, node::ParseAddress(url.target));
        parent.tls = url.tls;
        parent.model = url.model;
        parent.version = url.version;
        parent.tier = places[i + 1].tier;
        for (std::size_t k = 0; k < decision.config().inputs.size(); ++k) {
          const std::string& ours = decision.config().inputs[k].name;
          if (server->remote()->input(k) != ours) parent.inputs[ours] = server->remote()->input(k);
        }
        parent.output = server->remote()->output();
      } else {
        parent.address = node::Address{"127.0.0.1", ports(places[i + 1].tier) + 1};
        parent.url = "grpc://" + parent.address.Text();
      }
      parent.name = parent.address.Text();
      c.parents.push_back(std::move(parent));
    }
    const fs::path file = dir / fmt::format("node.{}.yaml", topology::Name(c.tier));
    std::error_code ignored;
    if (fs::exists(file, ignored) && !force) continue;
    RETURN_IF_ERROR(data::WriteFileAtomically(file, node::WriteNodeFile(c)));
    written += (written.empty() ? "" : ", ") + file.string();
  }
  return written.empty() ? std::string("no node file: they exist") : written;
}

Status Run(Context& context, const Options& o) {
  const fs::path dir = o.name;
  std::error_code ignored;
  if (fs::exists(dir / "decision.yaml", ignored) && !o.force) {
    return InvalidArgument((dir / "decision.yaml").string() + " exists; edit it, or --force writes a new one");
  }
  node::DecisionConfig config;
  config.name = (fs::weakly_canonical(dir) / "").parent_path().filename();
  for (char& c : config.name) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '.') c = '-';
  }
  config.dir = dir;
  for (const auto& text : o.stages) {
    ASSIGN_OR_RETURN(const auto parsed, ParseStage(text, "--stage"));
    node::StageConfig stage;
    stage.tier = parsed.first;
    if (const std::string url = text.substr(text.find('=') + 1); url.find("://") != std::string::npos) {
      const auto remote = node::ParseRemoteUrl(url);
      if (!remote.ok()) return remote.status().Within("--stage " + text);
      stage.server = url;
    }
    for (const auto& file : stage.server.empty() ? parsed.second : std::vector<std::string>()) {
      ASSIGN_OR_RETURN(auto name, CopyIn(file, dir));
      stage.models.push_back(std::move(name));
    }
    if (!config.stages.empty() && stage.tier < config.stages.back().tier) {
      return InvalidArgument("--stage " + text + " lies below the stage before it; give stages from device up");
    }
    config.stages.push_back(std::move(stage));
  }
  for (const auto& [texts, option] : {std::pair(&o.pre, "--pre"), std::pair(&o.post, "--post")}) {
    for (const auto& text : *texts) {
      ASSIGN_OR_RETURN(const auto parsed, ParseStage(text, option));
      bool found = false;
      for (auto& stage : config.stages) {
        if (stage.tier != parsed.first) continue;
        found = true;
        ASSIGN_OR_RETURN(auto name, CopyIn(parsed.second[0], dir));
        (texts == &o.pre ? stage.pre : stage.post) = std::move(name);
      }
      if (!found) return InvalidArgument(fmt::format("{} {}: there is no stage on that tier", option, text));
    }
  }
  if (!o.labels.empty()) {
    ASSIGN_OR_RETURN(const std::string labels, data::ReadFile(o.labels, limits::kMaxConfigBytes));
    RETURN_IF_ERROR(data::WriteFileAtomically(dir / "labels.txt", labels));
    config.labels = {"from labels.txt"};
  }
  // The decision takes what the first graph of the first stage takes, any number of rows at a time.
  const auto& first = config.stages[0];
  if (!first.server.empty())
    return InvalidArgument("the first --stage must be a model here; another server can be one of those above it");
  const std::string file = first.pre.empty() ? first.models[0] : first.pre;
  ASSIGN_OR_RETURN(std::string bytes, data::ReadFile(dir / file, limits::kMaxModelBytes));
  ASSIGN_OR_RETURN(const auto model, model::Model::FromBytes(file, std::move(bytes)));
  config.inputs = model.signature().inputs;
  for (auto& spec : config.inputs) {
    if (spec.shape.empty() || (spec.shape[0] != -1 && spec.shape[0] != 1)) {
      return InvalidArgument(fmt::format("{}: input \"{}\" {} has no batch dimension (-1 or 1 first); set pre", file,
                                         spec.name, spec.Text()));
    }
    spec.shape[0] = -1;
  }
  RETURN_IF_ERROR(data::WriteFileAtomically(dir / "decision.yaml", node::WriteDecisionFile(config)));
  // Load it as calibrate will: what does not fit together is said now.
  auto opened = node::Decision::Open(context.engine, dir, {.with_lock = false, .connect = node::ConnectRemoteStage});
  if (!opened.ok()) {
    fs::remove(dir / "decision.yaml", ignored);
    return opened.status();
  }
  const auto& decision = *opened;
  fmt::print("wrote {}/decision.yaml: {} stage{}, {} classes\n", dir.string(), config.stages.size(),
             config.stages.size() == 1 ? "" : "s", decision->classes());
  for (std::size_t i = 0; i < config.stages.size(); ++i) {
    std::string files;
    for (const auto& f : decision->stage(i).files()) files += fmt::format(" {}@{}", f.file, f.digest.Short());
    fmt::print("  {}:{}\n", topology::Name(config.stages[i].tier), files);
  }
  ASSIGN_OR_RETURN(const std::string nodes, WriteNodes(*decision, dir, o.force));
  fmt::print("wrote {}\n", nodes);
  fmt::print("next: ganglion calibrate {} --data F (rows that no model was trained on)\n", dir.string());
  return {};
}

}  // namespace

void AddInit(CLI::App& app, Context& context, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand("init", "Make a decision directory from your own ONNX files");
  verb->add_option("name", o->name, "the directory to make")->required();
  verb->add_option(
          "--stage", o->stages,
          "TIER=FILE, TIER=FILE,FILE for an ensemble, or TIER=grpc://HOST:PORT/MODEL for another server's; from "
          "device up, once for each stage")
      ->allow_extra_args(false)
      ->required();
  verb->add_option("--pre", o->pre,
                   "TIER=FILE: a graph that turns the decision's input into what the stage's model takes")
      ->allow_extra_args(false);
  verb->add_option("--post", o->post, "TIER=FILE: a graph that turns the model's output into logits")
      ->allow_extra_args(false);
  verb->add_option("--labels", o->labels, "names of the classes, one a line");
  verb->add_flag("--force", o->force, "overwrite decision.yaml");
  verb->callback([&context, &exit_code, o] {
    if (auto s = Run(context, *o); !s.ok()) exit_code = Fail("init", s);
  });
}

}  // namespace ganglion::app
