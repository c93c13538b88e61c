#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/base/row_id.h"
#include "common/variables/variable_table.h"

namespace varscope {

using TableId = StrongId<struct TableTag, int>;  // index into the RowPlan

// Where the rows of all tables of a job are: a pure function of (variables, number of servers), the same on
// every rank. A worker's rows of one table and server travel together, in ascending order of mix_row_id().
class RowPlan {
 public:
  struct Table {
    TableId id;
    int variable = 0;  // index into the VariableTable
    std::string name;
    DType dtype = DType::float32;
    std::int64_t units = 0;
    TableSpec spec;
    bool trainable = true;                              // pushed in each step
    IdVector<ServerId, bool> has_parts = {};            // with more servers than parts some have none
    std::vector<ServerId> owner = {};                   // of each part
    bool counts_ids() const { return spec.entry > 1; }  // pushes say how often each id occurs
    std::size_t row_bytes() const { return static_cast<std::size_t>(units) * size_of(dtype); }
    int part_of(std::uint64_t row_id) const { return row_part(mix_row_id(row_id), spec.parts); }
    ServerId server_of(std::uint64_t row_id) const {
      return owner[static_cast<std::size_t>(part_of(row_id))];
    }
    std::vector<int> parts_of(ServerId server) const;  // ascending
  };
  RowPlan() = default;
  static RowPlan make(const VariableTable& variables, int n_servers);

  const IdVector<TableId, Table>& tables() const { return tables_; }
  const Table& operator[](TableId id) const { return tables_[id]; }
  bool has(TableId id) const { return tables_.has(id); }
  int size() const { return static_cast<int>(tables_.size()); }
  bool empty() const { return tables_.empty(); }
  // The table of a variable; nullptr when it is none.
  const Table* of_variable(int variable) const;

 private:
  IdVector<TableId, Table> tables_;
};

}  // namespace varscope
