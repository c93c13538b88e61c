// Saves a model that lives in this process, and gives its values to another one. Usage: my_saver DIRECTORY
#include <varscope/graph.h>
#include <varscope/saver.h>
#include <varscope/session.h>
#include <varscope/variables.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace {

using namespace varscope;

// y = relu(x W + b), with the variables <scope>/weights and <scope>/bias.
struct Network {
  explicit Network(const char* scope_name, std::uint64_t seed)
      : weights(nullptr), output(make(scope_name)), session(graph, seed) {}

  NodeId make(const char* scope_name) {
    auto scope = store.scope(scope_name);
    weights = &store.get_variable("weights", {4, 3});
    const Variable& bias = store.get_variable("bias", {3});
    x = graph.placeholder("x", DType::float32, {Shape::kUnknown, 4});
    return ops::dense(graph, x, graph.variable(*weights), graph.variable(bias), Activation::relu);
  }
  // Where a Saver finds the values of this model's variables.
  Saver::Values values() {
    return [this](const Variable& v) { return session.value(v); };
  }
  float answer() {
    const Tensor input = Tensor::of<float>({1, 4}, {1, 2, 3, 4});
    const std::vector<Tensor> out = session.run({output}, {{x, input.view()}});
    float sum = 0;
    for (const float y : out[0].as<float>()) sum += y;
    return sum;
  }

  VariableStore store;
  Graph graph;
  NodeId x;
  const Variable* weights;
  NodeId output;
  Session session;
};

int run(const std::string& dir) {
  Network trained("encoder", 1), other("tower", 2);

  // All global variables, under their own names; the two newest checkpoints stay, and the best by a metric.
  Saver::Options options;
  options.retention.keep = 2;
  options.retention.best = RetentionPolicy::Best{"loss", 1, MetricOrder::smaller};
  Saver saver(trained.store, trained.values(), options);
  for (int step = 100; step <= 500; step += 100) {
    const double loss = step == 200 ? 0.1 : 1.0;
    saver.save(dir, step, {.evaluation = EvaluationRecord{step, {{"loss", loss}}}});
  }
  std::printf("newest: %s\n", latest_checkpoint(dir)->c_str());

  // Other names in the checkpoint than in this model: a map.
  const std::map<std::string, const Variable*> names = {
      {"encoder/weights", other.store.find("tower/weights")},
      {"encoder/bias", other.store.find("tower/bias")}};
  Saver renaming(names, other.values());
  const Saver::Restored restored = renaming.restore(dir);
  std::printf("restored step %d: %g and %g\n", static_cast<int>(restored.step), trained.answer(),
              other.answer());
  if (trained.answer() != other.answer()) return 1;

  // What is missing is told at once, and nothing is assigned.
  try {
    Saver(other.store, other.values()).restore(dir);
    return 1;
  } catch (const Error& e) {
    std::printf("%s\n", e.what());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: my_saver DIRECTORY\n");
    return 2;
  }
  try {
    return run(argv[1]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "my_saver: %s\n", e.what());
    return 1;
  }
}
