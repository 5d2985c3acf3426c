// The one binary: every tier, every verb.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <exception>
#include <thread>

#include "verbs.h"

namespace ganglion::app {

int Fail(const std::string& verb, const Status& status) {
  std::fprintf(stderr, "%s: %s\n", verb.c_str(), status.message().c_str());
  return status.code() == Code::kInvalidArgument || status.code() == Code::kUnimplemented ? 2 : 1;
}

Status ParseRows(const std::string& text, std::int64_t* begin, std::int64_t* end) {
  *begin = 0;
  *end = -1;
  if (text.empty()) return {};
  const auto colon = text.find(':');
  const auto read = [](const std::string& s, std::int64_t* v) {
    if (s.empty()) return true;
    const auto [p, error] = std::from_chars(s.data(), s.data() + s.size(), *v);
    return error == std::errc() && p == s.data() + s.size() && *v >= 0;
  };
  if (colon == std::string::npos || !read(text.substr(0, colon), begin) || !read(text.substr(colon + 1), end)) {
    return InvalidArgument("rows \"" + text + "\" are no range; write for example 50000:60000");
  }
  return {};
}

namespace {

int Main(int argc, char** argv) {
  // Ctrl-C asks verbs that can to stop: they end after their current step and keep what is done. A second one, or one
  // to any other verb, ends the program at once.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::stop_source stop;
  static std::atomic<bool> stops_gracefully = false;  // outlives main: the thread below is never joined
  std::thread([signals, stop]() mutable {
    int signal = 0;
    while (sigwait(&signals, &signal) == 0) {
      if (!stops_gracefully || !stop.request_stop()) std::_Exit(128 + signal);
    }
  }).detach();

  auto engine = runtime::Engine::Create();
  if (!engine.ok()) return Fail("ganglion", engine.status());
  Context context{*engine, stop.get_token(), stops_gracefully};

  CLI::App app(
      "Ganglion decides at the cheapest place that can decide well enough, in time.\nExit codes: 0 done, 1 failed, 2 "
      "usage or configuration.",
      "ganglion");
  app.require_subcommand(1);
  app.set_version_flag("--version",
                       std::string("ganglion " GANGLION_VERSION ", ONNX Runtime ") + runtime::Engine::Version());
  app.fallthrough();
  int exit_code = 0;
  AddDemo(app, context, exit_code);
  AddInit(app, context, exit_code);
  AddTrain(app, context, exit_code);
  AddCalibrate(app, context, exit_code);
  AddEvaluate(app, context, exit_code);
  AddInfer(app, context, exit_code);
  AddGradient(app, context, exit_code);
  AddShrink(app, context, exit_code);
  AddLearn(app, context, exit_code);
  AddServe(app, context, exit_code);
  AddCheck(app, context, exit_code);
  AddStatus(app, context, exit_code);
  const auto verbs = app.get_subcommands([](const CLI::App*) { return true; });
  if (argc > 1 && argv[1][0] != '-' &&
      std::none_of(verbs.begin(), verbs.end(), [&](const CLI::App* verb) { return verb->get_name() == argv[1]; })) {
    std::fprintf(stderr, "ganglion: \"%s\" is no verb; ganglion --help lists them\n", argv[1]);
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const std::exception& e) {  // standard output that takes nothing, memory that is not there
    std::fprintf(stderr, "ganglion: %s\n", e.what());
    return 1;
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    std::fprintf(stderr, "ganglion: standard output could not be written\n");
    return 1;
  }
  return exit_code;
}

}  // namespace
}  // namespace ganglion::app

int main(int argc, char** argv) { return ganglion::app::Main(argc, argv); }
