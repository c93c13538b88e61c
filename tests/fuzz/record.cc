// The files of a recorded run, as a replay reads them: what is damaged or makes no sense ends the record, and
// nothing of it is believed beyond the run's own numbers. The first byte says how many workers, units and
// tickets of a step the run has, the second whether rest is the bytes of a file behind its header; else these
// are records, with checksums that are right, so that more is reached than the first of them: a length and
// its bytes each. Length 255 begins the next segment, so many steps later as the byte behind it says.
#include <algorithm>
#include <cstdlib>

#include "common/base/serialize.h"
#include "ps/record/recorded_order.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/fs/memory_fs.h"

using namespace varscope;
using namespace varscope::testing;

namespace {

const std::string kDir = "/run";

void require(bool holds) {
  if (!holds) std::abort();
}

// Segments of both directories, of the same bytes.
class Segments {
 public:
  explicit Segments(const RecordHeader& header) : header_(header) {
    for (const std::string& dir : dirs()) fs_.make_dirs(dir);
    begin();
  }
  void add(std::string_view record) { append_record(bytes_, record); }
  void add_damaged(std::string_view bytes) { bytes_ += bytes; }
  void next(std::int64_t steps) {
    write();
    header_.from += steps;
    begin();
  }
  void write() {
    for (const std::string& dir : dirs()) {
      const std::string path = segment_path(dir, Clock(header_.from));
      fs_.remove_all(path);
      write_whole_file(fs_, path, bytes_);
    }
  }
  Fs& fs() { return fs_; }

 private:
  static std::vector<std::string> dirs() { return {tickets_dir(kDir), events_dir(kDir, ServerId(0))}; }
  void begin() {
    bytes_.clear();
    add(to_text(header_));
  }
  MemoryFs fs_;
  RecordHeader header_;
  std::string bytes_;
};

template <class Work>
void expect_words_at_most(const Work& work) {
  try {
    work();
  } catch (const Error& e) {
    require(e.kind() == ErrorKind::data || e.kind() == ErrorKind::io || e.kind() == ErrorKind::checkpoint);
  }
}

void read_tickets(Fs& fs, const RecordHeader& header) {
  const RecordedTickets tickets(fs, kDir, Clock(0));
  std::int64_t n = 0;
  for (const auto& [worker, numbers] : tickets.of_workers()) {
    require(worker >= 0 && worker < header.workers && std::ranges::is_sorted(numbers));
    require(numbers.back() < tickets.last().value * header.logical_workers);
    n += static_cast<std::int64_t>(numbers.size());
  }
  require(n == tickets.n_dealt());
  for (const Clock step : replayable_steps(fs, kDir)) recorded_run(fs, kDir, step);
}

// As a server does: each unit goes on as far as it can, one after the other.
void read_order(Fs& fs, const RecordHeader& header) {
  RecordedOrder order(fs, kDir, {.from = Clock(0), .compared = {1, 2, 3}, .server = ServerId(0)});
  for (bool any = true; any;) {
    any = false;
    for (int unit = 0; unit < header.n_units; ++unit) {
      const auto event = order.next(unit);
      if (!event) continue;
      any = true;
      require(event->worker.value >= 0 && event->worker.value < std::max(1, header.workers));
      if (event->what == RecordEvent::What::cut) {
        order.pass_cut(unit, 1, "a unit");
        continue;
      }
      require(event->what != RecordEvent::What::redrained);
      order.is_used(unit);
      order.ends_with_drain(unit, event->worker);
      order.advance(unit);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2 || size > 4096) return 0;
  RecordHeader header{.program_version = "1", .start_id = "a"};
  header.servers = 1;
  header.workers = 1 + data[0] % 5;
  header.n_units = data[0] / 5 % 4;
  header.logical_workers = 1 + data[0] / 20;
  header.rule.consistency = (data[1] & 2) != 0 ? Consistency::bsp : Consistency::asp;
  Segments segments(header);
  const bool is_file = (data[1] & 1) != 0;
  std::string_view rest(reinterpret_cast<const char*>(data) + 2, size - 2);
  if (is_file) segments.add_damaged(rest);
  while (!is_file && !rest.empty()) {
    const auto n = static_cast<std::uint8_t>(rest.front());
    rest.remove_prefix(1);
    if (n == 255) {
      segments.next(rest.empty() ? 1 : 1 + static_cast<std::uint8_t>(rest.front()));
      rest.remove_prefix(std::min<std::size_t>(1, rest.size()));
      continue;
    }
    segments.add(rest.substr(0, n));
    rest.remove_prefix(std::min<std::size_t>(n, rest.size()));
  }
  segments.write();
  expect_words_at_most([&] { read_tickets(segments.fs(), header); });
  expect_words_at_most([&] { read_order(segments.fs(), header); });
  return 0;
}
