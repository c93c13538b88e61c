#include "common/variables/variable_store.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "common/base/error.h"

namespace varscope {
namespace {

std::string scope_of(std::string_view name) {
  const std::size_t slash = name.rfind('/');
  return slash == std::string_view::npos ? "" : std::string(name.substr(0, slash));
}

const Initializer* tensor_of(const std::optional<InitializerChoice>& choice) {
  if (!choice) return nullptr;
  const auto* init = std::get_if<Initializer>(&*choice);
  return init != nullptr && init->has_values() ? init : nullptr;
}

// A tensor initializer brings its own shape and dtype.
void check_tensor(const std::string& name, const std::optional<Shape>& shape,
                  const VariableOptions& options) {
  const Initializer* tensor = tensor_of(options.initializer);
  if (tensor == nullptr) return;
  if (shape) {
    fail(ErrorKind::argument,
         "variable \"{}\": its initializer is a tensor of shape {}; do not give a shape (got {})", name,
         tensor->values_shape.str(), shape->str());
  }
  if (options.dtype && *options.dtype != tensor->values_dtype) {
    fail(ErrorKind::argument, "variable \"{}\": initializer type {} and explicit dtype {} don't match", name,
         to_string(tensor->values_dtype), to_string(*options.dtype));
  }
}

// Of the shape whose fans count.
Initializer initializer_for(const VariableOptions& options, const VariableSpec& spec) {
  const Shape shape = options.rows_are_units ? Shape{spec.shape[1], spec.shape[1]} : spec.shape;
  if (options.initializer) {
    if (const auto* init = std::get_if<Initializer>(&*options.initializer)) return *init;
    const auto& f = std::get<InitializerFor>(*options.initializer);
    if (!f) fail(ErrorKind::argument, "variable \"{}\": the initializer passed is empty", spec.name);
    return f(shape);
  }
  return is_floating(spec.dtype) && spec.shape.fully_known() ? Initializer::glorot_uniform(shape)
                                                             : Initializer::constant(0);
}

// What a table cannot be: `spec` is what has been asked for.
void check_table(const VariableSpec& spec, const VariableOptions& options) {
  const std::string what = fmt::format("variable \"{}\"", spec.name);
  options.table->check(what);
  const auto refuse = [&](const char* why) { fail(ErrorKind::argument, "{} is a table: {}", what, why); };
  if (!options.rows_are_units || spec.shape[0] != 0 || spec.shape[1] < 1)
    refuse("its shape must be [0, units]");
  if (spec.dtype != DType::float32 && spec.dtype != DType::float64)
    refuse("its dtype must be float32 or float64");
  if (spec.is_average()) refuse("it cannot be a moving average");
  if (options.regularizer && options.regularizer->exists())
    refuse("a regularizer would need all of its rows in each step; use optimizer.weight_decay");
  switch (spec.initializer.kind) {
    case Initializer::Kind::constant:
    case Initializer::Kind::uniform:
    case Initializer::Kind::normal:
    case Initializer::Kind::truncated_normal:
      return;
    default:
      refuse(
          "its rows are drawn one by one; initialize it with a constant, or a uniform or normal distribution");
  }
}

// Small variables gain nothing, and rows of a table that are not used gather errors.
Compression compression_of(const VariableSpec& spec, const VariableOptions& options) {
  const Compression wanted = options.compression.value_or(Compression{});
  const std::int64_t n_bytes =
      spec.shape.fully_known() ? spec.shape.n_elements() * static_cast<std::int64_t>(size_of(spec.dtype)) : 0;
  const bool is_worth_it = spec.trainable && !spec.is_average() && !options.rows_are_units &&
                           !spec.is_table() && spec.shape.rank() > 1 && n_bytes >= wanted.min_bytes;
  return is_worth_it ? wanted : Compression{};
}

// A new variable, not divided. `may_grow`: it is local, its first extent may be unknown.
VariableSpec describe(std::string name, std::string scope, const std::optional<Shape>& shape,
                      DType default_dtype, const VariableOptions& options, bool may_grow) {
  const Initializer* tensor = tensor_of(options.initializer);
  if (!shape && tensor == nullptr) {
    fail(ErrorKind::argument,
         "variable \"{}\": The initializer passed is not valid: it needs a shape, and none was given; give "
         "one, or a tensor as initializer",
         name);
  }
  VariableSpec spec;
  spec.name = std::move(name);
  spec.scope = std::move(scope);
  spec.shape = shape ? *shape : tensor->values_shape;
  spec.dtype = tensor != nullptr ? tensor->values_dtype : options.dtype.value_or(default_dtype);
  const bool grows = may_grow && spec.shape.rank() > 0 && spec.shape[0] == Shape::kUnknown;
  if (!(grows ? spec.shape.with_dim(0, 1) : spec.shape).fully_known()) {
    fail(ErrorKind::argument, "variable \"{}\" cannot be made with shape {}: every extent {}must be known",
         spec.name, spec.shape.str(), may_grow ? "but the first " : "");
  }
  spec.trainable = options.trainable.value_or(true);
  spec.average_decay = options.average_decay;
  if (options.rows_are_units && spec.shape.rank() != 2) {
    fail(ErrorKind::argument, "variable \"{}\" of shape {} is no table: its rows can be units in rank 2 only",
         spec.name, spec.shape.str());
  }
  spec.constraint = options.constraint.value_or(Constraint{});
  if (options.rows_are_units) spec.constraint = spec.constraint.of_rows();
  if (spec.is_average() && (spec.trainable || !(spec.average_decay <= 1))) {
    fail(ErrorKind::argument, "variable \"{}\" is a moving average with decay {}: {}", spec.name,
         spec.average_decay, spec.trainable ? "it cannot be trainable" : "the decay must be at most 1");
  }
  if (spec.is_average() && may_grow) {
    fail(ErrorKind::argument, "variable \"{}\" is local: no server keeps a moving average of it", spec.name);
  }
  spec.initializer = initializer_for(options, spec);
  spec.table = options.table;
  if (spec.is_table()) check_table(spec, options);
  if (spec.is_table() && !spec.trainable) spec.table = spec.table->untrained();
  spec.compression = compression_of(spec, options);
  return spec;
}

// TensorFlow's is_compatible_with: an unknown extent fits any.
bool fit(const Shape& a, const Shape& b) {
  return std::ranges::equal(a.dims(), b.dims(), [](std::int64_t x, std::int64_t y) {
    return x == y || x == Shape::kUnknown || y == Shape::kUnknown;
  });
}

// Both are tables or neither.
void check_fits(const Variable& v, const std::optional<Shape>& shape, const std::optional<DType>& dtype) {
  if (shape && !fit(v.shape(), *shape) && v.spec().is_table() && shape->rank() == 2 && (*shape)[0] == 0) {
    fail(ErrorKind::argument,
         "variable \"{}\" is a table of {} units (made at {}), but is reused as a table of {} units",
         v.name(), v.shape()[1], v.made_at(), (*shape)[1]);
  }
  if (shape && !fit(v.shape(), *shape)) {
    fail(ErrorKind::argument, "variable \"{}\" has shape {} (made at {}), but is reused with shape {}",
         v.name(), v.shape().str(), v.made_at(), shape->str());
  }
  if (dtype && *dtype != v.dtype()) {
    fail(ErrorKind::argument, "variable \"{}\" has dtype {} (made at {}), but is reused with dtype {}",
         v.name(), to_string(v.dtype()), v.made_at(), to_string(*dtype));
  }
}

// What a call itself says of a table that exists already. TensorFlow's variables leave it unread; of a table
// rows come into being all the time.
void check_own_options(const Variable& v, const VariableOptions& own) {
  if (!v.spec().is_table()) return;
  const auto refuse = [&](const char* key, const std::string& found, const std::string& wanted) {
    fail(ErrorKind::argument, "table \"{}\" has {} {} (made at {}), but is reused with {}", v.name(), key,
         found, v.made_at(), wanted);
  };
  if (own.initializer) {
    const Initializer wanted = initializer_for(own, v.spec());
    if (wanted != v.spec().initializer) refuse("initializer", v.spec().initializer.str(), wanted.str());
  }
  if (own.trainable && *own.trainable != v.trainable())
    refuse("trainable", v.trainable() ? "true" : "false", *own.trainable ? "true" : "false");
}

void check_partitions(const Variable& v, const Partitioner& partitioner) {
  if (v.combine() == Combine::whole) {
    fail(ErrorKind::argument,
         "variable \"{}\": a partitioner was given, but an unpartitioned version of it exists (made at {}); "
         "switch the partitioner off with an empty one (in YAML: partitioner: none)",
         v.name(), v.made_at());
  }
  if (v.combine() != Combine::concat) return;
  const std::size_t rank = v.shape().rank();
  const Partitioning specified = call_partitioner(partitioner, v.name(), v.shape(), v.dtype());
  const Partitioning found{v.axis(), static_cast<std::int64_t>(v.parts().size())};
  if (specified.counts(rank) != found.counts(rank)) {
    fail(ErrorKind::argument,
         "variable \"{}\" is reused with specified partitions [{}] and found partitions [{}] (made at {})",
         v.name(), fmt::join(specified.counts(rank), ", "), fmt::join(found.counts(rank), ", "), v.made_at());
  }
}

}  // namespace

std::string location_text(const std::source_location& where) {
  return fmt::format("{}:{}", where.file_name(), where.line());
}

GetterCall::GetterCall(VariableStore& store, const VariableStore::Request& request,
                       std::span<const CustomGetter> outer)
    : name(request.name),
      shape(request.shape),
      options(request.options),
      reuse(request.reuse),
      store_(&store),
      request_(&request),
      outer_(outer) {}

Variable& GetterCall::next(std::string_view full_name) const {
  check_inner_name(full_name, true, "variable");
  VariableStore::Request request = *request_;
  request.name = full_name;
  request.shape = shape;
  request.options = options;
  request.reuse = reuse;
  return store_->run_getters(request, outer_);
}

Variable& VariableStore::get_variable(std::string_view name, const Shape& shape,
                                      const VariableOptions& options, std::source_location where) {
  return get(name, shape, options, Residence::servers, where);
}

Variable& VariableStore::get_local_variable(std::string_view name, const Shape& shape,
                                            const VariableOptions& options, std::source_location where) {
  return get(name, shape, options, Residence::worker, where);
}

Variable& VariableStore::get(std::string_view name, std::optional<Shape> shape,
                             const VariableOptions& options, Residence residence,
                             std::source_location where) {
  Request r{"", "", std::move(shape), options, DType::float32, Reuse::no, residence, false};
  std::vector<CustomGetter> getters;
  {
    const Lock lock(mutex_);
    stack().check_nesting();
    const ScopeState& scope = stack().current();
    check_inner_name(name, scope.path.empty(), "variable");
    r.name = join_scope(scope.path, name);
    r.scope = scope_of(r.name);
    r.scope_dtype = scope.dtype;
    r.reuse = scope.reuse;
    VariableOptions& o = r.options;
    if (!o.initializer) o.initializer = scope.initializer;
    if (!o.trainable) o.trainable = scope.trainable;
    if (!o.regularizer) o.regularizer = scope.regularizer;
    if (!o.constraint) o.constraint = scope.constraint;
    if (!o.partitioner) o.partitioner = scope.partitioner;
    if (!o.compression) o.compression = scope.compression;
    if (o.made_at.empty()) o.made_at = location_text(where);
    getters = scope.getters;
    if (o.custom_getter) {
      if (!*o.custom_getter)
        fail(ErrorKind::argument, "the custom_getter of variable \"{}\" is not callable: it is empty",
             r.name);
      getters = {*o.custom_getter};
      o.custom_getter.reset();
    }
  }
  if (residence == Residence::worker) {
    VariableOptions& o = r.options;
    if (!o.collections) o.collections.emplace();
    o.collections->push_back(collections::kLocal);
    o.trainable = false;
    o.regularizer = Regularizer::none();
    o.constraint = Constraint{};
    o.partitioner = Partitioner{};
    o.compression = Compression{};
  }
  Variable& v = run_getters(r, getters);
  if (getters.empty()) check_own_options(v, options);  // a getter may ask for others
  return v;
}

Variable& VariableStore::run_getters(const Request& request, std::span<const CustomGetter> getters) {
  if (getters.empty()) {
    const Lock lock(mutex_);
    return get_or_make(request);
  }
  GetterCall call(*this, request, getters.first(getters.size() - 1));
  return getters.back()(call);
}

Variable& VariableStore::get_or_make(const Request& r) {
  check_tensor(r.name, r.shape, r.options);
  const auto found = by_name_.find(r.name);
  const bool is_shared = found != by_name_.end() && !found->second->is_bare_;
  if (!is_shared && r.reuse == Reuse::yes) {
    fail(ErrorKind::argument,
         "variable \"{}\" does not exist, or was not created with get_variable; open its scope without "
         "reuse, or with reuse automatic (in YAML: auto)",
         r.name);
  }
  if (is_shared && r.reuse != Reuse::no) return reuse_existing(*found->second, r);
  check_free(r.name);
  return make(r);
}

void VariableStore::check_free(const std::string& name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return;
  fail(ErrorKind::argument, "variable \"{}\" already exists (made at {}{}", name, found->second->made_at(),
       found->second->is_bare_
           ? " by make_variable, whose variables are not shared); choose another name"
           : "); to share it, open its scope with reuse yes or automatic (in YAML: reuse: auto)");
}

Variable& VariableStore::reuse_existing(Variable& v, const Request& r) const {
  std::optional<TableSpec> wanted = r.options.table;
  if (wanted && !v.trainable()) wanted = wanted->untrained();
  if (v.spec().table != wanted) {
    const auto text = [](const std::optional<TableSpec>& t) {
      return t ? "a table with " + t->str() : "no table";
    };
    fail(ErrorKind::argument, "variable \"{}\" is {} (made at {}), but is reused as {}", v.name(),
         text(v.spec().table), v.made_at(), text(wanted));
  }
  check_fits(v, r.shape, r.options.dtype);
  const bool is_cut =
      !v.spec().is_table() && r.options.partitioner && *r.options.partitioner && v.shape().rank() > 0;
  if (is_cut && !v.is_local()) check_partitions(v, *r.options.partitioner);
  return v;
}

Variable& VariableStore::make(const Request& r) {
  VariableSpec spec =
      describe(r.name, r.scope, r.shape, r.scope_dtype, r.options, r.residence == Residence::worker);
  const bool identity = spec.initializer.kind == Initializer::Kind::identity;
  const bool orthogonal = spec.initializer.kind == Initializer::Kind::orthogonal;
  // Throws for a shape that cannot be filled, here rather than on the servers.
  if (identity || (orthogonal && spec.shape.rank() < 2))
    InitialValues(spec.initializer, 0, spec.name, spec.shape);
  const Partitioner& partitioner = r.options.partitioner.value_or(Partitioner{});
  if (!partitioner || spec.shape.rank() == 0 || spec.is_table()) return make_whole(std::move(spec), r);
  return make_parts(spec, call_partitioner(partitioner, spec.name, spec.shape, spec.dtype), r);
}

Variable& VariableStore::make_parts(const VariableSpec& whole, const Partitioning& partitioning,
                                    const Request& r) {
  const std::vector<Slice> slices = cut_parts(whole.shape, partitioning);
  std::vector<VariableSpec> specs(slices.size(), whole);
  for (std::size_t i = 0; i < slices.size(); ++i) {
    specs[i].name = fmt::format("{}/part_{}", whole.name, i);
    specs[i].shape = slices[i].extent;
    specs[i].part = {whole.name, whole.shape, slices[i].offset, static_cast<int>(i),
                     static_cast<int>(slices.size())};
    check_free(specs[i].name);
  }
  auto handle = std::unique_ptr<Variable>(new Variable(whole, r.options.made_at));
  handle->combine_ = Combine::concat;
  handle->axis_ = partitioning.axis;
  for (VariableSpec& spec : specs) handle->parts_.push_back(&make_whole(std::move(spec), r));
  return add(std::move(handle));
}

Variable& VariableStore::make_whole(VariableSpec spec, const Request& r) {
  Variable& v = add(std::unique_ptr<Variable>(new Variable(std::move(spec), r.options.made_at)));
  v.is_local_ = r.residence == Residence::worker;
  v.is_bare_ = r.is_bare;
  if (!v.is_bare_) names_.mark(v.name());  // else it has been taken already
  v.index_ = static_cast<int>(variables_.size());
  variables_.push_back(&v);
  const std::vector<std::string> global{collections::kGlobal};
  for (const std::string& c : r.options.collections ? *r.options.collections : global) {
    std::vector<const Variable*>& members = collections_[c];
    if (members.empty() || members.back() != &v) members.push_back(&v);
  }
  std::vector<const Variable*>& trainable = collections_[collections::kTrainable];
  if (v.trainable() && (trainable.empty() || trainable.back() != &v)) trainable.push_back(&v);
  if (r.options.regularizer && r.options.regularizer->exists())
    losses_.push_back({&v, *r.options.regularizer, v.name() + "/Regularizer"});
  return v;
}

Variable& VariableStore::add(std::unique_ptr<Variable> variable) {
  owned_.push_back(std::move(variable));
  Variable& v = *owned_.back();
  by_name_[v.name()] = &v;
  return v;
}

Variable& VariableStore::make_variable(std::string_view name, const Shape& shape,
                                       const VariableOptions& options, std::source_location where) {
  const Lock lock(mutex_);
  stack().check_nesting();
  if (options.partitioner && *options.partitioner) {
    fail(ErrorKind::argument, "variable \"{}\": make_variable does not partition; use get_variable", name);
  }
  const Initializer* tensor = tensor_of(options.initializer);
  if (tensor != nullptr && tensor->values_shape != shape) {
    fail(ErrorKind::argument, "variable \"{}\" has shape {}, but its initializer is a tensor of shape {}",
         name, shape.str(), tensor->values_shape.str());
  }
  if (options.custom_getter)
    fail(ErrorKind::argument, "variable \"{}\": make_variable calls no custom getter; use get_variable",
         name);
  check_inner_name(name, stack().name_scope().empty(), "variable");
  const std::string wanted = join_scope(stack().name_scope(), name);
  const std::string full = names_.next(wanted, [&](const std::string& n) { return by_name_.contains(n); });
  Request r{full, scope_of(full), shape, options, DType::float32, Reuse::no, Residence::servers, true};
  if (tensor != nullptr) r.shape.reset();
  if (r.options.made_at.empty()) r.options.made_at = location_text(where);
  check_tensor(r.name, r.shape, r.options);
  VariableSpec spec = describe(r.name, r.scope, r.shape, r.scope_dtype, r.options, false);
  names_.use(wanted, full);
  return make_whole(std::move(spec), r);
}

Variable& VariableStore::sum(std::string_view full_name, const std::vector<const Variable*>& parts) {
  return compose(full_name, parts, Combine::add);
}

Variable& VariableStore::product(std::string_view full_name, const std::vector<const Variable*>& parts) {
  return compose(full_name, parts, Combine::multiply);
}

Variable& VariableStore::compose(std::string_view name, const std::vector<const Variable*>& parts,
                                 Combine combine) {
  const Lock lock(mutex_);
  check_inner_name(name, true, "variable");
  if (parts.empty()) fail(ErrorKind::argument, "variable \"{}\" is composed of no parts", name);
  const Variable& first = *parts[0];
  VariableSpec spec;
  spec.name = name;
  spec.scope = scope_of(name);
  spec.dtype = first.dtype();
  spec.shape = first.shape();
  spec.trainable = false;
  for (const Variable* p : parts) {
    if (p->shape() != first.shape() || p->dtype() != first.dtype()) {
      fail(ErrorKind::argument,
           "variable \"{}\" is composed of \"{}\" of shape {} and dtype {} and \"{}\" of shape {} and dtype "
           "{}: they must be alike",
           name, first.name(), first.shape().str(), to_string(first.dtype()), p->name(), p->shape().str(),
           to_string(p->dtype()));
    }
    spec.trainable = spec.trainable || p->trainable();
  }
  const auto found = by_name_.find(name);
  if (found != by_name_.end() && found->second->combine_ == combine && found->second->parts_ == parts)
    return *found->second;
  check_free(spec.name);
  auto handle = std::unique_ptr<Variable>(new Variable(std::move(spec), first.made_at()));
  handle->combine_ = combine;
  handle->parts_ = parts;
  return add(std::move(handle));
}

}  // namespace varscope
