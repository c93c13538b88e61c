#include "serve/engine/engine.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/text.h"

namespace varscope {
namespace {

constexpr const char* kStopped = "the server ends";

// A request on its way.
struct Job {
  InferRequest request;
  std::function<void(InferAnswer)> done;
  std::shared_ptr<const Version> version;
  std::int64_t n_rows = 0, n_done = 0;  // rows that are answered
  std::int64_t n_bytes = 0;
  std::int64_t arrived_ns = 0;
  InferAnswer answer;
};

std::int64_t bytes_of(const InferRequest& request) {
  std::size_t n = 0;
  for (const InputTensor& t : request.inputs)
    n += t.data.size() + t.texts.size() * sizeof(std::string_view) + t.missing.size() * sizeof(std::int64_t);
  return static_cast<std::int64_t>(n) + request.n_memory_bytes;
}

}  // namespace

struct Engine::Impl {
  Impl(VersionKeeper& k, const EngineOptions& o, EngineObserver& ob)
      : versions(k), options(o), observer(ob) {}

  VersionKeeper& versions;
  const EngineOptions options;
  EngineObserver& observer;

  std::mutex mutex;  // of what follows
  std::condition_variable changed, idle;
  std::deque<std::unique_ptr<Job>> queue;
  std::int64_t n_bytes = 0;                // of requests that are not answered
  std::int64_t n_open = 0;                 // requests that are not answered
  std::map<int, std::int64_t> started_ns;  // by thread, of the computation that runs
  bool is_stopped = false;

  std::vector<std::thread> threads;

  void refuse(const std::function<void(InferAnswer)>& done, Refusal::Kind kind, std::string text) const {
    observer.on_refused(kind);
    InferAnswer answer;
    answer.refusal = {kind, std::move(text)};
    done(std::move(answer));
  }
  void finish(std::unique_ptr<Job> job);
  bool drop_if_late(std::unique_ptr<Job>& job);
  std::vector<std::unique_ptr<Job>> take(std::unique_lock<std::mutex>& lock);
  void compute(int thread, std::vector<std::unique_ptr<Job>> jobs, Version::Runner& runner);
  void run(int thread);
};

void Engine::Impl::finish(std::unique_ptr<Job> job) {
  if (job->answer.refusal) observer.on_refused(job->answer.refusal->kind);
  job->done(std::move(job->answer));
  const std::lock_guard lock(mutex);
  --n_open;
  n_bytes -= job->n_bytes;
  if (n_open == 0) idle.notify_all();
}

// Whose client has gone, or will not take the answer any more.
bool Engine::Impl::drop_if_late(std::unique_ptr<Job>& job) {
  if (job->request.is_abandoned && job->request.is_abandoned()) {
    job->answer.refusal = {Refusal::Kind::expired, "nobody waits for the answer any more"};
    return true;
  }
  if (job->request.deadline_ns && now_ns() > *job->request.deadline_ns) {
    job->answer.refusal = {Refusal::Kind::expired,
                           "the request's time was over before it was computed; it waited behind others"};
    return true;
  }
  return false;
}

// Jobs of one version, of which max_batch rows in all will be computed; the first one waits longest.
std::vector<std::unique_ptr<Job>> Engine::Impl::take(std::unique_lock<std::mutex>& lock) {
  const auto n_waiting = [&] {
    std::int64_t n = 0;
    for (const auto& job : queue) n += job->n_rows - job->n_done;
    return n;
  };
  if (options.max_delay_us > 0 && !queue.empty()) {
    const std::int64_t until = queue.front()->arrived_ns + options.max_delay_us * 1000;
    while (!is_stopped && !queue.empty() && n_waiting() < options.max_batch && now_ns() < until)
      changed.wait_for(lock, std::chrono::nanoseconds(std::max<std::int64_t>(1, until - now_ns())));
  }
  std::vector<std::unique_ptr<Job>> jobs;
  std::int64_t n = 0;
  for (auto at = queue.begin(); at != queue.end() && n < options.max_batch;) {
    if (!jobs.empty() && (*at)->version != jobs.front()->version) {
      ++at;
      continue;
    }
    n += (*at)->n_rows - (*at)->n_done;
    jobs.push_back(std::move(*at));
    at = queue.erase(at);
  }
  return jobs;
}

void Engine::Impl::compute(int thread, std::vector<std::unique_ptr<Job>> jobs, Version::Runner& runner) {
  std::vector<RequestPiece> pieces;
  std::int64_t n_rows = 0;
  const std::int64_t now = now_ns();
  for (const auto& job : jobs) {
    if (job->n_done == 0) job->answer.queue_ns = now - job->arrived_ns;
    const std::int64_t n = std::min(job->n_rows - job->n_done, options.max_batch - n_rows);
    if (n == 0) continue;
    pieces.push_back({&job->request, job->n_done, n, &job->answer});
    job->n_done += n;
    n_rows += n;
  }
  {
    const std::lock_guard lock(mutex);
    started_ns[thread] = now;
  }
  runner.run(pieces);
  {
    const std::lock_guard lock(mutex);
    started_ns.erase(thread);
  }
  observer.on_run(jobs.front()->version->id(), std::ssize(pieces), n_rows, now_ns() - now);
  for (auto& job : jobs) {
    if (job->answer.refusal || job->n_done == job->n_rows) {
      finish(std::move(job));
      continue;
    }
    std::unique_lock lock(mutex);
    if (is_stopped) {
      lock.unlock();
      job->answer = {};
      job->answer.refusal = {Refusal::Kind::stopped, kStopped};
      finish(std::move(job));
      continue;
    }
    queue.push_back(std::move(job));  // behind the others
    changed.notify_one();
  }
}

void Engine::Impl::run(int thread) {
  struct Kept {
    std::weak_ptr<const Version> version;
    std::unique_ptr<Version::Runner> runner;
  };
  std::map<const Version*, Kept> runners;
  while (true) {
    std::vector<std::unique_ptr<Job>> jobs;
    {
      std::unique_lock lock(mutex);
      changed.wait_for(lock, std::chrono::seconds(1), [&] { return is_stopped || !queue.empty(); });
      if (is_stopped && queue.empty()) return;
      jobs = take(lock);
    }
    std::erase_if(runners, [](const auto& kept) { return kept.second.version.expired(); });
    for (auto& job : jobs) {
      if (drop_if_late(job)) finish(std::move(job));
    }
    std::erase(jobs, nullptr);
    if (jobs.empty()) continue;
    const std::shared_ptr<const Version> version = jobs.front()->version;
    Kept& kept = runners[version.get()];
    if (kept.runner == nullptr) kept = {version, std::make_unique<Version::Runner>(*version)};
    compute(thread, std::move(jobs), *kept.runner);
  }
}

Engine::Engine(VersionKeeper& versions, const EngineOptions& options, EngineObserver& observer)
    : impl_(std::make_unique<Impl>(versions, options, observer)) {
  for (int i = 0; i < options.threads; ++i) impl_->threads.emplace_back([this, i] { impl_->run(i); });
}

Engine::~Engine() { stop(); }

bool Engine::is_ready(std::string* why) const {
  if (impl_->versions.find() != nullptr) return true;
  if (why != nullptr) *why = impl_->versions.waits_for();
  return false;
}

std::optional<ServedModel> Engine::model(const std::string& version) const {
  const auto found = impl_->versions.find(version);
  if (found == nullptr) return std::nullopt;
  return found->served();
}

std::vector<VersionInfo> Engine::versions() const { return impl_->versions.versions(); }

void Engine::infer(InferRequest request, std::function<void(InferAnswer)> done) {
  Impl& e = *impl_;
  const auto version = e.versions.find(request.version);
  if (version == nullptr) {
    std::string there;
    for (const VersionInfo& v : e.versions.versions()) {
      if (v.state == VersionInfo::State::available) there += (there.empty() ? "" : ", ") + v.id.name();
    }
    if (there.empty()) return e.refuse(done, Refusal::Kind::not_ready, e.versions.waits_for());
    return e.refuse(done, Refusal::Kind::not_found,
                    fmt::format("there is no version {}; there is {}", request.version, there));
  }
  auto job = std::make_unique<Job>();
  try {
    job->n_rows = version->check(request);
  } catch (const Error& error) {
    return e.refuse(done, Refusal::Kind::invalid, error.what());
  }
  job->n_bytes = bytes_of(request);
  job->request = std::move(request);
  job->version = version;
  job->arrived_ns = now_ns();
  bool is_too_much = false;
  {
    const std::lock_guard lock(e.mutex);
    // One alone may be larger: it would never get an answer.
    is_too_much = e.n_bytes > 0 && e.n_bytes + job->n_bytes > e.options.max_queue_bytes;
    if (!e.is_stopped && !is_too_much && e.n_open < e.options.max_queue) {
      job->done = std::move(done);
      ++e.n_open;
      e.n_bytes += job->n_bytes;
      e.queue.push_back(std::move(job));
      e.changed.notify_one();
      return;
    }
    if (e.is_stopped) job = nullptr;
  }
  if (job == nullptr) return e.refuse(done, Refusal::Kind::stopped, kStopped);
  e.refuse(done, Refusal::Kind::busy,
           is_too_much
               ? fmt::format("requests of {} wait already; try again", bytes_text(e.options.max_queue_bytes))
               : fmt::format("{} requests wait already; try again", e.options.max_queue));
}

std::int64_t Engine::longest_compute_ns() const {
  const std::lock_guard lock(impl_->mutex);
  std::int64_t longest = 0;
  for (const auto& [thread, started] : impl_->started_ns) longest = std::max(longest, now_ns() - started);
  return longest;
}

std::int64_t Engine::n_waiting() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->n_open;
}

bool Engine::drain(std::int64_t ms) {
  std::unique_lock lock(impl_->mutex);
  return impl_->idle.wait_for(lock, std::chrono::milliseconds(ms), [&] { return impl_->n_open == 0; });
}

void Engine::stop() {
  std::deque<std::unique_ptr<Job>> left;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->is_stopped = true;
    left = std::exchange(impl_->queue, {});
    impl_->changed.notify_all();
  }
  for (auto& job : left) {
    job->answer = {};
    job->answer.refusal = {Refusal::Kind::stopped, kStopped};
    impl_->finish(std::move(job));
  }
  for (std::thread& thread : impl_->threads) {
    if (thread.joinable()) thread.join();
  }
}

}  // namespace varscope
