#include "serve/http/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "common/base/clock.h"

namespace varscope {
namespace {

const char* reason_of(Refusal::Kind kind) {
  switch (kind) {
    case Refusal::Kind::invalid:
      return "invalid";
    case Refusal::Kind::not_found:
      return "not_found";
    case Refusal::Kind::not_ready:
      return "not_ready";
    case Refusal::Kind::busy:
      return "busy";
    case Refusal::Kind::expired:
      return "expired";
    case Refusal::Kind::not_finite:
      return "not_finite";
    case Refusal::Kind::stopped:
      return "stopped";
    case Refusal::Kind::internal:
      break;
  }
  return "internal";
}

const prometheus::Histogram::BucketBoundaries kSeconds = {
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 0.5, 1, 2.5, 10};
const prometheus::Histogram::BucketBoundaries kRows = {1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096};

std::int64_t unix_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

struct ServeMetrics::Impl {
  using Labels = prometheus::Labels;
  template <class T>
  using Family = prometheus::Family<T>;

  prometheus::Registry registry;
  Family<prometheus::Counter>& requests = prometheus::BuildCounter()
                                              .Name("varscope_requests_total")
                                              .Help("Requests that were answered.")
                                              .Register(registry);
  Family<prometheus::Counter>& refused = prometheus::BuildCounter()
                                             .Name("varscope_refused_total")
                                             .Help("Requests that the engine did not answer, by reason.")
                                             .Register(registry);
  Family<prometheus::Counter>& passed_over = prometheus::BuildCounter()
                                                 .Name("varscope_checkpoints_passed_over_total")
                                                 .Help("Checkpoints that were not served.")
                                                 .Register(registry);
  Family<prometheus::Counter>& rows = prometheus::BuildCounter()
                                          .Name("varscope_rows_total")
                                          .Help("Rows that were computed.")
                                          .Register(registry);
  Family<prometheus::Histogram>& seconds =
      prometheus::BuildHistogram()
          .Name("varscope_request_seconds")
          .Help("Time of a request: in the queue, of computation, in all.")
          .Register(registry);
  Family<prometheus::Histogram>& batches = prometheus::BuildHistogram()
                                               .Name("varscope_batch_rows")
                                               .Help("Rows that were computed together.")
                                               .Register(registry);
  Family<prometheus::Gauge>& step = prometheus::BuildGauge()
                                        .Name("varscope_served_step")
                                        .Help("Step of the newest version.")
                                        .Register(registry);
  Family<prometheus::Gauge>& committed = prometheus::BuildGauge()
                                             .Name("varscope_version_commit_time_seconds")
                                             .Help("When a served version was committed, in Unix time.")
                                             .Register(registry);
  Family<prometheus::Gauge>& loaded = prometheus::BuildGauge()
                                          .Name("varscope_version_load_time_seconds")
                                          .Help("When a served version was loaded, in Unix time.")
                                          .Register(registry);
  Family<prometheus::Gauge>& event = prometheus::BuildGauge()
                                         .Name("varscope_version_event_time_seconds")
                                         .Help(
                                             "Time of the newest record that a served version has learnt "
                                             "from, in Unix time; of runs that follow a stream.")
                                         .Register(registry);
  Family<prometheus::Gauge>& event_age = prometheus::BuildGauge()
                                             .Name("varscope_served_event_age_seconds")
                                             .Help(
                                                 "How long ago the newest record was that the newest "
                                                 "version has learnt from.")
                                             .Register(registry);
  Family<prometheus::Gauge>& load_seconds = prometheus::BuildGauge()
                                                .Name("varscope_version_load_seconds")
                                                .Help("How long it took to load a served version.")
                                                .Register(registry);
  Family<prometheus::Gauge>& connections = prometheus::BuildGauge()
                                               .Name("varscope_connections_refused")
                                               .Help("Connections beyond the most that there may be.")
                                               .Register(registry);

  prometheus::Histogram& in_queue = seconds.Add({{"part", "queue"}}, kSeconds);
  prometheus::Histogram& of_compute = seconds.Add({{"part", "compute"}}, kSeconds);
  prometheus::Histogram& in_all = seconds.Add({{"part", "total"}}, kSeconds);
  prometheus::Histogram& of_batch = batches.Add({}, kRows);
  prometheus::Counter& all_rows = rows.Add({});
  prometheus::Gauge& newest = step.Add({});

  mutable std::mutex mutex;  // of what follows
  struct OfVersion {
    std::vector<prometheus::Counter*> requests;
    prometheus::Gauge *committed = nullptr, *loaded = nullptr, *load_seconds = nullptr, *event = nullptr;
    std::optional<std::int64_t> event_ns;
    std::string manifest_id;  // a run that resumes may commit the same step again
  };
  std::map<std::string, OfVersion> versions;
  std::set<std::int64_t> served;
  prometheus::Gauge* age = nullptr;  // where the newest version has an event time
  std::int64_t n_requests = 0, n_failed = 0, n_rows = 0;
  std::array<double, 4096> last{};  // seconds of answered requests, a ring
  std::size_t n_last = 0;
  const std::int64_t started_ns = now_ns();
  VersionObserver* next = nullptr;

  // The age grows while nothing happens: it is of the moment when it is asked for.
  void set_age() {
    const std::lock_guard lock(mutex);
    const auto newest_version =
        served.empty() ? versions.end() : versions.find(std::to_string(*served.rbegin()));
    if (newest_version == versions.end() || !newest_version->second.event_ns) {
      if (age != nullptr) event_age.Remove(std::exchange(age, nullptr));
      return;
    }
    if (age == nullptr) age = &event_age.Add({});
    age->Set(static_cast<double>(unix_ns() - *newest_version->second.event_ns) * 1e-9);
  }
};

ServeMetrics::ServeMetrics(const std::string& program, VersionObserver* next)
    : impl_(std::make_unique<Impl>()) {
  impl_->next = next;
  prometheus::BuildGauge()
      .Name("varscope_build_info")
      .Help("The program's version.")
      .Register(impl_->registry)
      .Add({{"version", program}})
      .Set(1);
}
ServeMetrics::~ServeMetrics() = default;

void ServeMetrics::on_request(const std::string& api, const std::string& version, int code, double total_s,
                              double queue_s, double compute_s, std::int64_t n_rows) {
  Impl& m = *impl_;
  {
    const std::lock_guard lock(m.mutex);
    ++m.n_requests;
    m.n_failed += code >= 400 ? 1 : 0;
    m.n_rows += n_rows;
    // A version that has gone meanwhile gets no series of its own again.
    const bool is_known = version.empty() || m.versions.contains(version);
    prometheus::Counter& counter =
        m.requests.Add({{"api", api}, {"version", is_known ? version : ""}, {"code", std::to_string(code)}});
    counter.Increment();
    if (!version.empty() && is_known) {
      auto& known = m.versions[version].requests;
      if (std::ranges::find(known, &counter) == known.end()) known.push_back(&counter);
    }
    if (code < 400) m.last[m.n_last++ % m.last.size()] = total_s;
  }
  m.in_all.Observe(total_s);
  if (code >= 400) return;
  m.in_queue.Observe(queue_s);
  m.of_compute.Observe(compute_s);
}

void ServeMetrics::on_connection_refused(std::uint64_t n_in_all) {
  impl_->connections.Add({}).Set(static_cast<double>(n_in_all));
}

std::string ServeMetrics::text() const {
  impl_->set_age();
  return prometheus::TextSerializer().Serialize(impl_->registry.Collect());
}

ServeMetrics::Summary ServeMetrics::summary() const {
  const std::lock_guard lock(impl_->mutex);
  Summary s{impl_->n_requests,
            impl_->n_failed,
            impl_->n_rows,
            static_cast<double>(now_ns() - impl_->started_ns) * 1e-9,
            0,
            0};
  std::vector<double> last(
      impl_->last.begin(),
      impl_->last.begin() + static_cast<std::ptrdiff_t>(std::min(impl_->n_last, impl_->last.size())));
  if (last.empty()) return s;
  std::ranges::sort(last);
  s.median_s = last[last.size() / 2];
  s.p99_s = last[(last.size() - 1) * 99 / 100];
  return s;
}

void ServeMetrics::on_published(const VersionInfo& v, std::int64_t load_ns) {
  Impl& m = *impl_;
  {
    const std::lock_guard lock(m.mutex);
    const prometheus::Labels labels{{"version", v.id.name()}};
    Impl::OfVersion& of = m.versions[v.id.name()];
    of.committed = &m.committed.Add(labels);
    of.loaded = &m.loaded.Add(labels);
    of.load_seconds = &m.load_seconds.Add(labels);
    of.committed->Set(static_cast<double>(v.committed_ns) * 1e-9);
    of.loaded->Set(static_cast<double>(v.loaded_ns) * 1e-9);
    of.load_seconds->Set(static_cast<double>(load_ns) * 1e-9);
    of.manifest_id = v.id.manifest_id;
    of.event_ns = v.event_ns;
    if (!v.event_ns && of.event != nullptr) m.event.Remove(std::exchange(of.event, nullptr));
    if (v.event_ns) {
      of.event = &m.event.Add(labels);
      of.event->Set(static_cast<double>(*v.event_ns) * 1e-9);
    }
    m.served.insert(v.id.step);
    m.newest.Set(static_cast<double>(*m.served.rbegin()));
  }
  if (m.next != nullptr) m.next->on_published(v, load_ns);
}

void ServeMetrics::on_dropped(const VersionInfo& v) {
  Impl& m = *impl_;
  {
    const std::lock_guard lock(m.mutex);
    const auto found = m.versions.find(v.id.name());
    const bool is_replaced = found != m.versions.end() && found->second.manifest_id != v.id.manifest_id;
    if (found != m.versions.end() && !is_replaced) {
      for (prometheus::Counter* c : found->second.requests) m.requests.Remove(c);
      m.committed.Remove(found->second.committed);
      m.loaded.Remove(found->second.loaded);
      m.load_seconds.Remove(found->second.load_seconds);
      if (found->second.event != nullptr) m.event.Remove(found->second.event);
      m.versions.erase(found);
    }
    if (!is_replaced) m.served.erase(v.id.step);
    if (!m.served.empty()) m.newest.Set(static_cast<double>(*m.served.rbegin()));
  }
  if (m.next != nullptr) m.next->on_dropped(v);
}

void ServeMetrics::on_passed_over(const VersionInfo& v) {
  impl_->passed_over.Add({}).Increment();
  if (impl_->next != nullptr) impl_->next->on_passed_over(v);
}

void ServeMetrics::on_trouble(const std::string& what) {
  if (impl_->next != nullptr) impl_->next->on_trouble(what);
}

void ServeMetrics::on_run(const VersionId&, std::int64_t, std::int64_t n_rows, std::int64_t) {
  impl_->of_batch.Observe(static_cast<double>(n_rows));
  impl_->all_rows.Increment(static_cast<double>(n_rows));
}

void ServeMetrics::on_refused(Refusal::Kind kind) {
  impl_->refused.Add({{"reason", reason_of(kind)}}).Increment();
}

}  // namespace varscope
