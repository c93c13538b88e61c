#include "worker/data/csv.h"

#include <glob.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "common/base/error.h"
#include "common/base/text.h"
#include "common/config/utf8.h"
#include "worker/data/csv_reader.h"
#include "worker/data/table_builder.h"
#include "worker/data/table_cache.h"

namespace varscope {
namespace {

std::vector<std::string> texts_of(const ConfigNode& list) {
  std::vector<std::string> texts;
  for (const ConfigNode& item : list.items) {
    if (!item.is_scalar())
      fail(ErrorKind::config, "header: expected names of columns, got {}", item.describe());
    texts.push_back(item.scalar);
  }
  return texts;
}

// What stands in a header, without spaces around it.
std::vector<std::string> names_of(const CsvRecord& record) {
  std::vector<std::string> names;
  names.reserve(record.cells.size());
  for (const std::string_view cell : record.cells) names.emplace_back(trimmed_cell(cell));
  return names;
}

// What a column without a name is called.
std::string number_name(std::size_t column) { return fmt::format("column {}", column); }

void check_keys(const CsvSource& source) {
  delimiter_of(source.delimiter);
  const ConfigNode& header = source.header;
  if (header.is_list()) texts_of(header);
  if (!header.is_list() && !(header.is_scalar() && (header.scalar == "true" || header.scalar == "false")))
    fail(ErrorKind::config, "header: expected true, false or a list of names, got {}", header.describe());
  if (!(source.from < source.to))
    fail(ErrorKind::config, "from is {}, to is {}: nothing is between", source.from, source.to);
}

class CsvTable : public RowStream {
 public:
  // `source` as as_in_train() gives it. `folder`: TableBuilder's.
  CsvTable(const CsvSource& source, const SourceContext& context, const std::filesystem::path& folder = {})
      : source_(source),
        context_(context),
        folder_(folder),
        files_(files_of(source.files, context.root)),
        progress_(context_, files_) {
    check_keys(source_);
    delimiter_ = delimiter_of(source_.delimiter);
    const ConfigNode& header = source_.header;
    has_header_ = header.is_scalar() && header.scalar == "true";
    if (header.is_list()) header_ = texts_of(header);
  }

  std::unique_ptr<TableDataset> open() {
    while (read_record()) {
    }
    const bool has_nothing = (!builder_ || builder_->size() == 0) && left_out_.n == 0;
    if (has_nothing && context_.may_be_empty) return nullptr;
    if (!builder_) fail(ErrorKind::data, "{}: has no records", files_.front().string());
    const std::int64_t n = builder_->size();
    left_out_.of = n + left_out_.n + builder_->n_left_out();
    left_out_.check(source_.max_bad_share);
    if (n == 0 && builder_->n_left_out() > 0)
      fail(ErrorKind::data, "{}: all of its rows have weight 0", files_.front().string());
    if (n == 0)
      fail(ErrorKind::data, "{}: has no samples; is there more than a header?", files_.front().string());
    const auto at = [&](double share) {
      return static_cast<std::int64_t>(std::floor(share * static_cast<double>(n)));
    };
    RowSelection rows{.begin = at(source_.from), .end = at(source_.to)};
    if (context_.split) {
      rows.part.emplace(*context_.split, context_.position);
      rows.part->require_some(rows.end - rows.begin);
    }
    return builder_->build(rows, std::move(left_out_));
  }

  std::unique_ptr<Dataset> next(std::int64_t most, std::span<const std::string> keep,
                                std::vector<std::string>& kept) override {
    if (!schema_.inputs.empty()) builder_.emplace(schema_, true, TableBuilder::WithoutWeight::kept);
    kept.clear();
    for (std::int64_t n = 0; n < most && read_record(); ++n) {
      for (const std::string& name : keep) {
        const auto found = std::ranges::find(header_, name);
        if (found == header_.end()) {
          fail(ErrorKind::config, "--keep {}: {} has no such column{}", name, files_.front().string(),
               did_you_mean(name, header_));
        }
        kept.emplace_back(record_.cells[static_cast<std::size_t>(found - header_.begin())]);
      }
    }
    if (!builder_ || builder_->size() == 0) return nullptr;
    return builder_->build({}, {});
  }
  std::int64_t n_left_out() const override { return left_out_.n; }

 private:
  // Adds the next record of all files, unless it is left out; false behind the last one.
  bool read_record() {
    while (true) {
      if (!reader_) {
        if (at_file_ == files_.size()) return false;
        reader_.emplace(files_[at_file_++], delimiter_);
        is_first_ = true;
      }
      if (!reader_->next(record_)) {
        reader_.reset();
        progress_.end_of_file();
        continue;
      }
      progress_.at(reader_->n_read());
      if (std::exchange(is_first_, false) && has_header_) {
        take_header(*reader_, record_);
        continue;
      }
      if (!builder_) begin(record_);
      try {
        add(*reader_, record_);
      } catch (const Bad& bad) {
        if (source_.bad_records == BadRecords::fail) fail(ErrorKind::data, "{}", bad.text);
        left_out_.add(bad.text);
        continue;
      }
      return true;
    }
  }

  void take_header(const CsvReader& reader, const CsvRecord& record) {
    if (!record.problem.empty())
      fail(ErrorKind::data, "{}: {}", TextPlace{reader.name(), record.line, record.problem_column}.str(),
           record.problem);
    std::vector<std::string> names = names_of(record);
    std::vector<std::int64_t> nameless;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!names[i].empty()) continue;
      names[i] = number_name(i);
      nameless.push_back(static_cast<std::int64_t>(i));
    }
    if (header_.empty()) {
      header_ = names;
      for (std::size_t i = 0; i < names.size(); ++i) {
        if (!is_utf8(names[i]))
          fail(ErrorKind::data, "{}: the name {} is no UTF-8; convert the file: iconv -f latin1 -t utf-8",
               reader.place(record, i).str(), shown_cell(names[i]));
      }
      nameless_ = std::move(nameless);
      check_names(reader, record);
    } else if (names != header_) {
      fail(ErrorKind::data, "{}: another header than that of {}", reader.place(record, 0).str(),
           files_.front().string());
    }
    if (!builder_) begin(record);
  }

  void check_names(const CsvReader& reader, const CsvRecord& record) const {
    for (std::size_t i = 0; i < header_.size(); ++i) {
      const std::string& name = header_[i];
      if (std::ranges::count(header_, name) < 2) continue;
      fail(ErrorKind::data, "{}: two columns are called {}; {}", reader.place(record, i).str(),
           shown_cell(name),
           number_in(name) ? "if the first line is no header, say header: false" : "rename one of them");
    }
  }

  void begin(const CsvRecord& record) {
    if (header_.empty()) {
      for (std::size_t i = 0; i < record.cells.size(); ++i) header_.push_back(number_name(i));
    }
    if (context_.schema.empty()) {
      if (!source_.schema)
        fail(ErrorKind::config,
             "schema: missing; it says which column is the label: schema: {{label: {{column: {}}}}}",
             header_.back());
      builder_.emplace(resolve_schema(*source_.schema, header_, nameless_), false,
                       TableBuilder::WithoutWeight::left_out, folder_);
      return;
    }
    TableSchema schema = schema_from_json(context_.schema);
    if (context_.may_lack_labels) mark_absent(schema);
    for (TableInput& input : schema.inputs) {
      for (TableColumn& c : input.columns) {
        if (c.crossed.empty()) place(c.name, c.index);
        for (TableCell& cell : c.crossed) place(cell.name, cell.index);
      }
    }
    for (TableColumn& c : schema.label.columns) {
      if (!schema.label.is_absent) place(c.name, c.index);
    }
    if (schema.weight) place(schema.weight->name, schema.weight->index);
    schema_ = schema;
    builder_.emplace(
        std::move(schema), true,
        context_.may_lack_labels ? TableBuilder::WithoutWeight::kept : TableBuilder::WithoutWeight::left_out,
        folder_);
  }

  bool has(const TableColumn& c) const { return std::ranges::find(header_, c.name) != header_.end(); }

  // Of what is to be predicted: label and weight need not be there. Columns without names: there are so many
  // fewer.
  void mark_absent(TableSchema& schema) {
    bool has_weight = schema.weight && has(*schema.weight);
    if (has_names()) {
      schema.label.is_absent =
          std::ranges::none_of(schema.label.columns, [&](const TableColumn& c) { return has(c); });
    } else {
      std::int64_t greatest = 0;
      const auto see = [&](const TableColumn& c) {
        greatest = std::max(greatest, c.index);
        for (const TableCell& cell : c.crossed) greatest = std::max(greatest, cell.index);
      };
      for (const TableInput& input : schema.inputs) std::ranges::for_each(input.columns, see);
      std::ranges::for_each(schema.label.columns, see);
      if (schema.weight) see(*schema.weight);
      const std::int64_t missing = greatest + 1 - std::ssize(header_),
                         labels = std::ssize(schema.label.columns);
      has_weight = schema.weight && (missing == labels || missing == 0);
      schema.label.is_absent = missing == labels || (schema.weight && missing == labels + 1);
    }
    if (schema.label.is_absent) {
      for (const TableColumn& c : schema.label.columns) absent_.push_back(c.index);
    }
    if (!schema.weight) return;
    if (!has_weight) absent_.push_back(schema.weight->index);
    if (!has_weight || schema.label.is_absent) schema.weight.reset();  // nothing is measured
  }

  bool has_names() const { return has_header_ || source_.header.is_list(); }

  // Columns of other files are found by their names, where these have any.
  void place(const std::string& name, std::int64_t& at) const {
    if (!has_names()) {
      const std::int64_t index = at;
      for (const std::int64_t absent : absent_) at -= absent < index ? 1 : 0;
      if (at < std::ssize(header_)) return;
    }
    const auto found = std::ranges::find(header_, name);
    if (found == header_.end()) {
      fail(ErrorKind::data, "{}: has no column \"{}\", which the training data have{}",
           files_.front().string(), name, did_you_mean(name, header_));
    }
    at = found - header_.begin();
  }

  struct Bad {
    std::string text;
  };
  void add(const CsvReader& reader, const CsvRecord& record) {
    if (!record.problem.empty())
      throw Bad{fmt::format("{}: {}", TextPlace{reader.name(), record.line, record.problem_column}.str(),
                            record.problem)};
    if (record.cells.size() != header_.size()) {
      std::string shown;
      for (const std::string_view cell : record.cells) {
        if (shown.size() < 40) shown += (shown.empty() ? "" : " | ") + std::string(cell.substr(0, 40));
      }
      throw Bad{fmt::format("{}: {} cells where {} are expected: {}",
                            reader.place(record, record.cells.size()).str(), record.cells.size(),
                            header_.size(), shown_cell(shown))};
    }
    try {
      builder_->add(record.cells);
    } catch (const TableBuilder::BadCell& bad) {
      throw Bad{
          fmt::format("{}: {}", reader.place(record, static_cast<std::size_t>(bad.column)).str(), bad.what)};
    }
  }

  CsvSource source_;
  SourceContext context_;
  std::filesystem::path folder_;
  char delimiter_ = ',';
  std::vector<std::filesystem::path> files_;
  ReadingProgress progress_;
  bool has_header_ = true;
  std::vector<std::string> header_;
  std::vector<std::int64_t> nameless_;  // columns to which the header gives no name
  std::optional<CsvReader> reader_;
  CsvRecord record_;
  std::size_t at_file_ = 0;
  bool is_first_ = true;
  TableSchema schema_;                // of a stream
  std::vector<std::int64_t> absent_;  // columns of the training data that these files do not have
  std::optional<TableBuilder> builder_;
  LeftOut left_out_;
};

}  // namespace

std::vector<std::filesystem::path> files_of(const ConfigNode& files, const std::filesystem::path& root) {
  std::vector<std::filesystem::path> found;
  const bool is_list = files.is_list();
  for (const ConfigNode& node : is_list ? files.items : std::vector<ConfigNode>{files}) {
    if (!node.is_scalar() || node.scalar.empty())
      fail(ErrorKind::config, "files: expected the name of a file or a list of them, got {}",
           node.describe());
    const std::string pattern = (root / node.scalar).string();
    if (pattern.find_first_of("*?[") == std::string::npos) {
      found.emplace_back(pattern);
      continue;
    }
    glob_t all{};
    const int code = ::glob(pattern.c_str(), 0, nullptr, &all);
    for (std::size_t i = 0; code == 0 && i < all.gl_pathc; ++i) found.emplace_back(all.gl_pathv[i]);
    ::globfree(&all);
    if (code != 0) fail(ErrorKind::data, "{}: matches no file", pattern);
  }
  if (found.empty()) fail(ErrorKind::config, "files: names no file");
  return found;
}

char delimiter_of(const std::string& text) {
  if (text == "tab" || text == "\\t") return '\t';
  if (text.size() != 1 || text == "\"" || text == "\n" || text == "\r")
    fail(ErrorKind::config, "delimiter: expected one character, or tab, got {}",
         ConfigNode::text(text).describe());
  return text[0];
}

CsvSource as_in_train(CsvSource source, const DataSourceConfig* train) {
  const auto* keys = train == nullptr ? nullptr : train->get<CsvSource>();
  if (source.delimiter.empty() && keys != nullptr) source.delimiter = keys->delimiter;
  if (source.header.is_null() && keys != nullptr) source.header = keys->header;
  source.resolve(DataSplit::train);
  return source;
}

void check_csv(const CsvSource& source, const DataSourceConfig* train) {
  const CsvSource complete = as_in_train(source, train);
  check_keys(complete);
  if (!source.schema && train == nullptr)
    fail(ErrorKind::config,
         "schema: missing; it says which column is the label: schema: {{label: {{column: NAME}}}}");
  if (!source.schema) return;
  check_schema(*source.schema,
               complete.header.is_list() ? texts_of(complete.header) : std::vector<std::string>());
}

std::unique_ptr<Dataset> open_csv(const CsvSource& source, const SourceContext& context) {
  const CsvSource complete = as_in_train(source, context.train);
  return open_table(
      {table_keys("csv", dump_keys(complete), context), files_of(source.files, context.root)}, context,
      [&](const std::filesystem::path& folder) { return CsvTable(complete, context, folder).open(); });
}

std::unique_ptr<RowStream> stream_csv(const CsvSource& source, const SourceContext& context) {
  return std::make_unique<CsvTable>(as_in_train(source, context.train), context);
}

}  // namespace varscope
