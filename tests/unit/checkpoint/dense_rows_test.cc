// Rows of tables for dense variables, and the other way, as warm starts take them.
#include "checkpoint/restore/dense_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "checkpoint/restore/warm_start.h"
#include "tests/support/references/table_fixture.h"

namespace varscope {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::make_table;
using testing::make_variable;
using testing::SavedTables;
using testing::TableModel;
using testing::TableRows;

constexpr std::int64_t kRows = 50, kUnits = 7;
constexpr std::uint64_t kSeed = 21;

// Every third id of 0 .. 49 has a row, whose values say where they stand.
TableModel with_some_rows(DType dtype = DType::float32) {
  TableRows table(make_table("user/embeddings", dtype, kUnits, {IdType::int64, 8}), {{"m", kUnits}});
  for (std::uint64_t id = 0; id < kRows; id += 3) {
    table.add(id);
    for (std::int64_t c = 0; c < kUnits; ++c) {
      const auto value = static_cast<double>(id) * 10 + static_cast<double>(c);
      dtype == DType::float64 ? table.set(id, static_cast<std::size_t>(c), value)
                              : table.set(id, static_cast<std::size_t>(c), static_cast<float>(value));
    }
  }
  return {{make_variable("w", DType::float32, {4, 3})}, {table}, 1};
}

Slice box(std::int64_t row, std::int64_t column, std::int64_t rows, std::int64_t columns) {
  return {Shape{kRows, kUnits}, Shape{row, column}, Shape{rows, columns}};
}

// What a dense variable that starts from it must have.
template <class T>
std::vector<T> expected_values(const VariableSpec& table) {
  std::vector<T> all(kRows * kUnits);
  const InitialValues first = table.initial_values(kSeed);
  for (std::int64_t id = 0; id < kRows; ++id) {
    T* row = all.data() + id * kUnits;
    VariableSpec::fill_row(TensorView(table.dtype, Shape{kUnits}, reinterpret_cast<std::byte*>(row)), first,
                           static_cast<std::uint64_t>(id));
    for (std::int64_t c = 0; id % 3 == 0 && c < kUnits; ++c) row[c] = static_cast<T>(id * 10 + c);
  }
  return all;
}

template <class T>
void expect_boxes(DType dtype, const std::vector<Slice>& boxes) {
  const TableModel model = with_some_rows(dtype);
  SavedTables saved(model, 3);
  CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  std::vector<Tensor> memory;
  std::vector<DenseBox> to;
  for (const Slice& b : boxes) memory.emplace_back(dtype, b.extent);
  for (std::size_t i = 0; i < boxes.size(); ++i) to.push_back({boxes[i], memory[i].view()});
  read_table_as_dense(reader, "user/embeddings", "dense", kSeed, to);
  const std::vector<T> expected = expected_values<T>(model.tables[0].variable);
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    const Slice& b = boxes[i];
    const auto values = memory[i].as<T>();
    for (std::int64_t r = 0; r < b.extent[0]; ++r) {
      for (std::int64_t c = 0; c < b.extent[1]; ++c)
        EXPECT_EQ(values[static_cast<std::size_t>(r * b.extent[1] + c)],
                  expected[static_cast<std::size_t>((b.offset[0] + r) * kUnits + b.offset[1] + c)])
            << "row " << b.offset[0] + r << ", column " << b.offset[1] + c;
    }
  }
}

TEST(DenseRows, AreThoseOfTheIdsAndElseFirstValues) {
  expect_boxes<float>(DType::float32, {box(0, 0, kRows, kUnits)});
  expect_boxes<double>(DType::float64, {box(0, 0, kRows, kUnits)});
}

TEST(DenseRows, GoToAnyBoxes) {
  // Bands out of order, with rows that are on other servers between them.
  expect_boxes<float>(DType::float32, {box(30, 0, 7, kUnits), box(0, 0, 13, kUnits), box(49, 0, 1, kUnits)});
  // Parts by columns, each cut by rows; rows in pieces.
  expect_boxes<float>(DType::float32, {box(0, 0, 20, 4), box(20, 0, 30, 4), box(0, 4, 50, 3)});
  expect_boxes<float>(DType::float32, {box(9, 0, 1, 5), box(9, 5, 1, 2), box(10, 0, 1, 5)});
}

TEST(DenseRows, RefusesIdsThatAreNoRows) {
  const auto words_with = [](std::initializer_list<std::uint64_t> ids) {
    TableModel model = with_some_rows();
    for (const std::uint64_t id : ids) model.tables[0].add(id);
    SavedTables saved(model, 2);
    CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
    Tensor memory(DType::float32, Shape{1, kUnits});
    const DenseBox one{box(0, 0, 1, kUnits), memory.view()};  // another server has the others
    std::string words =
        error_of([&] { read_table_as_dense(reader, "user/embeddings", "d/w", 1, std::span(&one, 1)); });
    const std::size_t at = words.find(saved.path);
    return at == std::string::npos ? words : words.replace(at, saved.path.size(), "PATH");
  };
  EXPECT_EQ(
      words_with({50}),
      "checkpoint: table \"user/embeddings\" of checkpoint PATH has 1 row that variable \"d/w\" has not, "
      "which is dense with rows 0 to 49; the first is 50: give it more rows, make it a table, or leave it "
      "out of warm_start.map");
  EXPECT_THAT(
      words_with({1000, static_cast<std::uint64_t>(-1), 77}),
      HasSubstr("has 3 rows that variable \"d/w\" has not, which is dense with rows 0 to 49; the first "
                "is 77: "));
  EXPECT_THAT(words_with({static_cast<std::uint64_t>(-7)}), HasSubstr("the first is -7: "));
}

// A dense variable as it was saved, whole or in two parts along an axis.
std::vector<VariableSpec> dense_in_parts(int axis) {
  VariableSpec whole = make_variable("d/w", DType::float32, {kRows, kUnits});
  if (axis < 0) return {whole};
  std::vector<VariableSpec> parts(2, whole);
  const Shape cut = axis == 0 ? Shape{20, kUnits} : Shape{kRows, 3};
  for (int i = 0; i < 2; ++i) {
    VariableSpec& p = parts[static_cast<std::size_t>(i)];
    p.name = i == 0 ? "d/w/part_0" : "d/w/part_1";
    p.part = {"d/w", whole.shape, Shape{0, 0}, i, 2};
    p.shape = cut;
    if (i == 0) continue;
    p.part.offset = axis == 0 ? Shape{20, 0} : Shape{0, 3};
    p.shape = axis == 0 ? Shape{kRows - 20, kUnits} : Shape{kRows, kUnits - 3};
  }
  return parts;
}

TEST(DenseRows, BecomeRowsOfTheServersThatOwnThem) {
  for (const int axis : {-1, 0, 1}) {
    const testing::Model model{VariableTable(dense_in_parts(axis)), {"m"}, 4};
    testing::Saved saved{model, 2, 5};
    CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
    Tensor whole(DType::float32, Shape{kRows, kUnits});
    reader.read("d/w", "", box(0, 0, kRows, kUnits), whole.view());
    for (const int servers : {1, 2, 3}) {
      const VariableTable wanted({make_table("t", DType::float32, kUnits, {IdType::uint64, 4})});
      const RowPlan plan = RowPlan::make(wanted, servers);
      const RowPlan::Table& table = plan[TableId(0)];
      std::map<std::uint64_t, std::vector<float>> rows;
      for (int s = 0; s < servers; ++s) {
        read_dense_as_rows(reader, table, "d/w", ServerId(s), [&](std::uint64_t id, const std::byte* values) {
          EXPECT_EQ(table.server_of(id), ServerId(s));
          const auto* v = reinterpret_cast<const float*>(values);
          EXPECT_TRUE(rows.emplace(id, std::vector<float>(v, v + kUnits)).second) << id;
        });
      }
      ASSERT_EQ(rows.size(), static_cast<std::size_t>(kRows));
      for (const auto& [id, row] : rows) {
        const auto expected = whole.as<float>().subspan(static_cast<std::size_t>(id) * kUnits, kUnits);
        EXPECT_TRUE(std::ranges::equal(row, expected)) << id;
      }
    }
  }
}

TEST(DenseRows, OfMoreThanOneBand) {
  const std::int64_t n = 30'000, units = 20;
  const testing::Model model{VariableTable({make_variable("big", DType::float32, {n, units})}), {}, 4};
  testing::Saved saved{model, 1, 5};
  CheckpointReader reader = CheckpointReader::open(saved.fs, saved.path);
  const VariableTable wanted({make_table("t", DType::float32, units, {IdType::int64, 4})});
  const RowPlan plan = RowPlan::make(wanted, 1);
  const auto all = model.value("big").as<float>();
  std::uint64_t next = 0;
  read_dense_as_rows(
      reader, plan[TableId(0)], "big", ServerId(0), [&](std::uint64_t id, const std::byte* row) {
        ASSERT_EQ(id, next++);
        ASSERT_EQ(
            std::memcmp(row, std::as_bytes(all).data() + id * units * sizeof(float), units * sizeof(float)),
            0)
            << id;
      });
  EXPECT_EQ(next, static_cast<std::uint64_t>(n));
}

std::string warm_words(const VariableSpec& saved, const VariableSpec& wanted) {
  Manifest m;
  m.variables = VariableTable({saved});
  const std::string words = error_of([&] { WarmStart("c", m, VariableTable({wanted}), AssignmentMap()); });
  const std::size_t begin = words.find("  "), end = words.find("\nnothing was assigned");
  return end == std::string::npos ? words : words.substr(begin + 2, end - begin - 2);
}

TEST(DenseRows, FitATableOfAsManyUnits) {
  const auto table = [](std::int64_t units, IdType ids = IdType::int64, DType dtype = DType::float32) {
    return make_table("w", dtype, units, {ids, 8});
  };
  const auto dense = [](std::initializer_list<std::int64_t> shape) {
    return make_variable("w", DType::float32, shape);
  };
  const std::string none = "no error";
  EXPECT_EQ(warm_words(dense({9, 4}), table(4)), none);
  EXPECT_EQ(warm_words(table(4, IdType::uint64), dense({9, 4})), none);
  EXPECT_EQ(warm_words(dense({9, 5}), table(4)),
            "variable \"w\" has shape [9, 5] in the checkpoint and is a table of 4 units in the model");
  EXPECT_EQ(warm_words(table(3), dense({3})),
            "variable \"w\" is a table of 3 units in the checkpoint and has shape [3] in the model");
  EXPECT_EQ(warm_words(table(3), table(4)),
            "variable \"w\" has 3 units in the checkpoint and 4 in the model");
  EXPECT_EQ(warm_words(dense({9, 4}), table(4, IdType::int64, DType::float64)),
            "variable \"w\" is float32 in the checkpoint and float64 in the model");
  EXPECT_EQ(
      warm_words(dense({9, 4}), table(4, IdType::string)),
      "variable \"w\" is no table in the checkpoint and is a table of string ids in the model, and rows of "
      "texts have no numbers");
  EXPECT_EQ(
      warm_words(table(4, IdType::string), dense({9, 4})),
      "variable \"w\" is a table of string ids in the checkpoint and is no table in the model, and rows of "
      "texts have no numbers");
}

}  // namespace
}  // namespace varscope
