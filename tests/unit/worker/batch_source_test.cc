#include "worker/data/batch_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::HasSubstr;

// Two inputs of other shapes and dtypes, and two numbers to answer with; all of them tell which sample it is.
class Rows final : public Dataset {
 public:
  explicit Rows(std::int64_t n) : n_(n) {}
  std::int64_t size() const override { return n_; }
  const Shape& sample_shape() const override { return shape_; }
  std::int64_t n_classes() const override { return 0; }
  Target target() const override { return Target::numbers; }
  const Shape& label_shape() const override { return shape_; }
  std::vector<InputSpec> inputs() const override {
    return {{.name = "numbers", .shape = shape_},
            {.name = "user", .shape = Shape{}, .features = Features::ids, .n_ids = n_}};
  }
  void read(std::span<const std::int64_t> indices, const BatchView& batch) const override {
    for (std::size_t i = 0; i < indices.size(); ++i) {
      for (std::size_t k = 0; k < 2; ++k) {
        batch.inputs[0].data<float>()[2 * i + k] = static_cast<float>(indices[i]);
        batch.y.data<float>()[2 * i + k] = static_cast<float>(-indices[i]);
      }
      batch.inputs[1].data<std::int32_t>()[i] = static_cast<std::int32_t>(indices[i]);
    }
  }
  Digest content() const override { return {}; }

 private:
  std::int64_t n_;
  Shape shape_{2};
};

std::vector<std::int32_t> read(IndexedBatches& source, Clock clock, int v) {
  const Batch batch(source.spec(), DType::float32, source.largest_part());
  source.next(clock, v, batch);
  const BatchView view = batch.view(source.part(clock, v).size());
  const auto users = view.inputs[1].as<std::int32_t>();
  std::vector<std::int32_t> found(users.begin(), users.end());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(view.inputs[0].as<float>()[2 * i + 1], static_cast<float>(found[i]));
    EXPECT_EQ(view.y.as<float>()[2 * i], static_cast<float>(-found[i]));
  }
  return found;
}

TEST(IndexedBatches, EveryEpochVisitsEverySampleOnceWhateverTheParts) {
  const Rows data(23);
  for (const int parts : {1, 3, 8}) {
    IndexedBatches source(data, {.batch = 5, .n_parts = parts, .seed = 3, .shuffle = Shuffle::yes});
    EXPECT_EQ(source.steps_per_pass(), 5);
    std::vector<std::vector<std::int32_t>> epochs(2);
    for (std::int64_t step = 1; step <= 10; ++step) {
      for (int v = 0; v < parts; ++v) {
        for (const std::int32_t i : read(source, Clock(step), v))
          epochs[static_cast<std::size_t>((step - 1) / 5)].push_back(i);
      }
    }
    for (const auto& epoch : epochs) EXPECT_EQ(std::set(epoch.begin(), epoch.end()).size(), 23U);
    EXPECT_NE(epochs[0], epochs[1]);
    // The parts together are the batch, in its order.
    IndexedBatches whole(data, {.batch = 5, .n_parts = 1, .seed = 3, .shuffle = Shuffle::yes});
    EXPECT_EQ(read(whole, Clock(1), 0), std::vector(epochs[0].begin(), epochs[0].begin() + 5));
    // From anywhere, as a run does that goes on.
    IndexedBatches later(data, {.batch = 5, .n_parts = parts, .seed = 3, .shuffle = Shuffle::yes});
    EXPECT_EQ(read(later, Clock(8), 0), read(source, Clock(8), 0));
  }
}

TEST(IndexedBatches, KnowAllTheirStepsAndTakeNoFiles) {
  const Rows data(23);
  IndexedBatches source(data, {.batch = 5, .n_parts = 1});
  EXPECT_FALSE(source.is_stream());
  EXPECT_TRUE(source.knows(Clock(1'000'000)));
  EXPECT_THAT_THROWN(source.add(FedFile{.name = "a.csv", .digest = {}}), ErrorKind::protocol,
                     {"server 0 gave the file a.csv to a worker that follows no directory"});
}

TEST(IndexedBatches, TellWhereTheyStand) {
  const Rows data(7);
  const IndexedBatches source(data, {.batch = 3, .n_parts = 2});
  EXPECT_EQ(source.largest_part(), 2);
  EXPECT_TRUE(source.begins_pass(Clock(1)));
  EXPECT_FALSE(source.begins_pass(Clock(3)));
  EXPECT_TRUE(source.begins_pass(Clock(4)));
  EXPECT_EQ(source.batch_size(Clock(3)), 1);
  EXPECT_EQ(source.part(Clock(3), 1), (Range{1, 1}));
  EXPECT_EQ(source.position(Clock(2)).next, 6);
  EXPECT_EQ(source.position(Clock(3)).epoch, 1);
  EXPECT_FALSE(source.is_sequential());
}

TEST(Dataset, OfSeveralInputsIsReadByName) {
  const Rows data(3);
  EXPECT_EQ(data.spec().inputs[1].name, "user");
  EXPECT_EQ(Batch::n_bytes(data.spec(), DType::float64, 10), 10 * (16 + 4 + 16));
  const Tensor x(DType::float32, {1, 2}), y(DType::float32, {1, 2});
  const std::int64_t i = 0;
  EXPECT_THAT(testing::thrown([&] { data.fill(std::span(&i, 1), x.view(), y.view()); }),
              HasSubstr("several inputs"));
}

}  // namespace
}  // namespace varscope
