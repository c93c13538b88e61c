#include "launch/commands/data_show.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>
#include <numeric>
#include <unordered_set>
#include <utility>
#include <vector>

#include "common/base/figures.h"
#include "common/base/text.h"
#include "launch/job/followed_data.h"
#include "launch/job/job_setup.h"
#include "worker/data/batch.h"
#include "worker/data/column_profile.h"
#include "worker/data/csv.h"
#include "worker/data/skipgram.h"
#include "worker/data/table.h"
#include "worker/data/table_schema.h"
#include "worker/data/text.h"

namespace varscope {
namespace {

constexpr std::int64_t kMostColumns = 64;  // of an input, that are told one by one
constexpr std::size_t kMostDifferent = 100'000;
constexpr std::size_t kMostClasses = 20;  // that are listed
constexpr std::int64_t kMostValues = 12;  // of a sample
constexpr std::int64_t kReadAtOnce = 1024;

// Of one column of an input, or of all its elements.
struct Statistics {
  std::int64_t n = 0;
  double least = std::numeric_limits<double>::infinity();
  double greatest = -std::numeric_limits<double>::infinity();
  double mean = 0;
  std::unordered_set<double> different;
  void add(double x) {
    ++n;
    least = std::min(least, x);
    greatest = std::max(greatest, x);
    mean += (x - mean) / static_cast<double>(n);
    if (different.size() < kMostDifferent) different.insert(x);
  }
  // What is nothing but rounding is 0.
  std::string mean_text() const {
    return short_number(std::abs(mean) < 1e-7 * std::max(std::abs(least), std::abs(greatest)) ? 0 : mean, 4);
  }
  std::string n_different() const {
    return (different.size() < kMostDifferent ? "" : "more than ") + with_commas(std::ssize(different));
  }
};

// Of ids of rows, of which no double holds all.
class RowIds {
 public:
  explicit RowIds(IdType type) : type_(type) {}
  void add(std::uint64_t id) {
    const std::uint64_t at = in_order(id);
    least_ = std::min(least_, at);
    greatest_ = std::max(greatest_, at);
    if (different_.size() < kMostDifferent) different_.insert(id);
  }
  // Of hashes neither says anything.
  std::string least() const { return type_ == IdType::string ? "" : text(least_); }
  std::string greatest() const { return type_ == IdType::string ? "" : text(greatest_); }
  std::string n_different() const {
    return (different_.size() < kMostDifferent ? "" : "more than ") + with_commas(std::ssize(different_));
  }

 private:
  // A number that is greater where the id is: the sign of int64 turned around. Its own inverse.
  std::uint64_t in_order(std::uint64_t id) const {
    return type_ == IdType::int64 ? id ^ (std::uint64_t{1} << 63U) : id;
  }
  std::string text(std::uint64_t at) const { return different_.empty() ? "" : id_text(type_, in_order(at)); }

  IdType type_;
  std::uint64_t least_ = std::numeric_limits<std::uint64_t>::max(), greatest_ = 0;
  std::unordered_set<std::uint64_t> different_;
};

std::string number(double x) { return short_number(x, 4); }

double element(const TensorView& array, std::int64_t i) {
  if (array.dtype() == DType::int32) return array.data<std::int32_t>()[i];
  if (array.dtype() == DType::float32) return static_cast<double>(array.data<float>()[i]);
  return array.data<double>()[i];
}

std::uint64_t row_id(const TensorView& array, std::int64_t i) {
  return static_cast<std::uint64_t>(array.data<std::int64_t>()[i]);
}

// Lines of cells, each column as wide as its widest cell; numbers to the right.
class Lines {
 public:
  void add(std::vector<std::string> cells) { lines_.push_back(std::move(cells)); }
  std::string text(const std::string& indent) const {
    std::vector<std::size_t> widths;
    for (const auto& line : lines_) {
      widths.resize(std::max(widths.size(), line.size()), 0);
      for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
    }
    std::string text;
    for (const auto& line : lines_) {
      std::string row = indent;
      for (std::size_t i = 0; i < line.size(); ++i) row += fmt::format("{:<{}}  ", line[i], widths[i]);
      row.erase(row.find_last_not_of(' ') + 1);
      text += row + "\n";
    }
    return text;
  }

 private:
  std::vector<std::vector<std::string>> lines_;
};

// The words that ids are of, where the data have them all.
const std::vector<std::string>* words_of(const Dataset& data) {
  if (const auto* text = dynamic_cast<const TextDataset*>(&data)) return &text->vocabulary();
  if (const auto* pairs = dynamic_cast<const SkipgramDataset*>(&data)) return &pairs->vocabulary();
  return nullptr;
}

class Shown {
 public:
  Shown(const JobConfig& job, const DataSourceConfig& source, const Dataset& data)
      : job_(job), source_(source), data_(data), spec_(data.spec()), dtype_(job.model.dtype) {
    if (dynamic_cast<const TableDataset*>(&data) != nullptr) schema_ = schema_from_json(data.schema());
    read_all();
  }

  std::string text(const char* key, std::int64_t n_samples) const {
    std::string text =
        fmt::format("{}: {}, {} samples, {} in memory, {} a batch of {}\n", key, source_.type(),
                    with_commas(data_.size()),
                    data_.n_bytes() > 0 ? bytes_text(data_.n_bytes()) : "none",  // mapped from files
                    bytes_text(Batch::n_bytes(spec_, dtype_, job_.train.batch)), job_.train.batch);
    for (const std::string& w : data_.warnings()) text += "  warning: " + w + "\n";
    for (const std::string& n : data_.notes()) text += "  " + n + "\n";
    return text + (source_.get<CsvSource>() != nullptr ? columns_of_files() : "") + inputs() + labels() +
           samples(std::min(n_samples, data_.size()));
  }

 private:
  void read_all() {
    for (const InputSpec& i : spec_.inputs) {
      const std::int64_t width = i.is_ragged() || i.features == Features::offsets ? 1 : i.shape.n_elements();
      const auto n = static_cast<std::size_t>(is_listed(i) ? width : 1);
      statistics_.emplace_back(i.features == Features::row_ids ? 0 : n);
      row_ids_.emplace_back(i.features == Features::row_ids ? n : 0, RowIds(i.id_type));
    }
    const std::int64_t n_labels = spec_.label_shape.n_elements();
    if (spec_.target == Target::classes) {
      counts_.resize(static_cast<std::size_t>(std::max<std::int64_t>(1, data_.n_classes())), 0);
    } else {
      targets_.resize(static_cast<std::size_t>(n_labels));
    }
    const Batch batch(spec_, dtype_, kReadAtOnce);
    std::vector<std::int64_t> indices(kReadAtOnce);
    for (std::int64_t begin = 0; begin < data_.size(); begin += kReadAtOnce) {
      const std::int64_t n = std::min(kReadAtOnce, data_.size() - begin);
      std::iota(indices.begin(), indices.end(), begin);
      const BatchView view = batch.view(n);
      data_.read(std::span(indices).first(static_cast<std::size_t>(n)), view);
      for (std::size_t k = 0; k < spec_.inputs.size(); ++k) see(view, k, n);
      for (std::int64_t i = 0; i < n * n_labels; ++i) {
        if (spec_.target == Target::classes) {
          ++counts_[static_cast<std::size_t>(view.y.data<std::int32_t>()[i])];
        } else {
          targets_[static_cast<std::size_t>(i % n_labels)].add(element(view.y, i));
        }
      }
    }
  }

  // Input k of n samples.
  void see(const BatchView& view, std::size_t k, std::int64_t n) {
    if (spec_.inputs[k].features == Features::offsets) return;
    std::vector<Statistics>& columns = statistics_[k];
    std::vector<RowIds>& ids = row_ids_[k];
    for (std::int64_t i = 0; i < n_values(view, k, n); ++i) {
      if (ids.empty()) {
        columns[static_cast<std::size_t>(i) % columns.size()].add(element(view.inputs[k], i));
      } else {
        ids[static_cast<std::size_t>(i) % ids.size()].add(row_id(view.inputs[k], i));
      }
    }
  }

  // Of n samples. A bag's arrays are followed by where each sample's part begins, and the end.
  std::int64_t n_values(const BatchView& view, std::size_t k, std::int64_t n) const {
    if (!spec_.inputs[k].is_ragged()) return view.inputs[k].n_elements();
    return view.inputs[offsets_of(k)].data<std::int64_t>()[n];
  }
  std::size_t offsets_of(std::size_t k) const {
    const auto are_ids = [](Features f) { return f == Features::ids || f == Features::row_ids; };
    while (k > 0 && !are_ids(spec_.inputs[k].features)) --k;  // weights stand behind the offsets
    return k + 1;
  }

  // A table's columns are told one by one.
  bool is_listed(const InputSpec& i) const {
    return !schema_.inputs.empty() && !i.is_ragged() && i.features != Features::offsets &&
           i.shape.n_elements() <= kMostColumns;
  }

  const TableInput* table_input(const std::string& name) const {
    const auto found = std::ranges::find(schema_.inputs, name, &TableInput::name);
    return found == schema_.inputs.end() ? nullptr : &*found;
  }

  // What stands in the files, before anything is made of it.
  std::string columns_of_files() const {
    const CsvSource csv = as_in_train(*source_.get<CsvSource>(), &job_.data.train);
    const TableProfile table = profile_table(table_files(job_, csv), delimiter_of(csv.delimiter), csv.header);
    Lines lines;
    lines.add({"column", "goes to", "type", "missing", "least", "mean", "greatest", "distinct"});
    std::vector<std::string> unused;
    for (const ColumnProfile& c : table.columns) {
      const std::string where = goes_to(c.name);
      if (where.empty()) {
        unused.push_back(c.name);
        continue;
      }
      const bool is_number = c.is_number();
      if (are_texts(where)) {  // "" and NA are ids as any
        lines.add({c.name, where, "words", "0", "", "", "",
                   (c.has_more      ? "more than "
                    : c.missing > 0 ? "at least "
                                    : "") +
                       with_commas(std::ssize(c.counts) + (c.missing > 0 && !c.has_more ? 1 : 0))});
        continue;
      }
      lines.add({c.name, where, is_number ? "number" : "words", with_commas(c.missing),
                 is_number ? number(c.least) : "", is_number ? number(c.mean) : "",
                 is_number ? number(c.greatest) : "",
                 (c.has_more ? "more than " : "") + with_commas(std::ssize(c.counts))});
    }
    std::string text =
        fmt::format(
            "  the files: {} rows{}\n", with_commas(table.rows),
            table.left_out > 0 ? fmt::format(", and {} with another number of cells", table.left_out) : "") +
        lines.text("    ");
    if (!unused.empty()) text += "    not used: " + comma_list(unused) + "\n";
    return text;
  }

  // The input has one text for each row, of which the hash is an id.
  bool are_texts(const std::string& input) const {
    const TableInput* found = table_input(input);
    return found != nullptr && found->row_ids == IdType::string && !found->is_bag;
  }

  std::string goes_to(const std::string& column) const {
    const auto has = [&](const std::vector<TableColumn>& columns) {
      return std::ranges::find(columns, column, &TableColumn::name) != columns.end();
    };
    if (has(schema_.label.columns)) return "label";
    for (const TableInput& input : schema_.inputs) {
      if (has(input.columns)) return input.name;
    }
    return "";
  }

  std::string column_name(const InputSpec& spec, std::size_t i) const {
    const TableInput* input = table_input(spec.name);
    if (input == nullptr) return std::to_string(i);
    const std::size_t n = input->columns.size();
    return i < n ? input->columns[i].name : input->columns[i - n].name + " is missing";
  }

  std::string inputs() const {
    std::string text = "  the model's inputs\n";
    Lines lines;
    lines.add({"input", "shape", "type", "column", "least", "mean", "greatest", "distinct"});
    for (std::size_t k = 0; k < spec_.inputs.size(); ++k) {
      const InputSpec& spec = spec_.inputs[k];
      if (spec.features == Features::offsets) continue;
      for (std::size_t i = 0; i < row_ids_[k].size(); ++i) {
        const RowIds& ids = row_ids_[k][i];
        lines.add({i == 0 ? spec.name : "", i == 0 ? spec.shape.str() : "",
                   i == 0 ? fmt::format("ids of type {}", to_string(spec.id_type)) : "",
                   is_listed(spec) ? column_name(spec, i) : "all", ids.least(), "", ids.greatest(),
                   ids.n_different()});
      }
      const bool is_ids = spec.features == Features::ids;
      for (std::size_t i = 0; i < statistics_[k].size(); ++i) {
        const Statistics& s = statistics_[k][i];
        lines.add({i == 0 ? spec.name : "", i == 0 ? spec.shape.str() : "",
                   i > 0    ? ""
                   : is_ids ? fmt::format("ids below {}", spec.n_ids)
                            : "numbers",
                   statistics_[k].size() > 1 || is_listed(spec) ? column_name(spec, i) : "all",
                   number(s.least), is_ids ? "" : s.mean_text(), number(s.greatest), s.n_different()});
      }
    }
    return text + lines.text("    ");
  }

  std::string class_name(std::size_t i) const {
    const std::vector<std::string> names = data_.class_names();
    if (const auto* words = dynamic_cast<const TextDataset*>(&data_);
        words != nullptr && i < words->vocabulary().size())
      return words->vocabulary()[i];
    return i < names.size() ? names[i] : std::to_string(i);
  }

  std::string labels() const {
    if (!data_.has_labels()) return "";
    Lines lines;
    if (spec_.target == Target::numbers) {
      lines.add({"label", "least", "mean", "greatest", "distinct"});
      for (std::size_t i = 0; i < targets_.size(); ++i) {
        const std::string name =
            i < schema_.label.columns.size() ? schema_.label.columns[i].name : std::to_string(i);
        lines.add({name, number(targets_[i].least), number(targets_[i].mean), number(targets_[i].greatest),
                   targets_[i].n_different()});
      }
      return "  what samples are answered with: numbers\n" + lines.text("    ");
    }
    std::vector<std::size_t> order(counts_.size());
    std::iota(order.begin(), order.end(), 0U);
    const bool are_many = order.size() > kMostClasses;
    if (are_many)
      std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return counts_[a] > counts_[b]; });
    const std::int64_t all = std::accumulate(counts_.begin(), counts_.end(), std::int64_t{0});
    for (std::size_t i = 0; i < std::min(order.size(), kMostClasses); ++i) {
      lines.add(
          {class_name(order[i]), with_commas(counts_[order[i]]),
           fmt::format("{:.1f} %", 100 * static_cast<double>(counts_[order[i]]) / static_cast<double>(all))});
    }
    return fmt::format("  what samples are answered with: {} classes{}\n", with_commas(std::ssize(counts_)),
                       are_many ? fmt::format(", of which the {} most frequent are", kMostClasses) : "") +
           lines.text("    ");
  }

  std::string samples(std::int64_t n) const {
    if (n <= 0) return "";
    const Batch batch(spec_, dtype_, n);
    std::vector<std::int64_t> indices(static_cast<std::size_t>(n));
    std::iota(indices.begin(), indices.end(), 0);
    const BatchView view = batch.view(n);
    data_.read(indices, view);
    std::string text = n == 1 ? "  the first sample\n" : fmt::format("  the first {} samples\n", n);
    for (std::int64_t row = 0; row < n; ++row) {
      std::string line = fmt::format("    {}:", row);
      std::string pictures;
      for (std::size_t k = 0; k < spec_.inputs.size(); ++k) {
        const InputSpec& spec = spec_.inputs[k];
        if (spec.features == Features::offsets) continue;
        const std::string name = " " + spec.name;
        if (is_picture(spec)) {
          line += name + fmt::format(" {}", spec.shape.str());
          pictures += picture(view.inputs[k], spec.shape, row);
        } else {
          const bool is_bag = spec.is_ragged();
          const std::int64_t* offsets =
              is_bag ? view.inputs[offsets_of(k)].data<std::int64_t>() + row : nullptr;
          line +=
              name + " " +
              (is_bag ? values(spec, view.inputs[k], offsets[1] - offsets[0], offsets[0])
                      : values(spec, view.inputs[k], spec.shape.n_elements(), row * spec.shape.n_elements()));
        }
      }
      if (data_.has_labels()) line += " -> " + answer(view.y, row);
      text += line + "\n" + pictures;
    }
    return text;
  }

  // n of them, from `first` on.
  std::string values(const InputSpec& spec, const TensorView& array, std::int64_t n,
                     std::int64_t first) const {
    const std::vector<std::string>* words = words_of(data_);
    std::string text;
    for (std::int64_t i = 0; i < std::min(n, kMostValues); ++i) {
      text += i == 0 ? "" : ", ";
      if (spec.features == Features::row_ids) {
        text += id_text(spec.id_type, row_id(array, first + i));
        continue;
      }
      const double x = element(array, first + i);
      text += words != nullptr ? (*words)[static_cast<std::size_t>(x)] : number(x);
    }
    return "[" + text + (n > kMostValues ? fmt::format(", ... {} in all", n) : "") + "]";
  }

  std::string answer(const TensorView& y, std::int64_t row) const {
    const std::int64_t n = spec_.label_shape.n_elements();
    std::string text;
    for (std::int64_t i = 0; i < std::min(n, kMostValues); ++i) {
      text += i == 0 ? "" : ", ";
      text += spec_.target == Target::numbers
                  ? number(element(y, row * n + i))
                  : class_name(static_cast<std::size_t>(y.data<std::int32_t>()[row * n + i]));
    }
    return text + (n > kMostValues ? ", ..." : "");
  }

  // Small images are drawn, dark for little and bright for much.
  static bool is_picture(const InputSpec& spec) {
    constexpr std::int64_t kMost = 40;
    return spec.features == Features::real && (spec.shape.rank() == 2 || spec.shape.rank() == 3) &&
           spec.shape[0] >= 4 && spec.shape[0] <= kMost && spec.shape[1] >= 4 && spec.shape[1] <= kMost &&
           (spec.shape.rank() == 2 || spec.shape[2] <= 4);
  }
  static std::string picture(const TensorView& array, const Shape& shape, std::int64_t row) {
    constexpr std::string_view kShades = " .:-=+*#%@";
    const std::int64_t channels = shape.rank() == 3 ? shape[2] : 1, n = shape.n_elements();
    double least = std::numeric_limits<double>::infinity(), greatest = -least;
    for (std::int64_t i = row * n; i < (row + 1) * n; ++i) {
      least = std::min(least, element(array, i));
      greatest = std::max(greatest, element(array, i));
    }
    std::string text;
    for (std::int64_t y = 0; y < shape[0]; ++y) {
      text += "      |";
      for (std::int64_t x = 0; x < shape[1]; ++x) {
        double sum = 0;
        for (std::int64_t c = 0; c < channels; ++c)
          sum += element(array, row * n + (y * shape[1] + x) * channels + c);
        const double part =
            greatest > least ? (sum / static_cast<double>(channels) - least) / (greatest - least) : 0;
        text +=
            kShades[static_cast<std::size_t>(std::lround(part * static_cast<double>(kShades.size() - 1)))];
      }
      text += "|\n";
    }
    return text;
  }

  const JobConfig& job_;
  DataSourceConfig source_;
  const Dataset& data_;
  SampleSpec spec_;
  DType dtype_;
  TableSchema schema_;
  std::vector<std::vector<Statistics>> statistics_;  // by input, by column; none of ids of rows
  std::vector<std::vector<RowIds>> row_ids_;         // the same of these
  std::vector<std::int64_t> counts_;                 // by class
  std::vector<Statistics> targets_;
};

// Of a directory that is followed: its first file with samples, which the schema is made of.
Shown shown_of_train(const JobConfig& job, const Dataset& train) {
  if (job.follow() == nullptr) return {job, job.data.train, train};
  const std::string name = std::filesystem::path(train.files().front().name).filename().string();
  return {job, with_files(job.data.train, {followed_directory(job) + "/" + name}), train};
}

}  // namespace

std::string show_data(const JobConfig& job, std::int64_t n_samples) {
  const auto train = load_dataset(job, job.data.train, DataSplit::train);
  std::string text = shown_of_train(job, *train).text("data.train", n_samples);
  const DataSourceConfig* source = job.data.test_source();
  if (source == nullptr) return text;
  const auto test = load_dataset(job, *source, DataSplit::test, train->schema());
  return text + Shown(job, *source, *test).text("data.test", n_samples);
}

}  // namespace varscope
