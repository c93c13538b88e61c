#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "launch/ingest/record_cutter.h"
#include "launch/ingest/record_sink.h"

namespace varscope {

// One stream of bytes on its way into files: a line that names it (where such a line may come), a header
// (where there is one), records. Borrows log and sink. Not thread-safe.
class StreamReader {
 public:
  struct Rules {
    RecordCutter cutter;
    bool has_header = false;
    bool skips_headers = false;  // lines that equal the header are left out, wherever they come
  };
  // Called with the name that a stream gives itself by the first line, "STREAM name". Returns why it may
  // not, or the number of its records that are durable.
  struct Answer {
    std::string problem;
    std::uint64_t durable = 0;
  };
  using OnName = std::function<Answer(const std::string&)>;

  // `on_name` may be empty: then the first line names nothing.
  StreamReader(RecordLog& log, RecordSink& sink, const Rules& rules, OnName on_name);

  // "" or why the stream cannot be read on: a sentence without its end that says which record. What came
  // before it stays.
  std::string feed(std::string_view bytes);
  // The stream has ended: what lies behind the last line feed is a record, too. "" or why it is none.
  std::string finish();
  // Bytes behind the last record.
  std::size_t n_rest() const { return cutter_.rest().size(); }
  // Without the line that is its name and the header; with those of earlier connections of this name.
  std::uint64_t n_records() const { return n_records_; }
  const std::string& name() const { return name_; }  // "": it has none
  // Somebody else writes from here on: what lies behind the last record is forgotten.
  void restart() { cutter_.restart(); }

 private:
  enum class Part : std::uint8_t { name, header, records };
  bool take(std::string_view record);
  bool take_name(std::string_view line);
  bool take_header(std::string_view line);

  RecordLog& log_;
  RecordSink& sink_;
  RecordCutter cutter_;
  bool has_header_, skips_headers_;
  OnName on_name_;
  Part part_;
  std::string name_, problem_;
  std::uint64_t n_records_ = 0;
};

}  // namespace varscope
