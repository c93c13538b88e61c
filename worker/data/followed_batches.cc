#include "worker/data/followed_batches.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <utility>

#include "common/base/error.h"

namespace varscope {
namespace {

constexpr std::size_t kReadAhead = 2;  // files in memory

// But for the lengths of bags.
bool are_alike(SampleSpec a, SampleSpec b) {
  for (SampleSpec* spec : {&a, &b}) {
    for (InputSpec& input : spec->inputs) input.most = 0;
  }
  return a == b;
}

}  // namespace

FollowedBatches::FollowedBatches(SampleSpec spec, Options options, Open open)
    : spec_(std::move(spec)), options_(std::move(options)), open_(std::move(open)) {}

FollowedBatches::~FollowedBatches() {
  for (File& file : files_) {
    if (file.reading.valid()) file.reading.wait();
  }
}

void FollowedBatches::add(const FedFile& file) {
  if (file.records <= file.begin || file.batch != options_.batch ||
      (!files_.empty() && file.first != files_.back().fed.last() + 1)) {
    fail(ErrorKind::protocol, "server 0 gave {} records of {} from record {} and step {} on", file.records,
         file.name, file.begin, file.first);
  }
  files_.push_back({file});
  start_reading();
}

void FollowedBatches::start_reading() {
  for (std::size_t i = 0; i < std::min(files_.size(), kReadAhead); ++i) {
    File& file = files_[i];
    if (file.data || file.reading.valid()) continue;
    file.reading = std::async(std::launch::async, [this, name = file.fed.name] { return open_(name); });
  }
}

bool FollowedBatches::knows(Clock clock) const {
  return std::ranges::any_of(files_, [&](const File& file) { return file.fed.has(clock); });
}

const FollowedBatches::File& FollowedBatches::file_of(Clock clock) const {
  const auto found = std::ranges::find_if(files_, [&](const File& file) { return file.fed.has(clock); });
  if (found == files_.end()) fail(ErrorKind::argument, "no file has been fed for step {}", clock.value);
  return *found;
}

void FollowedBatches::prepare(Clock clock) {
  while (!files_.empty() && files_.front().fed.last() < clock.value) {
    if (files_.front().reading.valid()) files_.front().reading.wait();
    files_.pop_front();
  }
  file_of(clock);
  start_reading();
  if (!files_.front().data) take(files_.front());
}

void FollowedBatches::take(File& file) {
  while (file.reading.wait_for(std::chrono::milliseconds(5)) != std::future_status::ready) {
    if (options_.while_waiting) options_.while_waiting();
  }
  file.data = file.reading.get();
  check(file);
  const SampleSpec spec = file.data->spec();
  for (std::size_t i = 0; i < spec_.inputs.size(); ++i)
    spec_.inputs[i].most = std::max(spec_.inputs[i].most, spec.inputs[i].most);
}

void FollowedBatches::check(const File& file) const {
  const FedFile& fed = file.fed;
  const Dataset* data = file.data.get();
  const std::int64_t n = data == nullptr ? 0 : data->size();
  const DataFile* read = data == nullptr || data->files().empty() ? nullptr : &data->files().front();
  const std::int64_t n_bytes = read == nullptr ? 0 : read->n_bytes;
  const Digest digest = read == nullptr ? Digest() : read->digest;
  if (n != fed.records || n_bytes != fed.n_bytes || digest != fed.digest) {
    fail(
        ErrorKind::data,
        "data.train: {}: {} records in {} bytes (XXH3 {}) here, but server 0 has read {} in {} bytes (XXH3 {}): "
        "files that are followed must appear by rename and stay as they are, and be the same on every host",
        fed.name, n, n_bytes, digest.hex(), fed.records, fed.n_bytes, fed.digest.hex());
  }
  if (!are_alike(data->spec(), spec_))
    fail(ErrorKind::data, "data.train: {}: its records have other inputs than the model", fed.name);
}

std::int64_t FollowedBatches::largest_part() const {
  return largest_logical_batch(options_.batch, options_.batch, options_.n_parts);
}

std::int64_t FollowedBatches::batch_size(Clock clock) const {
  const FedFile& fed = file_of(clock).fed;
  return fed.end_of(clock) - fed.begin_of(clock);
}

double FollowedBatches::weight(Clock clock, const Range& of_batch) {
  const File& file = file_of(clock);
  const std::span<const double> weights = file.data->weights();
  if (weights.empty()) return static_cast<double>(of_batch.size());
  double sum = 0;
  const std::int64_t first = file.fed.begin_of(clock);
  for (std::int64_t i = of_batch.begin; i < of_batch.end; ++i)
    sum += weights[static_cast<std::size_t>(first + i)];
  return sum;
}

Range FollowedBatches::part(Clock clock, int v) const {
  return logical_range(0, batch_size(clock), v, options_.n_parts);
}

void FollowedBatches::next(Clock clock, int v, const Batch& out) {
  const File& file = file_of(clock);
  const Range mine = part(clock, v);
  indices_.resize(static_cast<std::size_t>(mine.size()));
  std::iota(indices_.begin(), indices_.end(), file.fed.begin_of(clock) + mine.begin);
  file.data->read_weighted(indices_, out.view(mine.size()));
}

SourcePosition FollowedBatches::position(Clock clock) const {
  const auto found = std::ranges::find_if(files_, [&](const File& file) { return file.fed.has(clock); });
  if (found == files_.end()) return {};
  return {0, found->fed.end_of(clock), found->fed.records};
}

}  // namespace varscope
