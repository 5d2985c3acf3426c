// What a node serves, and the small answers about it.
#include <fmt/format.h>
#include <sched.h>

#include <algorithm>

#include "net/http_server.h"
#include "node/answers.h"
#include "node/model_repository.h"
#include "node/server.h"

namespace ganglion::node {

Result<Server::Entry> Server::LoadEntry(const Entry& from, const std::string& name, bool* exists) const {
  Entry entry;
  entry.decision = from.decision;
  entry.file = from.file;
  entry.repository = from.repository;
  *exists = true;
  const ServedContext context = MakeContext();
  if (!entry.decision.empty()) {
    ASSIGN_OR_RETURN(entry.newest, ServeDecision(context, entry.decision));
    entry.versions[entry.newest->version] = entry.newest;
  } else if (!entry.file.empty()) {
    ASSIGN_OR_RETURN(entry.newest, ServeModel(context, {name, "", entry.file, 0, {}, {}, {}, {}}));
    entry.versions[entry.newest->version] = entry.newest;
  } else {
    ASSIGN_OR_RETURN(const auto models, ReadModelRepository(config_.Path(config_.repository)));
    const auto it = std::find_if(models.begin(), models.end(), [&](const auto& m) { return m.name == name; });
    if (it == models.end()) {
      *exists = false;
      return NotFound(fmt::format("there is no model \"{}\" in {}", name, config_.repository));
    }
    if (!it->problem.empty()) return FailedPrecondition(it->problem);
    for (const auto& v : it->versions) {
      PlainModel plain{name, std::to_string(v.version), v.file, it->max_batch_size, it->inputs, it->outputs, {}, {}};
      if (it->dynamic_batching) plain.batch_delay = it->dynamic_batching->max_delay;
      ASSIGN_OR_RETURN(auto served, ServeModel(context, plain));
      auto labelled = std::const_pointer_cast<Served>(served);
      for (std::size_t o = 0; o < served->metadata.outputs.size(); ++o) {
        const auto labels = it->labels.find(served->metadata.outputs[o].name);
        if (labels != it->labels.end()) labelled->output_labels[o] = labels->second;
      }
      entry.versions[plain.version] = served;
      entry.newest = served;  // versions ascend
    }
    if (entry.newest == nullptr) return FailedPrecondition(name + ": no version to serve");
    for (const auto& [version, served] : entry.versions) {
      auto known = std::const_pointer_cast<Served>(served);
      known->metadata.versions.clear();
      for (const auto& [v, unused] : entry.versions) known->metadata.versions.push_back(v);
    }
  }
  entry.state = "READY";
  return entry;
}

Status Server::LoadAll() {
  auto entries = std::make_shared<Entries>();
  std::string mistakes;
  const auto add = [&](const std::string& name, Entry from, bool must) {
    bool exists = false;
    auto loaded = LoadEntry(from, name, &exists);
    std::string as = name;
    if (loaded.ok()) {
      as = loaded->newest->name;
      log_->Info("loaded", {{"model", as}, {"version", loaded->newest->version}});
    } else if (must) {
      mistakes += (mistakes.empty() ? "" : "\n") + loaded.status().message();
    } else {
      log_->Warning("not loaded", {{"model", name}, {"error", loaded.status().message()}});
      from.reason = loaded.status().message();
    }
    if (entries->count(as) != 0) mistakes += (mistakes.empty() ? "" : "\n") + ("two models are called \"" + as + "\"");
    (*entries)[as] = loaded.ok() ? std::move(*loaded) : std::move(from);
  };
  for (const auto& dir : config_.decisions) {
    Entry e;
    e.decision = config_.Path(dir);
    add(dir, std::move(e), true);
  }
  for (const auto& model : config_.models) {
    Entry e;
    e.file = config_.Path(model.file);
    add(model.name, std::move(e), true);
  }
  if (!config_.repository.empty()) {
    ASSIGN_OR_RETURN(const auto models, ReadModelRepository(config_.Path(config_.repository)));
    for (const auto& model : models) {
      Entry e;
      e.repository = true;
      add(model.name, std::move(e), false);
    }
  }
  if (!mistakes.empty()) return InvalidArgument(mistakes);
  if (entries->size() > static_cast<std::size_t>(config_.limits.models))
    return ResourceExhausted(
        fmt::format("{} models, limit {}; raise limits.models", entries->size(), config_.limits.models));
  entries_ = std::move(entries);
  return {};
}

Status Server::LoadNow(const std::string& model) {
  std::shared_ptr<const Entries> now;
  {
    std::lock_guard lock(entries_mutex_);
    now = entries_;
  }
  Entry from;
  const auto it = now->find(model);
  if (it != now->end()) {
    from = it->second;
  } else if (!config_.repository.empty() && IsPlainName(model)) {
    from.repository = true;
    if (now->size() >= static_cast<std::size_t>(config_.limits.models))
      return ResourceExhausted(
          fmt::format("{} models, limit {}; raise limits.models", now->size(), config_.limits.models));
  } else {
    return NotFound("there is no model \"" + model.substr(0, 200) + "\"");
  }
  bool exists = false;
  auto loaded = LoadEntry(from, model, &exists);
  if (!loaded.ok()) {
    log_->Warning("not loaded", {{"model", model}, {"error", loaded.status().message()}});
    const std::string still = from.newest != nullptr ? " Still serving " + from.newest->version + "." : "";
    return {loaded.status().code() == Code::kNotFound ? Code::kNotFound : Code::kInvalidArgument,
            loaded.status().message() + still};
  }
  if (loaded->newest->name != model)
    return FailedPrecondition(fmt::format("{} is now called \"{}\"; restart the node to serve it under that name",
                                          model, loaded->newest->name));
  const std::string version = loaded->newest->version;
  {
    std::lock_guard lock(entries_mutex_);
    auto next = std::make_shared<Entries>(*entries_);
    (*next)[model] = std::move(*loaded);
    entries_ = std::move(next);
  }
  if (cache_) cache_->EraseModel(model);
  log_->Info("loaded", {{"model", model}, {"version", version}});
  return {};
}

Status Server::UnloadNow(const std::string& model) {
  std::lock_guard lock(entries_mutex_);
  const auto it = entries_->find(model);
  if (it == entries_->end()) return NotFound("there is no model \"" + model.substr(0, 200) + "\"");
  auto next = std::make_shared<Entries>(*entries_);
  Entry& e = (*next)[model];
  e.versions.clear();
  e.newest = nullptr;
  e.state = "UNAVAILABLE";
  e.reason = "unloaded";
  entries_ = std::move(next);
  if (cache_) cache_->EraseModel(model);
  log_->Info("unloaded", {{"model", model}});
  return {};
}

namespace {
// Loading may take its time; requests may not wait for it where cores are few. Of the loader's thread alone.
// Why SCHED_IDLE and not a high nice: a core on which a nice thread runs counts as busy, so the threads of requests
// that wake up are put behind one another on the cores that are left. At 10 reloads a second on two cores the other
// models' p99 is 1.1 times what it is without, with nice 15 it is 1.3 times. A load takes 4 ms so, and 50 ms on a busy
// machine.
void StepBack() {
  thread_local bool done = false;
  const sched_param none{};
  if (!std::exchange(done, true)) (void)::sched_setscheduler(0, SCHED_IDLE, &none);
}
}  // namespace

void Server::Load(const std::string& model, std::function<void(Status)> done) {
  loader_->Post([this, model, done = std::move(done)] {
    StepBack();
    done(LoadNow(model));
  });
}
void Server::Unload(const std::string& model, std::function<void(Status)> done) {
  loader_->Post([this, model, done = std::move(done)] { done(UnloadNow(model)); });
}

Result<std::shared_ptr<const Served>> Server::Find(const std::string& model, const std::string& version) const {
  std::shared_ptr<const Entries> entries;
  {
    std::lock_guard lock(entries_mutex_);
    entries = entries_;
  }
  const auto it = entries->find(model);
  if (it == entries->end()) return NotFound("there is no model \"" + model.substr(0, 200) + "\"");
  const Entry& e = it->second;
  if (e.newest == nullptr) return NotFound(fmt::format("model \"{}\" is not loaded: {}", model, e.reason));
  if (version.empty()) return e.newest;
  const auto v = e.versions.find(version);
  if (v == e.versions.end()) {
    std::string have;
    for (const auto& [known, unused] : e.versions) have += (have.empty() ? "" : ", ") + known;
    return NotFound(fmt::format("model \"{}\" has no version {}; there are {}", model, version.substr(0, 200), have));
  }
  return v->second;
}

// ---- Small answers -------------------------------------------------------------------------------------------------

Status Server::Allow(const net::CallContext& context, net::Role needed) const {
  if (!config_.auth) return {};
  if (!context.token.empty()) {
    const crypto::Digest digest = crypto::Sha256(context.token);
    for (const TokenRule& rule : config_.auth->rules) {
      if (!(rule.digest == digest)) continue;
      if (needed == net::Role::kInfer || rule.role == Role::kOperate) return {};
      return PermissionDenied(rule.name + " may infer, not operate");
    }
    return Unauthenticated("the bearer token is not known here");
  }
  if (context.peer_verified && needed == net::Role::kInfer) return {};  // another node
  return Unauthenticated("this node asks for a bearer token");
}

bool Server::Ready() const {
  if (draining_) return false;
  std::shared_ptr<const Entries> entries;
  {
    std::lock_guard lock(entries_mutex_);
    entries = entries_;
  }
  return std::all_of(entries->begin(), entries->end(), [this](const auto& e) {
    const auto& served = e.second.newest;
    if (served == nullptr || served->decision == nullptr) return true;  // a plain model: its own ready says
    return !served->stages.empty() || parents_->Live(HighestTier(served->decision->config().privacy));
  });
}

bool Server::ModelReady(const std::string& model, const std::string& version) const {
  return Find(model, version).ok();
}

wire::ServerMetadata Server::ServerMetadata() const {
  return {"ganglion",
          GANGLION_VERSION,
          {"binary_tensor_data", "parameters", "statistics", "model_repository", "model_configuration",
           "classification", "system_shared_memory", "ganglion.tier=" + std::string(topology::Name(config_.tier))}};
}

Result<wire::ModelMetadata> Server::ModelMetadata(const std::string& model, const std::string& version) const {
  ASSIGN_OR_RETURN(const auto served, Find(model, version));
  return served->metadata;
}

Result<wire::ModelConfig> Server::ModelConfig(const std::string& model, const std::string& version) const {
  ASSIGN_OR_RETURN(const auto served, Find(model, version));
  return served->config;
}

Result<std::vector<wire::ModelStatistics>> Server::Statistics(const std::string& model,
                                                              const std::string& version) const {
  std::vector<std::shared_ptr<const Served>> wanted;
  if (model.empty()) {
    std::lock_guard lock(entries_mutex_);
    for (const auto& [name, entry] : *entries_) {
      for (const auto& [v, served] : entry.versions) wanted.push_back(served);
    }
  } else {
    ASSIGN_OR_RETURN(auto served, Find(model, version));
    wanted.push_back(std::move(served));
  }
  std::vector<wire::ModelStatistics> all;
  for (const auto& served : wanted) {
    wire::ModelStatistics s;
    s.name = served->name;
    s.version = served->version;
    const auto read = [](const ServedCounts::Timed& t) -> wire::DurationStatistic { return {t.count, t.ns}; };
    s.success = read(served->counts.success);
    s.fail = read(served->counts.fail);
    s.cache_hit = read(served->counts.cache_hit);
    s.cache_miss = read(served->counts.cache_miss);
    s.inference_count = served->counts.rows;
    s.last_inference_ms = served->counts.last_ms;
    for (const auto& stage : served->stages) {
      const auto& c = stage.runner->counts();
      s.execution_count += c.runs;
      s.compute_infer.count += c.runs;
      s.compute_infer.nanoseconds += c.run_ns;
      s.queue.count += c.queued;
      s.queue.nanoseconds += c.queue_ns;
    }
    all.push_back(std::move(s));
  }
  return all;
}

std::vector<wire::RepositoryEntry> Server::RepositoryIndex(bool only_ready) const {
  std::lock_guard lock(entries_mutex_);
  std::vector<wire::RepositoryEntry> all;
  for (const auto& [name, entry] : *entries_) {
    for (const auto& [version, served] : entry.versions) all.push_back({name, version, "READY", ""});
    if (entry.versions.empty() && !only_ready) all.push_back({name, "", entry.state, entry.reason});
  }
  return all;
}

Result<std::vector<wire::SharedMemoryRegion>> Server::SharedMemoryStatus(const std::string& name) const {
  return regions_.Look(name);
}
Status Server::RegisterSharedMemory(const wire::SharedMemoryRegion& region) { return regions_.Register(region); }
Status Server::UnregisterSharedMemory(const std::string& name) { return regions_.Unregister(name); }

std::string Server::MetricsText() const { return registry_->Text(); }

std::string Server::Summary() const {
  std::lock_guard lock(entries_mutex_);
  std::string text;
  for (const auto& [name, entry] : *entries_) {
    if (entry.newest != nullptr) text += (text.empty() ? "" : ", ") + name + "@" + entry.newest->version.substr(0, 4);
  }
  return text;
}

std::string Server::StatusJson() const {
  NodeStatus s;
  s.node = config_.name;
  s.tier = std::string(topology::Name(config_.tier));
  s.version = GANGLION_VERSION;
  s.ready = Ready();
  s.draining = draining_;
  s.up = clock_.Now() - started_;
  admission_->With([&](const admission::ConcurrencyLimit& l) {
    s.in_flight = l.in_flight();
    s.limit = l.limit();
  });
  s.waiting_above = above_under_way_;
  if (http_) s.connections = http_->connections();
  if (cache_) s.cache = cache_->stats();
  {
    std::lock_guard lock(entries_mutex_);
    for (const auto& [name, entry] : *entries_) {
      NodeStatus::Model m;
      m.name = name;
      m.version = entry.newest ? entry.newest->version : "";
      m.state = entry.state;
      m.reason = entry.reason;
      m.decision = entry.newest && entry.newest->decision;
      if (entry.newest) {
        if (entry.newest->learns != nullptr) m.learning = entry.newest->learns->report();
        m.requests = entry.newest->counts.success.count + entry.newest->counts.fail.count;
        m.failed = entry.newest->counts.fail.count;
        for (const auto& stage : entry.newest->stages)
          m.stages.push_back({stage.name, stage.runner->usual(), stage.queue->depth()});
      }
      s.models.push_back(std::move(m));
    }
  }
  s.parents = parents_->Look();
  return WriteStatus(s);
}

}  // namespace ganglion::node
