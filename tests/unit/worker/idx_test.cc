#include "worker/data/idx.h"

#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "common/config/source_keys.h"
#include "worker/data/source_registry.h"

namespace varscope {
namespace {

namespace fs = std::filesystem;
using Bytes = std::string;

Bytes word(std::uint32_t v) {
  return {static_cast<char>(v >> 24), static_cast<char>(v >> 16), static_cast<char>(v >> 8),
          static_cast<char>(v)};
}

// 3 images of 2 x 2 with pixels 0, 1, 2, ...
Bytes images() {
  Bytes b = word(2051) + word(3) + word(2) + word(2);
  for (int i = 0; i < 12; ++i) b += static_cast<char>(i * 20);
  return b;
}
Bytes labels() { return word(2049) + word(3) + Bytes("\x02\x00\x04", 3); }

class Idx : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("varscope_idx_test_{}", getpid());
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path write(const char* name, const Bytes& bytes) {
    const fs::path file = folder_ / name;
    std::ofstream(file, std::ios::binary) << bytes;
    return file;
  }
  fs::path write_gzip(const char* name, const Bytes& bytes) {
    const fs::path file = folder_ / name;
    gzFile f = gzopen(file.c_str(), "wb");
    gzwrite(f, bytes.data(), static_cast<unsigned>(bytes.size()));
    gzclose(f);
    return file;
  }
  static Bytes content(const fs::path& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  // Loading must fail with Error(data), these words, and the name of the file.
  void expect_error(const fs::path& x, const fs::path& y, const fs::path& culprit, const char* words,
                    std::int64_t samples = 0) {
    try {
      const IdxDataset data(x, y, samples);
      ADD_FAILURE() << "no error; expected " << words;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::data);
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(culprit.string()), std::string::npos) << e.what();
    }
  }
  fs::path folder_;
};

TEST_F(Idx, ReadsPlainAndGzip) {
  for (const bool packed : {false, true}) {
    const fs::path x = packed ? write_gzip("x.gz", images()) : write("x", images());
    const fs::path y = packed ? write_gzip("y.gz", labels()) : write("y", labels());
    const IdxDataset data(x, y);
    EXPECT_EQ(data.size(), 3);
    EXPECT_EQ(data.sample_shape(), (Shape{2, 2}));
    EXPECT_EQ(data.n_classes(), 5);
    const Tensor pixels(DType::float32, {2, 2, 2});
    const Tensor wide(DType::float64, {2, 2, 2});
    const Tensor answers(DType::int32, {2});
    const std::int64_t rows[] = {2, 0};
    data.fill(rows, pixels.view(), answers.view());
    EXPECT_EQ(pixels.as<float>()[0], 160.0F / 255.0F);
    EXPECT_EQ(pixels.as<float>()[4], 0.0F);
    EXPECT_EQ(pixels.as<float>()[7], 60.0F / 255.0F);
    EXPECT_EQ(answers.as<std::int32_t>()[0], 4);
    EXPECT_EQ(answers.as<std::int32_t>()[1], 2);
    data.fill(rows, wide.view(), answers.view());
    EXPECT_EQ(wide.as<double>()[0], 160.0 / 255.0);
  }
}

TEST_F(Idx, TakesTheFirstSamples) {
  const IdxDataset data(write("x", images()), write("y", labels()), 2);
  EXPECT_EQ(data.size(), 2);
  EXPECT_EQ(data.n_classes(), 5) << "the classes of the whole file";
}

TEST_F(Idx, ClassesThatDoNotOccurCount) {
  const fs::path x = write("x", images()), y = write("y", labels());
  const IdxDataset seen(x, y);
  EXPECT_FALSE(seen.knows_classes());
  const IdxDataset told(x, y, 0, 10);
  EXPECT_EQ(told.n_classes(), 10);
  EXPECT_TRUE(told.knows_classes());
  EXPECT_EQ(IdxDataset(x, y, 0, 5).n_classes(), 5);
}

TEST_F(Idx, NamesTheSampleWhoseLabelIsNoneOfTheClasses) {
  const fs::path x = write("x", images()), y = write("y", labels());
  for (const std::int64_t samples : {0, 1}) {
    try {
      const IdxDataset data(x, y, samples, 4);
      ADD_FAILURE() << "no error";
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::data);
      EXPECT_EQ(std::string(e.what()), y.string() +
                                           ": sample 2 has label 4, but classes are 0 to 3: mend the "
                                           "label or raise classes");
    }
  }
}

TEST_F(Idx, FillChecksItsArguments) {
  const IdxDataset data(write("x", images()), write("y", labels()));
  const Tensor x(DType::float32, {1, 2, 2});
  const Tensor y(DType::int32, {1});
  const std::int64_t good[] = {0};
  const std::int64_t beyond[] = {3};
  const std::int64_t negative[] = {-1};
  data.fill(good, x.view(), y.view());
  data.fill({}, Tensor(DType::float32, {0, 2, 2}).view(), Tensor(DType::int32, {0}).view());
  EXPECT_THROW(data.fill(beyond, x.view(), y.view()), Error);
  EXPECT_THROW(data.fill(negative, x.view(), y.view()), Error);
  EXPECT_THROW(data.fill(good, Tensor(DType::float32, {1, 4}).view(), y.view()), Error);
  EXPECT_THROW(data.fill(good, Tensor(DType::int32, {1, 2, 2}).view(), y.view()), Error);
  EXPECT_THROW(data.fill(good, x.view(), Tensor(DType::int64, {1}).view()), Error);
}

TEST_F(Idx, SaysWhereMissingFilesWereSearched) {
  const fs::path y = write("y", labels());
  const fs::path missing = folder_ / "missing";
  expect_error(missing, y, missing, "no such file");
  expect_error(missing, y, missing, "VARSCOPE_DATA");
  expect_error(missing, y, missing, "default data/");
  expect_error(missing, y, missing, "launch/get_data.sh");
  expect_error(folder_, y, folder_, "folder");
}

TEST_F(Idx, NamesEveryMalformedHeader) {
  const fs::path x = write("x", images());
  const fs::path y = write("y", labels());
  expect_error(y, y, y, "wrong magic 2049");
  expect_error(x, x, x, "begin with 2049");
  const fs::path empty = write("empty", "");
  expect_error(empty, y, empty, "truncated: it ends inside the header (magic)");
  const fs::path cut = write("cut", images().substr(0, 10));
  expect_error(cut, y, cut, "truncated: it ends inside the header (extents)");
  const fs::path none = write("none", word(2051) + word(0) + word(2) + word(2));
  expect_error(none, y, none, "extent 0 of axis 0");
  const fs::path floats = write("floats", word(0x00000D03) + images().substr(4));
  expect_error(floats, y, floats, "wrong magic 3331");
  const fs::path huge = write("huge", word(2051) + word(0xFFFFFFFF) + word(0xFFFFFFFF) + word(0xFFFFFFFF));
  expect_error(huge, y, huge, "claims more than");
  const fs::path liar = write("liar", word(2051) + word(1 << 30) + word(2) + word(2) + "few");
  expect_error(liar, y, liar, "truncated: 3 of 4294967296 bytes");
}

TEST_F(Idx, NamesTruncatedAndTrailingData) {
  const fs::path y = write("y", labels());
  const fs::path cut = write("cut", images().substr(0, images().size() - 1));
  expect_error(cut, y, cut, "truncated: 11 of 12 bytes");
  const fs::path more = write("more", images() + "x");
  expect_error(more, y, more, "trailing bytes after the 12");
  const fs::path fewer = write("fewer", word(2049) + word(2) + Bytes("\x01\x02", 2));
  const fs::path x = write("x", images());
  expect_error(x, fewer, fewer, "3 images, but");
  expect_error(x, y, x, "4 samples were asked for; it has 3", 4);
}

TEST_F(Idx, NamesDamagedGzip) {
  const fs::path y = write("y", labels());
  const Bytes packed = content(write_gzip("x.gz", images()));
  const fs::path cut = write("cut.gz", packed.substr(0, packed.size() - 6));
  expect_error(cut, y, cut, "truncated gzip data");
  Bytes flipped = packed;
  flipped[flipped.size() - 6] = static_cast<char>(flipped[flipped.size() - 6] ^ 0x55);  // in the checksum
  const fs::path damaged = write("damaged.gz", flipped);
  expect_error(damaged, y, damaged, "damaged gzip data");
}

TEST_F(Idx, FactoryFindsFashionMnistUnderTheRoot) {
  fs::create_directories(folder_ / "fashion-mnist");
  write_gzip("fashion-mnist/train-images-idx3-ubyte.gz", images());
  write_gzip("fashion-mnist/train-labels-idx1-ubyte.gz", labels());
  write("fashion-mnist/t10k-images-idx3-ubyte", images());
  write("fashion-mnist/t10k-labels-idx1-ubyte", labels());
  const DataSourceConfig fashion("fashion_mnist", FashionMnistSource{});
  EXPECT_EQ(open_source(fashion, {.root = folder_})->size(), 3);
  EXPECT_EQ(open_source(fashion, {.position = DataSplit::test, .root = folder_})->size(), 3);
  IdxSource idx;
  idx.images = "fashion-mnist/t10k-images-idx3-ubyte";
  idx.labels = (folder_ / "fashion-mnist/t10k-labels-idx1-ubyte").string();
  idx.samples = 1;
  EXPECT_EQ(open_source(DataSourceConfig("idx", idx), {.root = folder_})->size(), 1);
}

TEST(DataRoot, ComesFromTheEnvironment) {
  const char* before = std::getenv("VARSCOPE_DATA");
  const std::string kept = before == nullptr ? "" : before;
  setenv("VARSCOPE_DATA", "/somewhere", 1);
  EXPECT_EQ(data_root(), fs::path("/somewhere"));
  unsetenv("VARSCOPE_DATA");
  EXPECT_EQ(data_root(), fs::path("data"));
  if (before != nullptr) setenv("VARSCOPE_DATA", kept.c_str(), 1);
}

}  // namespace
}  // namespace varscope
