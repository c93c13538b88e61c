// What goes over the wire: the protocols' texts and bytes, and what a client may do to a server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <limits>
#include <mutex>
#include <thread>

#include <nlohmann/json.hpp>

#include "serve/http/http_server.h"
#include "serve/http/json_tensor.h"
#include "serve/http/protocol.h"
#include "serve/http/service.h"
#include "tests/support/serving/http_client.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::HttpClient;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
using testing::status_of;
using testing::thrown;
using Json = nlohmann::json;
using std::chrono::milliseconds;

std::string bad_oip(const std::string& body, std::int64_t header_length = -1) {
  try {
    decode_oip(body, header_length);
  } catch (const BadRequest& bad) {
    return bad.what;
  }
  return "no error";
}

std::string input(const std::string& rest) { return R"({"inputs":[{"name":"x",)" + rest + "}]}"; }

template <class T>
std::vector<T> values_of(const InputTensor& t) {
  std::vector<T> values(t.data.size() / sizeof(T));
  std::memcpy(values.data(), t.data.data(), t.data.size());
  return values;
}

TEST(Oip, ReadsJson) {
  const ProtocolRequest r = decode_oip(
      R"({"id":"a\"7","parameters":{"other":[1],"timeout":5000000},"inputs":[
        {"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3,1e2]]},
        {"name":"w","shape":[2],"datatype":"BYTES","data":["a\n",""]},
        {"name":"i","shape":[2],"datatype":"INT64","data":[-9223372036854775808,9223372036854775807]},
        {"name":"u","shape":[1],"datatype":"UINT64","data":[18446744073709551615]},
        {"name":"b","shape":[4],"datatype":"BOOL","data":[true,false,1,0]}],
        "outputs":[{"name":"b","parameters":{"binary_data":true}},{"name":"a"}]})",
      -1);
  EXPECT_EQ(r.id, "a\"7");
  EXPECT_TRUE(r.infer.deadline_ns);
  ASSERT_EQ(r.infer.inputs.size(), 5U);
  EXPECT_THAT(r.infer.inputs[0].shape, ElementsAre(2, 2));
  EXPECT_THAT(values_of<float>(r.infer.inputs[0]), ElementsAre(1, 2.5F, -3, 100));
  EXPECT_THAT(r.infer.inputs[1].texts, ElementsAre("a\n", ""));
  EXPECT_THAT(
      values_of<std::int64_t>(r.infer.inputs[2]),
      ElementsAre(std::numeric_limits<std::int64_t>::min(), std::numeric_limits<std::int64_t>::max()));
  EXPECT_THAT(values_of<std::uint64_t>(r.infer.inputs[3]), ElementsAre(~std::uint64_t{0}));
  EXPECT_THAT(values_of<std::uint8_t>(r.infer.inputs[4]), ElementsAre(1, 0, 1, 0));
  EXPECT_THAT(r.infer.outputs, ElementsAre("b", "a"));
  EXPECT_THAT(r.is_binary, ElementsAre(true, false));
  EXPECT_TRUE(r.infer.refuses_not_finite);
}

TEST(Oip, ReadsBinaryDataBehindTheJson) {
  const std::string json =
      R"({"parameters":{"binary_data_output":true},"inputs":[)"
      R"({"name":"w","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":11}},)"
      R"({"name":"x","shape":[1,2],"datatype":"INT16","parameters":{"binary_data_size":4}}]})";
  const std::string binary("\x03\0\0\0abc\0\0\0\0\x01\0\xff\xff", 15);
  const ProtocolRequest r = decode_oip(json + binary, std::ssize(json));
  EXPECT_THAT(r.infer.inputs[0].texts, ElementsAre("abc", ""));
  EXPECT_THAT(values_of<std::int16_t>(r.infer.inputs[1]), ElementsAre(1, -1));
  EXPECT_THAT(r.is_binary, ElementsAre(true));
  EXPECT_FALSE(r.infer.refuses_not_finite);
  EXPECT_EQ(bad_oip(json + binary + "x", std::ssize(json)), "1 bytes of binary data are of no input");
  EXPECT_EQ(bad_oip(json + binary.substr(0, 14), std::ssize(json)),
            "input \"x\": binary_data_size is 4, but 3 bytes are left");
  EXPECT_EQ(bad_oip(json, std::ssize(json) + 1), "Inference-Header-Content-Length is " +
                                                     std::to_string(json.size() + 1) + ", but the body has " +
                                                     std::to_string(json.size()) + " bytes");
}

TEST(Oip, SaysWhatIsWrong) {
  EXPECT_THAT(bad_oip("{\"inputs\": [1,,2]}"), StartsWith("the body is no JSON at byte 15: "));
  EXPECT_THAT(bad_oip("{\"inputs\": [NaN]}"), StartsWith("the body is no JSON at byte 13: "));
  EXPECT_THAT(bad_oip(std::string(200, '[') + std::string(200, ']')),
              StartsWith("the body nests deeper than "));
  EXPECT_EQ(bad_oip("[]"), "the body is no JSON object");
  EXPECT_EQ(bad_oip("{}"), "\"inputs\" is missing, an array of tensors");
  EXPECT_EQ(bad_oip(R"({"inputs":[{"shape":[1]}]})"), "an input: \"name\" is missing, a text");
  EXPECT_EQ(bad_oip(input(R"("shape":[1],"datatype":"FLOAT","data":[1])")),
            "input \"x\": there is no datatype FLOAT");
  EXPECT_EQ(bad_oip(input(R"("shape":[-1],"datatype":"FP32","data":[1])")),
            "input \"x\": an extent of its shape is no number of 0 or more");
  EXPECT_EQ(bad_oip(input(R"("shape":[],"datatype":"FP32","data":[1])")),
            "input \"x\": its shape has no extents; the first one is the rows'");
  EXPECT_EQ(bad_oip(input(R"("shape":[4294967296,4294967296],"datatype":"FP32","data":[1])")),
            "input \"x\": its shape has too many elements");
  EXPECT_EQ(bad_oip(input(R"("shape":[3],"datatype":"FP32","data":[1,2])")),
            "input \"x\": its shape has 3 elements, its data 2");
  EXPECT_EQ(bad_oip(input(R"("shape":[1],"datatype":"UINT8","data":[256])")),
            "input \"x\": element 0 is 256, no UINT8");
  EXPECT_EQ(bad_oip(input(R"("shape":[2],"datatype":"BOOL","data":[true,2])")),
            "input \"x\": element 1 is 2, no BOOL");
  EXPECT_EQ(bad_oip(input(R"("shape":[1],"datatype":"BOOL","data":[-1])")),
            "input \"x\": element 0 is -1, no BOOL");
  EXPECT_EQ(bad_oip(input(R"("shape":[1],"datatype":"BOOL","data":[0.5])")),
            "input \"x\": element 0 is 0.5, no BOOL");
  EXPECT_EQ(bad_oip(input(R"("shape":[1],"datatype":"INT32","data":[1.5])")),
            "input \"x\": element 0 is 1.5, no INT32");
  EXPECT_EQ(bad_oip(input(R"("shape":[1],"datatype":"FP32","data":[1e39])")),
            "input \"x\": element 0 is 1e+39, no FP32");
  EXPECT_EQ(bad_oip(input(R"("shape":[1],"datatype":"FP32","data":["1"])")),
            "input \"x\": element 0 is a text, no FP32");
  EXPECT_EQ(bad_oip(input(R"("shape":[1],"datatype":"FP32")")),
            "input \"x\": it has neither \"data\" nor binary data");
  EXPECT_EQ(bad_oip(R"({"inputs":[],"outputs":[{"name":"a"},{"name":"a"}]})"),
            "output \"a\" is asked for twice");
}

// A request that waits holds its inputs, not what they were read from.
TEST(Oip, GivesBackTheMemoryOfTheJson) {
  const std::string numbers = input(R"("shape":[1],"datatype":"FP32","data":[1])");
  EXPECT_LE(decode_oip(numbers + std::string(100'000, ' '), -1).infer.n_memory_bytes, 100);
  const std::string word(50'000, 'w');
  const ProtocolRequest texts =
      decode_oip(input(R"("shape":[3],"datatype":"BYTES","data":["a",7,")" + word + "\"]"), -1);
  EXPECT_THAT(texts.infer.inputs[0].texts, ElementsAre("a", "7", word));
  EXPECT_GE(texts.infer.n_memory_bytes, 50'000);
  EXPECT_LE(texts.infer.n_memory_bytes, 50'100);
  const std::string json =
      R"({"inputs":[{"name":"w","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":7}}]})";
  const ProtocolRequest binary = decode_oip(json + std::string("\3\0\0\0abc", 7), std::ssize(json));
  EXPECT_THAT(binary.infer.inputs[0].texts, ElementsAre("abc"));
  EXPECT_GE(binary.infer.n_memory_bytes, std::ssize(json) + 7) << "it lies in the body";
}

// A body of many megabytes is read in a time that grows with its length, not with the length's square.
TEST(Oip, ReadsHundredsOfThousandsOfOutputs) {
  std::string body = R"({"inputs":[],"outputs":[{"name":"0"})";
  constexpr int kOutputs = 500'000;
  for (int i = 1; i < kOutputs; ++i) body += R"(,{"name":")" + std::to_string(i) + "\"}";
  EXPECT_EQ(decode_oip(body + "]}", -1).infer.outputs.size(), std::size_t{kOutputs});
  EXPECT_EQ(bad_oip(body + R"(,{"name":"7"}]})"), "output \"7\" is asked for twice");
}

// More than fit into the 24 bits in which the parser counts.
TEST(JsonTensor, CountsTheElementsOfLongArrays) {
  constexpr std::int64_t kArrays = (std::int64_t{1} << 24) + 3;
  std::string text = "[[]";
  text.reserve(static_cast<std::size_t>(kArrays) * 3 + 1);
  for (std::int64_t i = 1; i < kArrays; ++i) text += ",[]";
  text += ']';
  JsonParser parser;
  EXPECT_THAT(elements_of(parser.parse(text), "x", false).shape, ElementsAre(kArrays, 0));
}

InferAnswer answer_of(std::vector<float> values, std::vector<std::int64_t> shape) {
  InferAnswer answer;
  answer.model.version.id = {12, "id-12", {}};
  OutputTensor out{"p", OipType::fp32, std::move(shape), {}, {}};
  const std::span<const std::byte> bytes = std::as_bytes(std::span(values));
  out.data.assign(bytes.begin(), bytes.end());
  answer.outputs.push_back(std::move(out));
  return answer;
}

// Denormal, shortest and longest numbers.
TEST(Oip, NumbersOfAnswersReadBackToTheSameBits) {
  const std::vector<float> values = {0.1F, -0.0F, 1e-45F, 3.4028235e38F, 16777217.0F, 1.0F / 3};
  ProtocolRequest request;
  request.id = "7";
  request.is_binary = {false};
  const HttpResponse r = encode_oip("m", request, answer_of(values, {3, 2}));
  const Json json = Json::parse(r.body);
  EXPECT_EQ(json["model_name"], "m");
  EXPECT_EQ(json["model_version"], "12");
  EXPECT_EQ(json["id"], "7");
  EXPECT_EQ(json["parameters"]["manifest_id"], "id-12");
  EXPECT_EQ(json["outputs"][0]["shape"], Json({3, 2}));
  const auto read = json["outputs"][0]["data"].get<std::vector<double>>();
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto back = static_cast<float>(read[i]);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(back), std::bit_cast<std::uint32_t>(values[i])) << values[i];
  }
  request.is_binary = {true};
  const HttpResponse b = encode_oip("m", request, answer_of(values, {3, 2}));
  ASSERT_EQ(b.headers.size(), 1U);
  EXPECT_EQ(b.headers[0].first, "Inference-Header-Content-Length");
  const auto n = static_cast<std::size_t>(std::stoi(b.headers[0].second));
  EXPECT_EQ(Json::parse(b.body.substr(0, n))["outputs"][0]["parameters"]["binary_data_size"], 24);
  EXPECT_EQ(b.body.substr(n), std::string(reinterpret_cast<const char*>(values.data()), 24));
}

Signature one_image() {
  Signature s;
  s.inputs = {{.name = "x", .type = OipType::fp32, .shape = {-1, 2, 2}, .also = {OipType::uint8}}};
  return s;
}
Signature columns() {
  Signature s;
  s.inputs = {{.name = "age", .type = OipType::fp64, .shape = {-1}, .also = {OipType::bytes}},
              {.name = "city", .type = OipType::bytes, .shape = {-1}}};
  return s;
}
std::string bad_v1(const std::string& body, const Signature& signature) {
  try {
    decode_v1(body, signature);
  } catch (const BadRequest& bad) {
    return bad.what;
  }
  return "no error";
}

TEST(TfsV1, ReadsRowsAndColumns) {
  const V1Request rows = decode_v1(R"({"instances":[[[1,2],[3,4]],[[5,6],[7,8.5]]]})", one_image());
  EXPECT_TRUE(rows.is_by_row);
  EXPECT_THAT(rows.infer.inputs[0].shape, ElementsAre(2, 2, 2));
  EXPECT_THAT(values_of<float>(rows.infer.inputs[0]), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8.5F));
  const V1Request records =
      decode_v1(R"({"instances":[{"age":30,"city":"Bonn"},{"age":null,"city":7}]})", columns());
  EXPECT_EQ(records.infer.inputs[0].type, OipType::fp64);
  EXPECT_THAT(records.infer.inputs[0].missing, ElementsAre(1));
  EXPECT_THAT(records.infer.inputs[1].texts, ElementsAre("Bonn", "7"));
  const V1Request by_column = decode_v1(
      R"({"signature_name":"serving_default","inputs":{"age":["30","x"],"city":["a","b"]}})", columns());
  EXPECT_FALSE(by_column.is_by_row);
  EXPECT_EQ(by_column.infer.inputs[0].type, OipType::bytes) << "texts, where texts are taken";
  const V1Request raw = decode_v1(R"({"instances":[{"b64":"AAEC/w=="}]})", one_image());
  EXPECT_EQ(raw.infer.inputs[0].type, OipType::uint8);
  EXPECT_THAT(raw.infer.inputs[0].shape, ElementsAre(1, 2, 2));
  EXPECT_THAT(values_of<std::uint8_t>(raw.infer.inputs[0]), ElementsAre(0, 1, 2, 255));
}

TEST(TfsV1, SaysWhatIsWrong) {
  EXPECT_EQ(bad_v1(R"({"instances":[1],"inputs":[1]})", one_image()),
            "the body has both \"instances\" and \"inputs\": one of them");
  EXPECT_EQ(bad_v1("{}", one_image()), "the body has neither \"instances\" (rows) nor \"inputs\" (columns)");
  EXPECT_EQ(bad_v1(R"({"instances":[]})", one_image()), "\"instances\" is empty");
  EXPECT_EQ(bad_v1(R"({"instances":[[1,2],[1]]})", one_image()),
            "instance 1 has another shape than the first one");
  EXPECT_EQ(bad_v1(R"({"instances":[[1,[2]]]})", one_image()),
            "instance 0: arrays and elements stand side by side");
  EXPECT_EQ(bad_v1(R"({"instances":[1]})", columns()),
            "the model has several inputs: age, city; name them: {\"age\": ...}");
  EXPECT_EQ(bad_v1(R"({"instances":[{"age":1,"city":"a"},{"age":1}]})", columns()),
            "input \"city\" of instance 1 is missing");
  EXPECT_EQ(bad_v1(R"({"signature_name":"s","inputs":[1]})", one_image()),
            "there is no signature s; there is serving_default");
  EXPECT_EQ(bad_v1(R"({"instances":[{"b64":"%"}]})", one_image()), "input \"x\": element 0 is no base64");
  EXPECT_EQ(bad_v1(R"({"instances":[{"b64":"AAEC"}]})", one_image()),
            "input \"x\": 3 bytes of 1 rows; the model takes [?, 2, 2] UINT8");
  EXPECT_EQ(bad_v1(R"({"instances":[{"b64":"AAECAwQ="},{"b64":"AAEC"}]})", one_image()),
            "input \"x\": element 1 has 3 bytes, another number than those before it");
}

// Before their values are looked at, which without a type would be data of any shape.
TEST(TfsV1, RefusesNamesThatTheModelDoesNotHaveOrThatComeTwice) {
  EXPECT_EQ(bad_v1(R"({"inputs":{"cty":[{"b64":"Qm9ubg=="}],"age":[1]}})", columns()),
            "the model has no input \"cty\", it has age, city; did you mean \"city\"?");
  EXPECT_EQ(bad_v1(R"({"instances":[{"age":1,"city":"a","y":0},{}]})", columns()),
            "input \"age\" of instance 1 is missing");
  EXPECT_EQ(bad_v1(R"({"instances":[{"age":1,"city":"a","other":0}]})", columns()),
            "the model has no input \"other\", it has age, city");
  EXPECT_EQ(bad_v1(R"({"instances":[{"age":1,"city":"a","age":2}]})", columns()),
            "input \"age\" is there twice");
  EXPECT_EQ(bad_v1(R"({"inputs":{"age":[1],"age":[2]}})", columns()), "input \"age\" is there twice");
}

TEST(TfsV1, AnswersAreNestedAsTheirShape) {
  V1Request request;
  EXPECT_EQ(encode_v1(request, answer_of({1, 2, 3, 4}, {2, 2})).body, R"({"predictions":[[1,2],[3,4]]})");
  request.is_by_row = false;
  EXPECT_EQ(encode_v1(request, answer_of({1, 2, 3, 4}, {2, 1, 2})).body, R"({"outputs":[[[1,2]],[[3,4]]]})");
}

// Answers with the path and the length of the body; "/slow" when it is told to.
class Server {
 public:
  explicit Server(HttpOptions options = {}) {
    options.port = 0;
    server.emplace(options, [this](HttpRequest request, HttpServer::Reply reply) {
      if (request.path == "/slow") {
        const std::lock_guard lock(mutex);
        held.emplace_back(std::move(request), std::move(reply));
        changed.notify_all();
        return;
      }
      reply({200, "text/plain", request.path + " " + std::to_string(request.body.size()), {}});
    });
  }
  ~Server() { release(); }
  void wait_for_slow() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return !held.empty(); });
  }
  void release() {
    const std::lock_guard lock(mutex);
    for (auto& [request, reply] : held) reply({200, "text/plain", "slow", {}});
    held.clear();
  }
  HttpClient client() const { return HttpClient(server->port()); }

  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::pair<HttpRequest, HttpServer::Reply>> held;
  std::optional<HttpServer> server;
};

constexpr const char* kGet = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

TEST(HttpServer, AnswersTheRequestsOfAConnectionInTheirOrder) {
  Server server;
  HttpClient client = server.client();
  client.send(
      "POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /2?q=1 HTTP/1.1\r\nHost: h\r\n\r\n"
      "POST /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
  EXPECT_THAT(client.answer(), HasSubstr("\r\n\r\n/1 3"));
  EXPECT_THAT(client.answer(), HasSubstr("\r\n\r\n/2 0"));
  EXPECT_THAT(client.answer(), HasSubstr("\r\n\r\n/3 2"));
  EXPECT_THAT(client.ask("GET /4 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"), HasSubstr("/4 0"));
  EXPECT_TRUE(client.is_closed());
}

TEST(HttpServer, RefusesWhatIsTooLongBeforeItIsRead) {
  HttpOptions options;
  options.most_body = 1000;
  options.most_header = 2000;
  Server server(options);
  EXPECT_THAT(
      server.client().ask("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n"),
      AllOf(StartsWith("HTTP/1.1 413 "), HasSubstr(R"({"error":"the body is larger than 1000 bytes"})")));
  EXPECT_THAT(server.client().ask("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n" +
                                  std::string(2048, 'x')),
              StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(server.client().ask("GET / HTTP/1.1\r\nHost: " + std::string(3000, 'h') + "\r\n\r\n"),
              StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(server.client().ask(
                  "POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"),
              AllOf(StartsWith("HTTP/1.1 415 "), HasSubstr("gzip")));
  EXPECT_THAT(server.client().ask("nonsense\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  HttpClient whole = server.client();
  EXPECT_THAT(whole.ask("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n\r\n"),
              StartsWith("HTTP/1.1 100 "));
  EXPECT_THAT(whole.ask(std::string(1000, 'x')), HasSubstr("/ 1000"));
}

TEST(HttpServer, GivesUpOnWhatDoesNotCome) {
  HttpOptions options;
  options.header_time = options.body_time = milliseconds(200);
  options.idle_time = milliseconds(300);
  Server server(options);
  HttpClient half_header = server.client(), half_body = server.client(), silent = server.client(),
             idle = server.client();
  half_header.send("GET / HT");
  half_body.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_THAT(idle.ask(kGet), HasSubstr("/a 0"));
  EXPECT_THAT(half_header.answer(),
              AllOf(StartsWith("HTTP/1.1 408 "), HasSubstr("the header did not come within")));
  EXPECT_THAT(half_body.answer(),
              AllOf(StartsWith("HTTP/1.1 408 "), HasSubstr("the body did not come within")));
  EXPECT_TRUE(silent.is_closed());
  EXPECT_TRUE(idle.is_closed());
}

// The timer rings for the shortest limit, and is set again for what is left of a longer one.
TEST(HttpServer, ALongerLimitIsNotCutShortByAShorterOne) {
  HttpOptions options;
  options.header_time = milliseconds(100);
  options.body_time = milliseconds(350);
  options.idle_time = milliseconds(450);
  Server server(options);
  HttpClient idle = server.client(), half_body = server.client();
  const auto started = std::chrono::steady_clock::now();
  const auto passed = [&] { return std::chrono::steady_clock::now() - started; };
  EXPECT_THAT(idle.ask(kGet), HasSubstr("/a 0"));
  half_body.send("POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
  EXPECT_THAT(half_body.answer(), StartsWith("HTTP/1.1 408 "));
  EXPECT_GE(passed(), milliseconds(350));
  EXPECT_TRUE(idle.is_closed());
  EXPECT_GE(passed(), milliseconds(450));
}

TEST(HttpServer, ReadsABodyOfWhichAPartHasComeWithTheHeader) {
  Server server;
  HttpClient other = server.client();
  for (const std::string_view head :
       {"Content-Length: 6\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n6\r\nabc"}) {
    HttpClient client = server.client();
    client.send("POST /part HTTP/1.1\r\nHost: h\r\n" + std::string(head));
    EXPECT_THAT(other.ask(kGet), HasSubstr("/a 0"));  // meanwhile the first part has been read
    client.send(head.starts_with("T") ? "def\r\n0\r\n\r\n" : "def");
    EXPECT_THAT(client.answer(), HasSubstr("\r\n\r\n/part 6"));
  }
}

TEST(HttpServer, ManySilentConnectionsDelayNobodyAndThoseBeyondTheMostAreTold) {
  HttpOptions options;
  options.most_connections = 301;
  Server server(options);
  std::vector<HttpClient> silent;
  for (int i = 0; i < 300; ++i) silent.push_back(server.client());
  HttpClient client = server.client();
  EXPECT_THAT(client.ask(kGet), HasSubstr("/a 0"));
  HttpClient more = server.client();
  const std::string told = more.ask(kGet);
  EXPECT_THAT(told, AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("Retry-After: 1"),
                          HasSubstr("too many connections")));
  EXPECT_EQ(server.server->n_refused(), 1U);
  EXPECT_THAT(client.ask(kGet), HasSubstr("/a 0"));
}

// What two programs in a row may take for requests of different lengths.
TEST(HttpServer, RefusesHeadersThatOthersMayReadInAnotherWay) {
  Server server;
  const auto status = [&](const std::string& header, const std::string& body = "") {
    HttpClient client = server.client();
    const std::string answer = client.ask("POST /a HTTP/1.1\r\n" + header + "\r\n" + body);
    EXPECT_TRUE(client.is_closed()) << "what follows is not read as a request: " << header;
    return status_of(answer);
  };
  const std::string smuggled = "0\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n";
  EXPECT_EQ(status("Host: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", smuggled), 400);
  EXPECT_EQ(status("Host: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n", smuggled), 400);
  EXPECT_EQ(status("Host: h\r\nContent-Length: 5\r\nContent-Length: 0\r\n", smuggled), 400);
  EXPECT_EQ(status("Host: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n", smuggled), 400);
  EXPECT_EQ(status("Host: h\r\nContent-Length: 5, 5\r\n", smuggled), 400);
  EXPECT_EQ(status("Host: h\r\nContent-Length: +5\r\n", smuggled), 400);
  EXPECT_EQ(status("Host: h\r\nContent-Length: -1\r\n", smuggled), 400);
  EXPECT_EQ(status("Host: h\r\nContent-Length: 0x5\r\n", smuggled), 400);
  EXPECT_EQ(status("Host: h\r\nContent-Length: 99999999999999999999\r\n", smuggled), 400);
  EXPECT_EQ(status("Host: h\r\nContent-Length : 5\r\n", smuggled), 400);
  EXPECT_EQ(status("Host: h\r\nTransfer-Encoding: gzip, chunked\r\n", smuggled), 501);
  EXPECT_EQ(status("Host: h\r\nTransfer-Encoding: xchunked\r\n", smuggled), 501);
  EXPECT_EQ(status("Host: h\r\nTransfer-Encoding: identity\r\n", smuggled), 501);
  EXPECT_EQ(status("Host: h\r\nTransfer-Encoding: chunked, identity\r\n", smuggled), 501);
  EXPECT_EQ(status("Host: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", smuggled),
            400);
  EXPECT_EQ(status("Host: h\r\nTransfer-Encoding : chunked\r\n", smuggled), 400);
  EXPECT_EQ(status("Host: h\r\nTransfer-Encoding: chunked\r\n", "5 5\r\nabcde\r\n0\r\n\r\n"), 400);
  EXPECT_EQ(status("Host: h\r\nTransfer-Encoding: chunked\r\n", "-1\r\n\r\n"), 400);
  EXPECT_EQ(status("Host: h\r\nTransfer-Encoding: chunked\r\n", "fffffffffffffffff\r\na"), 400);
  EXPECT_EQ(status("Content-Length: 0\r\n"), 400) << "without a Host";
  EXPECT_EQ(status("Host: a\r\nHost: b\r\nContent-Length: 0\r\n"), 400);
  EXPECT_THAT(server.client().ask("POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
              StartsWith("HTTP/1.0 400 "));
  EXPECT_THAT(server.client().ask("GET /a HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n"),
              HasSubstr("this is no HTTP/1.1 request: it needs one Host"));
  EXPECT_THAT(server.client().ask("GET /a HTTP/1.0\r\n\r\n"), HasSubstr("/a 0"));
  EXPECT_THAT(server.client().ask(kGet), HasSubstr("/a 0"));
}

TEST(HttpServer, BodiesTogetherTakeNoMoreThanTheyMay) {
  HttpOptions options;
  options.most_body = 1000;
  options.small_body = 100;
  options.most_bodies = 1500;
  Server server(options);
  const auto large = [](int n) {
    return fmt::format("POST /l HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
                       n);
  };
  HttpClient one = server.client(), two = server.client(), chunks = server.client();
  EXPECT_THAT(one.ask(large(1000)), StartsWith("HTTP/1.1 100 "));
  EXPECT_THAT(server.client().ask(large(600)), AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("Retry-After: 1"),
                                                     HasSubstr("there are too many large requests")));
  const std::string chunk = "ff\r\n" + std::string(255, 'c') + "\r\n";
  chunks.send("POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + chunk + chunk);
  EXPECT_THAT(chunks.answer(), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(two.ask("POST /s HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n" + std::string(100, 's')),
              HasSubstr("/s 100"))
      << "small ones are never refused";
  EXPECT_THAT(one.ask(std::string(1000, 'x')), HasSubstr("/l 1000"));
  EXPECT_THAT(two.ask(large(1000)), StartsWith("HTTP/1.1 100 ")) << "there is room again";
  EXPECT_THAT(two.ask(std::string(1000, 'x')), HasSubstr("/l 1000"));
  for (int i = 0; i < 20; ++i) {  // those that leave in the middle give it back
    EXPECT_THAT(server.client().ask(large(900)), StartsWith("HTTP/1.1 100 "));
    while (server.server->n_connections() > 2) std::this_thread::yield();
  }
}

// It sends requests, and takes no answers; others do not notice, and it is cut off.
TEST(HttpServer, CutsOffWhoDoesNotTakeItsAnswers) {
  HttpOptions options;
  options.body_time = milliseconds(1500);
  options.port = 0;
  HttpServer server(options, [](const HttpRequest&, const HttpServer::Reply& reply) {
    reply({200, "text/plain", std::string(16 << 20, 'a'), {}});
  });
  HttpClient stopped(server.port());
  for (int i = 0; i < 10; ++i) stopped.send(kGet);
  HttpClient client(server.port());
  EXPECT_EQ(client.ask(kGet).size() >> 20, 16U);
  while (server.n_connections() > 1) std::this_thread::yield();
  EXPECT_EQ(client.ask(kGet).size() >> 20, 16U);
}

// A client may say that it sends no more, and still wait: what is answered at once reaches it.
TEST(HttpServer, AnswersAClientThatHasClosedItsSendingSide) {
  Server server;
  HttpClient client = server.client();
  client.send(kGet);
  client.send(kGet);
  client.end_sending();
  EXPECT_THAT(client.answer(), HasSubstr("/a 0"));
  EXPECT_THAT(client.answer(), HasSubstr("/a 0"));
  EXPECT_TRUE(client.is_closed());
  HttpClient half = server.client();
  half.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc");
  half.end_sending();
  EXPECT_TRUE(half.is_closed());
}

TEST(HttpServer, KnowsWhenAClientHasLeft) {
  Server server;
  std::optional<HttpClient> client(server.client());
  client->send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
  server.wait_for_slow();
  EXPECT_FALSE(server.held.front().first.is_abandoned());
  client.reset();
  while (!server.held.front().first.is_abandoned()) std::this_thread::yield();
  server.release();
  EXPECT_THAT(server.client().ask(kGet), HasSubstr("/a 0"));
}

TEST(HttpServer, FinishesWhatItHasBegun) {
  Server server;
  HttpClient slow = server.client(), idle = server.client();
  EXPECT_THAT(idle.ask(kGet), HasSubstr("/a 0"));
  slow.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
  server.wait_for_slow();
  std::atomic<bool> is_done{false};
  std::thread finisher([&] { is_done = server.server->finish(milliseconds(20'000)); });
  EXPECT_TRUE(idle.is_closed());
  server.release();
  EXPECT_THAT(slow.answer(), AllOf(HasSubstr("slow"), HasSubstr("Connection: close")));
  finisher.join();
  EXPECT_TRUE(is_done);
}

TEST(HttpServer, SaysWhereItCannotListen) {
  Server server;
  HttpOptions same;
  same.port = server.server->port();
  EXPECT_THAT(thrown([&] { HttpServer(same, [](HttpRequest, HttpServer::Reply) {}); }),
              AllOf(StartsWith("io: cannot listen on 127.0.0.1:"),
                    HasSubstr("choose another port with --listen ADDRESS:PORT")));
  EXPECT_EQ(thrown([] { parse_address("here:1"); }),
            "config: --listen here:1: expected ADDRESS:PORT, such as 127.0.0.1:8500");
  EXPECT_EQ(parse_address(":80").host, "0.0.0.0");
  EXPECT_EQ(parse_address("[::1]:80").host, "::1");
  EXPECT_EQ(parse_address("99").port, 99);
  EXPECT_FALSE(server.server->is_open_to_network());
}

// An engine that answers with the first element of each row, doubled.
class Doubling final : public Inference {
 public:
  Doubling() {
    auto s = std::make_shared<Signature>();
    s->inputs = {{.name = "x<", .type = OipType::fp32, .shape = {-1, 1}}};
    s->outputs = {{.name = "p", .type = OipType::fp32, .shape = {-1, 1}}};
    served.signature = s;
    served.version.id = {7, "id-7", {}};
  }
  bool is_ready(std::string* why) const override {
    if (!ready && why != nullptr) *why = "no committed checkpoint yet";
    return ready;
  }
  std::optional<ServedModel> model(const std::string& version) const override {
    if (!ready || !(version.empty() || version == "7")) return std::nullopt;
    return served;
  }
  std::vector<VersionInfo> versions() const override {
    VersionInfo old;
    old.id.step = 3;
    old.state = VersionInfo::State::gone;
    old.why = "damaged";
    return ready ? std::vector{served.version, old} : std::vector<VersionInfo>();
  }
  void infer(InferRequest request, std::function<void(InferAnswer)> done) override {
    InferAnswer a = answer_of({}, {request.inputs[0].shape[0], 1});
    a.model = served;
    for (const float x : values_of<float>(request.inputs[0])) {
      const float twice = 2 * x;
      const auto bytes = std::as_bytes(std::span(&twice, 1));
      a.outputs[0].data.insert(a.outputs[0].data.end(), bytes.begin(), bytes.end());
    }
    done(std::move(a));
  }
  std::int64_t longest_compute_ns() const override { return 0; }
  bool ready = true;
  ServedModel served;
};

class ServiceTest : public ::testing::Test {
 protected:
  HttpResponse ask(const std::string& method, const std::string& path, const std::string& body = "") {
    std::optional<HttpResponse> response;
    service.handle({method, path, {}, body, {}}, [&](HttpResponse r) { response = std::move(r); });
    EXPECT_TRUE(response);
    return *response;
  }
  std::string error(const std::string& method, const std::string& path, int status,
                    const std::string& body = "") {
    const HttpResponse r = ask(method, path, body);
    EXPECT_EQ(r.status, status) << path;
    return Json::parse(r.body).value("error", "");
  }
  Doubling inference;
  ServeMetrics metrics{"1.2"};
  Service service{inference, metrics, {.name = "m", .program = "1.2"}};
};

TEST_F(ServiceTest, HasTheAddressesOfBothProtocols) {
  EXPECT_EQ(Json::parse(ask("GET", "/v2").body)["extensions"], Json({"binary_tensor_data"}));
  EXPECT_EQ(ask("GET", "/v2/health/live").body, R"({"live":true})");
  EXPECT_EQ(ask("GET", "/v2/health/ready").body, R"({"live":true,"ready":true})");
  EXPECT_EQ(ask("GET", "/v2/models/m/ready").status, 200);
  EXPECT_EQ(ask("GET", "/v2/models/m/versions/7/ready").status, 200);
  const Json model = Json::parse(ask("GET", "/v2/models/m/versions/7").body);
  EXPECT_EQ(model["versions"], Json({"7"}));
  EXPECT_EQ(model["inputs"][0]["shape"], Json({-1, 1}));
  const Json status = Json::parse(ask("GET", "/v1/models/m").body)["model_version_status"];
  EXPECT_EQ(status[0]["state"], "AVAILABLE");
  EXPECT_EQ(status[1]["state"], "END");
  EXPECT_EQ(status[1]["status"]["error_message"], "damaged");
  EXPECT_EQ(Json::parse(ask("GET", "/v1/models/m/metadata").body)["model_spec"]["version"], "7");
  EXPECT_EQ(ask("POST", "/v1/models/m:predict", R"({"instances":[[1],[2.5]]})").body,
            R"({"predictions":[[2],[5]]})");
  EXPECT_EQ(ask("POST", "/v1/models/m/versions/7:predict", R"({"inputs":[[1]]})").body,
            R"({"outputs":[[2]]})");
  const Json inferred =
      Json::parse(ask("POST", "/v2/models/m/versions/7/infer",
                      R"({"inputs":[{"name":"x<","shape":[1,1],"datatype":"FP32","data":[4]}]})")
                      .body);
  EXPECT_EQ(inferred["outputs"][0]["data"], Json({8}));
  EXPECT_EQ(inferred["model_version"], "7");
}

TEST_F(ServiceTest, SaysWhatIsNotThere) {
  EXPECT_EQ(error("GET", "/v3", 404), "there is nothing at this address; see /v2, /v1/models/m, /metrics");
  EXPECT_EQ(error("POST", "/v2/models/other/infer", 404), "there is no model \"other\"; there is m");
  EXPECT_EQ(error("GET", "/v2/models/m/versions/8", 404), "there is no version 8; there is 7");
  EXPECT_EQ(error("POST", "/v1/models/m", 400),
            "this address does not predict: POST to /v1/models/m:predict");
  EXPECT_EQ(error("POST", "/v2/models/m", 400), "this address does not infer: POST to /v2/models/m/infer");
  EXPECT_EQ(error("GET", "/v1/models/m:predict", 405), "this address takes POST");
  EXPECT_EQ(error("POST", "/v2/health/live", 405), "this address takes GET");
  EXPECT_EQ(error("GET", "/v2/models/m/../../etc/passwd", 404),
            "there is nothing at this address; see /v2, /v1/models/m, /metrics");
  inference.ready = false;
  EXPECT_EQ(error("GET", "/v2/health/ready", 503), "no committed checkpoint yet");
  EXPECT_EQ(error("GET", "/v2/models/m", 503), "no committed checkpoint yet");
  EXPECT_EQ(error("POST", "/v1/models/m:predict", 503, R"({"instances":[[1]]})"),
            "no committed checkpoint yet");
}

TEST_F(ServiceTest, IsNotReadyOnceItEndsAndAnswersAllTheSame) {
  service.begin_drain();
  EXPECT_EQ(error("GET", "/v2/health/ready", 503), "the server ends");
  EXPECT_EQ(ask("GET", "/v2/health/live").status, 200);
  EXPECT_EQ(ask("POST", "/v1/models/m:predict", R"({"instances":[[1]]})").status, 200);
}

TEST_F(ServiceTest, CountsForPrometheusAndForgetsVersionsThatAreGone) {
  VersionObserver& versions = metrics;
  versions.on_published(inference.served.version, 1'000'000);
  ask("POST", "/v1/models/m:predict", R"({"instances":[[1]]})");
  EXPECT_THAT(metrics.text(), HasSubstr(R"(varscope_requests_total{api="v1",code="200",version="7"} 1)"));
  EXPECT_THAT(metrics.text(), HasSubstr("varscope_served_step 7\n"));
  EXPECT_THAT(metrics.text(), HasSubstr(R"(varscope_build_info{version="1.2"} 1)"));
  versions.on_dropped(inference.served.version);
  EXPECT_THAT(metrics.text(), Not(HasSubstr(R"(version="7")")));
  EXPECT_EQ(metrics.summary().n_requests, 1);
  EXPECT_GT(metrics.summary().median_s, 0);
}

// A run that resumes from an older checkpoint commits the same step again.
TEST_F(ServiceTest, CountsOnWhereAVersionOfTheSameStepTakesItsPlace) {
  VersionObserver& versions = metrics;
  const VersionInfo old = inference.served.version;
  versions.on_published(old, 1'000'000);
  inference.served.version.id.manifest_id = "id-7-again";
  versions.on_published(inference.served.version, 1'000'000);
  versions.on_dropped(old);
  ask("POST", "/v1/models/m:predict", R"({"instances":[[1]]})");
  EXPECT_THAT(metrics.text(), HasSubstr(R"(varscope_requests_total{api="v1",code="200",version="7"} 1)"));
  EXPECT_THAT(metrics.text(), HasSubstr(R"(varscope_version_load_seconds{version="7"} )"));
}

TEST_F(ServiceTest, CountsRequestsThatCannotBeRead) {
  ask("POST", "/v1/models/m:predict", "{");
  ask("POST", "/v2/models/m/infer", "{}");
  EXPECT_THAT(metrics.text(), HasSubstr(R"(varscope_requests_total{api="v1",code="400",version=""} 1)"));
  EXPECT_THAT(metrics.text(), HasSubstr(R"(varscope_requests_total{api="v2",code="400",version=""} 1)"));
  EXPECT_EQ(metrics.summary().n_failed, 2);
}

TEST_F(ServiceTest, SaysHowOldTheNewestRecordIsThatItHasLearntFrom) {
  VersionObserver& versions = metrics;
  const VersionInfo plain = inference.served.version;
  versions.on_published(plain, 1'000'000);
  EXPECT_THAT(metrics.text(), Not(HasSubstr("event"))) << "it does not follow a stream";
  VersionInfo streamed = plain;
  streamed.id.step = 8;
  streamed.event_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(
                          (std::chrono::system_clock::now() - std::chrono::hours(1)).time_since_epoch())
                          .count();
  versions.on_published(streamed, 1'000'000);
  const std::string text = metrics.text();
  const auto value_of = [&](const std::string& series) {
    const std::size_t at = text.find("\n" + series + " ");
    return at == std::string::npos ? 0 : std::stod(text.substr(at + series.size() + 2));
  };
  EXPECT_NEAR(value_of(R"(varscope_version_event_time_seconds{version="8"})"),
              static_cast<double>(*streamed.event_ns) * 1e-9, 1);
  EXPECT_GE(value_of("varscope_served_event_age_seconds"), 3600);
  EXPECT_LE(value_of("varscope_served_event_age_seconds"), 3900);
  versions.on_dropped(streamed);
  EXPECT_THAT(metrics.text(), Not(HasSubstr("event_age_seconds "))) << "of the version that is served";
}

TEST_F(ServiceTest, ThePageHasWhatIsServedWithItsNamesEscaped) {
  const HttpResponse page = ask("GET", "/");
  EXPECT_EQ(page.type, "text/html; charset=utf-8");
  EXPECT_THAT(page.body, HasSubstr("<code>x&lt;</code>"));
  EXPECT_THAT(page.body, HasSubstr("data-url=\"/v1/models/m:predict\""));
  EXPECT_THAT(page.body, Not(HasSubstr("http://")));
  inference.ready = false;
  EXPECT_THAT(ask("GET", "/").body, HasSubstr("Nothing is served: no committed checkpoint yet."));
}

}  // namespace
}  // namespace varscope
