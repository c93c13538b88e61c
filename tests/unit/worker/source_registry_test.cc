#include "worker/data/source_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/job_config.h"
#include "common/config/yaml_reader.h"
#include "tests/support/thrown.h"
#include "worker/data/digits.h"

namespace varscope {
namespace {

using ::testing::HasSubstr;
using testing::thrown;

// A source of a program's own.
struct BlankSource {
  std::int64_t samples = 5;
  std::string folder;
  void describe(Keys& keys) {
    keys.key("samples", samples, "how many", {.unit = "samples", .min = 1, .max = 100});
    keys.required_key("folder", folder, "where they are", {.is_path = true, .not_empty = true});
  }
  bool operator==(const BlankSource&) const = default;
};

void add_blank() {
  add_source<BlankSource>("blank", "images of nothing", [](const BlankSource& keys, const SourceContext& c) {
    return std::make_unique<DigitsDataset>(DigitsOptions{.samples = keys.samples}, c.position);
  });
}

class SourceRegistry : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { add_blank(); }
  static JobConfig parse(const std::string& source) {
    return parse_job(
        read_yaml_text("job: {name: t}\ndata:\n  train: " + source +
                           "\nmodel: {loss: softmax_cross_entropy, layers: [{type: dense, units: 10}]}\n",
                       "job.yaml"),
        "job.yaml");
  }
};

TEST_F(SourceRegistry, AProgramsOwnSourceIsReadDumpedAndOpened) {
  const JobConfig job = parse("{type: blank, samples: 7, folder: x}");
  EXPECT_EQ(job.data.train.type(), "blank");
  ASSERT_NE(job.data.train.get<BlankSource>(), nullptr);
  EXPECT_EQ(job.data.train.get<DigitsSource>(), nullptr);
  EXPECT_EQ(open_source(job.data.train, {})->size(), 7);
  EXPECT_THAT(dump(job), HasSubstr("type: blank\n    samples: 7\n    folder: x\n"));
  EXPECT_TRUE(parse_job(read_yaml_text(dump(job), "dump"), "dump") == job);
  EXPECT_FALSE(parse("{type: blank, samples: 8, folder: x}") == job);
  EXPECT_THAT(
      explain_job_config(),
      HasSubstr("data.train[type=blank]: images of nothing\n"
                "data.train[type=blank].samples: an integer, default 5; allowed: 1 to 100 (samples)\n"));
}

TEST_F(SourceRegistry, ItsMistakesAreToldAsThoseOfBuiltInOnes) {
  EXPECT_THAT(
      thrown([] { parse("{type: blanc, folder: x}"); }),
      HasSubstr(
          "job.yaml:3:17: data.train.type: expected one of idx, fashion_mnist, digits, synthetic, csv,"));
  EXPECT_THAT(thrown([] { parse("{type: blanc, folder: x}"); }), HasSubstr("did you mean \"blank\"?"));
  EXPECT_THAT(thrown([] { parse("{folder: x}"); }), HasSubstr("data.train.type: missing; "));
  EXPECT_THAT(thrown([] { parse("{type: blank, folder: x, sampels: 3}"); }),
              HasSubstr("data.train.sampels: unknown key; did you mean \"samples\"?"));
  EXPECT_THAT(thrown([] { parse("{type: blank, folder: x, samples: 0}"); }),
              HasSubstr("data.train.samples: 0 is out of range; allowed: 1 to 100 (samples)"));
  EXPECT_THAT(thrown([] { parse("{type: blank}"); }),
              HasSubstr("data.train.folder: missing; type blank needs this key (a text: where they are)"));
  EXPECT_THAT(thrown([] { parse("{type: blank, folder: ''}"); }), HasSubstr("must not be empty"));
  EXPECT_THAT(
      thrown([] { parse("{type: blank, folder: x, noise: 1}"); }),
      HasSubstr("data.train.noise: not used by type blank (only by digits, synthetic); remove it or change "
                "data.train.type"));
}

TEST_F(SourceRegistry, ANameIsTakenOnce) {
  EXPECT_THAT(thrown([] { add_blank(); }), HasSubstr("there is a data source of type \"blank\" already"));
}

}  // namespace
}  // namespace varscope
