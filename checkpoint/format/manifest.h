#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/serialization/level.hpp>
#include <boost/serialization/tracking.hpp>

#include "checkpoint/storage/envelope.h"
#include "common/base/hash.h"
#include "common/variables/row_layout.h"
#include "common/variables/slice.h"
#include "common/variables/table_spec.h"
#include "common/variables/variable_table.h"

namespace varscope {

inline constexpr std::uint32_t kCrcBlockBytes = 1U << 20;  // a CRC block: what one crc32c covers
inline constexpr const char* kManifestName = "MANIFEST";
inline constexpr const char* kManifestJsonName = "manifest.json";

// One file of a checkpoint and the checksums of all of its bytes.
struct FileRecord {
  std::string name;  // inside the checkpoint's directory
  std::uint64_t size = 0;
  std::uint32_t crc_block_bytes = kCrcBlockBytes;
  std::vector<std::uint32_t> crc32c;  // one per CRC block; the last block may be short
  Digest digest;                      // of the whole file

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& name& size& crc_block_bytes& crc32c& digest;
  }
  friend bool operator==(const FileRecord&, const FileRecord&) = default;
};

// Where the value of one slice, or one of its optimizer slots, lies.
struct TensorRecord {
  std::string variable;
  std::string slot;        // "" is the variable's value
  std::int64_t slice = 0;  // index in slice_variable(); of one (variable, slot) each of 0 .. n-1 occurs once
  DType dtype = DType::float32;
  std::string box;                   // Slice::spec()
  std::uint32_t file = 0;            // index into Manifest::files; 0 in a ShardReport
  std::uint64_t begin = 0, end = 0;  // bytes from the start of the file
  Digest digest;                     // of [begin, end)

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& variable& slot& slice& dtype& box& file& begin& end& digest;
  }
  friend bool operator==(const TensorRecord&, const TensorRecord&) = default;
};

// A sparse table of a checkpoint: what its rows are. The variable of that name is [0, units], and its dtype
// is that of values and slots.
struct TableRecord {
  std::string variable;
  TableSpec spec;
  std::vector<RowSlot> slots;  // behind the values of each row

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& variable& spec& slots;
  }
  friend bool operator==(const TableRecord&, const TableRecord&) = default;
};

// What a row file has of one part of a table: all of it as it was after a step, or what changed after an
// earlier one. Rows, then waiting ids, then the ids of which neither was there any more, all as PartRows has
// them.
struct RowPiece {
  static constexpr std::int64_t kBase = -1;  // since: it is all of the part
  static constexpr std::size_t kRemovedBytes = sizeof(std::uint64_t);
  std::uint32_t file = 0;            // index into Manifest::files; in a ShardReport, into its row_files
  std::uint64_t begin = 0, end = 0;  // bytes from the start of the file
  Digest digest;                     // of [begin, end)
  std::int64_t n_rows = 0, n_waiting = 0, n_removed = 0;
  std::int64_t since = kBase;  // what has changed after this step
  std::int64_t step = 0;       // of the save that wrote it

  bool is_base() const { return since == kBase; }
  std::uint64_t n_bytes() const { return end - begin; }
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& file& begin& end& digest& n_rows& n_waiting& n_removed& since& step;
  }
  friend bool operator==(const RowPiece&, const RowPiece&) = default;
};

// One part of a table: a chain of pieces, the oldest first, of which the newest that knows an id is right;
// what is expired in the checkpoint's step (TableSpec::is_expired) is not there. A part without rows and
// waiting ids has no record.
struct RowPartRecord {
  std::string variable;
  int part = 0;
  std::int64_t n_rows = 0, n_waiting = 0;
  Digest hash_sum;  // RowHashSum over the rows' ids and values
  std::vector<RowPiece> pieces;

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& variable& part& n_rows& n_waiting& hash_sum& pieces;
  }
  friend bool operator==(const RowPartRecord&, const RowPartRecord&) = default;
};

// The same in the archive of format 2.0: rows in one piece.
struct RowPartRecord2 {
  std::string variable;
  int part = 0;
  std::int64_t n_rows = 0;
  Digest hash_sum;
  std::uint32_t file = 0;
  std::uint64_t begin = 0, end = 0;
  Digest digest;

  RowPartRecord record(std::int64_t step) const {
    return {variable, part,     n_rows,
            0,        hash_sum, {{file, begin, end, digest, n_rows, 0, 0, RowPiece::kBase, step}}};
  }
  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& variable& part& n_rows& hash_sum& file& begin& end& digest;
  }
};

// A value or slot with elements that are NaN or infinite.
struct NotFiniteTensor {
  std::string variable;
  std::string slot;             // "" is the value
  std::int64_t n_elements = 0;  // that are not finite
  // The first of them in the variable's row-major order. Of a table: the bits of the id of the first row that
  // has one, by mix_row_id().
  std::int64_t first_element = 0;
  std::string what;  // "nan", "inf", "-inf": what it is

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& variable& slot& n_elements& first_element& what;
  }
  friend bool operator==(const NotFiniteTensor&, const NotFiniteTensor&) = default;
};

struct ShardReport;

// Who made a checkpoint: a run, a Saver of some program, or an import of another program's file.
enum class Provenance : std::uint8_t { run, saver, import };

// Everything about a checkpoint but the values. A checkpoint is what its manifest says it is.
struct Manifest {
  std::uint16_t format_major = kCheckpointFormat.major, format_minor = kCheckpointFormat.minor;
  std::string program_version;
  std::string id;      // of this save; also in every shard
  std::string parent;  // name of the checkpoint the run resumed from, or ""
  std::string run_id;  // 8 hexadecimal digits; a word where no run made it, see made_by()
  int attempt = 0;
  std::int64_t unix_time = 0;  // seconds; 0: commit() fills it in
  std::string config_hash;     // Digest in hexadecimal
  std::string endianness = "little";
  std::string mode = "bsp";
  std::int64_t step = 0;
  std::vector<std::int64_t> worker_clocks;  // the last step of each worker that is included
  int servers = 0, workers = 0, logical_workers = 0;
  VariableTable variables;
  std::string optimizer;
  std::vector<std::string> slots;
  std::vector<FileRecord> files;
  std::vector<TensorRecord> tensors;
  std::string coordinator_state;  // opaque here
  Digest values_hash;             // values_hash_1_of(); commit() fills it in
  bool knows_not_finite = false;  // from format 1.2 on: what was written has been looked at
  std::vector<NotFiniteTensor> not_finite;
  // From format 2.0 on, which only checkpoints with tables have; add_report() fills them in. `variables` has
  // the TableSpecs as well.
  std::vector<TableRecord> tables;
  std::vector<RowPartRecord> row_parts;

  bool is_known_finite() const { return knows_not_finite && not_finite.empty(); }

  template <class Archive>
  void serialize(Archive& ar, unsigned) {
    ar& format_major& format_minor& program_version& id& parent& run_id& attempt& unix_time& config_hash;
    ar& endianness& mode& step& worker_clocks& servers& workers& logical_workers;
    ar& variables& optimizer& slots& files& tensors& coordinator_state& values_hash;
    if (format_major > 1 || format_minor >= 2) ar& knows_not_finite& not_finite;
    if (format_major > 1) serialize_tables(ar);
  }

 private:
  template <class Archive>
  void serialize_tables(Archive& ar) {
    ar& tables;
    if constexpr (Archive::is_loading::value) {
      if (format_major < kTablesFormat.major) {
        std::vector<RowPartRecord2> old;
        ar& old;
        for (const RowPartRecord2& r : old) row_parts.push_back(r.record(step));
      } else {
        ar& row_parts;
      }
      std::vector<std::pair<std::string, TableSpec>> specs;
      specs.reserve(tables.size());
      for (const TableRecord& t : tables) specs.emplace_back(t.variable, t.spec);
      variables.set_tables(specs);
    } else {
      ar& row_parts;  // encode_manifest() writes the newest format only
    }
  }
};

// "shard-00003-of-00008.safetensors", "rows-00003-of-00008.bin", "worker-00007.state", "step-000012000"
std::string shard_name(int server, int n_servers);
std::string row_file_name(int server, int n_servers);
// What the row file that a save of this step has written is called in checkpoints of later steps, which have
// it as a link: "rows-00003-of-00008.step-000012000.bin".
std::string linked_row_file_name(int server, int n_servers, std::int64_t step);
std::string worker_state_name(int worker);
std::string step_name(std::int64_t step);
// The server that wrote the file, or -1 for a name that is not a shard's.
int server_of_shard(const std::string& name);
// The same of a row file, also of a linked one.
int server_of_row_file(const std::string& name);
// The step of the save that wrote a linked row file; -1 for any other name.
std::int64_t step_of_linked_file(const std::string& name);

// Told by run_id: "saver" and "import" stand where the id of a run would.
Provenance made_by(const Manifest& manifest);
// That word. Throws Error(argument) for a run, whose id is random.
std::string run_id_of(Provenance provenance);

// Appends a server's files, tensors and rows, and what it found not to be finite; with tables the manifest
// gets kTablesFormat. Throws Error(checkpoint) when the report has another step or other worker clocks than
// the manifest, or other tables than one before, or is of a server that has reported already.
void add_report(Manifest& manifest, const ShardReport& report);
// ValuesHash over the tensors with slot "" and the hash sums of tables' parts: what programs print, whatever
// has written the checkpoint.
Digest values_hash_of(const Manifest& manifest);
// The hash that manifests keep, of which shapes and dtypes are no part.
Digest values_hash_1_of(const Manifest& manifest);
std::uint64_t total_bytes(const Manifest& manifest);  // of its files
// The table of that name; nullptr when there is none.
const TableRecord* find_table(const Manifest& manifest, std::string_view name);
// Of the table's rows. Throws Error(argument) where the manifest has not been checked and they make no sense.
RowLayout row_layout_of(const Manifest& manifest, const TableRecord& table);
// The sums over a table's parts.
struct TableTotals {
  std::int64_t n_rows = 0, n_waiting = 0;
  int n_parts = 0;            // that have rows
  std::uint64_t n_bytes = 0;  // of all pieces
  std::size_t longest_chain = 0;
};
TableTotals totals_of(const Manifest& manifest, std::string_view table);

// Throws Error(checkpoint) that begins with `what` unless all of the manifest holds together: names, counts
// of CRC blocks, every index and byte range, boxes inside their shapes and of their ranges' sizes, boxes of
// every (variable, slot) covering the variable exactly once, parts covering their whole, one shard per
// server, one clock per worker, and the hash of the values. With tables also: a row file per server, a record
// of every variable [0, units], slots that fit, parts that are each there once, and chains of pieces of
// fitting sizes: the first a base, each later one of changes since a step not before the one that it follows,
// those of this step in the server's own file and older ones in files of their step.
inline constexpr std::size_t kMostPieces = 64;  // of a part
void check_manifest(const Manifest& manifest, std::string_view what);

// The file MANIFEST: a text archive in an envelope. decode throws Error(checkpoint) that begins with `what`;
// what it returns has passed check_manifest.
std::string encode_manifest(const Manifest& manifest);
Manifest decode_manifest(std::string_view bytes, std::string_view what);

// "nan in hidden/weights (2 elements, from element 3 on) and 1 more": what of the checkpoint is not finite,
// at most three by name; "" where nothing is known to be so. Of a table "from row -5 on".
std::string not_finite_text(const Manifest& manifest);
// The same of such a list; `variables` are the checkpoint's.
std::string not_finite_text(const std::vector<NotFiniteTensor>& tensors, const VariableTable& variables = {});
// Values first, then by name.
void sort_not_finite(std::vector<NotFiniteTensor>& tensors);

// The same for people and other programs; never read back.
std::string to_json(const Manifest& manifest);

// Indices into Manifest::tensors by (variable, slot), in the order of the slices.
using TensorIndex = std::map<std::pair<std::string, std::string>, std::vector<std::size_t>>;
TensorIndex index_tensors(const Manifest& manifest);

}  // namespace varscope

// Plain values: no class headers and no tracking in archives.
BOOST_CLASS_IMPLEMENTATION(varscope::NotFiniteTensor, boost::serialization::object_serializable)
BOOST_CLASS_TRACKING(varscope::NotFiniteTensor, boost::serialization::track_never)
BOOST_CLASS_IMPLEMENTATION(varscope::TableRecord, boost::serialization::object_serializable)
BOOST_CLASS_TRACKING(varscope::TableRecord, boost::serialization::track_never)
BOOST_CLASS_IMPLEMENTATION(varscope::RowPiece, boost::serialization::object_serializable)
BOOST_CLASS_TRACKING(varscope::RowPiece, boost::serialization::track_never)
BOOST_CLASS_IMPLEMENTATION(varscope::RowPartRecord2, boost::serialization::object_serializable)
BOOST_CLASS_TRACKING(varscope::RowPartRecord2, boost::serialization::track_never)
BOOST_CLASS_IMPLEMENTATION(varscope::RowPartRecord, boost::serialization::object_serializable)
BOOST_CLASS_TRACKING(varscope::RowPartRecord, boost::serialization::track_never)
BOOST_CLASS_IMPLEMENTATION(varscope::FileRecord, boost::serialization::object_serializable)
BOOST_CLASS_TRACKING(varscope::FileRecord, boost::serialization::track_never)
BOOST_CLASS_IMPLEMENTATION(varscope::TensorRecord, boost::serialization::object_serializable)
BOOST_CLASS_TRACKING(varscope::TensorRecord, boost::serialization::track_never)
BOOST_CLASS_IMPLEMENTATION(varscope::Manifest, boost::serialization::object_serializable)
BOOST_CLASS_TRACKING(varscope::Manifest, boost::serialization::track_never)
