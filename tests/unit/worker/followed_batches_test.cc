#include "worker/data/followed_batches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::ElementsAre;

// Ids that say which file and which record it is: 100 * file + record. Where bags are long, one of those too.
class Records final : public Dataset {
 public:
  Records(std::int64_t file, std::int64_t n, bool is_weighted = false) : file_(file), n_(n) {
    for (std::int64_t i = 0; is_weighted && i < n; ++i) weights_.push_back(static_cast<double>(i));
    set_files({{"f" + std::to_string(file), n, digest_of(std::to_string(file))}});
  }
  std::int64_t size() const override { return n_; }
  const Shape& sample_shape() const override { return shape_; }
  std::int64_t n_classes() const override { return 2; }
  std::vector<InputSpec> inputs() const override {
    return {{.name = "id", .shape = shape_, .features = Features::ids, .n_ids = 1000}};
  }
  std::span<const double> weights() const override { return weights_; }
  void read(std::span<const std::int64_t> indices, const BatchView& batch) const override {
    for (std::size_t i = 0; i < indices.size(); ++i) {
      batch.inputs[0].data<std::int32_t>()[i] = static_cast<std::int32_t>(100 * file_ + indices[i]);
      batch.y.data<std::int32_t>()[i] = 1;
    }
  }
  Digest content() const override { return {}; }

 private:
  std::int64_t file_, n_;
  Shape shape_{};
  std::vector<double> weights_;
};

FedFile fed(std::int64_t file, std::int64_t records, std::int64_t first, std::int64_t begin = 0) {
  return {"f" + std::to_string(file), records, digest_of(std::to_string(file)), records, begin, first, 4};
}

std::unique_ptr<Dataset> open_of(const std::string& name, std::int64_t n, bool is_weighted = false) {
  return std::make_unique<Records>(std::stoll(name.substr(1)), n, is_weighted);
}

std::vector<std::int32_t> read(FollowedBatches& source, Clock clock, int v) {
  source.prepare(clock);
  const Batch batch(source.spec(), DType::float32, source.largest_part());
  source.next(clock, v, batch);
  const BatchView view = batch.view(source.part(clock, v).size());
  const auto ids = view.inputs[0].as<std::int32_t>();
  return {ids.begin(), ids.end()};
}

TEST(FollowedBatches, StepsAreTheRecordsOfTheFilesInTheirOrder) {
  FollowedBatches source(Records(0, 1).spec(), {4, 2},
                         [](const std::string& name) { return open_of(name, 6); });
  EXPECT_FALSE(source.knows(Clock(1)));
  EXPECT_FALSE(source.steps_per_pass());
  source.add(fed(1, 6, 1));
  source.add(fed(2, 6, 3, 5));
  EXPECT_TRUE(source.knows(Clock(3)));
  EXPECT_FALSE(source.knows(Clock(4)));
  EXPECT_EQ(source.largest_part(), 2);
  EXPECT_THAT(read(source, Clock(1), 0), ElementsAre(100, 101));
  EXPECT_THAT(read(source, Clock(1), 1), ElementsAre(102, 103));
  EXPECT_THAT(read(source, Clock(2), 0), ElementsAre(104));
  EXPECT_THAT(read(source, Clock(2), 1), ElementsAre(105));
  EXPECT_EQ(source.batch_size(Clock(2)), 2);
  EXPECT_EQ(source.position(Clock(2)).next, 6);
  EXPECT_THAT(read(source, Clock(3), 0), ElementsAre(205));
  EXPECT_EQ(source.part(Clock(3), 1).size(), 0);
  EXPECT_FALSE(source.knows(Clock(2))) << "its file is gone";
}

TEST(FollowedBatches, ABatchWeighsWhatItsRecordsDo) {
  FollowedBatches source(Records(0, 1, true).spec(), {4, 1},
                         [](const std::string& name) { return open_of(name, 6, true); });
  source.add(fed(1, 6, 1));
  source.prepare(Clock(1));
  EXPECT_EQ(source.batch_weight(Clock(1)), 0 + 1 + 2 + 3);
  source.prepare(Clock(2));
  EXPECT_EQ(source.batch_weight(Clock(2)), 4 + 5);
}

TEST(FollowedBatches, TheNextFileIsReadMeanwhileAndNoMore) {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> opened;
  FollowedBatches source(Records(0, 1).spec(), {4, 1}, [&](const std::string& name) {
    const std::lock_guard lock(mutex);
    opened.push_back(name);
    changed.notify_all();
    return open_of(name, 4);
  });
  for (std::int64_t i = 0; i < 4; ++i) source.add(fed(i + 1, 4, i + 1));
  source.prepare(Clock(1));
  std::unique_lock lock(mutex);
  EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return opened.size() == 2; }));
  lock.unlock();
  source.prepare(Clock(2));
  lock.lock();
  EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return opened.size() == 3; }));
}

TEST(FollowedBatches, CallsWhileItWaitsForAFile) {
  std::atomic<bool> may_open = false;
  int waits = 0;
  FollowedBatches source(Records(0, 1).spec(),
                         {4, 1,
                          [&] {
                            if (++waits == 3) may_open = true;
                          }},
                         [&](const std::string& name) {
                           while (!may_open) std::this_thread::yield();
                           return open_of(name, 4);
                         });
  source.add(fed(1, 4, 1));
  source.prepare(Clock(1));
  EXPECT_GE(waits, 3);
}

TEST(FollowedBatches, AFileThatServer0HasNotReadIsAnError) {
  FollowedBatches source(Records(0, 1).spec(), {4, 1},
                         [](const std::string& name) { return open_of(name, 5); });
  source.add(fed(1, 4, 1));
  EXPECT_THAT_THROWN(source.prepare(Clock(1)), ErrorKind::data,
                     {"data.train: f1: 5 records in 5 bytes", "but server 0 has read 4 in 4 bytes",
                      "must appear by rename and stay as they are, and be the same on every host"});
}

TEST(FollowedBatches, OtherInputsAreAnError) {
  SampleSpec other = Records(0, 1).spec();
  other.inputs[0].name = "word";
  FollowedBatches source(other, {4, 1}, [](const std::string& name) { return open_of(name, 4); });
  source.add(fed(1, 4, 1));
  EXPECT_THAT_THROWN(source.prepare(Clock(1)), ErrorKind::data,
                     {"f1: its records have other inputs than the model"});
}

TEST(FollowedBatches, StepsThatDoNotFollowEachOtherAreRefused) {
  FollowedBatches source(Records(0, 1).spec(), {4, 1},
                         [](const std::string& name) { return open_of(name, 4); });
  source.add(fed(1, 4, 1));
  EXPECT_THAT_THROWN(source.add(fed(2, 4, 3)), ErrorKind::protocol, {"server 0 gave 4 records of f2"});
  EXPECT_THAT_THROWN(source.add(fed(2, 4, 2, 4)), ErrorKind::protocol, {"from record 4 and step 2 on"});
  EXPECT_THAT_THROWN(source.prepare(Clock(9)), ErrorKind::argument, {"no file has been fed for step 9"});
}

}  // namespace
}  // namespace varscope
