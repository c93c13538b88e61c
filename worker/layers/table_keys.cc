#include "worker/layers/table_keys.h"

#include <charconv>

#include "common/base/hash.h"

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

TableSpec spec_of(const LayerContext& context, const TableKeys& keys) {
  const TableSpec spec{keys.ids, static_cast<int>(keys.parts)};
  try {
    spec.check("table");
  } catch (const Error& e) {
    context.fail_key("table", e.what());
  }
  return spec;
}

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
  keys.choice(
      "ids", ids, kIdTypes,
      "what the rows are asked for by: any number of 64 bits with or without a sign, or a text, of which "
      "XXH3-64 is the id");
  keys.key("parts", parts,
           "parts by a hash of the id, dealt to the servers; a power of two, the same for the table's life",
           {.min = 1, .max = TableSpec::kMostParts});
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
  lookup.table = &variables.sparse_table(name, spec_of(context, *keys.table), width);
  return context.graph.look_up(std::move(lookup), {variables.scope(), context.made_at()});
}

std::string table_text(const IdKeys& keys) {
  return fmt::format("a table ({})", TableSpec{keys.table->ids, static_cast<int>(keys.table->parts)}.str());
}

}  // namespace varscope
