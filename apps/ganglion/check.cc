#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "node/server.h"
#include "serving.h"
#include "terminal.h"
#include "verbs.h"

namespace ganglion::app {
namespace {

struct Options {
  std::string file;
  bool online = false;
};

// Reads the file, loads everything that it names as serve would, and with --online asks the parents. Opens no port.
Status Run(Context& context, const Options& o) {
  ASSIGN_OR_RETURN(auto config, node::LoadNodeFile(o.file, HostName()));
  config.log.level = node::LogLevel::kError;
  const std::size_t decisions = config.decisions.size();
  const std::size_t parents = config.parents.size();
  ASSIGN_OR_RETURN(const auto server, node::Server::Create(context.engine, std::move(config)));
  std::string problems;
  for (const auto& e : server->RepositoryIndex(false)) {
    if (e.state != "READY") problems += fmt::format("{}{}: {}", problems.empty() ? "" : "\n", e.name, e.reason);
  }
  std::string line = fmt::format("ok: {} decision{}, {}", decisions, decisions == 1 ? "" : "s", server->Summary());
  if (o.online) {
    server->parents().ProbeAll(std::chrono::seconds(2));
    for (const auto& p : server->parents().Look()) {
      if (!p.up)
        problems += fmt::format("{}parent {}: {} does not answer: {}", problems.empty() ? "" : "\n", p.name, p.url,
                                p.last_error);
      line += fmt::format(", parent {} ({}{}) {}", p.name, p.foreign ? "foreign, " : "", p.tier,
                          p.up ? Millis(Milliseconds(p.round_trip)) : "down");
    }
  } else if (parents > 0) {
    line += fmt::format(", {} parent{} not asked (--online asks)", parents, parents == 1 ? "" : "s");
  }
  if (!problems.empty()) return FailedPrecondition(problems);
  fmt::print("{}\n", line);
  return {};
}

}  // namespace

void AddCheck(CLI::App& app, Context& context, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand("check", "Read a node.yaml and load what it names, as serve would, without serving");
  verb->add_option("file", o->file, "node.yaml")->required();
  verb->add_flag("--online", o->online, "ask the parents, too");
  verb->callback([&context, &exit_code, o] {
    if (auto s = Run(context, *o); !s.ok()) exit_code = Fail("check", s);
  });
}

}  // namespace ganglion::app
