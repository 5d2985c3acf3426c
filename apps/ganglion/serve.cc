#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <climits>
#include <condition_variable>
#include <cstdlib>
#include <mutex>

#include "node/server.h"
#include "serving.h"
#include "verbs.h"

namespace ganglion::app {
namespace {

struct Options {
  std::string file;
  std::string repository;
  std::string http;
  std::string grpc;
  std::string metrics;
};

Status Run(Context& context, const Options& o) {
  if (o.file.empty() == o.repository.empty()) return InvalidArgument("serve takes a node.yaml, or --repository DIR");
  node::NodeConfig config;
  if (!o.file.empty()) {
    ASSIGN_OR_RETURN(config, node::LoadNodeFile(o.file, HostName()));
  } else {
    config.name = HostName();
    config.tier = topology::Tier::kGlobal;
    config.repository = o.repository;
  }
  for (const auto& [text, address, name] :
       {std::tuple(&o.http, &config.listen.http, "--http"), std::tuple(&o.grpc, &config.listen.grpc, "--grpc"),
        std::tuple(&o.metrics, &config.listen.metrics, "--metrics")}) {
    if (text->empty()) continue;
    if (*text == "off") {
      address->reset();
      continue;
    }
    const auto parsed = node::ParseAddress(*text);
    if (!parsed.ok()) return parsed.status().Within(name);
    if (!parsed->IsLoopback() && !config.tls && !config.insecure)
      return InvalidArgument(
          fmt::format("{} {} without tls refused; set tls, or insecure: true, in a node.yaml", name, *text));
    *address = *parsed;
  }
  ASSIGN_OR_RETURN(const auto server, node::Server::Create(context.engine, std::move(config)));
  RETURN_IF_ERROR(server->Listen());
  const auto ports = server->ports();
  std::string line = "ready";
  for (const int port : {ports.http, ports.grpc, ports.metrics}) line += port == 0 ? " off" : fmt::format(" :{}", port);
  line += "; " + server->Summary();
  if (!server->parents().empty()) {
    server->parents().ProbeAll(std::chrono::milliseconds(500));
    for (const auto& p : server->parents().Look()) line += fmt::format(", parent {} {}", p.name, p.up ? "up" : "down");
  }
  fmt::print("{}\n", line);
  std::fflush(stdout);

  std::mutex mutex;
  std::condition_variable_any wake;
  std::unique_lock lock(mutex);
  wake.wait(lock, context.stop, [] { return false; });
  const std::size_t left = server->Drain();
  if (left > 0) {
    fmt::print(stderr, "serve: {} requests had not ended within drain {}\n", left,
               node::DurationText(server->config().drain));
    std::fflush(stderr);
    std::_Exit(1);  // they hold threads that nothing can interrupt
  }
  return {};
}

}  // namespace

std::string HostName() {
  char name[HOST_NAME_MAX + 1] = "node";
  ::gethostname(name, sizeof name - 1);
  return node::IsPlainName(name) ? name : "node";
}

Result<std::string> TokenFrom(const std::string& variable) {
  const char* value = std::getenv(variable.c_str());
  if (value == nullptr || *value == 0) return InvalidArgument("environment variable " + variable + " holds no token");
  return std::string(value);
}

void AddServe(CLI::App& app, Context& context, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb =
      app.add_subcommand("serve", "Run a node: decisions and models over REST and gRPC (Open Inference Protocol v2)");
  verb->add_option("file", o->file, "node.yaml");
  verb->add_option("--repository", o->repository, "a Triton model repository, instead of a node.yaml");
  verb->add_option("--http", o->http, "IP:PORT or off, instead of the file's");
  verb->add_option("--grpc", o->grpc, "IP:PORT or off");
  verb->add_option("--metrics", o->metrics, "IP:PORT or off");
  verb->callback([&context, &exit_code, o] {
    context.stops_gracefully = true;
    if (auto s = Run(context, *o); !s.ok()) exit_code = Fail("serve", s);
  });
}

}  // namespace ganglion::app
