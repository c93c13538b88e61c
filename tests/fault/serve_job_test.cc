// `varscope serve` as its users start it: the bits of predict, new checkpoints under load, signals, mistakes,
// and other people's clients and proxies.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <thread>

#include <nlohmann/json.hpp>

#include "tests/support/jobs/job.h"
#include "tests/support/jobs/tiny_job.h"
#include "tests/support/serving/http_client.h"
#include "tests/support/serving/replica.h"

namespace varscope::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;

// Rows of two numbers and a word, and who answers yes.
std::string people(int n, bool has_answer = true) {
  std::string csv = has_answer ? "age,height,city,answer\n" : "age,height,city\n";
  for (int i = 0; i < n; ++i) {
    const char* const cities[] = {"Bonn", "Kiel", "Ulm", "Hof"};
    csv += std::to_string(20 + i * 7 % 50) + "," +
           (i % 11 == 0 ? "" : "1." + std::to_string(50 + i * 3 % 49)) + "," + cities[i * i % 4];
    csv += has_answer ? std::string(",") + (i * 7 % 50 > 24 ? "yes" : "no") + "\n" : "\n";
  }
  return csv;
}

constexpr const char* kPeople = R"(
job: {name: people, run_dir: RUN}
data:
  train:
    type: csv
    files: CSV
    schema:
      label: {column: answer}
      features:
        n: {columns: [age, height], transform: standardize, missing: mean}
        c: {columns: [city], ids: string}
model:
  loss: sigmoid_cross_entropy
  layers:
    - {type: embedding, input: c, scope: city, units: 4, combiner: sum, table: {ids: string}, name: e}
    - {type: concat, inputs: [n, e]}
    - {type: dense, scope: out, units: 1}
train: {batch: 20, epochs: 5}
checkpoint: {every_steps: 5}
)";

TEST(Serve, AnswersWithTheBitsOfPredictWhateverIsAskedBesideIt) {
  const ScratchDir dir;
  train(tiny_alone(dir / "run"));
  Replica replica(dir / "run");
  ASSERT_TRUE(replica.wait_until_ready()) << replica.job.out() << replica.job.err();
  // Images of bytes, as they were trained on.
  std::string npy("\x93NUMPY\x01\x00", 8);
  std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 16, 16), }";
  header.resize(117, ' ');
  header += '\n';
  npy += std::string("\x76\x00", 2) + header;
  Json instances = Json::array();
  for (int row = 0; row < 5; ++row) {
    Json image = Json::array();
    for (int y = 0; y < 16; ++y) {
      Json line = Json::array();
      for (int x = 0; x < 16; ++x) {
        const int pixel = (row * 31 + y * 7 + x * 3) % 256;
        npy += static_cast<char>(pixel);
        line.push_back(pixel);
      }
      image.push_back(line);
    }
    instances.push_back(image);
  }
  write_text(dir / "x.npy", npy);
  const Ended predicted = run(varscope({"predict", dir / "run", "--in", dir / "x.npy", "--out",
                                        dir / "p.jsonl", "--outputs", "probabilities"}));
  ASSERT_EQ(predicted.code, 0) << predicted.all();
  const std::vector<std::string> due = lines_of(text_of_file(dir / "p.jsonl"));
  ASSERT_EQ(due.size(), 5U);

  Json flat = Json::array();
  for (const Json& image : instances) {
    for (const Json& line : image) flat.insert(flat.end(), line.begin(), line.end());
  }
  const auto ask = [&](std::size_t first, std::size_t n) {
    const Json body{
        {"inputs",
         {{{"name", "x"},
           {"shape", {n, 16, 16}},
           {"datatype", "UINT8"},
           {"data", std::vector<Json>(flat.begin() + static_cast<std::ptrdiff_t>(first * 256),
                                      flat.begin() + static_cast<std::ptrdiff_t>((first + n) * 256))}}}}};
    return Json::parse(body_of(
        HttpClient(replica.port).ask(http_post("/v2/models/m/infer", body.dump()))))["outputs"][0]["data"];
  };
  const Json all = ask(0, 5);
  for (std::size_t row = 0; row < 5; ++row) {
    const Json line = Json::parse(due[row]), alone = ask(row, 1);
    for (std::size_t c = 0; c < 10; ++c) {
      const auto expected = line["probability_" + std::to_string(c)].get<double>();
      EXPECT_EQ(all[row * 10 + c].get<double>(), expected) << row << " " << c;
      EXPECT_EQ(alone[c].get<double>(), expected) << row << " " << c;
    }
  }
}

TEST(Serve, WithoutExactnessAnswersAreTheSameButForLastBits) {
  const ScratchDir dir;
  train(tiny_alone(dir / "run", set({"train.max_steps=100"})));
  Replica exact(dir / "run"), other(dir / "run", {"--no-exact", "--max-batch", "3"});
  ASSERT_TRUE(exact.wait_until_ready()) << exact.job.out() << exact.job.err();
  ASSERT_TRUE(other.wait_until_ready()) << other.job.out() << other.job.err();
  // It is said after the address.
  const auto says = [](Replica& r, const char* words) {
    return r.job.wait_until([&] { return r.job.out().find(words) != std::string::npos; }, kStartSeconds);
  };
  EXPECT_TRUE(says(exact, "bits     of a row are the same in any batch")) << exact.job.out();
  EXPECT_TRUE(says(other, "bits     of a row vary with its batch (--no-exact)")) << other.job.out();
  const auto parameters = [](const Replica& r) {
    return Json::parse(body_of(HttpClient(r.port).ask(http_get("/v2/models/m"))))["parameters"];
  };
  EXPECT_EQ(parameters(exact)["exact"], true);
  EXPECT_EQ(parameters(other)["exact"], false);
  EXPECT_EQ(parameters(other)["block"], 3);
  Json images = Json::array();
  for (int row = 0; row < 7; ++row)
    images.push_back(std::vector<std::vector<double>>(16, std::vector<double>(16, 0.1 * row)));
  const std::string request = http_post("/v1/models/m:predict", Json{{"instances", images}}.dump());
  const Json due = Json::parse(body_of(HttpClient(exact.port).ask(request)))["predictions"],
             given = Json::parse(body_of(HttpClient(other.port).ask(request)))["predictions"];
  ASSERT_EQ(given.size(), 7U);
  for (std::size_t row = 0; row < 7; ++row) {
    for (std::size_t c = 0; c < 10; ++c)
      EXPECT_NEAR(given[row][c].get<double>(), due[row][c].get<double>(), 1e-5) << row << " " << c;
  }
}

TEST(Serve, AnswersRecordsOfATableWithSparseRowsAsPredictDoes) {
  const ScratchDir dir;
  write_text(dir / "t.csv", people(200));
  write_text(dir / "x.csv", people(40, false) + "33,1.70,Nowhere\n");
  std::string config = kPeople;
  config.replace(config.find("RUN"), 3, dir / "run");
  config.replace(config.find("CSV"), 3, dir / "t.csv");
  write_text(dir / "job.yaml", config);
  const Ended trained = run(varscope({"train", dir / "job.yaml"}));
  ASSERT_EQ(trained.code, 0) << trained.all();
  const Ended predicted = run(varscope({"predict", dir / "run", "--in", dir / "x.csv", "--out",
                                        dir / "p.jsonl", "--outputs", "probabilities"}));
  ASSERT_EQ(predicted.code, 0) << predicted.all();
  const std::vector<std::string> due = lines_of(text_of_file(dir / "p.jsonl"));
  std::filesystem::remove(dir / "t.csv");  // the checkpoint has all that it takes
  Replica replica(dir / "run");
  ASSERT_TRUE(replica.wait_until_ready()) << replica.job.out() << replica.job.err();
  std::filesystem::remove_all(dir / "run");  // and rows of tables are in memory
  const std::vector<std::string> rows = lines_of(text_of_file(dir / "x.csv"));
  Json instances = Json::array();
  for (std::size_t i = 1; i < rows.size(); ++i) {
    const std::size_t a = rows[i].find(','), b = rows[i].find(',', a + 1);
    const std::string height = rows[i].substr(a + 1, b - a - 1);
    instances.push_back({{"age", std::stod(rows[i].substr(0, a))},
                         {"height", height.empty() ? Json(nullptr) : Json(std::stod(height))},
                         {"city", rows[i].substr(b + 1)}});
  }
  const std::string answer =
      HttpClient(replica.port).ask(http_post("/v1/models/m:predict", Json{{"instances", instances}}.dump()));
  ASSERT_EQ(status_of(answer), 200) << answer;
  const Json predictions = Json::parse(body_of(answer))["predictions"];
  ASSERT_EQ(predictions.size(), due.size());
  for (std::size_t i = 0; i < due.size(); ++i)
    EXPECT_EQ(predictions[i][1].get<double>(), Json::parse(due[i])["probability_yes"].get<double>()) << i;
  const std::string told =
      HttpClient(replica.port)
          .ask(http_post("/v1/models/m:predict", R"({"instances":[{"age":"old","height":1,"city":"Ulm"}]})"));
  EXPECT_EQ(status_of(told), 400);
  EXPECT_THAT(told, HasSubstr("row 0: column \\\"age\\\""));
}

// While the run goes on, each checkpoint is served soon after its commit; nobody notices but by the version.
TEST(Serve, TakesNewCheckpointsUnderLoad) {
  const ScratchDir dir;
  train(tiny_alone(dir / "run", set({"train.max_steps=100"})));
  Replica replica(dir / "run");
  ASSERT_TRUE(replica.wait_until_ready()) << replica.job.out() << replica.job.err();
  const Json zeros = Json::array({std::vector<std::vector<int>>(16, std::vector<int>(16, 0))});
  const std::string request = http_post("/v1/models/m:predict", Json{{"instances", zeros}}.dump());
  std::atomic<bool> is_over{false};
  std::atomic<int> n_good{0}, n_bad{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 3; ++c) {
    clients.emplace_back([&] {
      HttpClient client(replica.port);
      while (!is_over) status_of(client.ask(request)) == 200 ? ++n_good : ++n_bad;
    });
  }
  train(tiny_alone(
      dir / "run",
      set({"train.max_steps=600", "checkpoint.every_steps=50", "checkpoint.keep=2"}) + Args{"--resume"}));
  EXPECT_TRUE(replica.job.wait_until([&] { return replica.step() == 600; }, 30 * kSlowness));
  is_over = true;
  for (std::thread& t : clients) t.join();
  EXPECT_EQ(n_bad, 0);
  EXPECT_GT(n_good, 0);
  // A rollback is followed, to whichever save was not skipped.
  std::vector<std::string> names = names_in(dir / "run/checkpoints");
  std::erase_if(names, [](const std::string& name) { return !name.starts_with("step-"); });
  ASSERT_EQ(names.size(), 2U);
  const std::int64_t older = std::stoll(names.front().substr(5));
  const Ended rollback =
      run(varscope({"checkpoint", "rollback", dir / "run/checkpoints", std::to_string(older)}));
  ASSERT_EQ(rollback.code, 0) << rollback.all();
  EXPECT_TRUE(replica.job.wait_until([&] { return replica.step() == older; }, 30 * kSlowness));
  const std::string metrics = body_of(HttpClient(replica.port).ask(http_get("/metrics")));
  EXPECT_THAT(metrics, HasSubstr(fmt::format("varscope_served_step {}\n", older)));
}

TEST(Serve, DrainsAtSigtermAndASecondOneEndsItAtOnce) {
  const ScratchDir dir;
  train(tiny_alone(dir / "run", set({"train.max_steps=100"})));
  {
    Replica replica(dir / "run", {"--drain-ms", "700"});
    ASSERT_TRUE(replica.wait_until_ready());
    HttpClient kept(replica.port);
    EXPECT_EQ(status_of(kept.ask(http_get("/v2/health/ready"))), 200);
    replica.job.send_signal(SIGTERM);
    EXPECT_TRUE(replica.job.wait_until(
        [&] { return status_of(HttpClient(replica.port).ask(http_get("/v2/health/ready"))) == 503; },
        30 * kSlowness));
    EXPECT_THAT(kept.ask(http_get("/v2/health/live")),
                AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("Connection: close")));
    const Ended ended = replica.job.wait(30 * kSlowness);
    EXPECT_EQ(ended.code, 0) << ended.all();
    EXPECT_THAT(ended.out, HasSubstr("ended\n"));
  }
  Replica replica(dir / "run", {"--drain-ms", "60000"});
  ASSERT_TRUE(replica.wait_until_ready());
  replica.job.send_signal(SIGTERM);
  EXPECT_TRUE(replica.job.wait_until([&] { return replica.job.out().find("ending: ") != std::string::npos; },
                                     30 * kSlowness));
  replica.job.send_signal(SIGTERM);
  EXPECT_EQ(replica.job.wait(30 * kSlowness).code, 143);
}

TEST(Serve, WaitsForTheFirstCheckpoint) {
  const ScratchDir dir;
  Replica replica(dir / "run");
  ASSERT_TRUE(replica.wait_until_listening());
  EXPECT_EQ(status_of(HttpClient(replica.port).ask(http_get("/v2/health/live"))), 200);
  const std::string ready = HttpClient(replica.port).ask(http_get("/v2/health/ready"));
  EXPECT_EQ(status_of(ready), 503);
  EXPECT_THAT(ready, HasSubstr("no committed checkpoint yet"));
  train(tiny_alone(dir / "run", set({"train.max_steps=100"})));
  EXPECT_TRUE(replica.wait_until_ready());
  EXPECT_THAT(replica.job.err(), HasSubstr("/run does not exist (yet)"));
}

TEST(Serve, SaysWhatIsWrongBeforeItServes) {
  const ScratchDir dir;
  const auto refused = [&](const Args& args, int code) {
    const Ended ended = run(varscope(Args{"serve"} + args));
    EXPECT_EQ(ended.code, code) << ended.all();
    return ended.err;
  };
  EXPECT_THAT(refused({dir / "none", "--listen", "127.0.0.1:0", "--no-wait"}, 4),
              HasSubstr("no committed checkpoint yet"));
  EXPECT_THAT(refused({dir / "none", "--listen", "here"}, 2),
              HasSubstr("--listen here: expected ADDRESS:PORT"));
  EXPECT_THAT(refused({dir / "none", "--require", "loss=1"}, 2),
              HasSubstr("--require loss=1: expected METRIC<=NUMBER"));
  EXPECT_THAT(refused({dir / "none", "--version-policy", "newest"}, 2),
              HasSubstr("expected latest, pinned, or steps"));
  EXPECT_THAT(refused({dir / "none", "--name", "a b"}, 2), HasSubstr("--name a b: it is part of addresses"));
  EXPECT_THAT(refused({dir / "none", "--max-batsh", "1"}, 2), HasSubstr("did you mean"));
  train(tiny_alone(dir / "run", set({"train.max_steps=100"})));
  Replica replica(dir / "run");
  ASSERT_TRUE(replica.wait_until_ready());
  EXPECT_THAT(refused({dir / "run", "--listen", "127.0.0.1:" + std::to_string(replica.port)}, 11),
              HasSubstr("another program does: end it, or choose another port with --listen ADDRESS:PORT"));
  EXPECT_THAT(run(mpirun(1, {"serve", dir / "run"})).err,
              HasSubstr("serve is one process: start it without mpirun"));
  const std::string manifest = dir / "run" + "/checkpoints/step-000000100/MANIFEST";
  flip_byte(manifest, 30);
  EXPECT_THAT(refused({dir / "run", "--listen", "127.0.0.1:0"}, 4), HasSubstr("is not served: "));
}

// The section `serve` of a job's config; --set wins over the file, and options over both.
TEST(Serve, IsToldHowByAConfigOrByOptionsWhichWin) {
  const ScratchDir dir;
  train(tiny_alone(dir / "run", set({"train.max_steps=100"})));
  const std::string job = text_of_file(config_file("digits_mlp.yaml"));
  const auto write = [&](const std::string& serve) {
    write_text(dir / "job.yaml", job + "\nserve:\n" + serve);
  };
  const Args where = set({"job.run_dir=" + (dir / "run")});
  const auto refused = [&](const Args& args) {
    const Ended ended = run(varscope(Args{"serve", dir / "job.yaml"} + args + where));
    EXPECT_EQ(ended.code, 2) << ended.all();
    return ended.err;
  };
  write("  listen: here\n");
  EXPECT_THAT(refused({}), HasSubstr("job.yaml: serve.listen here: expected ADDRESS:PORT"));
  write("  name: a b\n");
  EXPECT_THAT(refused({}), HasSubstr("job.yaml: serve.name a b: it is part of addresses"));
  write("  version: newest\n");
  EXPECT_THAT(refused({}), HasSubstr("job.yaml: serve.version newest: expected latest, pinned, or steps"));
  write("  max_queue: 0\n");
  EXPECT_THAT(refused({}), HasSubstr("serve.max_queue: 0 is out of range"));
  EXPECT_THAT(run(varscope({"serve", dir / "none.yaml"})).err, HasSubstr("none.yaml"));
  EXPECT_THAT(
      run(varscope(Args{"serve", dir / "run"} + where)).err,
      HasSubstr(
          "without a config only keys of serve can be set; name the config: varscope serve DIR CONFIG"));
  EXPECT_THAT(run(varscope(Args{"serve", dir / "run"} + set({"serve.max_bach=1"}))).err,
              HasSubstr("did you mean \"max_batch\"?"));

  write("  listen: 127.0.0.1:0\n  name: by_file\n  drain_ms: 0\n  require: {metric: loss, min: 0}\n");
  const auto served_as = [&](const Args& args) {
    Job server(varscope(args));
    std::smatch m;
    const std::regex line("listening on http://[^ ]*, model ([^ \n]*)");
    std::string out;
    EXPECT_TRUE(server.wait_until(
        [&] {
          out = server.out();
          return std::regex_search(out, m, line);
        },
        30 * kSlowness))
        << server.err();
    const std::string name = m.empty() ? "" : m[1].str();
    server.send_signal(SIGTERM);
    EXPECT_EQ(server.wait(30 * kSlowness).code, 0) << "at once, by drain_ms";
    return name;
  };
  const Args by_file = Args{"serve", dir / "job.yaml"} + where;
  EXPECT_EQ(served_as(by_file), "by_file");
  EXPECT_EQ(served_as(by_file + set({"serve.name=by_set"})), "by_set");
  EXPECT_EQ(served_as(by_file + set({"serve.name=by_set"}) + Args{"--name", "by_option"}), "by_option");
  EXPECT_EQ(served_as(Args{"serve", dir / "run"} +
                      set({"serve.listen=127.0.0.1:0", "serve.name=alone", "serve.drain_ms=0"})),
            "alone");
  // The required metric is that of METRICS, which this run without evaluations does not have.
  const Ended kept_out = run(varscope(by_file + Args{"--no-wait"}));
  EXPECT_EQ(kept_out.code, 4) << kept_out.all();
  EXPECT_THAT(kept_out.err, HasSubstr("its METRICS do not have \"loss\" (yet), which is required"));
}

// The client of Triton Inference Server, binary by default.
TEST(Serve, IsUnderstoodByTritonsClient) {
  if (std::system("python3 -c 'import tritonclient.http' 2>/dev/null") != 0)
    GTEST_SKIP() << "tritonclient is not installed";
  const ScratchDir dir;
  train(tiny_alone(dir / "run", set({"train.max_steps=100"})));
  Replica replica(dir / "run");
  ASSERT_TRUE(replica.wait_until_ready());
  write_text(dir / "ask.py", R"(
import sys
import numpy as np
import tritonclient.http as triton
client = triton.InferenceServerClient(sys.argv[1])
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("m")
assert client.get_model_metadata("m")["inputs"][0]["shape"] == [-1, 16, 16]
x = np.random.default_rng(1).random((5, 16, 16), dtype=np.float32)
def ask(rows, binary_in=True, binary_out=True):
    i = triton.InferInput("x", list(rows.shape), "FP32")
    i.set_data_from_numpy(rows, binary_data=binary_in)
    o = [triton.InferRequestedOutput(n, binary_data=binary_out) for n in ("probabilities", "classes")]
    r = client.infer("m", [i], outputs=o)
    return r.as_numpy("probabilities").astype(np.float32).tobytes(), r.as_numpy("classes").tolist()
a = ask(x)
for binary_in in (True, False):
    for binary_out in (True, False):
        assert ask(x, binary_in, binary_out) == a
assert ask(x[3:4])[0] == a[0][3 * 40:4 * 40]
try:
    ask(np.zeros((2, 255), np.float32))
    raise SystemExit("was not refused")
except triton.InferenceServerException as e:
    assert 'input "x" has shape [2, 255] FP32; the model takes [?, 16, 16] FP32' in str(e), e
print("understood")
)");
  const Ended ended =
      run({{"/bin/sh", "-c", fmt::format("python3 {} 127.0.0.1:{}", dir / "ask.py", replica.port)}});
  EXPECT_THAT(ended.out, HasSubstr("understood")) << ended.all();
}

// Other people's clients under load: nobody is refused, and nothing is lost.
TEST(Serve, StandsTheLoadOfH2load) {
  if (std::system("command -v h2load > /dev/null") != 0)
    GTEST_SKIP() << "h2load is not installed (package nghttp2-client)";
  const ScratchDir dir;
  train(tiny_alone(dir / "run", set({"train.max_steps=20"})));
  Replica replica(dir / "run");
  ASSERT_TRUE(replica.wait_until_ready()) << replica.job.out() << replica.job.err();
  Json image = Json::array();
  for (int i = 0; i < 256; ++i) image.push_back(i);
  write_text(
      dir / "body",
      Json{{"inputs", {{{"name", "x"}, {"shape", {1, 16, 16}}, {"datatype", "UINT8"}, {"data", image}}}}}
          .dump());
  const Ended load = run({{"/usr/bin/env", "h2load", "--h1", "-n", "4000", "-c", "64", "-d", dir / "body",
                           fmt::format("http://127.0.0.1:{}/v2/models/m/infer", replica.port)}});
  EXPECT_EQ(load.code, 0) << load.all();
  EXPECT_THAT(load.out, HasSubstr("4000 succeeded, 0 failed, 0 errored, 0 timeout")) << load.all();
  EXPECT_THAT(load.out, HasSubstr("status codes: 4000 2xx, 0 3xx, 0 4xx, 0 5xx")) << load.all();
}

TEST(Serve, ItsMetricsPleasePromtool) {
  if (std::system("command -v promtool > /dev/null") != 0) GTEST_SKIP() << "promtool is not installed";
  const ScratchDir dir;
  train(tiny_alone(dir / "run", set({"train.max_steps=100"})));
  Replica replica(dir / "run");
  ASSERT_TRUE(replica.wait_until_ready());
  write_text(dir / "metrics", body_of(HttpClient(replica.port).ask(http_get("/metrics"))));
  const Ended ended = run({{"/bin/sh", "-c", "promtool check metrics < " + (dir / "metrics")}});
  EXPECT_EQ(ended.code, 0) << ended.all();
}

// Two replicas behind the example of launch/haproxy.cfg. One after the other is stopped and started again: no
// request fails. Then one is killed: only what was in flight there may.
TEST(Serve, ReplicasBehindAProxyCanBeRestartedWithoutAnybodyNoticing) {
  if (std::system("command -v haproxy > /dev/null") != 0) GTEST_SKIP() << "haproxy is not installed";
  const ScratchDir dir;
  train(tiny_alone(dir / "run", set({"train.max_steps=100"})));
  const auto start = [&](const std::string& listen) {
    return std::make_unique<Replica>(dir / "run", Args{"--drain-ms", "2500"}, listen);
  };
  auto a = start("127.0.0.1:0"), b = start("127.0.0.1:0");
  ASSERT_TRUE(a->wait_until_ready());
  ASSERT_TRUE(b->wait_until_ready());
  const std::string at_a = "127.0.0.1:" + std::to_string(a->port),
                    at_b = "127.0.0.1:" + std::to_string(b->port);
  int front = 0;
  {
    Replica probe(dir / "run");  // a port that is free
    ASSERT_TRUE(probe.wait_until_listening());
    front = probe.port;
  }
  std::string config = text_of_file(std::string(VARSCOPE_CONFIGS) + "/../launch/haproxy.cfg");
  const auto put = [&](const std::string& what, const std::string& with) {
    ASSERT_NE(config.find(what), std::string::npos) << what;
    config.replace(config.find(what), what.size(), with);
  };
  put("127.0.0.1:8600", "127.0.0.1:" + std::to_string(front));
  put("127.0.0.1:8501", at_a);
  put("127.0.0.1:8502", at_b);
  write_text(dir / "haproxy.cfg", config);
  Job proxy({{"/bin/sh", "-c", "exec haproxy -f " + (dir / "haproxy.cfg")}});
  ASSERT_TRUE(proxy.wait_until(
      [&] { return status_of(HttpClient(front).ask(http_get("/v2/health/ready"))) == 200; }, 30 * kSlowness))
      << proxy.err();

  const std::string request = http_post(
      "/v1/models/m:predict",
      Json{{"instances", Json::array({std::vector<std::vector<int>>(16, std::vector<int>(16, 0))})}}.dump());
  std::atomic<bool> is_over{false};
  std::atomic<int> n_good{0}, n_bad{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&] {
      std::optional<HttpClient> client(front);
      while (!is_over) {
        const int status = status_of(client->ask(request));
        status == 200 ? ++n_good : ++n_bad;
        if (status != 200) client.emplace(front);
      }
    });
  }
  for (auto* replica : {&a, &b}) {
    const std::string at = replica == &a ? at_a : at_b;
    (*replica)->job.send_signal(SIGTERM);
    EXPECT_EQ((*replica)->job.wait(60 * kSlowness).code, 0);
    *replica = start(at);
    ASSERT_TRUE((*replica)->wait_until_ready());
    // The proxy sends it requests again.
    EXPECT_TRUE(proxy.wait_until(
        [&] {
          const std::string metrics = HttpClient((*replica)->port).ask(http_get("/metrics"));
          return metrics.find("api=\"v1\"") != std::string::npos;
        },
        60 * kSlowness));
  }
  EXPECT_EQ(n_bad, 0);
  EXPECT_GT(n_good, 0);
  a->job.send_signal(SIGKILL);
  const int before = n_good;
  EXPECT_TRUE(proxy.wait_until([&] { return n_good > before + 200; }, 60 * kSlowness));
  is_over = true;
  for (std::thread& t : clients) t.join();
  EXPECT_LE(n_bad, 4) << "one for each client";
}

}  // namespace
}  // namespace varscope::testing
