#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "worker/data/batch_source.h"

namespace varscope {

// The batches of a directory that is followed (docs/online.md): each file's records in their order, each
// once, `FedFile::batch` a step; a file's end ends a step. Which files there are, and which steps are theirs,
// server 0 says. A file is read on a thread of its own, the one behind it meanwhile; two of them are in
// memory. One thread but for `open`, which is called on others, by one at a time for each file.
class FollowedBatches final : public BatchSource {
 public:
  // All samples of a file of the directory. Throws Error(data).
  using Open = std::function<std::unique_ptr<Dataset>(const std::string& name)>;
  struct Options {
    std::int64_t batch;                        // the most samples of a step
    int n_parts;                               // logical workers
    std::function<void()> while_waiting = {};  // again and again, while a file is still being read
  };
  // `spec`: of all files' samples, but that bags may be longer (InputSpec::most).
  FollowedBatches(SampleSpec spec, Options options, Open open);
  ~FollowedBatches() override;  // waits for what is being read

  bool is_stream() const override { return true; }
  // The next file. Throws Error(protocol) for steps that do not follow those of the one before.
  void add(const FedFile& file) override;
  // A file with this step has been added, and none that is behind it was read since.
  bool knows(Clock clock) const override;
  // Waits until the step's file is read. Throws what `open` throws, and Error(data) for a file that is not
  // the one that server 0 has read.
  void prepare(Clock clock) override;

  const SampleSpec& spec() const override { return spec_; }
  std::optional<std::int64_t> size() const override { return std::nullopt; }
  std::optional<std::int64_t> steps_per_pass() const override { return std::nullopt; }
  std::int64_t largest_part() const override;
  // REQUIRES of these three: knows(clock).
  std::int64_t batch_size(Clock clock) const override;
  double weight(Clock clock, const Range& of_batch) override;
  Range part(Clock clock, int v) const override;
  // REQUIRES: prepare(clock) was called last.
  void next(Clock clock, int v, const Batch& out) override;
  bool begins_pass(Clock) const override { return false; }
  bool is_sequential() const override { return false; }
  // Records of the step's file that are learnt by then, of so many.
  SourcePosition position(Clock clock) const override;

 private:
  struct File {
    FedFile fed;
    std::future<std::unique_ptr<Dataset>> reading = {};
    std::unique_ptr<Dataset> data = {};
  };
  const File& file_of(Clock clock) const;
  void start_reading();
  void take(File& file);
  void check(const File& file) const;

  SampleSpec spec_;
  Options options_;
  Open open_;
  std::deque<File> files_;  // the first one has the step that was prepared last
  std::vector<std::int64_t> indices_;
};

}  // namespace varscope
