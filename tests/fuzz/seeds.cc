// Writes the files that the fuzz targets begin with: fuzz_seeds DIRECTORY makes DIRECTORY/TARGET/NAME.
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "common/base/record_file.h"
#include "tests/support/references/example_writer.h"
#include "tests/support/references/numpy_files.h"

using namespace varscope;
using namespace varscope::testing;

namespace {

std::filesystem::path root;

void seed(const std::string& target, const std::string& name, const std::string& bytes) {
  std::filesystem::create_directories(root / target);
  std::ofstream(root / target / name, std::ios::binary) << bytes;
}

std::string gzipped(const std::string& bytes) {
  z_stream z{};
  deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&z, bytes.size()) + 32, '\0'), in = bytes;
  z.next_in = reinterpret_cast<Bytef*>(in.data());
  z.avail_in = static_cast<uInt>(in.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  deflate(&z, Z_FINISH);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

void tables() {
  const std::string table = "a,w,y\r\n1.5,u,0\n\n-2,\"v \"\"x\"\"\",1\nNA,\"two\nlines\",0\n";
  for (const int how : {0, 1, 5, 16, 32, 129, 161}) {
    const std::string first{static_cast<char>(how), 0};
    seed("csv", "table" + std::to_string(how), first + table);
    seed("csv", "gzip" + std::to_string(how), first + gzipped(table));
  }
  seed("csv", "numbers", std::string("\x80\0", 2) + "\xef\xbb\xbf" + "a,b,y\n1,2,0.5\n3e4,+4,-1\n");
  seed("csv", "tabs", std::string("\x08\0", 2) + "a\tb\ty\n1\t2\tx\n3\t4\ty\n");
  for (const int what : {1, 3, 5, 9, 13})
    seed("csv", "ids" + std::to_string(what),
         std::string{0, static_cast<char>(what)} + "u,t,y\n18446744073709551615,7:0.5|-1,0\n-1,,1\nNA,1,1\n");
  for (const int how : {0, 1, 2, 12, 16, 48, 50})
    seed("libsvm", "rows" + std::to_string(how),
         std::string(1, static_cast<char>(how)) + "+1 qid:3 1:0.5 3:-2e3 # note\n\n-1 2:1\n0.5\n");
}

// Two pieces: three rows and a waiting id; then one of the rows again, and one that is gone.
void row_pieces() {
  const auto u64 = [](std::uint64_t id) { return raw<std::uint64_t>({id}); };
  const auto row = [&](std::uint64_t id, std::uint32_t last) {
    return u64(id) + raw<std::uint32_t>({last, 1}) + raw<float>({1.5F, 0});
  };
  const std::string waiting = u64(9) + raw<std::uint32_t>({17, 2});
  for (const int how : {4 + 1, 64 + 4 + 1, 1, 4 + 3})
    seed("rows", "chain" + std::to_string(how),
         std::string{static_cast<char>(how), 3, 1, 0} + row(1, 3) + row(2, 18) + row(~std::uint64_t{0}, 19) +
             waiting + std::string{1, 0, 1} + row(9, 20) + u64(2));
}

// Two steps of three workers, with a cut between them.
void recorded_runs() {
  const auto record = [](const std::string& bytes) {
    return std::string(1, static_cast<char>(bytes.size())) + bytes;
  };
  const auto i64 = [](std::int64_t n) { return raw<std::int64_t>({n}); };
  const auto events = [](std::uint32_t unit, const std::vector<std::uint16_t>& all) {
    return raw<std::uint32_t>({unit, static_cast<std::uint32_t>(all.size())}) + raw<std::uint16_t>(all);
  };
  const std::string order =
      record("E" + events(0, {0, 1 << 13, 1, 1 << 13 | 1, 2 << 13 | 2}) + events(1, {4 << 13 | 2, 2})) +
      record("C" + i64(1) + i64(1) + i64(7)) + std::string("\xff\0", 2) +
      record("E" + events(0, {3 << 13, 0}));
  const std::string tickets = record("O" + i64(1) + std::string(1, '\0')) +
                              record("D" + i64(0) + raw<std::uint32_t>({2})) +
                              record("D" + i64(1) + raw<std::uint32_t>({0})) + record("O" + i64(2) + "\1");
  const std::string counted = record("M" + i64(1) + "\5") + record("M" + i64(2) + "\7");
  for (const char how : {12, 32}) {
    const std::string asp{how, 0}, bsp{how, 2}, file{how, 1};
    seed("record", "order" + std::to_string(how), asp + order);
    seed("record", "tickets" + std::to_string(how), asp + tickets);
    seed("record", "counted" + std::to_string(how), bsp + counted);
    std::string whole;
    append_record(whole, tickets.substr(1, 10));
    seed("record", "file" + std::to_string(how), file + whole);
  }
}

void arrays() {
  const std::string x = npy("<f4", "2, 2", raw<float>({1, 2, 3, 4})),
                    y = npy("<i8", "2,", raw<std::int64_t>({1, 0})),
                    b = npy(">i2", "2, 1, 2", raw<std::int16_t>({1, 2, 3, 4}, true), true);
  int n = 0;
  for (const std::string& file : {x, y, b, npy("|u1", "1, 2, 2", "abcd"), npy("<f2", "2,", "abcd"),
                                  npy("|b1", "4,", std::string("\0\1\0\1", 4))}) {
    for (const int how : {0, 3, 5, 7})
      seed("npy", "array" + std::to_string(n++), std::string(1, static_cast<char>(how)) + file);
  }
  seed("npy", "gzip", std::string("\7", 1) + gzipped(y));
  seed("npz", "stored", zip({{"x.npy", x}, {"y.npy", y}}, false));
  seed("npz", "deflated", zip({{"x.npy", b}, {"z.npy", y}, {"y.npy", y}}, true));
  seed("npz", "other", zip({{"x.npy", x}, {"y.npy", y}, {"readme", "text"}}, false));
  n = 0;
  for (const std::string& file : {idx(8, {2, 2, 2}, "abcdefgh"), idx(8, {2}, std::string("\0\1", 2)),
                                  idx(8, {2, 1, 2, 3}, "abcdefghijkl"), idx(0x0b, {2, 2}, "abcdefgh"),
                                  idx(0x0d, {2, 1}, "abcdefgh"), idx(0x0e, {2}, std::string(16, '\x40'))}) {
    for (const int how : {0, 1, 3, 6})
      seed("idx", "file" + std::to_string(n++), std::string(1, static_cast<char>(how)) + file);
    seed("idx", "gzip" + std::to_string(n), std::string(1, '\0') + gzipped(file));
  }
}

void records() {
  const std::string one = example({{"label", int64_feature({1})}, {"x", float_feature({1, 2})}}),
                    two =
                        example({{"x", float_feature({3, 4}, false)}, {"label", int64_feature({0}, false)}});
  std::string file;
  append_record(file, one);
  append_record(file, two);
  seed("tfrecord", "plain", file);
  seed("tfrecord", "gzip", gzipped(file));
  for (const int how : {0, 1, 2, 3, 10, 18, 134}) {
    const std::string a = example(
                          {{"x", bytes_feature({"abcdefgh", "ijklmnop"})}, {"y", int64_feature({1})}}),
                      c = example({{"x", int64_feature({1, 2, 3, 4})}, {"y", float_feature({2})}});
    for (const auto& [name, record] : {std::pair{"a", a}, std::pair{"c", c}}) {
      seed("example", name + std::to_string(how),
           std::string(1, static_cast<char>(how)) + static_cast<char>(record.size()) + record + record);
    }
  }
}

// Any bytes are a life; the first ones choose what the table is.
void lives() {
  for (std::uint32_t i = 0; i < 40; ++i) {
    std::string bytes;
    for (std::uint32_t x = i * 2654435761U + 1; bytes.size() < 1500; x = x * 1664525U + 1013904223U)
      bytes += static_cast<char>(x >> 24);
    seed("table", "life" + std::to_string(i), bytes);
  }
}

// The bytes of 5 elements of each codec, and gradients with residuals: small, large, and not finite.
void gradients() {
  const std::string five("\5\0", 2);
  const std::string halves = raw<std::uint16_t>({0x3f80, 0x8000, 0x7f7f, 1, 0xbf80, 0});
  seed("codec", "read_bf16", '\0' + five + halves);
  seed("codec", "read_fp16", '\1' + five + raw<float>({0x1p-20F}) + halves);
  seed("codec", "read_onebit", '\2' + five + raw<float>({0.5F, -0.25F}) + raw<std::uint32_t>({0x15}));
  seed("codec", "read_topk",
       std::string(1, '\x0b') + five + raw<std::uint32_t>({0, 2, 4}) + raw<float>({1, -2, 3}));
  const std::string numbers = raw<float>({1, -2, 0.5F, -0.0F, 1e-40F, 3e38F, 1, 0, 0, -1e-3F, 2, 3e37F});
  for (const int how : {16, 17, 18, 19, 23, 27, 31})
    seed("codec", "write" + std::to_string(how), std::string(1, static_cast<char>(how)) + five + numbers);
  seed("codec", "not_finite", '\x12' + five + raw<float>({1, std::numeric_limits<float>::infinity(), 0, 0}));
}

// JSON of tensors, and data behind it.
void oip_requests() {
  const std::string pixels =
      R"({"id":"a\"7","parameters":{"timeout":5000000},"inputs":[{"name":"x","shape":[1,2,2],"datatype":)";
  seed("oip", "flat", '\0' + pixels + R"("FP32","data":[1,2.5,-3,1e2]}]})");
  seed("oip", "nested", '\0' + pixels + R"("UINT8","data":[[[0,1],[2,255]]]}],"outputs":[{"name":"y"}]})");
  const std::string record =
      R"({"inputs":[{"name":"age","shape":[2],"datatype":"FP64","data":[30,1.5]},)"
      R"({"name":"height","shape":[2],"datatype":"INT32","data":[null,-4]},)"
      R"({"name":"city","shape":[2],"datatype":"BYTES","data":["Bonn","\u00e9\n"]},)"
      R"({"name":"user","shape":[2],"datatype":"INT64","data":[-9223372036854775808,9223372036854775807]}],)"
      R"("outputs":[{"name":"b","parameters":{"binary_data":true}},{"name":"a"}]})";
  seed("oip", "record", '\0' + record);
  const std::string json =
      R"({"parameters":{"binary_data_output":true},"inputs":[)"
      R"({"name":"city","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":11}},)"
      R"({"name":"age","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}},)"
      R"({"name":"user","shape":[2],"datatype":"UINT64","data":[1,9223372036854775807]}]})";
  const std::string binary("\x03\0\0\0abc\0\0\0\0\x01\0\xff\xff", 15);
  seed("oip", "binary", '\2' + json + '\0' + binary);
  seed("oip", "length",
       std::string{1, static_cast<char>(json.size() & 0xff), static_cast<char>(json.size() >> 8)} + json +
           binary);
  seed("oip", "raw_pixels",
       '\2' + pixels + R"("FP16","parameters":{"binary_data_size":8}}]})" + '\0' + "abcdefgh");
  seed("oip", "broken", std::string(1, '\0') + R"({"inputs": [1,,2]})");
}

void v1_requests() {
  const std::string image(1, '\0'), table(1, '\1');
  seed("v1", "images", image + R"({"instances":[[[1,2],[3,4]],[[5,6],[7,8.5]]]})");
  seed("v1", "named", image + R"({"signature_name":"serving_default","inputs":{"x":[[[1,2],[3,4]]]}})");
  seed("v1", "raw", image + R"({"instances":[{"b64":"AAEC/w=="},{"b64":"_-8AAQ=="}]})");
  seed("v1", "raw_column", image + R"({"inputs":{"x":[{"b64":"AAEC/w=="}]}})");
  seed("v1", "rows",
       table + R"({"instances":[{"age":30,"city":"Bonn","user":7},{"age":1e3,"city":7,"user":-1}]})");
  seed("v1", "missing", table + R"({"instances":[{"age":1,"height":null,"city":null,"user":null}]})");
  seed("v1", "columns",
       table + R"({"inputs":{"age":["30","1e3"],"height":[1,2.5],"city":["a",7],"user":[1,true]}})");
  seed("v1", "texts",
       table + R"({"inputs":{"city":[{"b64":"Qm9ubg=="},{"b64":""}],"age":[1,2],"user":[3,4]}})");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  root = argv[1];
  tables();
  row_pieces();
  recorded_runs();
  gradients();
  arrays();
  records();
  lives();
  oip_requests();
  v1_requests();
}
