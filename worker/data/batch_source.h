#pragma once

#include <cstdint>
#include <optional>

#include "common/base/ids.h"
#include "common/transport/fed_file.h"
#include "worker/data/batch.h"
#include "worker/data/dataset.h"
#include "worker/data/order.h"

namespace varscope {

// Where a source stands, for a checkpoint: what the step after a saved one begins with.
struct SourcePosition {
  std::int64_t epoch = 0;
  std::int64_t next = 0;  // samples of the epoch that have been visited
  std::int64_t samples = 0;
};

// What a trainer reads: the samples of each step, by logical worker. A step's batch is a pure function of
// its clock, so that a run that goes on, on other workers too, reads what it would have read. One thread.
class BatchSource {
 public:
  BatchSource() = default;
  BatchSource(const BatchSource&) = delete;
  BatchSource& operator=(const BatchSource&) = delete;
  virtual ~BatchSource() = default;

  virtual const SampleSpec& spec() const = 0;
  // Samples of one pass; nothing where there is no end to them.
  virtual std::optional<std::int64_t> size() const = 0;
  // Of a pass; nothing as for size().
  virtual std::optional<std::int64_t> steps_per_pass() const = 0;
  // The most samples of a step that a logical worker has.
  virtual std::int64_t largest_part() const = 0;
  // Samples of the step's global batch, of all workers.
  virtual std::int64_t batch_size(Clock clock) const = 0;
  // The sum of the weights of some of them, in their order: what losses are divided by. As many as they are
  // without weights.
  virtual double weight(Clock clock, const Range& of_batch) = 0;
  double batch_weight(Clock clock) { return weight(clock, {0, batch_size(clock)}); }
  // Those of them that logical worker v has: [0, batch_size) is dealt to all in turn.
  virtual Range part(Clock clock, int v) const = 0;
  // Puts the samples of part(clock, v) into the batch, which holds largest_part().
  virtual void next(Clock clock, int v, const Batch& out) = 0;
  // The step is the first of a pass: what recurrent layers carry over starts anew.
  virtual bool begins_pass(Clock clock) const = 0;
  // Batches follow each other as windows of sequences do: recurrent layers carry over.
  virtual bool is_sequential() const = 0;
  // After step `clock`.
  virtual SourcePosition position(Clock clock) const = 0;

  // Of a stream steps become known while the run goes on: add() takes each file that server 0 deals out. All
  // others know all of theirs. Throws Error(protocol) for a file that does not fit.
  virtual bool is_stream() const { return false; }
  virtual void add(const FedFile& file);
  virtual bool knows(Clock) const { return true; }
  // Comes before next() of a step, may be before its part(); steps in rising order. Afterwards bags of spec()
  // may be longer, where this is a stream.
  virtual void prepare(Clock) {}
};

// The batches of a data set by index: each epoch in an order of its own, or as they are.
class IndexedBatches final : public BatchSource {
 public:
  struct Options {
    std::int64_t batch;  // samples of a step
    int n_parts;         // logical workers
    std::uint64_t seed = 0;
    Shuffle shuffle = Shuffle::no;  // sequences stay in their order
  };
  // Borrows the data.
  IndexedBatches(const Dataset& data, const Options& options);

  const SampleSpec& spec() const override { return spec_; }
  std::optional<std::int64_t> size() const override { return data_.size(); }
  std::optional<std::int64_t> steps_per_pass() const override;
  std::int64_t largest_part() const override;
  std::int64_t batch_size(Clock clock) const override { return batch(clock).size(); }
  double weight(Clock clock, const Range& of_batch) override;
  Range part(Clock clock, int v) const override;
  void next(Clock clock, int v, const Batch& out) override;
  bool begins_pass(Clock clock) const override { return batch(clock).step_in_epoch == 0; }
  bool is_sequential() const override { return data_.streams() > 0; }
  SourcePosition position(Clock clock) const override;

 private:
  // In the order of the epoch.
  std::span<const std::int64_t> indices(const BatchRange& of_epoch, const Range& of_batch);
  BatchRange batch(Clock clock) const { return batch_at(clock.value - 1, data_.size(), options_.batch); }

  const Dataset& data_;
  Options options_;
  SampleSpec spec_;
  EpochOrder order_;
};

}  // namespace varscope
