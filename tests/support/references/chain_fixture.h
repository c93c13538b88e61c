#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/directory/link_rows.h"
#include "tests/support/references/table_fixture.h"

// Saves of changed rows alone, for tests: what servers do, without servers.
namespace varscope::testing {

// Tables whose rows come, change, wait, leave and expire at random.
class ChangingTables {
 public:
  ChangingTables(TableModel start, unsigned seed) : model(std::move(start)), random_(seed) {}

  // Step `step`, after the one before.
  void change(std::int64_t step, int n = 12) {
    for (TableRows& t : model.tables) {
      for (int i = 0; i < n; ++i) touch(t, step);
      for (int i = 0; i < n / 4; ++i) wait(t, step);
      for (auto* records : {&t.rows, &t.waiting}) {
        leave(*records, static_cast<std::size_t>(n) / 6);
        std::erase_if(*records, [&](const auto& r) {
          return t.variable.table->is_expired(RowLayout::last_of(r.second.data()), step);
        });
      }
    }
  }

  TableModel model;

 private:
  // An id of few, so that they come back.
  std::uint64_t any_id() { return random_() % 97 * 0x9e3779b97f4a7c15ULL; }
  std::uint64_t some_id(const TableRows& t) {
    if (t.rows.empty() || random_() % 2 == 0) return any_id();
    return RowLayout::id_of(
        std::next(t.rows.begin(), static_cast<std::ptrdiff_t>(random_() % t.rows.size()))->second.data());
  }
  void touch(TableRows& t, std::int64_t step) {
    const std::uint64_t id = some_id(t);
    const auto known = t.rows.find(mix_row_id(id));
    const std::uint32_t count = known == t.rows.end() ? 1 : 1 + RowLayout::count_of(known->second.data());
    std::byte* row = t.add(id, static_cast<std::uint32_t>(step), count);
    std::size_t end = RowLayout::kValuesAt + t.layout.value_bytes();
    for (std::size_t s = 0; s < t.layout.slots().size(); ++s) end += t.layout.slot_bytes(s);
    for (std::size_t at = RowLayout::kValuesAt; at < end; ++at)
      row[at] = static_cast<std::byte>(random_() & 0x3f);
    t.waiting.erase(mix_row_id(id));
  }
  void wait(TableRows& t, std::int64_t step) {
    const std::uint64_t id = any_id();
    if (t.rows.contains(mix_row_id(id))) return;
    t.add_waiting(id, static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(1 + random_() % 2));
  }
  void leave(std::map<std::uint64_t, std::vector<std::byte>>& records, std::size_t n) {
    for (std::size_t i = 0; i < n && !records.empty(); ++i)
      records.erase(std::next(records.begin(), static_cast<std::ptrdiff_t>(random_() % records.size())));
  }

  std::mt19937_64 random_;
};

// Saves of one start. The first is of all rows, and so is each after reset().
class ChainSaver {
 public:
  ChainSaver(Fs& fs, CheckpointDirectory& directory, int servers)
      : fs_(fs), directory_(directory), servers_(servers) {}

  // How much of a chain goes on; by default all of each.
  KeptPieces n_kept = [](const RowPartRecord& r) { return r.pieces.size(); };
  std::vector<std::string> why_not;  // links were not made, in the last save

  // Returns the path. Throws what failed; then the base is as before.
  std::string save(const TableModel& model, std::int64_t step, const std::string& id = "") {
    const std::string name = id.empty() ? fmt::format("id-{}", step) : id;
    why_not.clear();
    std::vector<SavedRowFiles> written;
    try {
      const std::string tmp = directory_.begin(name);
      Manifest manifest = make_manifest(model.dense, step, servers_);
      manifest.unix_time = 1'700'000'000;
      for (int server = 0; server < servers_; ++server)
        add_report(manifest, write_server(tmp, model, step, server, name, written));
      manifest.files.push_back(write_blob(fs_, tmp, worker_state_name(0), "position of worker 0"));
      manifest.files.push_back(write_blob(fs_, tmp, worker_state_name(1), ""));
      const std::string path = directory_.commit(name, manifest);
      for (SavedRowFiles& s : written) s.path = path;
      base_ = std::move(written);
      tables_at_[step] = model.tables;
      return path;
    } catch (const Error&) {
      directory_.abandon(name);
      throw;
    }
  }
  void reset() { base_.clear(); }

 private:
  ShardReport write_server(const std::string& tmp, const TableModel& model, std::int64_t step, int server,
                           const std::string& id, std::vector<SavedRowFiles>& written) {
    std::optional<RowBase> base;
    if (!base_.empty()) {
      LinkedRowFiles linked = link_row_files(fs_, base_[static_cast<std::size_t>(server)], tmp, n_kept);
      if (!linked.why_not.empty()) why_not.push_back(linked.why_not);
      base = std::move(linked.base);
    }
    ShardReport report = write_part(fs_, tmp, model.dense, step, server, servers_, id);
    std::vector<RowFileTable> tables;
    for (const TableRows& t : model.tables) tables.push_back(t.of_server(server, servers_));
    const auto read = [&](std::size_t t, int part, PartRows& rows) {
      model.tables[t].read(part, rows);
      const RowBase::Chain* chain = base ? base->chain_of(model.tables[t].variable.name, part) : nullptr;
      if (chain != nullptr)
        keep_changes(model.tables[t], tables_at_.at(chain->since)[t], part, chain->since, step, rows);
    };
    const auto totals = [&](std::size_t t, int part) {
      PartRows all;
      model.tables[t].read(part, all);
      const auto counts = RowsCheck::Counts::of(all, model.tables[t].layout);
      return PartTotals{counts.n_rows, counts.n_waiting, model.tables[t].sum(part).digest()};
    };
    RowFileReport rows =
        write_row_file(fs_, tmp, {server, servers_, step, id}, tables, read, base ? &*base : nullptr, totals);
    written.push_back({server, servers_, step, "", rows});
    add_row_file(report, std::move(rows));
    return report;
  }

  static void keep_changes(const TableRows& now, const TableRows& before, int part, std::int64_t since,
                           std::int64_t step, PartRows& rows) {
    rows.is_all = false;
    drop_old(rows.rows, now.layout.row_bytes(), since);
    drop_old(rows.waiting, PartRows::kWaitingBytes, since);
    std::set<std::uint64_t> removed;  // by mix_row_id
    for (const auto* records : {&before.rows, &before.waiting}) {
      for (const auto& [mixed, record] : *records) {
        const bool is_expired = now.variable.table->is_expired(RowLayout::last_of(record.data()), step);
        const bool is_there = now.rows.contains(mixed) || now.waiting.contains(mixed);
        if (row_part(mixed, now.variable.table->parts) == part && !is_there && !is_expired)
          removed.insert(mixed);
      }
    }
    for (const std::uint64_t mixed : removed) rows.removed.push_back(unmix_row_id(mixed));
  }
  static void drop_old(std::vector<std::byte>& records, std::size_t n, std::int64_t since) {
    std::vector<std::byte> kept;
    for (std::size_t at = 0; at < records.size(); at += n) {
      if (RowLayout::last_of(&records[at]) > since) kept.insert(kept.end(), &records[at], &records[at] + n);
    }
    records = std::move(kept);
  }

  Fs& fs_;
  CheckpointDirectory& directory_;
  int servers_;
  std::vector<SavedRowFiles> base_;                           // by server
  std::map<std::int64_t, std::vector<TableRows>> tables_at_;  // by step of the saves
};

// Two tables of which ids wait, leave and expire: as two_tables().
inline TableModel living_tables(unsigned seed, int n_rows = 200, std::int64_t expire_steps = 5) {
  TableModel model = two_tables(seed, n_rows);
  std::vector<TableRows> tables = model.tables;
  for (TableRows& t : tables) {
    t.variable.table->entry = 3;
    t.variable.table->expire_steps = expire_steps;
    t.variable.table->max_rows = 1 << 20;
    t.variable.table->when_full = WhenFull::lru;
    t.rows.clear();
    t.fill(&t == tables.data() ? n_rows : n_rows / 10, seed);
    for (auto& [mixed, row] : t.rows) RowLayout::set_last(row.data(), 1);
  }
  return {{make_variable("w", DType::float32, {4, 3})}, tables, seed};
}

// All that there is of each part, waiting ids, too.
inline void expect_all(CheckpointReader& reader, const TableModel& model) {
  PartRows read, due;
  std::vector<std::byte> waiting;
  for (const TableRows& t : model.tables) {
    for (int p = 0; p < t.variable.table->parts; ++p) {
      reader.read_part(t.variable.name, p, read);
      t.read(p, due);
      EXPECT_EQ(read.rows, due.rows) << t.variable.name << " part " << p;
      EXPECT_EQ(read.waiting, due.waiting) << t.variable.name << " part " << p;
      EXPECT_TRUE(read.removed.empty());
      reader.read_waiting(t.variable.name, p, waiting);
      EXPECT_EQ(waiting, due.waiting);
      EXPECT_EQ(reader.n_rows(t.variable.name, p) * static_cast<std::int64_t>(t.layout.row_bytes()),
                static_cast<std::int64_t>(due.rows.size()));
    }
  }
}

}  // namespace varscope::testing
