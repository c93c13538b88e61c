#include "worker/layers/table_keys.h"

#include <charconv>

#include "common/base/hash.h"
#include "common/variables/table_check.h"

namespace varscope {
namespace {

constexpr Choice<IdType> kIdTypes[] = {
    {IdType::int64, "int64"}, {IdType::uint64, "uint64"}, {IdType::string, "string"}};

template <class Int>
std::optional<std::uint64_t> whole_number(const std::string& text) {
  Int value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return static_cast<std::uint64_t>(value);
}

constexpr Choice<WhenFull> kWhenFull[] = {
    {WhenFull::error, "error"}, {WhenFull::lru, "lru"}, {WhenFull::lfu, "lfu"}};

std::optional<std::uint64_t> padding_of(const LayerContext& context, const IdKeys& keys) {
  if (keys.padding.is_null()) return std::nullopt;
  const IdType type = keys.table->ids;
  std::optional<std::uint64_t> id;
  if (keys.padding.is_scalar()) {
    const std::string& text = keys.padding.scalar;
    id = type == IdType::string   ? hash64(text)
         : type == IdType::uint64 ? whole_number<std::uint64_t>(text)
                                  : whole_number<std::int64_t>(text);
  }
  if (id) return id;
  context.fail_key("padding", fmt::format("{} is no id: the table's are {} (table: {{ids: {}}})",
                                          keys.padding.describe(), to_string(type), to_string(type)));
}

// Rows are asked for before a batch is run: what the ids are must be known by then.
void check_ids_are_input(const LayerContext& context) {
  const Graph::Node& ids = context.graph.node(context.input());
  if (ids.kind != Graph::Kind::placeholder) {
    context.fail_key("table",
                     fmt::format("the ids, \"{}\", are what {} made; rows of a table are asked for before "
                                 "a batch is run, so the layer must read an input of the samples itself",
                                 ids.name, ids.kind == Graph::Kind::op ? ids.op->type() : "a variable"));
  }
  if (ids.type.dtype == DType::int32 || ids.type.dtype == DType::int64) return;
  context.fail_key("table", fmt::format("a table is asked by ids, but the input \"{}\" is {}, numbers",
                                        ids.name, ids.type.str()));
}

}  // namespace

void TableKeys::describe(Keys& keys) {
  constexpr auto kMostSteps = static_cast<double>(TableSpec::kMostSteps);
  keys.choice(
      "ids", ids, kIdTypes,
      "what the rows are asked for by: any number of 64 bits with or without a sign, or a text, of which "
      "XXH3-64 is the id");
  keys.key("parts", parts,
           "parts by a hash of the id, dealt to the servers; a power of two, the same for the table's life",
           {.min = 1, .max = TableSpec::kMostParts});
  keys.key("entry", entry,
           "a row comes into being in the step in which its id has occurred so many times in training; "
           "until then its gradients are dropped",
           {.unit = "occurrences", .min = 1, .max = kMostSteps});
  keys.key("expire_steps", expire_steps,
           "a row that has not occurred in so many steps is gone, as if it had never been",
           {.unit = "steps", .min = 1, .max = kMostSteps, .may_be_off = true});
  keys.key("max_rows", max_rows,
           "the most rows; each part has an equal share, at least 4096, and acts by when_full",
           {.unit = "rows", .min = 1, .max = 1e15, .may_be_off = true});
  keys.choice("when_full", when_full, kWhenFull,
              "of a part with more rows than its share: error ends the run; lru drops the rows that have not "
              "occurred for the longest time, lfu those that have been updated in the fewest steps");
  keys.choice("absent", absent, {"", "initial", "zeros"},
              "what is read of a row that is not there: its first values, or zeros; empty: initial with "
              "entry 1, else zeros");
  keys.key("max_waiting", max_waiting,
           "the most ids that wait for their entry, in equal shares of the parts, at least 16; the least "
           "recent ones are forgotten",
           {.unit = "ids", .min = 1, .max = 1e15, .may_be_off = true});
}

// At the key to blame, or where the table is when it is not written.
void TableKeys::check(const ConfigNode& section, std::string_view file, std::string_view path) const {
  const auto problem = problem_of(spec());
  if (!problem) return;
  if (const ConfigNode* key = section.find(problem->key); key != nullptr)
    fail_at(*key, file, join_keys(path, problem->key), problem->text);
  fail_at(section, file, path, problem->text);
}

TableSpec TableKeys::spec() const {
  TableSpec spec;
  spec.ids = ids;
  spec.parts = static_cast<int>(parts);
  spec.entry = entry;
  spec.expire_steps = expire_steps;
  spec.max_rows = max_rows;
  spec.when_full = when_full;
  const bool is_zeros = absent.empty() ? entry > 1 : absent == "zeros";
  spec.absent = is_zeros ? AbsentRows::zeros : AbsentRows::initial;
  spec.max_waiting = max_waiting;
  return spec;
}

void IdKeys::describe(Keys& keys, std::string_view vocabulary_doc) {
  keys.key("vocabulary", vocabulary, vocabulary_doc, {.min = 1, .max = 1 << 30});
  keys.optional_section("table", table, "instead of a vocabulary: rows for the ids that occur in training");
  keys.key("padding", padding,
           "of a table: the id that stands for nothing. It has no row; without it every id is one",
           {.type_name = "an id"});
}

void IdKeys::check(const LayerContext& context) const {
  if (table && context.node.find("vocabulary") != nullptr) {
    context.fail_key(
        "vocabulary",
        "a layer has a vocabulary, ids 0 .. vocabulary - 1 with a row each, or a table, which has "
        "rows for the ids that occur; remove this key or table");
  }
  if (!table && !padding.is_null())
    context.fail_key("padding", "is for a table (table: {ids: int64}); with a vocabulary every id has a row");
}

const TableLookup& look_up_rows(const LayerContext& context, LayerVariables& variables, const IdKeys& keys,
                                std::string_view name, std::int64_t width, const LookupKind& kind) {
  check_ids_are_input(context);
  const std::vector<NodeId>& in = context.inputs;
  TableLookup lookup{.ids = in[0],
                     .padding = padding_of(context, keys),
                     .in_bags = kind.in_bags,
                     .positive_weights = kind.positive_weights};
  if (in.size() > 1) lookup.ids_offsets = in[1];
  if (in.size() > 2) lookup.ids_weights = in[2];
  keys.table->check(*context.node.find("table"), context.file, join_keys(context.path, "table"));
  lookup.table = &variables.sparse_table(name, keys.table->spec(), width);
  return context.graph.look_up(std::move(lookup), {variables.scope(), context.made_at()});
}

std::string table_text(const IdKeys& keys) { return fmt::format("a table ({})", keys.table->spec().str()); }

}  // namespace varscope
