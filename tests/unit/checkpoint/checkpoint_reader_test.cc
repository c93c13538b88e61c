#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/tools/list_inspect.h"
#include "checkpoint/tools/verify.h"
#include "tests/support/case_stride.h"
#include "tests/support/fs/fault_fs.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using testing::expect_box;
using testing::FaultFs;
using testing::FsOp;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::make_variable;
using testing::Model;
using testing::save;
using testing::Saved;
using testing::slurp;
using testing::small_model;
using testing::spit;
using testing::TempDir;
using testing::tiny_model;
using testing::whole;

// A random box with at least one element.
Slice random_box(const Shape& shape, std::mt19937& random) {
  std::vector<std::int64_t> offset, extent;
  for (const std::int64_t d : shape.dims()) {
    offset.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(d)));
    extent.push_back(1 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(d - offset.back())));
  }
  return {shape, Shape(offset), Shape(extent)};
}

// A random grid that covers the shape.
std::vector<Slice> random_grid(const Shape& shape, std::mt19937& random) {
  std::vector<Slice> boxes = {whole(shape)};
  for (std::size_t axis = 0; axis < shape.rank(); ++axis) {
    std::vector<Slice> finer;
    for (const Slice& box : boxes) {
      for (std::int64_t begin = 0; begin < box.extent[axis];) {
        const auto left = static_cast<std::uint64_t>(box.extent[axis] - begin);
        const auto n = 1 + static_cast<std::int64_t>(random() % left);
        finer.push_back({shape, box.offset.with_dim(axis, begin), box.extent.with_dim(axis, n)});
        begin += n;
      }
    }
    boxes = std::move(finer);
  }
  return boxes;
}

TEST(CheckpointReader, RestoresIntoAnySlicing) {
  const Model model = small_model(1);
  for (const int servers : {1, 2, 3, 8}) {
    Saved saved(model, servers);
    CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
    EXPECT_EQ(reader.values_hash(), testing::values_hash_of(model));
    for (const auto& [key, tensor] : model.values) {
      if (tensor.n_elements() == 0) continue;
      expect_box(reader, model, key.first, key.second, whole(tensor.shape()));
      for (const Slice& box : model.boxes.at(key.first))
        expect_box(reader, model, key.first, key.second, box);
    }
    EXPECT_THAT(reader.verify(), IsEmpty());
  }
}

TEST(CheckpointReader, ReadsArbitraryBoxesOfArbitraryBoxes) {
  std::mt19937 random(42);
  const std::vector<DType> dtypes = {DType::float32, DType::float64,  DType::int32,
                                     DType::int64,   DType::bfloat16, DType::uint8};
  for (int round = 0; round < 25; ++round) {
    std::vector<VariableSpec> variables;
    for (std::size_t rank = 1; rank <= 4; ++rank) {
      std::vector<std::int64_t> dims;
      for (std::size_t a = 0; a < rank; ++a)
        dims.push_back(1 + static_cast<std::int64_t>(random() % (rank > 2 ? 6 : 20)));
      variables.push_back(
          make_variable(fmt::format("v{}", rank), dtypes[random() % dtypes.size()], Shape(dims)));
    }
    Model model(VariableTable(variables), {"m", "v"}, random());
    for (const VariableSpec& v : variables) model.boxes[v.name] = random_grid(v.shape, random);
    const std::vector<int> servers = {1, 2, 3, 8};
    Saved saved(model, servers[static_cast<std::size_t>(round) % 4]);
    CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
    for (int n = 0; n < 60; ++n) {
      const VariableSpec& v = variables[random() % variables.size()];
      expect_box(reader, model, v.name, n % 3 == 0 ? "m" : "", random_box(v.shape, random));
    }
  }
}

TEST(CheckpointReader, ReadsAcrossChunks) {
  // 5.5 MB in one shard; slices and rows straddle CRC blocks of 1 MiB, and the cache overflows.
  const Model model(VariableTable({make_variable("w", DType::float64, {700, 993})}), {"m"}, 5);
  Saved saved(model, 1);
  CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  std::mt19937 random(1);
  for (int n = 0; n < 6; ++n) expect_box(reader, model, "w", "", random_box({700, 993}, random));
  expect_box(reader, model, "w", "m", whole({700, 993}));
}

// Restoring onto another number of servers, each reads its own boxes and nothing else.
TEST(CheckpointReader, ReadsOnlyTheBytesOfAServersBoxes) {
  constexpr std::uint64_t kPiece = 256 << 10;
  // Slices of 1.5 MiB and less, values and a slot, in 3 shards: 36 MiB.
  const Model model(VariableTable({make_variable("w", DType::float32, {1024, 3072}),
                                   make_variable("v", DType::float64, {768, 1024})}),
                    {"m"}, 5);
  const Saved saved(model, 3);
  std::uint64_t total = 0;
  for (const auto& [key, tensor] : model.values) total += tensor.n_bytes();
  for (const int servers : {1, 2, 5}) {
    std::uint64_t read = 0;
    for (int server = 0; server < servers; ++server) {
      PosixFs posix;
      FaultFs fs(posix);
      CheckpointReader reader = CheckpointReader::open(fs, saved.path);
      const int before = fs.count(FsOp::read);
      std::uint64_t wanted = 0, n_boxes = 0;
      for (const auto& [key, tensor] : model.values) {
        const std::vector<Slice> boxes = slice_variable(tensor.shape(), tensor.dtype());
        for (std::size_t i = 0; i < boxes.size(); ++i) {
          if (static_cast<int>(i) % servers != server) continue;
          expect_box(reader, model, key.first, key.second, boxes[i]);
          wanted += static_cast<std::uint64_t>(boxes[i].n_elements()) * size_of(tensor.dtype());
          ++n_boxes;
        }
      }
      EXPECT_EQ(reader.n_bytes_read(), wanted) << "server " << server << " of " << servers;
      // It is what the file system was asked for, in pieces of at most 256 KiB.
      const auto n_reads = static_cast<std::uint64_t>(fs.count(FsOp::read) - before);
      EXPECT_LE(reader.n_bytes_read(), n_reads * kPiece);
      EXPECT_LE(n_reads, wanted / kPiece + n_boxes);
      read += reader.n_bytes_read();
    }
    EXPECT_EQ(read, total) << servers << " servers";
  }
}

// Columns of a matrix that was saved by rows: the CRC blocks that they touch, each once.
TEST(CheckpointReader, ReadsTheTouchedChunksOfOtherBoxes) {
  const Model model(VariableTable({make_variable("w", DType::float32, {512, 3072})}), {}, 5);
  const Saved saved(model, 2);
  PosixFs fs;
  CheckpointReader reader = CheckpointReader::open(fs, saved.path);
  const Slice columns{Shape{512, 3072}, Shape{0, 1000}, Shape{512, 10}};
  expect_box(reader, model, "w", "", columns);
  EXPECT_GE(reader.n_bytes_read(), 512U * 10 * 4);
  EXPECT_LE(reader.n_bytes_read(), 512U * 3072 * 4 + 2 * kCrcBlockBytes);
}

TEST(CheckpointReader, RefusesBoxesAndMemoryThatDoNotFit) {
  Saved saved(tiny_model(1), 1);
  CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  const Tensor f32(DType::float32, {4, 3}), f64(DType::float64, {4, 3}), small(DType::float32, {2, 3});
  const Slice box = whole({4, 3});
  EXPECT_THAT(error_of([&] { reader.read("x", "", box, f32.view()); }),
              HasSubstr("no values of variable \"x\""));
  EXPECT_THAT(error_of([&] { reader.read("w", "v", box, f32.view()); }),
              HasSubstr("variable \"w\" slot \"v\""));
  EXPECT_THAT(
      error_of([&] {
        reader.read("w", "", whole({4, 4}), f32.view());
      }),
      HasSubstr("argument: a box of a variable of shape [4, 4] was asked of \"w\", which has [4, 3]"));
  EXPECT_THAT(error_of([&] { reader.read("w", "", box, f64.view()); }),
              HasSubstr("12 float64 was given for 12 float32"));
  EXPECT_THAT(error_of([&] { reader.read("w", "", box, small.view()); }), HasSubstr("memory for 6 float32"));
  EXPECT_TRUE(reader.has("w", "m"));
  EXPECT_FALSE(reader.has("w", "v"));
  EXPECT_EQ(reader.dtype("w", "m"), DType::float32);
}

TEST(CheckpointReader, ReadsWorkerStates) {
  Saved saved(tiny_model(1), 1);
  CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  EXPECT_EQ(reader.read_file(worker_state_name(0)), "position of worker 0");
  EXPECT_EQ(reader.read_file(worker_state_name(1)), "");
  EXPECT_THAT(error_of([&] { reader.read_file("worker-00002.state"); }),
              HasSubstr("has no file worker-00002.state"));
  testing::flip_bit(saved.path + "/" + worker_state_name(0), 3);
  CheckpointReader again = CheckpointReader::open(saved.fs, saved.path);
  EXPECT_THAT(error_of([&] { again.read_file(worker_state_name(0)); }),
              HasSubstr("worker-00000.state is damaged: CRC block 0"));
}

TEST(CheckpointReader, ListsEveryDifferenceOfTheModelAtOnce) {
  Saved saved(small_model(1), 2);
  const CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  reader.check_model(small_model(1).table, {"m"}, "momentum");
  const VariableTable other({make_variable("hidden/weights", DType::float32, {61, 90}),
                             make_variable("hidden/biases", DType::float64, {61}),
                             make_variable("norm/mean", DType::float64, {3, 2}),
                             make_variable("scale", DType::bfloat16, Shape{}),
                             make_variable("nothing", DType::float32, {0, 4}),
                             make_variable("output/weights", DType::float32, {10})});
  const std::string words = error_of([&] { reader.check_model(other, {"m", "v"}, "adam"); });
  for (const char* part :
       {"does not fit the model (7 differences)",
        "variable \"norm/mean\" is trained in the model but was not in the checkpoint",
        "the optimizer is \"momentum\" in the checkpoint and \"adam\" in the job",
        "optimizer slot \"v\" is missing",
        "\"hidden/weights\" has shape [90, 61] in the checkpoint and [61, 90] in the model",
        "\"hidden/biases\" is float32 in the checkpoint and float64 in the model",
        "variable \"output/weights\" float32 [10] is missing in the checkpoint",
        "variable \"counts\" int64 [5] is in the checkpoint but not in the model", "nothing was restored"}) {
    EXPECT_THAT(words, HasSubstr(part));
  }
  EXPECT_THAT(
      error_of([&] { reader.check_model(small_model(1).table, {}, "momentum"); }),
      AllOf(HasSubstr("(1 difference)"), HasSubstr("slot \"m\" is in the checkpoint but not in the job")));
}

TEST(CheckpointDamage, EveryFlippedByteOfEveryFileIsFound) {
  Saved saved(tiny_model(1), 1);
  for (const std::string& name : {shard_name(0, 1), worker_state_name(0), std::string(kManifestName)}) {
    const std::string file = saved.path + "/" + name;
    for (std::size_t at = 0; at < std::filesystem::file_size(file); at += testing::kCaseStride) {
      testing::flip_bit(file, at, static_cast<int>(at % 8));
      const auto problems = verify_checkpoint(saved.fs, saved.path);
      ASSERT_FALSE(problems.empty()) << name << " byte " << at;
      EXPECT_THAT(problems[0], HasSubstr(name));
      testing::flip_bit(file, at, static_cast<int>(at % 8));
    }
  }
  EXPECT_THAT(verify_checkpoint(saved.fs, saved.path), IsEmpty());
}

TEST(CheckpointDamage, NamesFileChunkAndVariable) {
  const Model model(VariableTable({make_variable("w", DType::float64, {700, 400})}), {}, 5);
  Saved saved(model, 1);
  testing::flip_bit(saved.shard(0, 1), kCrcBlockBytes + 4096);
  const auto problems = verify_checkpoint(saved.fs, saved.path);
  ASSERT_EQ(problems.size(), 2U);
  EXPECT_THAT(
      problems[0],
      HasSubstr("shard-00000-of-00001.safetensors is damaged: CRC block 1 (from byte 1048576) has crc32c "));
  EXPECT_THAT(problems[1], HasSubstr("of variable \"w\" has another hash than the manifest"));
  CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  const Tensor out(DType::float64, {700, 400});
  EXPECT_THAT(error_of([&] {
                reader.read("w", "", whole({700, 400}), out.view());
              }),
              AllOf(HasSubstr("checkpoint: " + saved.path),
                    HasSubstr("is damaged: CRC block 1 (from byte 1048576)")));
}

// A manifest that was decoded earlier is no excuse: what is read must have its sizes and checksums.
TEST(CheckpointDamage, FilesAreHeldAgainstAManifestThatWasReadBefore) {
  Saved saved(small_model(1), 2, 4), other(small_model(2), 2, 4);
  const Manifest manifest = load_manifest(saved.fs, saved.path).manifest;
  CheckpointReader same = CheckpointReader::open(saved.fs, saved.path, manifest);
  expect_box(same, small_model(1), "hidden/weights", "", whole({90, 61}));
  CheckpointReader reader = CheckpointReader::open(other.fs, other.path, manifest);
  const Tensor out(DType::float32, {90, 61});
  EXPECT_THAT(error_of([&] {
                reader.read("hidden/weights", "", whole({90, 61}), out.view());
              }),
              AllOf(HasSubstr("checkpoint: " + other.path), HasSubstr("is damaged")));
  std::filesystem::resize_file(saved.shard(1, 2), 100);
  EXPECT_THAT(error_of([&] { CheckpointReader::open(saved.fs, saved.path, manifest); }),
              HasSubstr("is damaged: shard-00001-of-00002.safetensors has 100 bytes instead of"));
}

// An unreadable byte of the newest sends us to the older one; of LATEST it is a warning; the older one, which
// is not needed, is not even looked at.
TEST(CheckpointDamage, ErrorsOfTheDiskCountAsDamage) {
  Saved saved(tiny_model(1), 1, 4);
  const std::string newer = save(saved.fs, saved.directory, tiny_model(2), 5, 1, "id-5");
  int of_newer = 0, of_older = 0, of_latest = 0;
  for (int n = 1;; ++n) {
    FaultFs fs(saved.fs);
    fs.fail_nth(FsOp::read, n, EIO);
    const FoundCheckpoint found = newest_checkpoint(fs, saved.dir.path());
    if (fs.count(FsOp::read) < n) break;
    std::vector<std::string> reads = fs.log();
    std::erase_if(reads, [](const std::string& line) { return !line.starts_with("read "); });
    const std::string struck = reads[static_cast<std::size_t>(n) - 1].substr(5);
    if (struck.starts_with(saved.path)) ++of_older;
    const bool is_newer = struck.starts_with(newer);
    ++(is_newer ? of_newer : of_latest);
    EXPECT_EQ(found.path, is_newer ? saved.path : newer) << struck;
    EXPECT_THAT(found.warnings,
                ::testing::Contains(AllOf(HasSubstr(struck), HasSubstr("Input/output error"))));
  }
  EXPECT_GE(of_newer, 3);
  EXPECT_EQ(of_older, 0);
  EXPECT_EQ(of_latest, 1);
}

TEST(NewestCheckpoint, SaysWhatToDoWhenThereIsNone) {
  TempDir dir;
  PosixFs fs;
  EXPECT_EQ(
      error_of([&] { newest_checkpoint(fs, dir.path()); }),
      "checkpoint: " + dir.path() +
          " holds no checkpoint; name a checkpoint, or a directory of checkpoints that a run has written");
  EXPECT_THAT(error_of([&] { newest_checkpoint(fs, dir / "x"); }),
              HasSubstr("x does not exist; name a checkpoint"));
}

TEST(NewestCheckpoint, ListsWhatIsWrongWithEachWhenAllAreBad) {
  Saved saved(tiny_model(1), 1, 4);
  const std::string newer = save(saved.fs, saved.directory, tiny_model(2), 5, 1, "id-5");
  std::filesystem::remove(newer + "/MANIFEST");
  testing::flip_bit(saved.shard(0, 1), 10);
  EXPECT_THAT(
      error_of([&] { newest_checkpoint(saved.fs, saved.dir.path()); }),
      AllOf(HasSubstr("checkpoint: no checkpoint in " + saved.dir.path() + " can be used:"),
            HasSubstr("step-000000005 cannot be used: " + newer + " is not a checkpoint"),
            HasSubstr(
                "step-000000004 cannot be used: shard-00000-of-00001.safetensors is damaged: CRC block 0")));
}

TEST(NewestCheckpoint, SurvivesAMovedDirectory) {
  Saved saved(tiny_model(1), 1);
  TempDir other;
  std::filesystem::copy(saved.dir.path(), other / "moved", std::filesystem::copy_options::recursive);
  const FoundCheckpoint found = newest_checkpoint(saved.fs, other / "moved");
  EXPECT_EQ(found.path, other / "moved/step-000000005");
  EXPECT_THAT(found.warnings, IsEmpty());
}

TEST(CheckpointTools, ListShowsEveryCheckpoint) {
  Saved saved(tiny_model(1), 1, 4);
  save(saved.fs, saved.directory, tiny_model(2), 4, 1, "id-again");
  std::filesystem::remove(save(saved.fs, saved.directory, tiny_model(2), 5, 1, "id-5") +
                          "/worker-00001.state");
  const std::string text = list_text(saved.fs, saved.dir.path());
  EXPECT_THAT(text, AllOf(HasSubstr("step-000000005  5"), HasSubstr("damaged: worker-00001.state is missing"),
                          HasSubstr("committed"), HasSubstr("set aside: superseded-step-000000004-")));
  EXPECT_LT(text.find("step-000000005"), text.find("step-000000004"));
  TempDir empty;
  EXPECT_THAT(list_text(saved.fs, empty.path()), HasSubstr("holds no checkpoints"));
  EXPECT_THAT(error_of([&] { list_text(saved.fs, empty / "x"); }),
              HasSubstr("there is no checkpoint directory"));
}

TEST(CheckpointTools, InspectEndsInTheHashOfTheValues) {
  Model model(
      VariableTable({make_variable("w", DType::float32, {2}), make_variable("b", DType::bfloat16, {2}),
                     make_variable("n", DType::int32, {2}), make_variable("e", DType::float32, {0})}),
      {}, 1);
  model.value("w").as<float>()[0] = -3;
  model.value("w").as<float>()[1] = 4;
  const std::array<std::uint16_t, 2> one_and_minus_two = {0x3f80, 0xc000};
  std::memcpy(model.value("b").view().bytes(), one_and_minus_two.data(), 4);
  model.value("n").as<std::int32_t>()[0] = 6;
  model.value("n").as<std::int32_t>()[1] = -8;
  Saved saved(model, 2);
  const std::string text = inspect_text(saved.fs, saved.path);
  EXPECT_TRUE(text.ends_with("values hash  " + testing::values_hash_of(model).hex() + "\n")) << text;
  for (const char* row : {"w         float32   [2]    1        -3   4    5\n",
                          "b         bfloat16  [2]    0        -2   1    2.23607\n",
                          "n         int32     [2]    1        -8   6    10\n",
                          "e         float32   [0]    -        -    -    -\n"}) {
    EXPECT_THAT(text, HasSubstr(row));
  }
  EXPECT_THAT(text, AllOf(HasSubstr("step        5\n"), HasSubstr("optimizer   momentum"),
                          HasSubstr("run-7 attempt 1")));
}

TEST(CheckpointTools, VerifyReportsEveryProblem) {
  Saved saved(small_model(1), 2, 4);
  const std::string newer = save(saved.fs, saved.directory, small_model(2), 5, 2, "id-5");
  std::string out;
  EXPECT_EQ(verify_tool(saved.fs, saved.dir.path(), out), 0);
  EXPECT_THAT(out, AllOf(HasSubstr(newer + ": good, 4 files"), HasSubstr(saved.path + ": good")));
  std::filesystem::remove(newer + "/worker-00000.state");
  testing::flip_bit(newer + "/" + shard_name(0, 2), 1);
  testing::flip_bit(newer + "/" + shard_name(1, 2), 1);
  out.clear();
  EXPECT_EQ(verify_tool(saved.fs, newer, out), static_cast<int>(ExitCode::difference));
  EXPECT_THAT(out, AllOf(HasSubstr("DAMAGED"), HasSubstr("worker-00000.state is missing"),
                         HasSubstr("shard-00000-of-00002.safetensors is damaged: CRC block 0"),
                         HasSubstr("shard-00001-of-00002.safetensors is damaged: CRC block 0")));
  out.clear();
  EXPECT_EQ(verify_tool(saved.fs, saved.dir.path(), out), static_cast<int>(ExitCode::difference));
  EXPECT_THAT(out, HasSubstr(saved.path + ": good"));
  std::filesystem::remove(newer + "/MANIFEST");
  out.clear();
  EXPECT_EQ(verify_tool(saved.fs, newer, out), static_cast<int>(ExitCode::difference));
  EXPECT_THAT(out, HasSubstr("it has no MANIFEST"));
  EXPECT_THAT(error_of([&] { verify_tool(saved.fs, saved.dir / "nowhere", out); }),
              HasSubstr("there is no checkpoint at"));
}

}  // namespace
}  // namespace varscope
