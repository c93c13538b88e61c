#include "launch/commands/gradcheck.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <regex>

#include "common/base/error.h"
#include "common/config/yaml_reader.h"
#include "tests/support/thrown.h"

namespace varscope {
namespace {

// Passes its input on, and `share` of the gradient back: right only for 1.
class Leaky final : public Op {
 public:
  explicit Leaky(double share) : share_(share) {}
  const char* type() const override { return "leaky"; }
  TensorType infer(const InferContext& context) const override {
    context.require_inputs(1);
    return context.type(0);
  }
  void forward(const ForwardContext& c) const override {
    const auto x = c.inputs[0]->as<double>();
    std::copy(x.begin(), x.end(), c.output.as<double>().begin());
  }
  void backward(const BackwardContext& c) const override {
    const InputGradient& g = c.input_gradients[0];
    if (g.contribution == Contribution::none) return;
    const auto dy = c.output_gradient.as<double>();
    const auto dx = g.gradient->as<double>();
    for (std::size_t i = 0; i < dx.size(); ++i)
      dx[i] = share_ * dy[i] + (g.contribution == Contribution::later ? dx[i] : 0);
  }

 private:
  double share_;
};

LayerRegistry with_leaky(double share) {
  LayerRegistry layers = LayerRegistry::built_in();
  const auto build = [share](const LayerContext& context) {
    return LayerInfo{
        context.graph.add(std::make_unique<Leaky>(share), {context.input()}, context.op("leaky"))};
  };
  layers.add({"leaky", "for tests", build, [](Keys&) {}});
  return layers;
}

JobConfig job(const std::string& layers) {
  const std::string text =
      "job: {name: t}\ndata: {train: {type: digits, samples: 20}}\nmodel:\n  loss: softmax_cross_entropy\n  "
      "layers:\n" +
      layers;
  return parse_job(read_yaml_text(text, "job.yaml"), "job.yaml");
}

constexpr const char* kModel =
    "    - {type: dense, scope: a, units: 6, activation: tanh}\n"
    "    - {type: leaky}\n"
    "    - {type: dense, scope: out, units: 10}\n";

TEST(Gradcheck, PassesRightGradients) {
  std::string out;
  EXPECT_EQ(check_gradients(job(kModel), {}, with_leaky(1), out), static_cast<int>(ExitCode::ok)) << out;
  EXPECT_NE(out.find("all gradients agree"), std::string::npos) << out;
}

TEST(Gradcheck, NamesTheVariableBelowAWrongGradient) {
  std::string out;
  EXPECT_EQ(check_gradients(job(kModel), {}, with_leaky(0.99), out), static_cast<int>(ExitCode::difference))
      << out;
  for (const char* word : {"a/weights", "WRONG: element", "differences say",
                           "gradients differ by more than is allowed: rounding, and 1e-05 of their size"})
    EXPECT_NE(out.find(word), std::string::npos) << word << " in: " << out;
  // What is above the op is right.
  const std::string last = out.substr(out.find("out/bias"));
  EXPECT_EQ(last.find("WRONG"), std::string::npos) << out;
}

// As it is measured: no difference of two losses is exact.
TEST(Gradcheck, ShowsTheDifferenceAndWhatIsAllowed) {
  std::string out;
  check_gradients(job(kModel), {}, with_leaky(1), out);
  std::smatch found;
  ASSERT_TRUE(std::regex_search(out, found,
                                std::regex("variable +elements +difference +allowed\n"
                                           "a/weights +20 +(\\S+) +(\\S+)\n")))
      << out;
  EXPECT_GT(std::stod(found[1]), 0) << out;
  EXPECT_GT(std::stod(found[2]), std::stod(found[1])) << out;
}

TEST(Gradcheck, AGradientThatIsNotFiniteIsWrong) {
  std::string out;
  EXPECT_EQ(check_gradients(job(kModel), {}, with_leaky(std::numeric_limits<double>::quiet_NaN()), out),
            static_cast<int>(ExitCode::difference))
      << out;
  EXPECT_NE(out.find("WRONG"), std::string::npos) << out;
  EXPECT_EQ(out.find("-nan"), std::string::npos) << out;
}

TEST(Gradcheck, RefusesToCheckNothing) {
  std::string out;
  EXPECT_THAT_THROWN(
      check_gradients(job("    - {type: dense, units: 10, trainable: false}\n"), {}, with_leaky(1), out),
      ErrorKind::config, {"job.yaml: model.layers", "nothing to check"});
}

}  // namespace
}  // namespace varscope
