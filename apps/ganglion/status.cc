#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>

#include "net/http_client.h"
#include "serving.h"
#include "terminal.h"
#include "verbs.h"
#include "wire/json.h"

namespace ganglion::app {
namespace {

struct Options {
  std::string url = "http://127.0.0.1:8002";
  std::string ca;
  std::string token_variable;
  bool watch = false;
  bool must_be_ready = false;
  bool json = false;
};

// What a node says of itself; a value that is missing or of another type is a node of another version.
Result<std::string> Show(const wire::Json& j) {
  try {
    std::string text = fmt::format(
        "{} ({}, ganglion {})  {}{}  up {:.0f}s  {} in flight of {}  {} connections\n", j.at("node").get<std::string>(),
        j.at("tier").get<std::string>(), j.at("version").get<std::string>(),
        Paint(j.at("ready").get<bool>() ? "ready" : "not ready",
              j.at("ready").get<bool>() ? Colour::kGreen : Colour::kRed, ColourOut()),
        j.at("draining").get<bool>() ? ", draining" : "", j.at("up_seconds").get<double>(),
        j.at("in_flight").get<int>(), j.at("concurrency_limit").get<int>(), j.at("connections").get<int>());
    const auto& cache = j.at("cache");
    const double hits = cache.at("hits").get<double>();
    const double asked = hits + cache.at("misses").get<double>();
    text += fmt::format("cache {}{}\n",
                        asked > 0 ? fmt::format("{:.1f}% of {:.0f} hit", 100 * hits / asked, asked) : "empty",
                        cache.at("off").get<bool>() ? ", off: it does not pay" : "");
    Table models({"model", "version", "state", "requests", "failed", "stages"});
    for (const auto& m : j.at("models")) {
      std::string stages;
      for (const auto& s : m.at("stages"))
        stages += fmt::format("{}{} {}", stages.empty() ? "" : ", ", s.at("name").get<std::string>(),
                              Millis(s.at("usual_ms").get<double>()));
      models.Row(
          {m.at("name").get<std::string>(), m.at("version").get<std::string>(),
           m.at("state").get<std::string>() + (m.contains("reason") ? ": " + m.at("reason").get<std::string>() : ""),
           std::to_string(m.at("requests").get<std::uint64_t>()), std::to_string(m.at("failed").get<std::uint64_t>()),
           stages});
    }
    text += "\n" + models.Text(ColourOut());
    if (!j.at("parents").empty()) {
      Table parents({"parent", "tier", "state", "breaker", "latency", "in flight"});
      for (const auto& p : j.at("parents")) {
        std::string breaker = p.at("breaker").get<std::string>();
        if (breaker != "closed") {
          breaker += fmt::format(
              " ({:.2f} failed{})", p.at("average").get<double>(),
              p.contains("probe_in_ms") ? fmt::format(", probe in {}", Millis(p.at("probe_in_ms").get<double>())) : "");
        }
        parents.Row({p.at("name").get<std::string>(),
                     p.at("tier").get<std::string>() + (p.at("foreign").get<bool>() ? " (foreign)" : ""),
                     p.at("up").get<bool>() ? "up" : "down", breaker, Millis(p.at("latency_ms").get<double>()),
                     std::to_string(p.at("in_flight").get<int>())});
      }
      text += "\n" + parents.Text(ColourOut());
      for (const auto& p : j.at("parents")) {
        if (p.contains("last_error") && (p.at("breaker").get<std::string>() != "closed" || !p.at("up").get<bool>()))
          text += fmt::format("{}: last error: {}\n", p.at("name").get<std::string>(),
                              p.at("last_error").get<std::string>());
      }
    }
    return text;
  } catch (const wire::Json::exception& e) {
    return DataLoss(std::string("the node's status is not as expected: ") + e.what());
  }
}

Status Run(Context& context, const Options& o) {
  net::HttpQuestion q;
  q.url = o.url + (o.url.find('/', o.url.find("://") + 3) == std::string::npos ? "/status" : "");
  q.authority = o.ca;
  if (!o.token_variable.empty()) {
    ASSIGN_OR_RETURN(const std::string token, TokenFrom(o.token_variable));
    q.headers.emplace_back("Authorization", "Bearer " + token);
  }
  while (true) {
    ASSIGN_OR_RETURN(const auto answer, net::Ask(q, std::chrono::seconds(5)));
    if (answer.status != 200) return Unavailable(fmt::format("{} answered {}: {}", q.url, answer.status, answer.body));
    bool ready = false;
    wire::Json j;
    RETURN_IF_ERROR(wire::ParseJson(answer.body, &j));
    if (o.json) {
      ready = j.value("ready", false);
      std::fputs(answer.body.c_str(), stdout);
    } else {
      ASSIGN_OR_RETURN(const std::string text, Show(j));
      ready = j.value("ready", false);
      if (o.watch && ColourOut()) std::fputs("\x1b[H\x1b[2J", stdout);
      std::fputs(text.c_str(), stdout);
    }
    std::fflush(stdout);
    if (!o.watch) return o.must_be_ready && !ready ? Unavailable("the node is not ready") : Status();
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    wake.wait_for(lock, context.stop, std::chrono::seconds(1), [] { return false; });
    if (context.stop.stop_requested()) return {};
  }
}

}  // namespace

void AddStatus(CLI::App& app, Context& context, int& exit_code) {
  auto o = std::make_shared<Options>();
  auto* verb = app.add_subcommand("status", "What a running node serves, how it does, and its parents");
  verb->add_option("--url", o->url, "of its metrics port; default http://127.0.0.1:8002");
  verb->add_option("--ca", o->ca, "PEM file of who signed the node's certificate, for https");
  verb->add_option("--token-env", o->token_variable, "environment variable that holds the bearer token");
  verb->add_flag("--watch", o->watch, "again every second, until Ctrl-C");
  verb->add_flag("--ready", o->must_be_ready, "exit 1 unless it is ready: for health checks");
  verb->add_flag("--json", o->json, "as the node gives it");
  verb->callback([&context, &exit_code, o] {
    context.stops_gracefully = true;
    if (auto s = Run(context, *o); !s.ok()) exit_code = Fail("status", s);
  });
}

}  // namespace ganglion::app
