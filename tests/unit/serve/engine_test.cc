// Many clients, few threads: everybody gets the answers to its own rows, by one version, in time or never.
#include "serve/engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <future>
#include <latch>
#include <mutex>
#include <thread>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/format/evaluation.h"
#include "common/base/clock.h"
#include "tests/support/references/checkpoint_fixture.h"
#include "tests/support/serving/fake_servable.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::floats_of;
using ::testing::HasSubstr;
using testing::images_model;
using testing::images_request;
using ::testing::IsEmpty;
using testing::run_alone;
using testing::TempDir;
using testing::thrown;
using testing::version_info;

class Heard final : public VersionObserver, public EngineObserver {
 public:
  std::vector<std::int64_t> published() const { return copy(published_); }
  std::vector<std::string> passed() const { return copy(passed_); }
  std::vector<std::int64_t> dropped() const { return copy(dropped_); }
  std::atomic<std::int64_t> n_runs{0}, n_rows{0}, n_refused{0};

 private:
  template <class T>
  T copy(const T& of) const {
    const std::lock_guard lock(mutex_);
    return of;
  }
  void on_published(const VersionInfo& v, std::int64_t) override {
    const std::lock_guard lock(mutex_);
    published_.push_back(v.id.step);
  }
  void on_dropped(const VersionInfo& v) override {
    const std::lock_guard lock(mutex_);
    dropped_.push_back(v.id.step);
  }
  void on_passed_over(const VersionInfo& v) override {
    const std::lock_guard lock(mutex_);
    passed_.push_back(v.why);
  }
  void on_run(const VersionId&, std::int64_t, std::int64_t rows, std::int64_t) override {
    ++n_runs;
    n_rows += rows;
  }
  void on_refused(Refusal::Kind) override { ++n_refused; }
  void on_trouble(const std::string& what) override {
    const std::lock_guard lock(mutex_);
    passed_.push_back(what);
  }
  mutable std::mutex mutex_;
  std::vector<std::int64_t> published_, dropped_;
  std::vector<std::string> passed_;
};

// A directory of checkpoints whose bytes nobody looks at: the version of step n is a model with seed n.
class Serving : public ::testing::Test {
 protected:
  Serving() { directory.lock("run"); }
  void commit(std::int64_t step, const std::string& id = "") {
    testing::save(posix, directory, model, step, 1, id.empty() ? fmt::format("id-{}", step) : id);
  }
  std::string path(std::int64_t step) const { return fmt::format("{}/step-{:09}", dir.path(), step); }
  VersionKeeper& keep(KeeperOptions options = {}) {
    keeper.emplace(
        posix, dir.path(), std::move(options),
        [this](const FoundCheckpoint& found) {
          if (!damage.empty()) fail(ErrorKind::checkpoint, "{}", damage);
          const std::int64_t step = found.manifest->step;
          if (on_load) on_load(step);
          auto made = images_model(static_cast<std::uint64_t>(step), step == 999 ? 5 : 10);
          made->size = 400;
          return std::shared_ptr<const Servable>(made);
        },
        heard);
    return *keeper;
  }
  std::int64_t served() const {
    const auto version = keeper->find();
    return version == nullptr ? -1 : version->id().step;
  }
  static InferAnswer ask(Inference& engine, InferRequest request) {
    std::promise<InferAnswer> answer;
    engine.infer(std::move(request), [&](InferAnswer a) { answer.set_value(std::move(a)); });
    return answer.get_future().get();
  }

  TempDir dir;
  PosixFs posix;
  CheckpointDirectory directory{posix, dir.path()};
  testing::Model model = testing::tiny_model(1);
  std::string damage;
  std::function<void(std::int64_t)> on_load;
  Heard heard;
  std::optional<VersionKeeper> keeper;
};

using VersionKeeperTest = Serving;
using EngineTest = Serving;

TEST_F(Serving, AVersionIsExactUnlessToldOtherwise) {
  commit(1);
  KeeperOptions options;
  options.inexact_rows = 7;
  keep(options).poll();
  ASSERT_NE(keeper->find(), nullptr);
  EXPECT_FALSE(keeper->find()->served().version.is_exact);
  EXPECT_EQ(keeper->find()->served().version.block, 7);
  keep().poll();
  ASSERT_NE(keeper->find(), nullptr);
  EXPECT_TRUE(keeper->find()->served().version.is_exact);
}

TEST_F(VersionKeeperTest, WaitsForTheFirstAndTakesEachNewOne) {
  keep().poll();
  EXPECT_EQ(served(), -1);
  EXPECT_EQ(keeper->waits_for(), "no committed checkpoint yet");
  commit(10);
  keeper->poll();
  EXPECT_EQ(served(), 10);
  EXPECT_EQ(keeper->waits_for(), "");
  keeper->poll();
  commit(20);
  commit(30);
  keeper->poll();
  EXPECT_EQ(served(), 30);
  EXPECT_THAT(heard.published(), ElementsAre(10, 30));
  EXPECT_THAT(heard.dropped(), ElementsAre(10));
  const auto versions = keeper->versions();
  ASSERT_EQ(versions.size(), 2U);
  EXPECT_EQ(versions[0].state, VersionInfo::State::available);
  EXPECT_EQ(versions[1].why, "another version has taken its place");
}

TEST_F(VersionKeeperTest, PassesOverWhatIsDamagedOnceAndKeepsWhatItHas) {
  commit(10);
  keep().poll();
  commit(20);
  testing::flip_bit(path(20) + "/MANIFEST", 40);
  keeper->poll();
  keeper->poll();
  EXPECT_EQ(served(), 10);
  ASSERT_EQ(heard.passed().size(), 1U);
  damage = "shard 0 is damaged";
  commit(30);
  keeper->poll();
  keeper->poll();
  EXPECT_EQ(served(), 10);
  EXPECT_THAT(heard.passed().back(), HasSubstr("shard 0 is damaged"));
  EXPECT_EQ(heard.passed().size(), 2U);
  damage.clear();
  commit(40);
  keeper->poll();
  EXPECT_EQ(served(), 40);
}

TEST_F(VersionKeeperTest, AtTheStartTakesTheNextOlderOne) {
  commit(10);
  commit(20);
  testing::flip_bit(path(20) + "/MANIFEST", 40);
  keep().poll();
  EXPECT_EQ(served(), 10);
}

// Retention removes it while it is read; and there is no memory for the one after.
TEST_F(VersionKeeperTest, TakesWhatIsThereWhenALoadFails) {
  commit(10);
  keep().poll();
  commit(20);
  on_load = [&](std::int64_t step) {
    if (step != 20) return;
    posix.remove_all(path(20));
    fail(ErrorKind::io, "cannot open {}", path(20));
  };
  keeper->poll();
  EXPECT_EQ(served(), 10);
  EXPECT_THAT(heard.passed(), IsEmpty()) << "it was never damaged";
  commit(30);
  on_load = [](std::int64_t) { throw std::bad_alloc(); };
  keeper->poll();
  keeper->poll();
  EXPECT_EQ(served(), 10);
  ASSERT_EQ(heard.passed().size(), 1U);
  EXPECT_THAT(heard.passed()[0], HasSubstr("it cannot be loaded: "));
  on_load = {};
  keeper->poll();
  EXPECT_EQ(served(), 30) << "it is tried again";
}

TEST_F(VersionKeeperTest, PassesOverAnotherModel) {
  commit(10);
  keep().poll();
  commit(999);
  keeper->poll();
  EXPECT_EQ(served(), 10);
  EXPECT_THAT(heard.passed(),
              ElementsAre("it is of another model than what is served: other inputs or outputs"));
}

TEST_F(VersionKeeperTest, FollowsARollbackAndAnotherCheckpointOfTheSameStep) {
  commit(10);
  commit(20);
  keep().poll();
  const std::string before = keeper->find()->id().manifest_id;
  posix.remove_all(path(20));
  keeper->poll();
  EXPECT_EQ(served(), 10);
  commit(20, "another");
  keeper->poll();
  EXPECT_EQ(served(), 20);
  EXPECT_NE(keeper->find()->id().manifest_id, before);
}

TEST_F(VersionKeeperTest, DoesNotGoBackBehindADamagedOne) {
  commit(10);
  commit(20);
  keep().poll();
  commit(30);
  testing::flip_bit(path(30) + "/MANIFEST", 40);
  posix.remove_all(path(20));
  keeper->poll();
  EXPECT_EQ(served(), 20);
}

TEST_F(VersionKeeperTest, ServesOnWhenTheDirectoryIsGone) {
  commit(10);
  keep().poll();
  std::filesystem::remove_all(dir.path());
  keeper->poll();
  EXPECT_EQ(served(), 10);
}

TEST_F(VersionKeeperTest, AGateKeepsOutWhatIsNotGoodEnoughAndLooksAgainForMetrics) {
  KeeperOptions options;
  options.gate = VersionGate::parse("loss<=0.6");
  commit(10);
  keep(options).poll();
  keeper->poll();
  EXPECT_EQ(served(), -1);
  EXPECT_THAT(heard.passed(), ElementsAre("its METRICS do not have \"loss\" (yet), which is required"));
  EXPECT_THAT(keeper->waits_for(), HasSubstr("which is required"));
  replace_evaluation(posix, path(10), {10, {{"loss", 0.5}}});
  keeper->poll();
  EXPECT_EQ(served(), 10);
  commit(20);
  replace_evaluation(posix, path(20), {20, {{"loss", 0.7}}});
  keeper->poll();
  EXPECT_EQ(served(), 10);
  EXPECT_EQ(heard.passed().back(), "its loss is 0.7, and at most 0.6 is required");
}

TEST_F(VersionKeeperTest, KnowsUpToWhenAVersionHasLearnt) {
  commit(10);
  keep().poll();
  EXPECT_FALSE(keeper->find()->served().version.event_ns);
  commit(20);
  replace_evaluation(posix, path(20), {20, {{"event_time", 1700000000.5}, {"loss", 0.5}}});
  keeper->poll();
  const VersionInfo info = keeper->find()->served().version;
  ASSERT_TRUE(info.event_ns);
  EXPECT_EQ(*info.event_ns, 1'700'000'000'500'000'000);
  ASSERT_EQ(info.metrics.size(), 1U) << "it is no figure of quality";
  EXPECT_EQ(info.metrics[0].first, "loss");
  for (const double odd : {-1.0, 0.0, 1e300}) {
    commit(30);
    replace_evaluation(posix, path(30), {30, {{"event_time", odd}}});
    keeper->poll();
    EXPECT_EQ(served(), 30);
    EXPECT_FALSE(keeper->find()->served().version.event_ns) << odd;
    posix.remove_all(path(30));
    keeper->poll();
  }
}

TEST_F(VersionKeeperTest, ServesPinnedOnesOrSteps) {
  for (const std::int64_t step : {10, 20, 30}) commit(step);
  KeeperOptions pinned;
  pinned.policy = VersionPolicy::parse("pinned");
  keep(pinned).poll();
  EXPECT_EQ(keeper->waits_for(), "no pinned checkpoint yet");
  testing::spit(path(20) + "/PINNED", "");
  keeper->poll();
  EXPECT_EQ(served(), 20);
  KeeperOptions steps;
  steps.policy = VersionPolicy::parse("10,30,40");
  keep(steps).poll();
  EXPECT_EQ(served(), 30) << "the highest";
  EXPECT_NE(keeper->find("10"), nullptr);
  EXPECT_EQ(keeper->find("20"), nullptr);
  commit(40);
  keeper->poll();
  EXPECT_EQ(served(), 40);
  EXPECT_EQ(thrown([] { VersionPolicy::parse("10,x"); }),
            "config: --version-policy 10,x: expected latest, pinned, or steps such as 100,200");
  EXPECT_EQ(thrown([] { VersionGate::parse("loss"); }),
            "config: --require loss: expected METRIC<=NUMBER or METRIC>=NUMBER, such as loss<=0.6");
}

TEST_F(VersionKeeperTest, WithoutRoomForTwoTheOldOneStaysOrGoesFirst) {
  commit(10);
  KeeperOptions options;
  options.memory_limit = 600;
  keep(options).poll();
  EXPECT_EQ(served(), 10);
  commit(20);
  model = testing::small_model(1);  // of more bytes
  commit(30);
  keeper->poll();
  EXPECT_NE(served(), 30);
  ASSERT_FALSE(heard.passed().empty());
  EXPECT_THAT(heard.passed().front(), AllOf(HasSubstr("its values take"), HasSubstr("(--memory-mib)")));
  options.replaces = true;
  options.memory_limit = 100'000;
  keep(options).poll();
  EXPECT_EQ(served(), 30);
}

TEST_F(EngineTest, RefusesWhatItDoesNotHave) {
  Engine engine(keep(), {}, heard);
  std::string why;
  EXPECT_FALSE(engine.is_ready(&why));
  EXPECT_EQ(why, "no committed checkpoint yet");
  InferAnswer answer = ask(engine, images_request(0, 1));
  ASSERT_TRUE(answer.refusal);
  EXPECT_EQ(answer.refusal->kind, Refusal::Kind::not_ready);
  commit(10);
  keeper->poll();
  EXPECT_TRUE(engine.is_ready());
  InferRequest other = images_request(0, 1);
  other.version = "11";
  answer = ask(engine, std::move(other));
  ASSERT_TRUE(answer.refusal);
  EXPECT_EQ(answer.refusal->kind, Refusal::Kind::not_found);
  EXPECT_EQ(answer.refusal->text, "there is no version 11; there is 10");
  answer = ask(engine, testing::request_of("x", OipType::fp32, {1, 7}, std::vector<float>(7)));
  ASSERT_TRUE(answer.refusal);
  EXPECT_EQ(answer.refusal->kind, Refusal::Kind::invalid);
}

TEST_F(EngineTest, EverybodyGetsTheAnswersToItsOwnRows) {
  commit(10);
  keep().poll();
  Engine engine(*keeper, {.threads = 2, .max_batch = 16}, heard);
  const Version reference(images_model(10), version_info(10));
  constexpr int kClients = 64, kRequests = 8;
  std::vector<std::vector<float>> due;
  for (int i = 0; i < 200; ++i)
    due.push_back(floats_of(run_alone(reference, images_request(i, 1)).outputs[0]));
  std::latch start(kClients);
  std::atomic<int> n_wrong{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([&, c] {
      start.arrive_and_wait();
      for (int r = 0; r < kRequests; ++r) {
        const std::int64_t first = (c * 7 + r * 13) % 150, n = 1 + (c + r) % 40;
        const InferAnswer a = ask(engine, images_request(first, n));
        std::vector<float> expected;
        for (std::int64_t i = first; i < first + n; ++i)
          expected.insert(expected.end(), due[static_cast<std::size_t>(i)].begin(),
                          due[static_cast<std::size_t>(i)].end());
        if (a.refusal || floats_of(a.outputs[0]) != expected) ++n_wrong;
      }
    });
  }
  for (std::thread& t : clients) t.join();
  EXPECT_EQ(n_wrong, 0);
  EXPECT_GT(heard.n_rows, heard.n_runs) << "computed together";
}

// Versions come and go under load: nothing fails, and each answer is that of one version.
TEST_F(EngineTest, ASwapUnderLoadFailsNothingAndMixesNothing) {
  commit(1);
  keep().poll();
  Engine engine(*keeper, {.threads = 2, .max_batch = 8}, heard);
  constexpr std::int64_t kVersions = 12;
  std::vector<std::vector<std::byte>> due(kVersions + 1);
  for (std::int64_t v = 1; v <= kVersions; ++v) {
    const Version reference(images_model(static_cast<std::uint64_t>(v)), version_info(v));
    due[static_cast<std::size_t>(v)] = run_alone(reference, images_request(0, 20)).outputs[0].data;
  }
  std::atomic<bool> is_over{false};
  std::atomic<int> n_wrong{0}, n_answers{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&] {
      while (!is_over) {
        const InferAnswer a = ask(engine, images_request(0, 20));
        ++n_answers;
        if (a.refusal || a.outputs[0].data != due[static_cast<std::size_t>(a.model.version.id.step)])
          ++n_wrong;
      }
    });
  }
  for (std::int64_t v = 2; v <= kVersions; ++v) {
    const int before = n_answers;
    commit(v);
    keeper->poll();
    while (n_answers < before + 8) std::this_thread::yield();
  }
  is_over = true;
  for (std::thread& t : clients) t.join();
  EXPECT_EQ(n_wrong, 0);
  EXPECT_EQ(heard.n_refused, 0);
  EXPECT_EQ(heard.published().size(), static_cast<std::size_t>(kVersions));
}

// An engine whose only thread is held up by an answer that has not been taken yet.
class Held {
 public:
  explicit Held(Engine& engine) {
    engine.infer(images_request(0, 1), [latches = latches_](InferAnswer) {
      latches->is_there.count_down();
      latches->goes_on.wait();
    });
    latches_->is_there.wait();
  }
  ~Held() { release(); }
  void release() {
    if (!std::exchange(is_released_, true)) latches_->goes_on.count_down();
  }

 private:
  struct Latches {  // of the engine's thread, too
    std::latch is_there{1}, goes_on{1};
  };
  std::shared_ptr<Latches> latches_ = std::make_shared<Latches>();
  bool is_released_ = false;
};

TEST_F(EngineTest, AFullQueueRefuses) {
  commit(10);
  keep().poll();
  Engine engine(*keeper, {.max_queue = 3}, heard);
  std::atomic<int> n_answered{0};
  Held held(engine);
  for (int i = 0; i < 2; ++i)
    engine.infer(images_request(0, 1), [&](InferAnswer a) { n_answered += a.refusal ? 0 : 1; });
  const InferAnswer refused = ask(engine, images_request(0, 1));
  ASSERT_TRUE(refused.refusal);
  EXPECT_EQ(refused.refusal->kind, Refusal::Kind::busy);
  EXPECT_EQ(refused.refusal->text, "3 requests wait already; try again");
  held.release();
  EXPECT_TRUE(engine.drain(10'000));
  EXPECT_EQ(n_answered, 2);
}

TEST_F(EngineTest, MoreBytesThanMayWaitAreRefused) {
  commit(10);
  keep().poll();
  Engine engine(*keeper, {.max_queue_bytes = 1000}, heard);
  {
    Held held(engine);  // an image of 256 bytes
    for (const std::int64_t n : {0, 600}) {
      InferRequest request = images_request(0, n > 0 ? 1 : 3);
      request.n_memory_bytes = n;  // of what its inputs lie in
      const InferAnswer refused = ask(engine, std::move(request));
      ASSERT_TRUE(refused.refusal);
      EXPECT_EQ(refused.refusal->kind, Refusal::Kind::busy);
      EXPECT_THAT(refused.refusal->text, HasSubstr("requests of 1000 B wait already"));
    }
  }
  EXPECT_TRUE(engine.drain(60'000));
  EXPECT_FALSE(ask(engine, images_request(0, 4)).refusal) << "alone it may be larger";
}

// What is known of checkpoints that were passed over goes with them, and is told of again where they return.
TEST_F(VersionKeeperTest, ForgetsWhatItPassedOverWithTheCheckpoint) {
  commit(10);
  keep().poll();
  for (int round = 1; round <= 3; ++round) {
    damage = "shard 0 is damaged";
    commit(20, "the-same");
    keeper->poll();
    keeper->poll();
    EXPECT_EQ(heard.passed().size(), static_cast<std::size_t>(round)) << "once while it is there";
    damage.clear();
    keeper->poll();
    EXPECT_EQ(served(), 10) << "it is not tried again";
    posix.remove_all(path(20));
    keeper->poll();
  }
  commit(20, "the-same");
  keeper->poll();
  EXPECT_EQ(served(), 20) << "nothing is known of it any more";
}

TEST_F(EngineTest, WhatNobodyWaitsForIsNotComputed) {
  commit(10);
  keep().poll();
  Engine engine(*keeper, {}, heard);
  std::vector<Refusal::Kind> kinds;
  std::int64_t rows_before = 0;
  {
    Held held(engine);
    rows_before = heard.n_rows;
    InferRequest late = images_request(0, 1), left = images_request(0, 1);
    late.deadline_ns = now_ns() - 1;
    left.is_abandoned = [] { return true; };
    for (InferRequest* request : {&late, &left})
      engine.infer(std::move(*request), [&](InferAnswer a) { kinds.push_back(a.refusal->kind); });
  }
  EXPECT_TRUE(engine.drain(10'000));
  EXPECT_THAT(kinds, ElementsAre(Refusal::Kind::expired, Refusal::Kind::expired));
  EXPECT_EQ(heard.n_rows, rows_before);
}

TEST_F(EngineTest, ALargeRequestLetsOthersTakeTheirTurns) {
  commit(10);
  keep().poll();
  Engine engine(*keeper, {.max_batch = 8}, heard);
  std::mutex mutex;
  std::vector<std::int64_t> order;
  const auto note = [&](InferAnswer a) {
    const std::lock_guard lock(mutex);
    order.push_back(a.n_rows);
  };
  {
    Held held(engine);
    engine.infer(images_request(0, 1000), note);
    for (int i = 0; i < 3; ++i) engine.infer(images_request(i, 1), note);
  }
  EXPECT_TRUE(engine.drain(30'000));
  EXPECT_THAT(order, ElementsAre(1, 1, 1, 1000));
}

TEST_F(EngineTest, AnswersWhatWaitsWhenItEnds) {
  commit(10);
  keep().poll();
  std::optional<Engine> engine(std::in_place, *keeper, EngineOptions{}, heard);
  std::optional<Refusal> refusal;
  std::thread stopper;
  {
    Held held(*engine);
    engine->infer(images_request(0, 1), [&](InferAnswer a) { refusal = a.refusal; });
    stopper = std::thread([&] { engine->stop(); });
    while (engine->n_waiting() > 1) std::this_thread::yield();
  }
  stopper.join();
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->kind, Refusal::Kind::stopped);
  const InferAnswer after = ask(*engine, images_request(0, 1));
  ASSERT_TRUE(after.refusal);
  EXPECT_EQ(after.refusal->kind, Refusal::Kind::stopped);
}

}  // namespace
}  // namespace varscope
