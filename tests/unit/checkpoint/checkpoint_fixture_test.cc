// Checkpoints of every format that was ever written, kept in tests/fixtures/checkpoints (see its README):
// this program reads each of their values.
#include "tests/support/references/checkpoint_fixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/storage/archive.h"
#include "checkpoint/tools/list_inspect.h"
#include "checkpoint/tools/reshard.h"
#include "common/base/serialize.h"
#include "common/transport/reports.h"
#include "tests/support/references/safetensors_reader.h"

namespace varscope {
namespace {

using ::testing::IsEmpty;
using testing::slurp;
using testing::TempDir;

// A variable of a fixture, by its place in the table.
struct FixtureVariable {
  const char* name;
  DType dtype;
  Shape shape;
  bool has_slot;
};

struct Fixture {
  const char* version;
  int minor;
  const char* values_hash;
  const char* manifest_hash;  // of the file MANIFEST, which has those of all others
  std::vector<FixtureVariable> variables;
};

const std::vector<FixtureVariable> kVariables10 = {
    {"hidden/weights", DType::float32, {30, 50}, true}, {"hidden/biases", DType::float32, {5}, true},
    {"norm/mean", DType::float64, {3, 2}, false},       {"counts", DType::int64, {5}, false},
    {"scale", DType::bfloat16, Shape{}, true},          {"nothing", DType::float32, {0, 4}, true}};

std::vector<FixtureVariable> variables_11() {
  std::vector<FixtureVariable> all = kVariables10;
  all.push_back({"table/part_0", DType::float32, {3, 4}, true});
  all.push_back({"table/part_1", DType::float32, {2, 4}, true});
  all.push_back({"average", DType::float32, {2}, false});
  return all;
}

std::vector<FixtureVariable> variables_12() {
  std::vector<FixtureVariable> all = variables_11();
  all.push_back({"diverged", DType::float32, {4}, true});
  return all;
}

// Elements that are not as the formula says, but not finite.
bool is_not_finite(const std::string& variable, const std::string& slot, std::int64_t k) {
  return variable == "diverged" && k == (slot.empty() ? 2 : 1);
}

class CheckpointFixture : public ::testing::TestWithParam<Fixture> {
 protected:
  // A copy that may not be written.
  void SetUp() override {
    const std::filesystem::path from =
        std::filesystem::path(VARSCOPE_SOURCE_DIR) / "tests/fixtures/checkpoints" / GetParam().version;
    std::filesystem::copy(from, dir.path(), std::filesystem::copy_options::recursive);
    for (const auto& entry : std::filesystem::recursive_directory_iterator(dir.path())) {
      if (entry.is_regular_file())
        std::filesystem::permissions(entry.path(), std::filesystem::perms::owner_read);
    }
    path = dir / "step-000000007";
  }
  TempDir dir;
  PosixFs fs;
  std::string path;
};

// Element k of every tensor, by the README's formula: base + k % 97 / 2, as the dtype has it.
std::string expected_element(DType dtype, double base, std::int64_t k) {
  const double x = base + 0.5 * static_cast<double>(k % 97);
  const auto bytes_of = [](auto value) {
    return std::string(reinterpret_cast<const char*>(&value), sizeof value);
  };
  switch (dtype) {
    case DType::float32:
      return bytes_of(static_cast<float>(x));
    case DType::float64:
      return bytes_of(x / 1024);
    case DType::int64:
      return bytes_of(static_cast<std::int64_t>(2 * x) * (std::int64_t{1} << 33));
    case DType::bfloat16:
      return bytes_of(static_cast<float>(x)).substr(2);  // the upper half
    default:
      throw std::runtime_error("no fixture has this dtype");
  }
}

void expect_values(CheckpointReader& reader, const FixtureVariable& v, const std::string& slot, double base) {
  const Tensor out(v.dtype, v.shape);
  ASSERT_EQ(reader.dtype(v.name, slot), v.dtype);
  reader.read(v.name, slot, testing::whole(v.shape), out.view());
  const std::size_t item = size_of(v.dtype);
  for (std::int64_t k = 0; k < out.n_elements(); ++k) {
    if (is_not_finite(v.name, slot, k)) continue;
    const std::byte* at = out.view().bytes() + static_cast<std::size_t>(k) * item;
    ASSERT_EQ(std::string(reinterpret_cast<const char*>(at), item), expected_element(v.dtype, base, k))
        << "element " << k;
  }
}

TEST_P(CheckpointFixture, EveryValueIsReadBack) {
  CheckpointReader reader = CheckpointReader::open(fs, path);
  const auto& table = reader.manifest().variables.variables();
  ASSERT_EQ(table.size(), GetParam().variables.size());
  for (std::size_t i = 0; i < table.size(); ++i) {
    const FixtureVariable& v = GetParam().variables[i];
    SCOPED_TRACE(v.name);
    EXPECT_EQ(table[i].name, v.name);
    EXPECT_EQ(table[i].dtype, v.dtype);
    EXPECT_EQ(table[i].shape, v.shape);
    const double base = 1 + 4 * static_cast<double>(i);
    const bool is_empty = v.shape.n_elements() == 0;
    EXPECT_EQ(reader.has(v.name, ""), !is_empty);
    EXPECT_EQ(reader.has(v.name, "m"), v.has_slot && !is_empty);
    if (!is_empty) expect_values(reader, v, "", base);
    if (!is_empty && v.has_slot) expect_values(reader, v, "m", base + 2);
  }
}

TEST_P(CheckpointFixture, IsWholeAndTheNewest) {
  EXPECT_THAT(verify_checkpoint(fs, path), IsEmpty());
  const FoundCheckpoint found = newest_checkpoint(fs, dir.path());
  EXPECT_EQ(found.path, path);
  EXPECT_THAT(found.warnings, IsEmpty());
}

TEST_P(CheckpointFixture, ManifestSaysWhatWasWritten) {
  const LoadedManifest loaded = load_manifest(fs, path);
  const Manifest& m = loaded.manifest;
  EXPECT_EQ(loaded.digest.hex(), GetParam().manifest_hash) << "a fixture must never be edited";
  EXPECT_EQ(m.values_hash.hex(), GetParam().values_hash);
  EXPECT_EQ(m.format_major, 1);
  EXPECT_EQ(m.format_minor, GetParam().minor);
  EXPECT_EQ(m.id, "000000007-0f1e2d3c-0");
  EXPECT_EQ(m.parent, "step-000000003");
  EXPECT_EQ(m.run_id, "run-7");
  EXPECT_EQ(m.attempt, 1);
  EXPECT_EQ(m.unix_time, 1'700'000'000);
  EXPECT_EQ(m.step, 7);
  EXPECT_EQ(m.worker_clocks, (std::vector<std::int64_t>{7, 7}));
  EXPECT_EQ(m.servers, 2);
  EXPECT_EQ(m.workers, 2);
  EXPECT_EQ(m.optimizer, "momentum");
  EXPECT_EQ(m.slots, std::vector<std::string>{"m"});
  EXPECT_EQ(m.coordinator_state, "epoch 3");
  const VariableSpec& weights = m.variables[0];
  EXPECT_EQ(weights.initializer.str(), Initializer::constant(0.5).str());
  EXPECT_EQ(weights.scope, "hidden");
  EXPECT_TRUE(weights.trainable);
  EXPECT_FALSE(m.variables.find("counts")->trainable);
}

// Byte for byte: what a later program adds does not touch checkpoints that have nothing of it.
TEST_P(CheckpointFixture, ManifestOfTheNewestFormatIsWrittenAsItWas) {
  if (GetParam().minor != kCheckpointFormat.minor) return;
  const Manifest m = load_manifest(fs, path).manifest;
  EXPECT_EQ(encode_manifest(m), slurp(path + "/MANIFEST"));
  std::string json = slurp(path + "/manifest.json");
  const std::size_t hash = json.find(m.values_hash.hex());  // which the file was made with
  ASSERT_NE(hash, std::string::npos);
  EXPECT_EQ(to_json(m), json.replace(hash, 32, values_hash_of(m).hex()));
}

TEST_P(CheckpointFixture, ShardsAreReadByAnIndependentReader) {
  std::size_t n = 0;
  for (int server : {0, 1}) {
    const testing::Safetensors read(slurp(path + "/" + shard_name(server, 2)));
    EXPECT_EQ(read.data_begin % 4096, 0U);
    EXPECT_EQ(read.metadata.at("varscope.checkpoint"), "000000007-0f1e2d3c-0");
    EXPECT_EQ(read.metadata.at("varscope.format"), std::string(GetParam().version).substr(1));
    n += read.tensors.size();
  }
  EXPECT_EQ(n, load_manifest(fs, path).manifest.tensors.size());
}

TEST_P(CheckpointFixture, StatesOfWorkersAreRead) {
  CheckpointReader reader = CheckpointReader::open(fs, path);
  for (int worker : {0, 1}) {
    const std::string bytes = reader.read_file(worker_state_name(worker));
    const auto state =
        from_text<WorkerState>(std::string(open_envelope(kWorkerStateMagic, bytes, "state")), "state");
    EXPECT_EQ(state.worker, worker);
    EXPECT_EQ(state.clock, 7);
    EXPECT_EQ(state.epoch, 1);
    EXPECT_EQ(state.position, 24);
    EXPECT_EQ(state.dataset_size, 40);
    EXPECT_EQ(state.seed, 9U);
    EXPECT_EQ(state.locals.size(), GetParam().minor >= 1 && worker == 0 ? 1U : 0U);
  }
}

TEST_P(CheckpointFixture, CanBeWrittenAnewForOtherServers) {
  std::string out;
  reshard_tool(fs, path, dir / "anew", 3, ToolFormat::text, out);
  const Manifest m = load_manifest(fs, dir / "anew/step-000000007").manifest;
  EXPECT_EQ(m.values_hash.hex(), GetParam().values_hash);
  EXPECT_EQ(m.servers, 3);
  EXPECT_EQ(m.format_minor, kCheckpointFormat.minor);
}

INSTANTIATE_TEST_SUITE_P(Formats, CheckpointFixture,
                         ::testing::Values(Fixture{"v1.0", 0, "cf2af1d403c941c029ca55ac6c446f23",
                                                   "f433366222a2da808be0fc7777cd1972", kVariables10},
                                           Fixture{"v1.1", 1, "d14a5f57b738c6a278a204152567b608",
                                                   "a42e3294472431a8ef8a8465a7a5ce28", variables_11()},
                                           Fixture{"v1.2", 2, "f18553efba7d6de4f6c9958d9917671c",
                                                   "6648925d8ebd0402ba53f36c73d00c8b", variables_12()}),
                         [](const auto& info) { return "v1_" + std::to_string(info.param.minor); });

// The hash that is printed covers shapes and dtypes; manifests keep the older one, so that every program can
// check it.
TEST(CheckpointFixtures, HaveTheHashOfTodayToo) {
  PosixFs fs;
  const std::string dir = VARSCOPE_SOURCE_DIR "/tests/fixtures/checkpoints/";
  const CheckpointReader reader = CheckpointReader::open(fs, dir + "v1.1/step-000000007");
  EXPECT_EQ(values_hash_1_of(reader.manifest()), reader.manifest().values_hash);
  EXPECT_EQ(reader.values_hash().hex(), "4f4613637a1556ba26e7a59ac8760af1");
  Manifest other = reader.manifest();
  std::vector<VariableSpec> variables = other.variables.variables();
  variables[0].shape = Shape{50, 30};
  other.variables = VariableTable(variables);
  EXPECT_NE(values_hash_of(other), reader.values_hash());
  EXPECT_EQ(values_hash_1_of(other), reader.manifest().values_hash);
  const std::string text = inspect_text(fs, reader.path(), ToolFormat::text);
  EXPECT_TRUE(text.ends_with("values hash  4f4613637a1556ba26e7a59ac8760af1\n")) << text;
  EXPECT_NE(inspect_text(fs, reader.path(), ToolFormat::json).find("d14a5f57b738c6a278a204152567b608"),
            std::string::npos)
      << "values_hash_1, as older programs printed it";
}

// What format 1.1 brought.
TEST(CheckpointFixture11, PartsAveragesAndConstraints) {
  PosixFs fs;
  CheckpointReader reader =
      CheckpointReader::open(fs, VARSCOPE_SOURCE_DIR "/tests/fixtures/checkpoints/v1.1/step-000000007");
  const VariableTable& table = reader.manifest().variables;
  EXPECT_EQ(table.find("average")->average_decay, 0.75);
  EXPECT_EQ(table.find("hidden/biases")->constraint, Constraint::max_norm(3));
  EXPECT_EQ(table.find("table/part_1")->part.offset, (Shape{3, 0}));
  const Tensor table_out(DType::float32, {5, 4});
  reader.read("table", "", testing::whole({5, 4}), table_out.view());
  for (std::int64_t k = 0; k < 20; ++k) {
    const double base = k < 12 ? 25 : 29;  // parts 0 and 1 are variables 6 and 7
    EXPECT_EQ(table_out.as<float>()[static_cast<std::size_t>(k)],
              static_cast<float>(base + 0.5 * static_cast<double>(k < 12 ? k : k - 12)));
  }
}

// What format 2.0 brought: rows of sparse tables, by the README's formulas.
class CheckpointFixture20 : public ::testing::Test {
 protected:
  // Of row r, in the order of the ids; `elements` from its values on.
  template <class T>
  static void expect_row(const std::byte* row, std::uint64_t id, std::size_t r, std::size_t n_elements) {
    EXPECT_EQ(RowLayout::id_of(row), id);
    for (std::size_t j = 0; j < n_elements; ++j) {
      T x;
      std::memcpy(&x, row + RowLayout::kValuesAt + j * sizeof(T), sizeof x);
      EXPECT_EQ(x, static_cast<T>(r) + static_cast<T>(0.25) * static_cast<T>(j))
          << "row " << id << " element " << j;
    }
  }
  // All rows of a table by id.
  static std::map<std::uint64_t, std::vector<std::byte>> rows_of(CheckpointReader& reader,
                                                                 const std::string& table) {
    std::map<std::uint64_t, std::vector<std::byte>> all;
    const std::size_t n = reader.row_layout(table).row_bytes();
    std::vector<std::byte> rows;
    for (int part = 0; part < reader.table(table).spec.parts; ++part) {
      reader.read_rows(table, part, rows);
      for (auto at = rows.begin(); at != rows.end(); at += static_cast<std::ptrdiff_t>(n))
        all.emplace(RowLayout::id_of(&*at), std::vector(at, at + static_cast<std::ptrdiff_t>(n)));
    }
    return all;
  }
  PosixFs fs;
  const std::string path = VARSCOPE_SOURCE_DIR "/tests/fixtures/checkpoints/v2.0/step-000000007";
};

TEST_F(CheckpointFixture20, EveryRowIsReadBack) {
  CheckpointReader reader = CheckpointReader::open(fs, path);
  const auto users = rows_of(reader, "user/embeddings"), items = rows_of(reader, "item/embeddings");
  EXPECT_EQ(reader.row_layout("user/embeddings"), RowLayout(DType::float32, 3, {{"m", 3}, {"n", 1}}));
  EXPECT_EQ(reader.table("user/embeddings").spec, (TableSpec{IdType::int64, 16}));
  EXPECT_EQ(reader.table("item/embeddings").spec, (TableSpec{IdType::uint64, 1}));
  ASSERT_EQ(users.size(), 24U);
  ASSERT_EQ(items.size(), 3U);
  std::size_t r = 0;
  for (const auto& [id, row] : users) {
    expect_row<float>(row.data(), id, r, 7);
    EXPECT_EQ(RowLayout::last_of(row.data()), r % 8);
    EXPECT_EQ(RowLayout::count_of(row.data()), r + 1);
    ++r;
  }
  EXPECT_TRUE(users.contains(std::uint64_t{1} << 63) && users.contains(~std::uint64_t{0}));
  r = 0;
  for (const auto& [id, row] : items) expect_row<double>(row.data(), id, r++, 2);
}

TEST_F(CheckpointFixture20, IsWholeAndAsItWasWritten) {
  EXPECT_THAT(verify_checkpoint(fs, path), IsEmpty());
  const LoadedManifest loaded = load_manifest(fs, path);
  EXPECT_EQ(loaded.digest.hex(), "d86a9448a274c979ce120ee83829a571") << "a fixture must never be edited";
  EXPECT_EQ(loaded.manifest.format_major, 2);
  EXPECT_EQ(values_hash_of(loaded.manifest).hex(), "964dab06dae980d0e94782a28407122d");
}

TEST_F(CheckpointFixture20, CanBeWrittenAnewForOtherServers) {
  const TempDir dir;
  std::string out;
  reshard_tool(fs, path, dir / "anew", 3, ToolFormat::text, out);
  const Manifest m = load_manifest(fs, dir / "anew/step-000000007").manifest;
  EXPECT_EQ(values_hash_of(m).hex(), "964dab06dae980d0e94782a28407122d");
  EXPECT_EQ(m.servers, 3);
  EXPECT_EQ(m.format_major, kTablesFormat.major);
}

// What format 3.0 brought: chains of row pieces, waiting ids, all of a table's keys; by the README's tables.
class CheckpointFixture30 : public ::testing::Test {
 protected:
  using Last = std::map<std::int64_t, std::pair<std::uint32_t, std::uint32_t>>;  // (last, count) by id
  // What a chain has of all parts.
  template <class T>
  static std::pair<Last, Last> all_of(CheckpointReader& reader, const std::string& table,
                                      std::size_t n_elements) {
    std::pair<Last, Last> all;
    const std::size_t n = reader.row_layout(table).row_bytes();
    PartRows part;
    const auto add = [](Last& to, const std::byte* record) {
      to[static_cast<std::int64_t>(RowLayout::id_of(record))] = {RowLayout::last_of(record),
                                                                 RowLayout::count_of(record)};
    };
    for (int p = 0; p < reader.table(table).spec.parts; ++p) {
      reader.read_part(table, p, part);
      for (std::size_t at = 0; at < part.rows.size(); at += n) {
        const std::byte* row = &part.rows[at];
        add(all.first, row);
        for (std::size_t j = 0; j < n_elements; ++j) {
          T x;
          std::memcpy(&x, row + RowLayout::kValuesAt + j * sizeof(T), sizeof x);
          EXPECT_EQ(x, static_cast<T>(RowLayout::id_of(row) % 1000 + 100 * RowLayout::last_of(row)) +
                           static_cast<T>(0.25) * static_cast<T>(j));
        }
      }
      for (std::size_t at = 0; at < part.waiting.size(); at += PartRows::kWaitingBytes)
        add(all.second, &part.waiting[at]);
    }
    return all;
  }
  PosixFs fs;
  const std::string path = VARSCOPE_SOURCE_DIR "/tests/fixtures/checkpoints/v3.0/step-000000007";
};

TEST_F(CheckpointFixture30, EveryChainIsReadBack) {
  CheckpointReader reader = CheckpointReader::open(fs, path);
  Last users;
  for (std::int64_t id = 0; id < 20; ++id) users[id] = {5, 1};
  for (const std::int64_t id : {1, 2, 3, 4}) users[id] = {6, 2};
  users[0] = {7, 3};
  users[-1] = {4, 2};
  users[INT64_MIN] = {3, 2};
  users[30] = {7, 1};
  users.erase(5);
  users.erase(6);
  const auto read = all_of<float>(reader, "user/embeddings", 7);
  EXPECT_EQ(read.first, users);
  EXPECT_EQ(read.second, (Last{{31, {4, 2}}, {5, {7, 1}}}));
  const auto items = all_of<double>(reader, "item/embeddings", 2);
  EXPECT_EQ(items.first, (Last{{2, {7, 2}}, {3, {6, 1}}, {-1, {3, 9}}}));
  EXPECT_TRUE(items.second.empty());
  const TableSpec spec = reader.table("user/embeddings").spec;
  EXPECT_EQ(spec.entry, 3);
  EXPECT_EQ(spec.max_waiting, 16384);
  EXPECT_EQ(spec.absent, AbsentRows::zeros);
  EXPECT_EQ(reader.table("item/embeddings").spec.expire_steps, 6);
  EXPECT_EQ(reader.table("item/embeddings").spec.when_full, WhenFull::lru);
}

TEST_F(CheckpointFixture30, IsWholeAndAsItWasWritten) {
  EXPECT_THAT(verify_checkpoint(fs, path), IsEmpty());
  const LoadedManifest loaded = load_manifest(fs, path);
  EXPECT_EQ(loaded.digest.hex(), "0dd47e6e4f561106771d57ceba25eb53") << "a fixture must never be edited";
  EXPECT_EQ(loaded.manifest.format_major, 3);
  EXPECT_EQ(values_hash_of(loaded.manifest).hex(), "977436d66670b028b40d50595e4bc788");
  EXPECT_EQ(totals_of(loaded.manifest, "user/embeddings").longest_chain, 3U);
  EXPECT_EQ(encode_manifest(loaded.manifest), slurp(path + "/MANIFEST"));
}

// What format 1.2 brought.
TEST(CheckpointFixture12, SaysWhatIsNotFinite) {
  PosixFs fs;
  CheckpointReader reader =
      CheckpointReader::open(fs, VARSCOPE_SOURCE_DIR "/tests/fixtures/checkpoints/v1.2/step-000000007");
  EXPECT_TRUE(reader.manifest().knows_not_finite);
  EXPECT_EQ(not_finite_text(reader.manifest()),
            "-inf in diverged (1 element, from element 2 on), "
            "nan in diverged slot m (1 element, from element 1 on)");
  const Tensor value(DType::float32, {4}), slot(DType::float32, {4});
  reader.read("diverged", "", testing::whole({4}), value.view());
  reader.read("diverged", "m", testing::whole({4}), slot.view());
  EXPECT_EQ(value.as<float>()[2], -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(slot.as<float>()[1]));
}

// A format without a fixture would be forgotten.
TEST(CheckpointFixtures, ThereIsOneOfTheFormatThatIsWritten) {
  const std::string current = fmt::format("v{}.{}", kCheckpointFormat.major, kCheckpointFormat.minor);
  EXPECT_TRUE(
      std::filesystem::exists(std::string(VARSCOPE_SOURCE_DIR "/tests/fixtures/checkpoints/") + current))
      << "add a fixture of format " << current << " (tests/fixtures/checkpoints/README.md)";
}

}  // namespace
}  // namespace varscope
