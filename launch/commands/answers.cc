#include "launch/commands/answers.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/text.h"
#include "worker/data/csv_reader.h"
#include "worker/data/source_registry.h"
#include "worker/data/table_schema.h"
#include "worker/train/class_answers.h"

namespace varscope {
namespace {

using Output = Answers::Output;
constexpr Choice<Output> kOutputs[] = {{Output::classes, "classes"},
                                       {Output::probabilities, "probabilities"},
                                       {Output::logits, "logits"},
                                       {Output::values, "values"}};

constexpr Choice<AnswerFormat> kFormats[] = {{AnswerFormat::csv, "csv"},
                                             {AnswerFormat::jsonl, "jsonl"},
                                             {AnswerFormat::npy, "npy"},
                                             {AnswerFormat::npz, "npz"}};

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string csv_line(const std::vector<std::string>& cells) {
  std::string line;
  for (const std::string& cell : cells)
    line += (line.empty() && &cell == cells.data() ? "" : ",") + csv_cell(cell);
  return line + "\n";
}

// A number where the cell is one of the model's own.
std::string json_line(const std::vector<std::string>& header, const std::vector<std::string>& cells,
                      std::size_t n_kept) {
  nlohmann::ordered_json line;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const bool is_text = i < n_kept || header[i] == "class";
    const std::optional<double> value = is_text ? std::nullopt : number_in(cells[i]);
    line[header[i]] = is_text ? nlohmann::ordered_json(cells[i])
                      : value ? nlohmann::ordered_json::parse(cells[i])
                              : nlohmann::ordered_json(nullptr);
  }
  return line.dump() + "\n";
}

bool is_array(AnswerFormat format) { return format == AnswerFormat::npy || format == AnswerFormat::npz; }

}  // namespace

Answers::Answers(const SavedModel& model, const Model& graph, std::int64_t n_outputs,
                 const std::vector<std::string>& asked, std::size_t most)
    : model_(model), n_(static_cast<std::size_t>(n_outputs)) {
  const LossType loss = model.job.model.loss.type;
  is_sigmoid_ = loss == LossType::sigmoid_cross_entropy;
  is_class_ = graph.correct.has_value() && (is_sigmoid_ || loss == LossType::softmax_cross_entropy);
  if (graph.targets_per_sample > 1)
    fail(
        ErrorKind::config,
        "a model with several labels of a sample (a language model) cannot predict rows; predict --generate N "
        "writes words");
  choose(asked, most);
  const std::size_t n_classes = is_sigmoid_ ? 2 : n_;
  for (std::size_t i = 0; is_class_ && i < n_classes; ++i)
    names_.push_back(i < model.class_names.size() ? model.class_names[i] : std::to_string(i));
  if (is_class_) return;
  std::vector<std::string> labels;
  if (!model.schema.empty() && is_table(model.job.data.train)) {
    for (const TableColumn& c : schema_from_json(model.schema).label.columns) labels.push_back(c.name);
  }
  for (std::size_t i = 0; i < n_; ++i)
    names_.push_back(labels.size() == n_ ? labels[i] : n_ == 1 ? "value" : "value_" + std::to_string(i));
}

std::vector<std::string> Answers::header() const {
  std::vector<std::string> names;
  for (const Output o : outputs_) {
    if (o == Output::classes) names.emplace_back("class");
    for (std::size_t i = 0; o == Output::probabilities && i < names_.size(); ++i)
      names.push_back("probability_" + names_[i]);
    for (std::size_t i = 0; o == Output::logits && i < n_; ++i)
      names.push_back(is_sigmoid_ ? "logit" : "logit_" + names_[i]);
    if (o == Output::values) names.insert(names.end(), names_.begin(), names_.end());
  }
  return names;
}

void Answers::add(std::span<const double> row, std::vector<std::string>& cells) const {
  const std::vector<double> p = is_class_ ? probabilities(row) : std::vector<double>();
  for (const Output o : outputs_) {
    if (o == Output::classes) cells.push_back(names_[answer(row)]);
    for (std::size_t i = 0; o == Output::probabilities && i < p.size(); ++i) cells.push_back(number(p[i]));
    for (std::size_t i = 0; (o == Output::logits || o == Output::values) && i < row.size(); ++i)
      cells.push_back(number(row[i]));
  }
}

std::vector<PredictedArrays::Column> Answers::columns() const {
  std::vector<PredictedArrays::Column> columns;
  const auto n = static_cast<std::int64_t>(n_);
  for (const Output o : outputs_) {
    const bool is_class = o == Output::classes;
    columns.push_back({choice_name(kOutputs, o), is_class ? DType::int32 : model_.job.model.dtype,
                       is_class                                    ? 0
                       : o == Output::probabilities && is_sigmoid_ ? 2
                                                                   : n});
  }
  return columns;
}

void Answers::add(std::span<const double> row, PredictedArrays& arrays) const {
  for (std::size_t i = 0; i < outputs_.size(); ++i) {
    if (outputs_[i] == Output::classes) {
      const auto answered = static_cast<double>(answer(row));
      arrays.add(i, std::span(&answered, 1));
    } else if (outputs_[i] == Output::probabilities) {
      arrays.add(i, probabilities(row));
    } else {
      arrays.add(i, row);
    }
  }
}

std::vector<std::string> Answers::gradient_names() const {
  return is_class_ || n_ == 1 ? std::vector<std::string>{""} : names_;
}

std::vector<std::size_t> Answers::gradient_outputs(std::span<const double> row) const {
  if (is_class_) return {is_sigmoid_ ? 0 : answer(row)};
  std::vector<std::size_t> all(n_);
  std::iota(all.begin(), all.end(), 0U);
  return all;
}

std::string Answers::number(double x) const {
  return model_.job.model.dtype == DType::float32 ? fmt::format("{}", static_cast<float>(x))
                                                  : fmt::format("{}", x);
}

void Answers::choose(const std::vector<std::string>& asked, std::size_t most) {
  if (asked.empty()) {
    outputs_ = is_class_ ? std::vector{Output::classes, Output::probabilities} : std::vector{Output::values};
    if (most < outputs_.size()) outputs_.erase(outputs_.begin());
    return;
  }
  for (const std::string& name : asked) {
    const auto* found = std::ranges::find_if(kOutputs, [&](const auto& o) { return name == o.name; });
    std::vector<std::string> fitting = is_class_
                                           ? std::vector<std::string>{"classes", "probabilities", "logits"}
                                           : std::vector<std::string>{"values"};
    if (found == std::end(kOutputs) || std::ranges::find(fitting, name) == fitting.end()) {
      fail(ErrorKind::config, "--outputs {}: this model has {}{}", name, comma_list(fitting),
           did_you_mean(name, fitting));
    }
    outputs_.push_back(found->value);
  }
}

std::size_t Answers::answer(std::span<const double> row) const {
  return class_of(is_sigmoid_ ? ClassLogits::sigmoid : ClassLogits::softmax, row);
}

std::vector<double> Answers::probabilities(std::span<const double> row) const {
  return class_probabilities(is_sigmoid_ ? ClassLogits::sigmoid : ClassLogits::softmax, row);
}

AnswerFormat answer_format(const std::string& format, const std::string& out) {
  std::string name = format;
  if (name.empty() && out == "-") name = "csv";
  for (const auto& f : kFormats) {
    if (name.empty() ? out.ends_with(std::string(".") + f.name) : name == f.name) return f.value;
  }
  fail(ErrorKind::config,
       "--out {}: predictions are written as .csv or .jsonl, .npy or .npz; name such a file, or say --format",
       out);
}

AnswerWriter::AnswerWriter(Fs& fs, const std::string& out, AnswerFormat format, const Answers& answers,
                           const std::vector<std::string>& keep, const std::vector<Extra>& extras)
    : format_(format), answers_(answers), n_kept_(keep.size()), extras_(extras), header_(keep) {
  if (is_array(format)) {
    if (!keep.empty())
      fail(ErrorKind::config, "--keep {}: arrays of numbers have no place for it; write .csv or .jsonl",
           keep.front());
    std::vector<PredictedArrays::Column> columns = answers.columns();
    n_answers_ = columns.size();
    for (const Extra& extra : extras) {
      columns.push_back({extra.name, extra.ids ? DType::int64 : answers.dtype(),
                         static_cast<std::int64_t>(extra.columns.size()),
                         extra.ids && *extra.ids != IdType::int64});
    }
    if (format == AnswerFormat::npy && columns.size() > 1)
      fail(ErrorKind::config, "--out {}: a .npy file holds one array; say one of --outputs, or write .npz",
           out);
    arrays_.emplace(fs, out,
                    format == AnswerFormat::npy ? PredictedArrays::Format::npy : PredictedArrays::Format::npz,
                    std::move(columns));
    return;
  }
  const std::vector<std::string> own = answers.header();
  header_.insert(header_.end(), own.begin(), own.end());
  for (const Extra& extra : extras) header_.insert(header_.end(), extra.columns.begin(), extra.columns.end());
  for (const std::string& name : keep) {
    if (std::ranges::count(header_, name) > 1)
      fail(ErrorKind::config,
           "--keep {}: two columns of the answers would be called so; rename it in the file", name);
  }
  file_.emplace(fs, out);
  if (format == AnswerFormat::csv) file_->write(csv_line(header_));
}

void AnswerWriter::add(std::span<const double> row, std::span<const std::string> kept,
                       std::span<const ExtraNumber> more) {
  if (arrays_) {
    answers_.add(row, *arrays_);
    for (std::size_t i = 0; i < extras_.size(); more = more.subspan(extras_[i++].columns.size()))
      add_array(n_answers_ + i, more.first(extras_[i].columns.size()));
    return;
  }
  cells_.assign(kept.begin(), kept.end());
  answers_.add(row, cells_);
  for (const Extra& extra : extras_) {
    for (const ExtraNumber& x : more.first(extra.columns.size())) {
      const auto* id = std::get_if<std::uint64_t>(&x);
      cells_.push_back(id != nullptr ? id_text(extra.ids.value(), *id)
                                     : answers_.number(std::get<double>(x)));
    }
    more = more.subspan(extra.columns.size());
  }
  text_ += format_ == AnswerFormat::jsonl ? json_line(header_, cells_, n_kept_) : csv_line(cells_);
  if (text_.size() > (std::size_t{1} << 16)) flush();
}

void AnswerWriter::add_array(std::size_t column, std::span<const ExtraNumber> numbers) {
  std::vector<double> reals;
  std::vector<std::uint64_t> ids;
  for (const ExtraNumber& x : numbers) {
    if (const auto* id = std::get_if<std::uint64_t>(&x)) {
      ids.push_back(*id);
    } else {
      reals.push_back(std::get<double>(x));
    }
  }
  return ids.empty() ? arrays_->add(column, reals) : arrays_->add_ids(column, ids);
}

void AnswerWriter::finish() {
  if (arrays_) return arrays_->finish();
  flush();
  file_->finish();
}

void AnswerWriter::flush() {
  file_->write(text_);
  text_.clear();
}

}  // namespace varscope
