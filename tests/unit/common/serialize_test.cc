#include "common/base/serialize.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>

#include "common/placement/cluster.h"
#include "common/transport/reports.h"
#include "common/transport/wire.h"
#include "common/variables/variable_table.h"
#include "tests/support/references/plan_checks.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using testing::thrown;

StepReport some_report() {
  StepReport r;
  r.leaves = {{1.5, 3, 4}, {2.5, 4, 5}};
  r.times.compute_ns = 17;
  r.state = "some state";
  return r;
}

HashReport some_hashes() {
  return {{{"layer/weights", 0, digest_of("a")}, {"layer/weights", 1, digest_of("b")}},
          {{"user/embeddings", 5, 4, 3, 2, 1}}};
}

TEST(Serialize, ReportsGoThereAndBack) {
  const auto r = from_binary<StepReport>(to_binary(some_report()), "a report");
  EXPECT_EQ(r.leaves.size(), 2U);
  EXPECT_EQ(r.leaves[1].loss, 2.5);
  EXPECT_EQ(r.leaves[1].samples, 5);
  EXPECT_EQ(r.times.compute_ns, 17);
  EXPECT_EQ(r.state, "some state");
  const auto h = from_binary<HashReport>(to_binary(some_hashes()), "hashes");
  ASSERT_EQ(h.entries.size(), 2U);
  EXPECT_EQ(h.entries[1].digest, digest_of("b"));
  EXPECT_EQ(h.entries[1].variable, "layer/weights");
  ASSERT_EQ(h.tables.size(), 1U);
  EXPECT_EQ(h.tables[0].name, "user/embeddings");
  EXPECT_EQ(h.tables[0].waiting_dropped, 1);
}

TEST(Serialize, TablesGoThereAndBackInBothForms) {
  const VariableTable table = testing::mlp_table();
  EXPECT_EQ(from_binary<VariableTable>(to_binary(table), "a table").digest(), table.digest());
  EXPECT_EQ(from_text<VariableTable>(to_text(table), "a table").digest(), table.digest());
}

TEST(Serialize, TextKeepsTheBitsOfDoubles) {
  for (double x : {0.1, 1.0 / 3, 1e-310, 1.7976931348623157e308, -0.0}) {
    BatchSums sums{x, 1, 2};
    const auto back = from_text<BatchSums>(to_text(sums), "sums");
    EXPECT_EQ(std::bit_cast<std::uint64_t>(back.loss), std::bit_cast<std::uint64_t>(x)) << x;
  }
}

TEST(Serialize, EmptyBytesSayWhatTheyShouldHold) {
  const std::string error = thrown([] { from_binary<StepReport>("", "a step report"); });
  EXPECT_TRUE(error.starts_with("protocol: a message that should hold a step report cannot be read (0 bytes"))
      << error;
  const std::string text = thrown([] { from_text<StepReport>("", "the worker's state"); });
  EXPECT_TRUE(text.starts_with("data: the worker's state cannot be read")) << text;
}

// Reads hostile bytes as T: an Error or a T, never anything else, and never more memory than the bytes are
// worth.
template <class T>
void read_binary(std::string_view bytes) {
  try {
    from_binary<T>(bytes, "something");
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::protocol);
  }
}

template <class T>
void bombard(const std::string& good) {
  for (std::size_t n = 0; n < good.size(); ++n) read_binary<T>(std::string_view(good).substr(0, n));
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (unsigned char c : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      std::string bad = good;
      bad[at] = static_cast<char>(c);
      read_binary<T>(bad);
    }
  }
  for (std::size_t at = 0; at + 8 <= good.size();
       ++at) {  // a length anywhere becomes absurd, or merely too long
    for (std::uint64_t n :
         {~std::uint64_t{0}, std::uint64_t{1} << 40, std::uint64_t{1} << 31, std::uint64_t{100'000}}) {
      std::string bad = good;
      std::memcpy(bad.data() + at, &n, sizeof n);
      read_binary<T>(bad);
    }
  }
  std::mt19937 random(4);
  for (int round = 0; round < 2000; ++round) {
    std::string bad(random() % 200, '\0');
    for (char& c : bad) c = static_cast<char>(random());
    read_binary<T>(bad);
  }
}

TEST(Serialize, HostileBytesNeverCrash) {
  bombard<StepReport>(to_binary(some_report()));
  bombard<HashReport>(to_binary(some_hashes()));
  EvalReport eval{{0, 1}, {{1, 2, 3}, {4, 5, 6}}, {{0.5}, {}}, {7, 8}, 2, 9};
  eval.scores.add(0.5, true);
  eval.scores.add(-1, false);
  bombard<EvalReport>(to_binary(eval));
  bombard<VariableTable>(to_binary(testing::mlp_table()));
  bombard<ClusterMap>(to_binary(assign_roles({"a", "b", "c"}, 1, 4)));
}

template <class T>
void bombard_text(const std::string& good) {
  std::mt19937 random(5);
  for (int round = 0; round < 5000; ++round) {
    std::string bad = good.substr(0, random() % (good.size() + 1));
    for (int k = 0; k < 3 && !bad.empty(); ++k) bad[random() % bad.size()] = "0123456789 -ax"[random() % 14];
    try {
      from_text<T>(bad, "something");
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::data);
    }
  }
}

WorkerState some_worker_state() {
  return {1, 7, 1, 24, 40, 9, {{"lstm/state", "float32", 3, "00ff"}, {"lstm/state", "float32", 4, "8000"}}};
}

TEST(Serialize, HostileTextNeverCrashes) {
  bombard_text<StepReport>(to_text(some_report()));
  bombard_text<WorkerState>(to_text(some_worker_state()));
}

// What a state on disk announces is compared with what is there, before memory is taken for it.
TEST(Serialize, TextSaysHowMuchItAnnouncesAndHas) {
  const std::string good = to_text(some_worker_state());
  EXPECT_EQ(from_text<WorkerState>(good, "the state").locals.at(1).hex, "8000");
  const auto error_with = [&](std::string_view what, std::string_view instead) {
    std::string bad = good;
    const std::size_t at = bad.find(what);
    EXPECT_NE(at, std::string::npos) << what << " in " << good;
    bad.replace(at, what.size(), instead);
    return thrown([&] { from_text<WorkerState>(bad, "the state"); });
  };
  const std::string rows = error_with(" 2 0 ", " 2000000000000 0 ");
  EXPECT_TRUE(
      rows.starts_with("data: the state cannot be read: 2000000000000 items are announced where only "))
      << rows;
  const std::string text = error_with("10 lstm/state", "3000000000 lstm/state");
  EXPECT_TRUE(text.starts_with("data: the state cannot be read: 3000000000 items are announced where only "))
      << text;
}

TEST(CheckHeader, AcceptsWhatMakeHeaderMakes) {
  for (int type = 1; type <= static_cast<int>(MessageType::request); ++type) {
    const MessageHeader h = make_header(static_cast<MessageType>(type), 1, Clock(3));
    EXPECT_EQ(thrown([&] { check_header(h, 0, Rank(1)); }), "no error");
    EXPECT_STRNE(to_string(type_of(h)), "unknown message");
  }
}

TEST(CheckHeader, NamesTheSenderOfWhatMakesNoSense) {
  const MessageHeader good = make_header(MessageType::push, 1, Clock(3));
  const auto error_with = [&](const std::function<void(MessageHeader&)>& change, std::size_t n_body = 0) {
    MessageHeader h = good;
    change(h);
    return thrown([&] { check_header(h, n_body, Rank(4)); });
  };
  EXPECT_NE(
      error_with([](auto& h) { h.magic ^= 1; }).find("rank 4 sent a message of another program or version"),
      std::string::npos);
  EXPECT_NE(error_with([](auto& h) { ++h.version; }).find(fmt::format("wire version {}", kWireVersion + 1)),
            std::string::npos);
  EXPECT_EQ(error_with([](auto& h) { h.type = 0; }), "protocol: rank 4 sent a message of unknown type 0");
  EXPECT_EQ(error_with([](auto& h) { h.type = 999; }), "protocol: rank 4 sent a message of unknown type 999");
  EXPECT_EQ(error_with([](auto& h) { h.n_body = 5; }, 4),
            "protocol: rank 4 sent a push that claims 5 bytes of body but has 4");
}

}  // namespace
}  // namespace varscope
