#include "serve/engine/version_keeper.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "checkpoint/directory/scan.h"
#include "checkpoint/format/evaluation.h"
#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/text.h"

namespace varscope {
namespace {

constexpr std::size_t kMostGone = 16;
constexpr std::size_t kMostTold = 64;  // reasons for a checkpoint; then they may be told again
constexpr const char* kNothingYet = "no committed checkpoint yet";

std::optional<std::int64_t> step_in(const std::string& text) {
  std::int64_t step = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, step);
  if (error != std::errc() || at != end || step < 0) return std::nullopt;
  return step;
}

// Bytes of values and rows, as far as the manifest tells before anything is read.
std::int64_t bytes_of(const Manifest& m) {
  std::uint64_t n = 0;
  for (const TensorRecord& t : m.tensors) n += t.slot.empty() ? t.end - t.begin : 0;
  for (const RowPartRecord& r : m.row_parts) {
    for (const RowPiece& p : r.pieces) n += p.n_bytes();
  }
  return static_cast<std::int64_t>(n);
}

std::int64_t unix_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Figures, and of a run that follows a stream what it has learnt up to.
void take_metrics(const EvaluationRecord& metrics, VersionInfo& info) {
  constexpr double kMostSeconds = 9e9;  // whose nanoseconds are numbers of 64 bits
  for (const auto& [name, value] : metrics.values) {
    if (name != "event_time") {
      info.metrics.emplace_back(name, value);
    } else if (value > 0 && value < kMostSeconds) {
      info.event_ns = static_cast<std::int64_t>(value * 1e9);
    }
  }
}

bool is_same_model(const Signature& a, const Signature& b) {
  const auto same = [](const std::vector<TensorInfo>& x, const std::vector<TensorInfo>& y) {
    return std::ranges::equal(x, y, [](const TensorInfo& i, const TensorInfo& j) {
      return i.name == j.name && i.type == j.type && i.shape == j.shape;
    });
  };
  return same(a.inputs, b.inputs) && same(a.outputs, b.outputs);
}

}  // namespace

VersionPolicy VersionPolicy::parse(const std::string& text, const std::string& key) {
  VersionPolicy policy;
  if (text == "latest") return policy;
  policy.kind = Kind::pinned;
  if (text == "pinned") return policy;
  policy.kind = Kind::steps;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(',', at), text.size());
    const std::optional<std::int64_t> step = step_in(text.substr(at, end - at));
    if (!step) fail(ErrorKind::config, "{} {}: expected latest, pinned, or steps such as 100,200", key, text);
    policy.steps.push_back(*step);
    at = end + 1;
  }
  return policy;
}

VersionGate VersionGate::parse(const std::string& text) {
  const std::size_t at = text.find("<=") != std::string::npos ? text.find("<=") : text.find(">=");
  VersionGate gate;
  double bound = 0;
  if (at != std::string::npos && at > 0) {
    const char* const begin = text.data() + at + 2;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(begin, end, bound);
    if (error == std::errc() && stop == end && std::isfinite(bound)) {
      gate.metric = text.substr(0, at);
      (text[at] == '<' ? gate.most : gate.least) = bound;
      return gate;
    }
  }
  fail(ErrorKind::config, "--require {}: expected METRIC<=NUMBER or METRIC>=NUMBER, such as loss<=0.6", text);
}

std::string VersionGate::problem(const std::vector<std::pair<std::string, double>>& metrics) const {
  const auto found = std::ranges::find(metrics, metric, &std::pair<std::string, double>::first);
  if (found == metrics.end())
    return fmt::format("its METRICS do not have \"{}\" (yet), which is required", metric);
  if (most && !(found->second <= *most))
    return fmt::format("its {} is {}, and at most {} is required", metric, found->second, *most);
  if (least && !(found->second >= *least))
    return fmt::format("its {} is {}, and at least {} is required", metric, found->second, *least);
  return {};
}

struct VersionKeeper::Impl {
  Impl(Fs& f, std::string p, KeeperOptions o, LoadServable l, VersionObserver& ob)
      : fs(f), path(std::move(p)), options(std::move(o)), load(std::move(l)), observer(ob) {}

  Fs& fs;
  const std::string path;
  const KeeperOptions options;
  const LoadServable load;
  VersionObserver& observer;

  mutable std::mutex mutex;                            // of what follows
  std::vector<std::shared_ptr<const Version>> served;  // by step, highest first
  std::deque<VersionInfo> gone;                        // newest first
  std::string waits = kNothingYet;

  // Of the thread that polls.
  struct PassedOver {
    std::string manifest_id;
    bool is_final = false;       // it will not be tried again
    std::set<std::string> told;  // reasons
  };
  std::map<std::string, PassedOver> passed;  // by path, of checkpoints that were there at the last look
  std::string trouble;                       // with the directory, at the last look

  bool is_single() const { return fs.exists(join_path(path, kManifestName)); }
  std::vector<CheckpointName> candidates();
  std::vector<std::shared_ptr<const Version>> snapshot() const {
    const std::lock_guard lock(mutex);
    return served;
  }
  void wait_for(std::string what) {
    const std::lock_guard lock(mutex);
    waits = std::move(what);
  }
  void pass_over(VersionInfo info, const std::string& why, bool is_final);
  bool is_served(const std::string& manifest_id) const;
  bool take(const CheckpointName& name, const std::vector<std::shared_ptr<const Version>>& replaced);
  std::shared_ptr<const Version> make(const CheckpointName& name, Manifest manifest, const VersionInfo& info);
  bool has_room(const Manifest& manifest, const VersionInfo& info,
                const std::vector<std::shared_ptr<const Version>>& replaced);
  void drop(const std::vector<std::shared_ptr<const Version>>& versions);
  void follow_newest();
  void follow_steps();
};

// Newest first. What is known of those that are not there any more is forgotten.
std::vector<CheckpointName> VersionKeeper::Impl::candidates() {
  if (is_single()) return {{path, path, -1}};
  std::vector<CheckpointName> all = list_checkpoints(fs, directory_of_checkpoints(fs, path));
  std::erase_if(passed, [&](const auto& known) {
    return std::ranges::find(all, known.first, &CheckpointName::path) == all.end();
  });
  if (options.policy.kind == VersionPolicy::Kind::pinned)
    std::erase_if(all, [&](const CheckpointName& c) { return !fs.exists(join_path(c.path, kPinnedName)); });
  return all;
}

// `is_final`: it will not be tried again, whatever happens.
void VersionKeeper::Impl::pass_over(VersionInfo info, const std::string& why, bool is_final) {
  PassedOver& known = passed[info.path];
  if (known.manifest_id != info.id.manifest_id) known = {info.id.manifest_id, false, {}};
  known.is_final = known.is_final || is_final;
  if (known.told.size() >= kMostTold) known.told.clear();
  if (!known.told.insert(why).second) return;
  info.state = VersionInfo::State::gone;
  info.why = why;
  {
    const std::lock_guard lock(mutex);
    gone.push_front(info);
    if (gone.size() > kMostGone) gone.pop_back();
    if (served.empty()) waits = fmt::format("{}: {}", info.path, why);
  }
  observer.on_passed_over(info);
}

bool VersionKeeper::Impl::is_served(const std::string& manifest_id) const {
  return std::ranges::any_of(snapshot(), [&](const auto& v) { return v->id().manifest_id == manifest_id; });
}

bool VersionKeeper::Impl::has_room(const Manifest& manifest, const VersionInfo& info,
                                   const std::vector<std::shared_ptr<const Version>>& replaced) {
  if (options.memory_limit == 0) return true;
  std::int64_t held = 0, freed = 0;
  for (const auto& v : snapshot()) held += v->n_bytes();
  for (const auto& v : replaced) freed += v->n_bytes();
  const std::int64_t needed = bytes_of(manifest);
  if (held + needed <= options.memory_limit) return true;
  if (options.replaces && held - freed + needed <= options.memory_limit) {
    drop(replaced);
    return true;
  }
  pass_over(info,
            fmt::format("its values take {}, those that are served {}, and together at most {} may be used "
                        "(--memory-mib)",
                        bytes_text(needed), bytes_text(held), bytes_text(options.memory_limit)),
            false);
  return false;
}

std::shared_ptr<const Version> VersionKeeper::Impl::make(const CheckpointName& name, Manifest manifest,
                                                         const VersionInfo& info) {
  auto version = std::make_shared<const Version>(load({name.path, {}, std::move(manifest)}), info);
  const auto before = snapshot();
  if (!before.empty() && !is_same_model(*before.front()->served().signature, *version->served().signature)) {
    pass_over(info, "it is of another model than what is served: other inputs or outputs", true);
    return nullptr;
  }
  return version;
}

// Loads and publishes it, unless it is served; then those of `replaced` go. False: it is not served.
bool VersionKeeper::Impl::take(const CheckpointName& name,
                               const std::vector<std::shared_ptr<const Version>>& replaced) {
  VersionInfo info;
  info.path = name.path;
  info.id.step = std::max<std::int64_t>(0, name.step);
  info.is_exact = !options.inexact_rows;
  info.block = options.inexact_rows.value_or(1);
  try {
    LoadedManifest loaded = load_manifest(fs, name.path);
    Manifest& manifest = loaded.manifest;
    info.id = {manifest.step, manifest.id, values_hash_of(manifest)};
    info.committed_ns = manifest.unix_time * 1'000'000'000;
    const auto known = passed.find(name.path);
    if (known != passed.end() && known->second.is_final && known->second.manifest_id == manifest.id)
      return false;
    if (is_served(manifest.id)) return true;
    if (const auto metrics = read_evaluation(fs, name.path)) take_metrics(*metrics, info);
    if (options.gate) {
      if (const std::string why = options.gate->problem(info.metrics); !why.empty()) {
        pass_over(info, why, false);
        return false;
      }
    }
    if (!has_room(manifest, info, replaced)) return false;
    const std::int64_t started = now_ns();
    info.loaded_ns = unix_ns();
    const std::shared_ptr<const Version> version = make(name, std::move(manifest), info);
    if (version == nullptr) return false;
    {
      const std::lock_guard lock(mutex);
      served.push_back(version);
      std::ranges::sort(served, [](const auto& a, const auto& b) { return a->id().step > b->id().step; });
    }
    observer.on_published(version->served().version, now_ns() - started);
    drop(replaced);
    return true;
  } catch (const Error& e) {
    // Gone in the meantime: a newer one has taken its place. What the system cannot do now, it may do later.
    if (!fs.exists(join_path(name.path, kManifestName))) return false;
    pass_over(info, e.what(), e.kind() != ErrorKind::io);
    return false;
  } catch (const std::exception& e) {  // no memory for it, say: it is tried again
    pass_over(info, std::string("it cannot be loaded: ") + e.what(), false);
    return false;
  }
}

void VersionKeeper::Impl::drop(const std::vector<std::shared_ptr<const Version>>& versions) {
  for (const auto& version : versions) {
    VersionInfo info = version->served().version;
    info.state = VersionInfo::State::gone;
    info.why = "another version has taken its place";
    {
      const std::lock_guard lock(mutex);
      if (std::erase(served, version) == 0) continue;
      gone.push_front(info);
      if (gone.size() > kMostGone) gone.pop_back();
    }
    observer.on_dropped(info);
  }
}

void VersionKeeper::Impl::follow_newest() {
  const std::vector<CheckpointName> all = candidates();
  const auto before = snapshot();
  if (all.empty() && before.empty()) {
    wait_for(options.policy.kind == VersionPolicy::Kind::pinned ? "no pinned checkpoint yet" : kNothingYet);
  }
  for (const CheckpointName& name : all) {
    // The newest one may be older than what is served, after a rollback; not one behind it.
    const bool is_behind = &name != all.data() && !before.empty() && name.step < before.front()->id().step;
    if (is_behind || take(name, before)) return;
  }
}

void VersionKeeper::Impl::follow_steps() {
  const std::vector<CheckpointName> all = candidates();
  for (const std::int64_t step : options.policy.steps) {
    const auto name = std::ranges::find(all, step, &CheckpointName::step);
    const auto before = snapshot();
    if (name == all.end()) {
      if (before.empty()) wait_for(fmt::format("no checkpoint of step {} yet", step));
      continue;
    }
    std::vector<std::shared_ptr<const Version>> replaced;
    std::ranges::copy_if(before, std::back_inserter(replaced),
                         [&](const auto& v) { return v->id().step == step; });
    take(*name, replaced);
  }
}

VersionKeeper::VersionKeeper(Fs& fs, std::string path, KeeperOptions options, LoadServable load,
                             VersionObserver& observer)
    : impl_(std::make_unique<Impl>(fs, std::move(path), std::move(options), std::move(load), observer)) {}
VersionKeeper::~VersionKeeper() = default;

void VersionKeeper::poll() {
  std::string trouble;
  try {
    impl_->options.policy.kind == VersionPolicy::Kind::steps ? impl_->follow_steps() : impl_->follow_newest();
  } catch (const std::exception& e) {
    trouble = fmt::format("{} cannot be read: {}", impl_->path, e.what());
    impl_->wait_for(trouble);
  }
  if (std::exchange(impl_->trouble, trouble) != trouble && !trouble.empty())
    impl_->observer.on_trouble(trouble);
}

std::shared_ptr<const Version> VersionKeeper::find(const std::string& name) const {
  const std::optional<std::int64_t> step = step_in(name);
  const std::lock_guard lock(impl_->mutex);
  for (const auto& version : impl_->served) {
    if (name.empty() || version->id().step == step) return version;
  }
  return nullptr;
}

std::vector<VersionInfo> VersionKeeper::versions() const {
  const std::lock_guard lock(impl_->mutex);
  std::vector<VersionInfo> all;
  for (const auto& version : impl_->served) all.push_back(version->served().version);
  all.insert(all.end(), impl_->gone.begin(), impl_->gone.end());
  return all;
}

std::string VersionKeeper::waits_for() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->served.empty() ? impl_->waits : "";
}

}  // namespace varscope
