#include "serve/engine/version.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <utility>

#include "common/base/clock.h"
#include "common/base/error.h"
#include "common/base/text.h"
#include "worker/train/class_answers.h"

namespace varscope {
namespace {

constexpr const char *kProbabilities = "probabilities", *kClasses = "classes", *kLogits = "logits",
                     *kOutput = "output";

template <class T>
void append(std::vector<std::byte>& out, T value) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(&value, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void append_number(OutputTensor& out, double value) {
  out.type == OipType::fp64 ? append(out.data, value) : append(out.data, static_cast<float>(value));
}

// Of one answer; "" where all are finite.
std::string not_finite_problem(const InferAnswer& answer, std::int64_t row, std::span<const double> values) {
  const auto bad = std::ranges::find_if(values, [](double x) { return !std::isfinite(x); });
  if (bad == values.end()) return {};
  return fmt::format("output \"{}\" of row {} is {}, which JSON has no number for; ask for binary data",
                     answer.outputs.front().name, row, *bad);
}

}  // namespace

Version::Version(std::shared_ptr<const Servable> servable, VersionInfo info)
    : servable_(std::move(servable)), rows_(servable_->schema()) {
  const ServableSchema& schema = servable_->schema();
  const Model& model = servable_->model();
  Predictor predictor(
      model, schema.spec, schema.dtype, [&](Executor& e) { servable_->bind(e); }, {}, servable_->rows(),
      info.is_exact ? std::nullopt : std::optional(info.block),
      info.is_exact ? Predictor::Fill::zeros : Predictor::Fill::cut);
  n_outputs_ = predictor.n_outputs();
  n_targets_ = std::max<std::int64_t>(1, model.targets_per_sample);
  n_of_target_ = n_outputs_ / n_targets_;
  info.block = predictor.block();
  info.n_bytes = servable_->n_bytes();
  info.state = VersionInfo::State::available;
  served_.version = std::move(info);
  describe_outputs();
}

void Version::describe_outputs() {
  const ServableSchema& schema = servable_->schema();
  auto signature = std::make_shared<Signature>();
  signature->inputs = rows_.inputs();
  std::vector<std::int64_t> rows{-1};
  if (n_targets_ > 1) rows.push_back(n_targets_);
  const OipType number = schema.dtype == DType::float64 ? OipType::fp64 : OipType::fp32;
  const auto add = [&](const char* name, OipType type, std::int64_t width, const char* about) {
    TensorInfo info{.name = name, .type = type, .shape = rows, .about = about, .words = schema.names};
    if (width > 0) info.shape.push_back(width);
    signature->outputs.push_back(std::move(info));
  };
  if (schema.answers == ServableSchema::Answers::values) {
    add(kOutput, number, n_of_target_, "values");
  } else {
    const bool is_sigmoid = schema.answers == ServableSchema::Answers::sigmoid;
    add(kProbabilities, number, is_sigmoid ? 2 : n_of_target_, "of each class");
    add(kClasses, OipType::int32, 0, "numbers of the most probable classes");
    add(kLogits, number, n_of_target_, "what probabilities are made of");
  }
  served_.signature = std::move(signature);
}

std::int64_t Version::check(const InferRequest& request) const {
  for (const std::string& name : request.outputs) {
    if (served_.signature->output(name) != nullptr) continue;
    std::vector<std::string> names;
    for (const TensorInfo& info : served_.signature->outputs) names.push_back(info.name);
    fail(ErrorKind::data, "the model has no output \"{}\", it has {}{}", name, comma_list(names),
         did_you_mean(name, names));
  }
  return rows_.check(request);
}

Version::Runner::Runner(const Version& version)
    : version_(version),
      predictor_(
          version.servable_->model(), version.servable_->schema().spec, version.servable_->schema().dtype,
          [&](Executor& e) { version.servable_->bind(e); }, {}, version.servable_->rows(),
          version.served_.version.block,
          version.served_.version.is_exact ? Predictor::Fill::zeros : Predictor::Fill::cut) {}

void Version::Runner::run(std::span<const RequestPiece> pieces) {
  const std::int64_t started = now_ns();
  const auto refuse = [](const RequestPiece& piece, Refusal::Kind kind, std::string text) {
    if (!piece.answer->refusal) piece.answer->refusal = {kind, std::move(text)};
  };
  try {
    RequestRows::Rows rows(version_.rows_);
    std::vector<std::int64_t> begins;
    for (const RequestPiece& piece : pieces) {
      begins.push_back(rows.size());
      std::string problem = rows.add(*piece.request, piece.begin, piece.n);
      if (!problem.empty()) refuse(piece, Refusal::Kind::invalid, std::move(problem));
    }
    if (rows.size() > 0) {
      const std::vector<double> values = predictor_.outputs(rows.view(), rows.size());
      const auto width = static_cast<std::size_t>(version_.n_outputs_);
      for (std::size_t i = 0; i < pieces.size(); ++i) {
        if (pieces[i].answer->refusal) continue;
        answer(pieces[i], std::span(values).subspan(static_cast<std::size_t>(begins[i]) * width,
                                                    static_cast<std::size_t>(pieces[i].n) * width));
      }
    }
  } catch (const std::exception& e) {
    for (const RequestPiece& piece : pieces)
      refuse(piece, Refusal::Kind::internal, fmt::format("the model cannot be run: {}", e.what()));
  }
  const std::int64_t taken = now_ns() - started;
  for (const RequestPiece& piece : pieces) piece.answer->compute_ns += taken;
}

// Appends the outputs of the piece's rows.
void Version::Runner::answer(const RequestPiece& piece, std::span<const double> values) const {
  const Signature& signature = *version_.served_.signature;
  InferAnswer& a = *piece.answer;
  if (a.outputs.empty()) {
    std::vector<std::string> names = piece.request->outputs;
    if (names.empty()) names.push_back(signature.outputs.front().name);
    for (const std::string& name : names) {
      const TensorInfo& info = *signature.output(name);
      a.outputs.push_back({info.name, info.type, info.shape, {}, {}});
      a.outputs.back().shape.front() = 0;
    }
    a.model = version_.served_;
  }
  const auto width = static_cast<std::size_t>(version_.n_of_target_);
  const bool is_sigmoid = version_.servable_->schema().answers == ServableSchema::Answers::sigmoid;
  const ClassLogits kind = is_sigmoid ? ClassLogits::sigmoid : ClassLogits::softmax;
  const auto n_targets = static_cast<std::size_t>(version_.n_targets_);
  for (std::size_t target = 0; target < values.size() / width; ++target) {
    const std::span<const double> of_target = values.subspan(target * width, width);
    if (piece.request->refuses_not_finite) {
      const auto row = piece.begin + static_cast<std::int64_t>(target / n_targets);
      std::string problem = not_finite_problem(a, row, of_target);
      if (!problem.empty()) {
        a.refusal = {Refusal::Kind::not_finite, std::move(problem)};
        return;
      }
    }
    for (OutputTensor& out : a.outputs) {
      if (out.name == kClasses) {
        append(out.data, static_cast<std::int32_t>(class_of(kind, of_target)));
      } else if (out.name == kProbabilities) {
        for (const double p : class_probabilities(kind, of_target)) append_number(out, p);
      } else {
        for (const double x : of_target) append_number(out, x);
      }
    }
  }
  for (OutputTensor& out : a.outputs) out.shape.front() += piece.n;
  a.n_rows += piece.n;
}

}  // namespace varscope
