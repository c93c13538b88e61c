#include "common/placement/bucket_plan.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <tuple>

#include "common/variables/placement.h"
#include "tests/support/references/plan_checks.h"

namespace varscope {
namespace {

using testing::make_spec;
using testing::mlp_table;

VariableTable mixed_table() {
  return VariableTable(
      {make_spec("step", DType::int64, Shape{}, Initializer::constant(0), false),
       make_spec("a/w", DType::float32, Shape{300, 200}), make_spec("a/b", DType::float32, Shape{200}),
       make_spec("a/frozen", DType::float32, Shape{9}, Initializer::constant(1), false),
       make_spec("a/double", DType::float64, Shape{5000}), make_spec("empty/w", DType::float32, Shape{0, 4}),
       make_spec("a/inner/w", DType::float32, Shape{7, 7})});
}

TEST(BucketPlan, HoldsEverySliceOnceWithItsOwner) {
  const VariableTable variables = mixed_table();
  for (int n_servers : {1, 2, 3, 5, 50}) {
    const BucketPlan plan = BucketPlan::make(variables, n_servers);
    std::map<std::pair<int, std::int64_t>, ServerId> seen;
    for (const Bucket& b : plan.buckets()) {
      std::int64_t next = 0;
      for (const BucketSlice& s : b.slices) {
        const VariableSpec& v = variables[static_cast<std::size_t>(s.variable)];
        EXPECT_EQ(v.scope, b.scope);
        EXPECT_EQ(v.dtype, b.dtype);
        EXPECT_EQ(v.trainable, b.trainable);
        EXPECT_EQ(s.bucket_begin, next);  // contiguous, without gaps
        next += s.n_elements;
        EXPECT_EQ(s.variable_begin, s.box.linear_begin());
        EXPECT_EQ(s.n_elements, s.box.n_elements());
        EXPECT_EQ(s.box, slice_variable(v.shape, v.dtype)[static_cast<std::size_t>(s.index)]);
        EXPECT_EQ(Placement::owner(v.scope, s.index, n_servers), b.server);
        EXPECT_TRUE(seen.emplace(std::pair(s.variable, s.index), b.server).second)
            << v.name << " " << s.index;
      }
      EXPECT_EQ(next, b.n_elements);
      EXPECT_GT(b.n_elements, 0);
    }
    std::size_t n_slices = 0;
    for (const VariableSpec& v : variables.variables()) n_slices += slice_variable(v.shape, v.dtype).size();
    EXPECT_EQ(seen.size(), n_slices) << n_servers;
  }
}

TEST(BucketPlan, OneBucketPerScopeServerDTypeAndTrainability) {
  for (int n_servers : {1, 3}) {
    std::set<std::tuple<std::string, int, DType, bool>> keys;
    const BucketPlan plan = BucketPlan::make(mixed_table(), n_servers);
    for (const Bucket& b : plan.buckets()) {
      EXPECT_TRUE(keys.emplace(b.scope, b.server.value, b.dtype, b.trainable).second);
    }
  }
  EXPECT_EQ(BucketPlan::make(mixed_table(), 1).size(), 5);
}

TEST(BucketPlan, IdsAreTheirPositions) {
  const BucketPlan plan = BucketPlan::make(mlp_table(), 3);
  for (int i = 0; i < plan.size(); ++i) {
    EXPECT_EQ(plan[BucketId(i)].id, BucketId(i));
  }
}

TEST(BucketPlan, IsTheSameEveryTime) {
  const BucketPlan a = BucketPlan::make(mixed_table(), 3), b = BucketPlan::make(mixed_table(), 3);
  ASSERT_EQ(a.size(), b.size());
  for (int i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[BucketId(i)].scope, b[BucketId(i)].scope);
    EXPECT_EQ(a[BucketId(i)].server, b[BucketId(i)].server);
    EXPECT_EQ(a[BucketId(i)].n_elements, b[BucketId(i)].n_elements);
  }
}

TEST(BucketPlan, KnowsBucketsOfServersAndVariables) {
  const VariableTable variables = mlp_table();
  const BucketPlan plan = BucketPlan::make(variables, 3);
  int n = 0;
  for (int s = 0; s < 3; ++s) {
    for (BucketId id : plan.of_server(ServerId(s))) {
      EXPECT_EQ(plan[id].server, ServerId(s));
      ++n;
    }
  }
  EXPECT_EQ(n, plan.size());
  for (std::size_t v = 0; v < variables.size(); ++v) {
    std::set<int> expected;
    for (const Bucket& b : plan.buckets()) {
      for (const BucketSlice& s : b.slices) {
        if (s.variable == static_cast<int>(v)) expected.insert(b.id.value);
      }
    }
    std::set<int> got;
    for (BucketId id : plan.of_variable(static_cast<int>(v))) EXPECT_TRUE(got.insert(id.value).second);
    EXPECT_EQ(got, expected) << variables[v].name;
  }
}

TEST(BucketPlan, BytesAddUp) {
  for (const VariableTable& variables : {mlp_table(), mixed_table()}) {
    for (int n_servers : {1, 2, 3, 8}) {
      const BucketPlan plan = BucketPlan::make(variables, n_servers);
      std::int64_t sum = 0;
      for (int s = 0; s < n_servers; ++s) sum += plan.server_bytes(ServerId(s));
      EXPECT_EQ(sum, variables.n_bytes());
    }
  }
}

TEST(BucketPlan, AnEmptyVariableHasNoBucket) {
  const VariableTable variables({make_spec("w", DType::float32, Shape{0})});
  const BucketPlan plan = BucketPlan::make(variables, 2);
  EXPECT_EQ(plan.size(), 0);
  EXPECT_TRUE(plan.of_variable(0).empty());
}

TEST(Bucket, ChunksAtTheBoundary) {
  Bucket b;
  b.dtype = DType::float32;
  constexpr std::int64_t kPerChunk = kWireChunkBytes / 4;
  for (const auto& [n_elements, n_chunks] : {std::pair<std::int64_t, int>{0, 0},
                                             {1, 1},
                                             {kPerChunk - 1, 1},
                                             {kPerChunk, 1},
                                             {kPerChunk + 1, 2},
                                             {2 * kPerChunk, 2},
                                             {2 * kPerChunk + 1, 3}}) {
    b.n_elements = n_elements;
    EXPECT_EQ(b.n_wire_chunks(), n_chunks) << n_elements;
  }
}

TEST(Bucket, WireChunksCoverItWithoutGaps) {
  for (const DType dtype : {DType::float32, DType::float64}) {
    const auto item = static_cast<std::int64_t>(size_of(dtype));
    for (const std::int64_t n_bytes : {item, kWireChunkBytes, kWireChunkBytes + item, 3 * kWireChunkBytes}) {
      Bucket b;
      b.dtype = dtype;
      b.n_elements = n_bytes / item;
      std::int64_t bytes = 0, elements = 0;
      for (int i = 0; i < b.n_wire_chunks(); ++i) {
        const WireChunk chunk = b.wire_chunk(i);
        EXPECT_EQ(chunk.begin, bytes);
        EXPECT_EQ(chunk.first_element, elements);
        EXPECT_EQ(chunk.n_bytes, chunk.n_elements * item);
        EXPECT_LE(chunk.n_bytes, kWireChunkBytes);
        EXPECT_GT(chunk.n_bytes, 0);
        bytes += chunk.n_bytes;
        elements += chunk.n_elements;
      }
      EXPECT_EQ(bytes, n_bytes);
      EXPECT_EQ(elements, b.n_elements);
    }
  }
}

TEST(BucketPlan, ChunksOfWholeSlicesCutNone) {
  const VariableTable variables({make_spec("a/w", DType::float32, Shape{3000, 1000}),
                                 make_spec("a/b", DType::float32, Shape{1000}),
                                 make_spec("a/wide", DType::float64, Shape{9, 40000})});
  for (int n_servers : {1, 2, 3}) {
    const BucketPlan plan = BucketPlan::make(variables, n_servers, ChunkRule::whole_slices);
    for (const Bucket& b : plan.buckets()) {
      std::set<std::int64_t> ends;
      for (const BucketSlice& s : b.slices) ends.insert(s.bucket_begin + s.n_elements);
      std::int64_t next = 0;
      for (int i = 0; i < b.n_wire_chunks(); ++i) {
        const WireChunk chunk = b.wire_chunk(i);
        EXPECT_EQ(chunk.first_element, next);
        next += chunk.n_elements;
        EXPECT_TRUE(ends.contains(next)) << b.scope << " chunk " << i;
        EXPECT_EQ(chunk.n_bytes, chunk.n_elements * static_cast<std::int64_t>(size_of(b.dtype)));
        EXPECT_LE(chunk.n_bytes, b.largest_chunk_bytes());
        EXPECT_LE(chunk.n_bytes, kMaxSliceBytes);
      }
      EXPECT_EQ(next, b.n_elements);
    }
  }
}

}  // namespace
}  // namespace varscope
