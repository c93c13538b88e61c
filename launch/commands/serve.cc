#include "launch/commands/serve.h"

#include <malloc.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "checkpoint/directory/scan.h"
#include "common/base/error.h"
#include "common/transport/mpi/mpi_job.h"
#include "launch/job/served_checkpoint.h"
#include "launch/observe/output.h"
#include "launch/process/version.h"
#include "serve/engine/engine.h"
#include "serve/engine/version_keeper.h"
#include "serve/http/http_server.h"
#include "serve/http/metrics.h"
#include "serve/http/service.h"
#include "worker/kernels/blas.h"

namespace varscope {
namespace {

constexpr int kEndedBySignal = 128 + SIGTERM;
constexpr std::chrono::milliseconds kMostToFinish{30'000};
constexpr std::int64_t kMostInexactRows = 1024;  // of a run, which has memory for as many
// Larger blocks have memory of their own, which goes back to the system with them.
constexpr int kMappedBytes = 128 << 10;

void say(const std::string& line) {
  std::fputs((line + "\n").c_str(), stdout);
  std::fflush(stdout);
}

std::string list_of(const std::vector<TensorInfo>& all) {
  std::string text;
  for (const TensorInfo& t : all)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", t.name, tensor_text(t.shape, t.type));
  return text;
}

// What a user wants to know of versions as they come and go.
class Log final : public VersionObserver {
 public:
  std::string why_passed_over;  // the last one

 private:
  void on_published(const VersionInfo& v, std::int64_t load_ns) override {
    say(fmt::format("serving step {} of {}, values {} (loaded in {:.2g} s)", v.id.step, v.path,
                    v.id.values_hash.hex(), static_cast<double>(load_ns) * 1e-9));
  }
  void on_dropped(const VersionInfo&) override {}
  void on_passed_over(const VersionInfo& v) override {
    why_passed_over = fmt::format("checkpoint {} is not served: {}", v.path, v.why);
    warn({why_passed_over});
  }
  void on_trouble(const std::string& what) override { warn({what}); }
};

// Of the run's directory, in letters that need no quotes in an address.
std::string name_of(const ServeSettings& settings) {
  if (!settings.serve.name.empty()) return settings.serve.name;
  std::filesystem::path path = std::filesystem::absolute(settings.model).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (path.filename().string().starts_with("step-")) path = path.parent_path();
  if (path.filename() == "checkpoints") path = path.parent_path();
  std::string name = path.filename().string();
  std::ranges::replace_if(
      name, [](unsigned char c) { return std::isalnum(c) == 0 && c != '-' && c != '_' && c != '.'; }, '_');
  return name.empty() ? "model" : name;
}

KeeperOptions keeper_options(const ServeSettings& settings) {
  KeeperOptions keeper;
  keeper.policy = settings.policy;
  keeper.gate = settings.gate;
  keeper.memory_limit = settings.serve.memory_mib << 20;
  keeper.replaces = settings.serve.swap == Swap::replace;
  if (!settings.serve.exact) keeper.inexact_rows = std::min(settings.serve.max_batch, kMostInexactRows);
  return keeper;
}

EngineOptions engine_options(const ServeConfig& serve) {
  const auto cores = static_cast<std::int64_t>(std::thread::hardware_concurrency());
  EngineOptions engine;
  engine.threads = static_cast<int>(serve.threads > 0 ? serve.threads : std::max<std::int64_t>(1, cores - 1));
  engine.max_batch = serve.max_batch;
  engine.max_delay_us = serve.max_delay_us;
  engine.max_queue = serve.max_queue;
  return engine;
}

pthread_t g_waits_for_signals;

// Async-signal-safe.
extern "C" void pass_on(int signal) { pthread_kill(g_waits_for_signals, signal); }

// SIGTERM and SIGINT are waited for, by this thread alone; threads that begin later have them blocked, too.
// Those of libraries have begun earlier, as the BLAS's: where one of them gets a signal, while this thread
// loads, it passes it on.
class EndSignals {
 public:
  EndSignals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    g_waits_for_signals = pthread_self();
    struct sigaction action {};
    action.sa_handler = pass_on;
    action.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGINT, &action, nullptr);
  }
  // Whether one has come within this time.
  bool wait(std::int64_t ms) const {
    const timespec time{ms / 1000, ms % 1000 * 1'000'000};
    while (true) {
      const int signal = sigtimedwait(&set_, nullptr, &time);
      if (signal > 0) return true;
      if (errno != EINTR) return false;
    }
  }

 private:
  sigset_t set_{};
};

// The first look: what cannot become anything by waiting ends the program.
void look_first(VersionKeeper& keeper, const Log& log, const ServeSettings& settings, bool waits, Fs& fs) {
  keeper.poll();
  if (keeper.find() != nullptr) return;
  const bool waits_for_metrics = settings.gate.has_value();
  if (!log.why_passed_over.empty() && !waits_for_metrics)
    fail(ErrorKind::checkpoint, "{}", log.why_passed_over);
  if (!waits) fail(ErrorKind::checkpoint, "{}: {}", settings.model, keeper.waits_for());
  if (!fs.exists(settings.model)) warn({settings.model + " does not exist (yet)"});
  say(keeper.waits_for() + "; waiting");
}

void say_what_is_served(const VersionKeeper& keeper) {
  const ServedModel& model = keeper.find()->served();
  say("  inputs   " + list_of(model.signature->inputs));
  say("  outputs  " + list_of(model.signature->outputs));
  say(model.version.is_exact
          ? fmt::format("  bits     of a row are the same in any batch (blocks of {} rows)",
                        model.version.block)
          : "  bits     of a row vary with its batch (--no-exact)");
}

}  // namespace

int serve(const ServeOptions& options, const LayerRegistry& layers, Fs& fs) {
  if (launched_by_mpi())
    fail(ErrorKind::config, "serve is one process: start it without mpirun, once for each replica");
  const ServeSettings settings = serve_settings(options, fs);
  const ServeConfig& how = settings.serve;
  ::mallopt(M_MMAP_THRESHOLD, kMappedBytes);
  set_blas_threads(1);
  const EndSignals signals;
  Log log;
  ServeMetrics metrics(kVersion, &log);
  VersionKeeper keeper(fs, settings.model, keeper_options(settings),
                       servable_loader(fs, settings.config, layers, options.overrides), metrics);
  Engine engine(keeper, engine_options(how), metrics);
  Service service(engine, metrics, {.name = name_of(settings), .program = kVersion});
  HttpServer server(settings.http, [&](HttpRequest request, HttpServer::Reply reply) {
    service.handle(std::move(request), std::move(reply));
  });
  if (server.is_open_to_network())
    warn({fmt::format(
        "{} is open to the network, unencrypted and without log-in: a proxy's job (docs/serving.md)",
        server.address())});
  say(fmt::format("listening on http://{}, model {}", server.address(), name_of(settings)));
  ::setpriority(PRIO_PROCESS, 0, 10);  // this thread loads; the others answer
  look_first(keeper, log, settings, !options.no_wait, fs);
  bool is_told = false;
  do {
    if (!is_told && keeper.find() != nullptr) {
      say_what_is_served(keeper);
      is_told = true;
    }
    metrics.on_connection_refused(server.n_refused());
    keeper.poll();
  } while (!signals.wait(how.poll_ms));

  say(fmt::format("ending: not ready any more; answers for {} s", static_cast<double>(how.drain_ms) / 1000));
  service.begin_drain();
  server.close_after_answers();
  if (signals.wait(how.drain_ms)) return kEndedBySignal;
  const bool is_done = server.finish(kMostToFinish);
  engine.stop();
  if (!is_done) warn({"some requests were not answered in time"});
  say("ended");
  return 0;
}

}  // namespace varscope
