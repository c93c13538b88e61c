#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include <nlohmann/json.hpp>

#include "checkpoint/format/boxes.h"
#include "checkpoint/format/manifest.h"
#include "checkpoint/storage/archive.h"
#include "common/base/serialize.h"
#include "tests/support/references/checkpoint_fixture.h"

namespace varscope {
namespace {

using testing::error_of;
using ::testing::HasSubstr;
using testing::make_manifest;
using testing::make_variable;
using testing::Model;
using testing::small_model;
using testing::TempDir;
using testing::tiny_model;

// A whole manifest of a saved model, as commit() would complete it.
Manifest saved_manifest(const testing::Model& model, int servers = 2) {
  TempDir dir;
  PosixFs fs;
  Manifest m = make_manifest(model, 7, servers);
  m.id = "id-7";
  m.unix_time = 1'700'000'000;
  for (int s = 0; s < servers; ++s)
    add_report(m, testing::write_part(fs, dir.path(), model, 7, s, servers, m.id));
  m.values_hash = values_hash_1_of(m);
  return m;
}

TEST(Manifest, RoundTrips) {
  const Manifest m = saved_manifest(small_model(1), 3);
  const std::string bytes = encode_manifest(m);
  const Manifest back = decode_manifest(bytes, "MANIFEST");
  EXPECT_EQ(encode_manifest(back), bytes);
  EXPECT_EQ(back.files, m.files);
  EXPECT_EQ(back.tensors, m.tensors);
  EXPECT_EQ(back.worker_clocks, m.worker_clocks);
  EXPECT_EQ(back.variables.digest(), m.variables.digest());
  EXPECT_EQ(back.coordinator_state, "epoch 3");
  EXPECT_EQ(values_hash_of(back), testing::values_hash_of(small_model(1)));
}

TEST(Manifest, TellsWhoMadeIt) {
  Manifest m = saved_manifest(tiny_model(1), 1);
  EXPECT_EQ(made_by(m), Provenance::run);
  for (const Provenance p : {Provenance::saver, Provenance::import}) {
    m.run_id = run_id_of(p);
    EXPECT_EQ(made_by(decode_manifest(encode_manifest(m), "MANIFEST")), p) << m.run_id;
  }
  EXPECT_EQ(run_id_of(Provenance::saver), "saver");  // as checkpoints on disk have it
  EXPECT_EQ(run_id_of(Provenance::import), "import");
  EXPECT_THAT(error_of([] { run_id_of(Provenance::run); }), HasSubstr("the id of a run"));
}

TEST(Manifest, HashOfTheValuesDoesNotDependOnServersOrSlots) {
  const Digest one = values_hash_of(saved_manifest(small_model(1), 1));
  EXPECT_EQ(values_hash_of(saved_manifest(small_model(1), 8)), one);
  EXPECT_NE(values_hash_of(saved_manifest(small_model(2), 1)), one);
}

TEST(Manifest, ReportSurvivesTheNetwork) {
  TempDir dir;
  PosixFs fs;
  const ShardReport report = testing::write_part(fs, dir.path(), small_model(1), 7, 1, 2, "id");
  const auto back = from_binary<ShardReport>(to_binary(report), "a report");
  EXPECT_EQ(back.server, 1);
  EXPECT_EQ(back.worker_clocks, report.worker_clocks);
  EXPECT_EQ(back.file, report.file);
  EXPECT_EQ(back.tensors, report.tensors);
}

TEST(Manifest, RefusesReportsOfAnotherState) {
  Manifest m = make_manifest(tiny_model(1), 7, 2);
  m.id = "id-7";
  ShardReport report;
  report.server = 1;
  report.step = 7;
  report.worker_clocks = {7, 6};
  EXPECT_EQ(error_of([&] { add_report(m, report); }),
            "checkpoint: checkpoint id-7: server 1 cut at step 7 with worker clocks [7, 6], the coordinator "
            "at step 7 with [7, 7]; the servers are not of one state");
  report.worker_clocks = {7, 7};
  report.file.name = "shard";
  add_report(m, report);
  EXPECT_EQ(error_of([&] { add_report(m, report); }), "checkpoint: checkpoint id-7: two reports of shard");
  report.step = 8;
  EXPECT_THAT(error_of([&] { add_report(m, report); }), HasSubstr("cut at step 8"));
}

TEST(Manifest, JsonHasTheByteRanges) {
  const Manifest m = saved_manifest(small_model(1), 2);
  const nlohmann::json json = nlohmann::json::parse(to_json(m));
  EXPECT_EQ(json["step"], 7);
  EXPECT_EQ(json["format"], "1.2");
  EXPECT_EQ(json["values_hash"], values_hash_of(m).hex());
  EXPECT_EQ(json["cut"], (std::vector<int>{7, 7}));  // the worker clocks; older programs read this key
  EXPECT_EQ(json["files"][0]["chunk_bytes"], kCrcBlockBytes);  // and this one
  ASSERT_EQ(json["tensors"].size(), m.tensors.size());
  EXPECT_EQ(json["tensors"][0]["bytes"][0], m.tensors[0].begin);
  EXPECT_EQ(json["tensors"][0]["bytes"][1], m.tensors[0].end);
  EXPECT_EQ(json["tensors"][0]["file"], m.files[m.tensors[0].file].name);
  EXPECT_EQ(json["files"][1]["crc32c"][0], m.files[1].crc32c[0]);
  EXPECT_EQ(json["variables"][0]["shape"], (std::vector<int>{90, 61}));
}

TEST(Manifest, EveryFlippedBitIsDetected) {
  const std::string good = encode_manifest(saved_manifest(tiny_model(1), 1));
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
    EXPECT_THROW(decode_manifest(bad, "MANIFEST"), Error) << "byte " << i;
  }
  for (std::size_t n = 0; n < good.size(); ++n) EXPECT_THROW(decode_manifest(good.substr(0, n), "M"), Error);
}

struct Damage {
  const char* words;
  std::function<void(Manifest&)> apply;
};

TEST(Manifest, NothingThatDoesNotHoldTogetherIsAccepted) {
  const std::vector<Damage> damages = {
      {"big-endian machine", [](Manifest& m) { m.endianness = "big"; }},
      {"negative step -1", [](Manifest& m) { m.step = -1; }},
      {"has 0 servers", [](Manifest& m) { m.servers = 0; }},
      {"2 workers but the clocks of 1", [](Manifest& m) { m.worker_clocks.pop_back(); }},
      {"names a file \"../x\"", [](Manifest& m) { m.files[0].name = "../x"; }},
      {"names a file \"..\"", [](Manifest& m) { m.files[0].name = ".."; }},
      {"names a file \"MANIFEST\"", [](Manifest& m) { m.files[0].name = "MANIFEST"; }},
      {"names a file \"\"", [](Manifest& m) { m.files[0].name.clear(); }},
      {"names the file shard-00000-of-00002.safetensors twice",
       [](Manifest& m) { m.files[1].name = m.files[0].name; }},
      {"has no shard-00001-of-00002.safetensors", [](Manifest& m) { m.files[1].name = "other"; }},
      {"CRC blocks of 0 bytes", [](Manifest& m) { m.files[0].crc_block_bytes = 0; }},
      {"2 checksums for the 1 CRC blocks", [](Manifest& m) { m.files[0].crc32c.push_back(0); }},
      {"checksums for the", [](Manifest& m) { m.files[0].size = ~std::uint64_t{0}; }},
      {"unknown variable \"x\"", [](Manifest& m) { m.tensors[0].variable = "x"; }},
      {"unknown slot \"v\"", [](Manifest& m) { m.tensors[0].slot = "v"; }},
      {"into file 2 of 2", [](Manifest& m) { m.tensors[0].file = 2; }},
      {"of shard-", [](Manifest& m) { m.tensors[0].begin = m.tensors[0].end + 1; }},
      {"of shard-", [](Manifest& m) { m.tensors[0].end = ~std::uint64_t{0}; }},
      {"bytes for", [](Manifest& m) { m.tensors[0].end -= 4; }},
      {"as int32, the variable is float32", [](Manifest& m) { m.tensors[0].dtype = DType::int32; }},
      {"malformed", [](Manifest& m) { m.tensors[0].box = "90 61 0,x:0,61"; }},
      {"a box of shape [91, 61]", [](Manifest& m) { m.tensors[0].box = "91 61 0,1:0,61"; }},
      {"an empty box", [](Manifest& m) { m.tensors[0].box = "90 61 0,0:0,61"; }},
      {"numbers the slices", [](Manifest& m) { m.tensors[0].slice = 77; }},
      {"is not whole: variable \"hidden/weights\"",
       [](Manifest& m) {
         const auto last = index_tensors(m).at({"hidden/weights", ""}).back();
         m.tensors.erase(m.tensors.begin() + static_cast<std::ptrdiff_t>(last));
       }},
      {"it has no values of variable \"counts\"",
       [](Manifest& m) {
         std::erase_if(m.tensors, [](const TensorRecord& t) { return t.variable == "counts"; });
       }},
      {"it has no slot \"m\" of variable \"scale\"",
       [](Manifest& m) {
         std::erase_if(m.tensors,
                       [](const TensorRecord& t) { return t.variable == "scale" && t.slot == "m"; });
       }},
      {"into the same bytes",
       [](Manifest& m) {
         for (TensorRecord& t : m.tensors) {
           if (t.slot != "m" || t.variable != "scale") continue;
           const TensorRecord& value = m.tensors[index_tensors(m).at({"scale", ""})[0]];
           t.begin = value.begin;
           t.end = value.end;
         }
       }},
      {"hash of the values",
       [](Manifest& m) { m.tensors[0].digest.bytes[0] ^= 1, m.values_hash.bytes[0] ^= 1; }},
      {"of shape [?]",
       [](Manifest& m) {
         auto variables = m.variables.variables();
         variables.push_back(make_variable("u", DType::float32, Shape(std::vector<std::int64_t>{-1})));
         m.variables = VariableTable(variables);
       }},
  };
  const Manifest good = saved_manifest(small_model(1), 2);
  ASSERT_EQ(error_of([&] { decode_manifest(encode_manifest(good), "M"); }), "no error");
  for (const Damage& damage : damages) {
    Manifest bad = good;
    damage.apply(bad);
    const std::string words = error_of([&] { decode_manifest(encode_manifest(bad), "dir/MANIFEST"); });
    EXPECT_THAT(words, HasSubstr(damage.words));
    EXPECT_TRUE(words.starts_with("checkpoint: dir/MANIFEST ")) << words;
  }
}

// Written by varscope 0.1.0 before format 1.1: VariableSpec had class version 0.
constexpr std::string_view kManifest10 =
    "22 serialization::archive 18 1 0 5 0.1.0 14 000000007-ab-0 0  5 run-7 1 1700000000 2 00 "
    "6 little 3 bsp 7 1 0 7 1 1 1 0 0 0 0 2 0 0 0 8 hidden/w 6 hidden 1 1 0 2 0 0 0 "
    "5.00000000000000000e-01 0.00000000000000000e+00 1 5 steps 0  4 0 0 0 "
    "0.00000000000000000e+00 0.00000000000000000e+00 0 8 momentum 0 0 1 0 8 momentum 0 0 1 0 "
    "32 shard-00000-of-00001.safetensors 4120 1048576 1 0 0 0 0 153 170 6 211 1 71 152 216 96 "
    "1 195 36 70 141 73 127 0 0 3 0 8 hidden/w 0  0 1 5 2 0,2 0 4096 4104 69 51 206 97 196 "
    "101 91 163 195 224 119 178 93 209 215 105 8 hidden/w 8 momentum 0 1 5 2 0,2 0 4104 4112 "
    "44 10 138 153 220 20 125 84 69 195 180 157 3 86 101 178 5 steps 0  0 4 0  0 4112 4120 "
    "187 111 65 73 182 42 50 182 230 25 205 234 228 164 160 244 1 x 211 129 198 145 191 26 "
    "219 139 36 176 55 7 11 23 85 225";

TEST(Manifest, Format10IsRead) {
  const Manifest m = decode_manifest(
      seal(kManifestMagic, kManifest10, {.major = 1, .minor = 0, .min_reader = "0.1.0"}), "M");
  EXPECT_EQ(m.format_minor, 0);
  EXPECT_EQ(m.step, 7);
  ASSERT_EQ(m.variables.size(), 2U);
  const VariableSpec &w = m.variables[0], &steps = m.variables[1];
  EXPECT_EQ(w.name, "hidden/w");
  EXPECT_EQ(w.scope, "hidden");
  EXPECT_EQ(w.shape, Shape{2});
  EXPECT_EQ(w.initializer.str(), Initializer::constant(0.5).str());
  EXPECT_TRUE(w.trainable);
  EXPECT_EQ(steps.dtype, DType::int64);
  for (const VariableSpec& v : m.variables.variables()) {
    EXPECT_FALSE(v.is_part() || v.is_average() || v.constraint.exists());
    EXPECT_EQ(v.full_name(), v.name);
  }
  EXPECT_EQ(m.tensors[1].slot, "momentum");
  EXPECT_EQ(m.coordinator_state, "x");
}

TEST(Manifest, CarriesPartsAveragesAndConstraints) {
  VariableSpec part = make_variable("w/part_0", DType::float32, {4, 3}),
               mean = make_variable("m", DType::float32, {2}, false);
  part.part = {"w", Shape{4, 3}, Shape{0, 0}, 0, 1};
  part.constraint = Constraint::max_norm(3);
  mean.average_decay = 0.75;
  const Model model(VariableTable({part, mean}), {"m"}, 1);
  const Manifest m = decode_manifest(encode_manifest(saved_manifest(model, 2)), "M");
  const VariableSpec &p = m.variables[0], &a = m.variables[1];
  EXPECT_EQ(p.full_name(), "w");
  EXPECT_EQ(p.part.full_shape, (Shape{4, 3}));
  EXPECT_EQ(p.constraint, Constraint::max_norm(3));
  EXPECT_EQ(a.average_decay, 0.75);
  const nlohmann::json json = nlohmann::json::parse(to_json(m));
  const auto& v = json["variables"];
  EXPECT_EQ(v[0]["part"]["full_name"], "w");
  EXPECT_EQ(v[0]["part"]["full_shape"], (std::vector<int>{4, 3}));
  EXPECT_EQ(v[0]["part"]["offset"], (std::vector<int>{0, 0}));
  EXPECT_EQ(v[0]["constraint"], "max_norm(3)");
  EXPECT_EQ(v[1]["average_decay"], 0.75);
  EXPECT_FALSE(v[1].contains("part"));
}

TEST(Manifest, PartsMustMakeAWhole) {
  const auto error = [](const std::function<void(VariableSpec&, VariableSpec&)>& change) {
    VariableSpec a = make_variable("w/part_0", DType::float32, {4, 3}),
                 b = make_variable("w/part_1", DType::float32, {2, 3});
    a.part = {"w", Shape{6, 3}, Shape{0, 0}, 0, 2};
    b.part = {"w", Shape{6, 3}, Shape{4, 0}, 1, 2};
    Manifest m = saved_manifest(Model(VariableTable({a, b}), {}, 1), 1);
    change(a, b);
    m.variables = VariableTable({a, b});
    return error_of([&] { decode_manifest(encode_manifest(m), "M"); });
  };
  EXPECT_EQ(error([](auto&, auto&) {}), "no error");
  const std::string odd = "checkpoint: M has the part \"w/part_1\" (1 of 2) of shape [2, 3] at ";
  EXPECT_EQ(error([](auto&, auto& b) {
              b.part.offset = Shape{5, 0};
            }),
            odd + "[5, 0] of \"w\", which has [6, 3]");
  EXPECT_EQ(error([](auto&, auto& b) { b.part.offset = Shape{4}; }), odd + "[4] of \"w\", which has [6, 3]");
  EXPECT_EQ(error([](auto&, auto& b) {
              b.part.offset = Shape{-1, 0};
            }),
            odd + "[?, 0] of \"w\", which has [6, 3]");
  EXPECT_EQ(error([](auto&, auto& b) { b.part.full_shape = Shape{6}; }),
            odd + "[4, 0] of \"w\", which has [6]");
  EXPECT_NE(error([](auto&, auto& b) { b.part.index = 2; }), "no error");
  EXPECT_EQ(error([](auto&, auto& b) {
              b.part.full_shape = Shape{7, 3};
            }),
            "checkpoint: M has parts of \"w\" that disagree on its shape or dtype");
  EXPECT_THAT(error([](auto&, auto& b) {
                b.part.offset = Shape{3, 0};
              }),
              HasSubstr("is not whole: variable \"w\", by its parts, has overlapping slices"));
  EXPECT_EQ(error([](auto& a, auto& b) {
              a.part.full_shape = b.part.full_shape = Shape{7, 3};
            }),
            "checkpoint: M is not whole: variable \"w\", by its parts, has a hole: 3 of its 21 elements are "
            "in no slice");
}

TEST(Manifest, NewerFormats) {
  const std::string payload = to_disk_text(saved_manifest(tiny_model(1), 1));
  const std::string minor = seal(kManifestMagic, payload + " 17 more fields", {.major = 1, .minor = 3});
  EXPECT_EQ(decode_manifest(minor, "M").step, 7);
  const std::string major = seal(kManifestMagic, "whatever", {.major = 4, .minor = 0, .min_reader = "2.0.0"});
  EXPECT_EQ(error_of([&] { decode_manifest(major, "M"); }),
            "checkpoint: M has format 4 and needs varscope >= 2.0.0");
}

TEST(BoundedArchive, ChecksCountsBeforeAllocating) {
  const std::string numbers = to_disk_text(std::vector<std::int64_t>{1, 2, 3});
  EXPECT_EQ(from_disk_text<std::vector<std::int64_t>>(numbers, "f"), (std::vector<std::int64_t>{1, 2, 3}));
  std::string hostile = numbers;
  hostile.replace(hostile.find(" 3 "), 3, " 3000000000000 ");
  EXPECT_THAT(error_of([&] { from_disk_text<std::vector<std::int64_t>>(hostile, "f"); }),
              HasSubstr("checkpoint: f cannot be read: 3000000000000 items are announced where only"));
  std::string text = to_disk_text(std::string("abc"));
  EXPECT_EQ(from_disk_text<std::string>(text, "f"), "abc");
  text.replace(text.rfind("3 abc"), 1, "9999999999");
  EXPECT_THAT(error_of([&] { from_disk_text<std::string>(text, "f"); }),
              HasSubstr("9999999999 items are announced"));
}

Slice box(const char* spec) { return Slice::from_spec(spec); }

TEST(Boxes, Coverage) {
  const Shape shape{4, 6};
  const auto words = [&](std::vector<Slice> boxes) { return coverage_problem(shape, boxes); };
  EXPECT_EQ(words({box("4 6 0,4:0,6")}), "");
  EXPECT_EQ(words({box("4 6 2,2:0,6"), box("4 6 0,2:0,6")}), "");
  EXPECT_EQ(words({box("4 6 0,4:0,2"), box("4 6 0,1:2,4"), box("4 6 1,3:2,4")}), "");
  EXPECT_EQ(words({}), "has a hole: 24 of its 24 elements are in no slice");
  EXPECT_EQ(words({box("4 6 0,2:0,6")}), "has a hole: 12 of its 24 elements are in no slice");
  EXPECT_EQ(words({box("4 6 0,3:0,6"), box("4 6 2,2:0,6")}),
            "has overlapping slices \"4 6 0,3:0,6\" and \"4 6 2,2:0,6\"");
  EXPECT_EQ(words({box("4 6 0,3:0,6"), box("4 6 2,1:0,6")}),
            "has overlapping slices \"4 6 0,3:0,6\" and \"4 6 2,1:0,6\"");
  // Volumes that add up, but with an overlap and a hole.
  EXPECT_EQ(words({box("4 6 0,4:0,4"), box("4 6 0,4:3,2")}),
            "has overlapping slices \"4 6 0,4:0,4\" and \"4 6 0,4:3,2\"");
  EXPECT_EQ(coverage_problem(Shape{}, std::vector<Slice>{Slice{}}), "");
  EXPECT_EQ(coverage_problem(Shape{}, std::vector<Slice>{Slice{}, Slice{}}),
            "has overlapping slices \"\" and \"\"");
}

TEST(Boxes, Intersection) {
  EXPECT_EQ(intersect(box("4 6 0,3:1,5"), box("4 6 2,2:0,4")), box("4 6 2,1:1,3"));
  EXPECT_EQ(intersect(box("4 6 0,2:0,6"), box("4 6 2,2:0,6")), std::nullopt);
  EXPECT_EQ(intersect(Slice{}, Slice{}), Slice{});
}

TEST(Boxes, RunsAreAsLongAsBothSidesAllow) {
  const auto count = [](const char* from, const char* to) {
    int runs = 0;
    for_each_run(*intersect(box(from), box(to)), box(from), box(to), [&](auto, auto, auto) { ++runs; });
    return runs;
  };
  EXPECT_EQ(count("4 6 0,4:0,6", "4 6 1,2:0,6"), 1);
  EXPECT_EQ(count("4 6 0,4:0,6", "4 6 1,2:0,5"), 2);
  EXPECT_EQ(count("4 6 0,4:0,3", "4 6 0,4:0,3"), 1);
  EXPECT_EQ(count("", ""), 1);
}

}  // namespace
}  // namespace varscope
