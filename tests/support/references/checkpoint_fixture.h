#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/directory/checkpoint_directory.h"
#include "checkpoint/format/manifest.h"
#include "checkpoint/format/shard.h"
#include "checkpoint/restore/reader.h"
#include "checkpoint/storage/fs.h"
#include "tests/support/temp_dir.h"

namespace varscope::testing {

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}
inline void spit(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}
inline void flip_bit(const std::string& path, std::size_t at, int bit = 0) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<std::streamoff>(at));
  const char c = static_cast<char>(file.get() ^ (1 << bit));
  file.seekp(static_cast<std::streamoff>(at));
  file.put(c);
}

// The words of the Error that `f` throws, with its kind in front: "checkpoint: ...".
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return std::string(to_string(e.kind())) + ": " + e.what();
  }
  return "no error";
}

inline VariableSpec make_variable(std::string name, DType dtype, Shape shape, bool trainable = true) {
  VariableSpec v;
  v.name = std::move(name);
  v.scope = v.name.substr(0, v.name.find('/'));
  v.dtype = dtype;
  v.shape = std::move(shape);
  v.trainable = trainable;
  return v;
}

// A whole model in memory: the value and the slots of each variable, as random bytes of a seed.
struct Model {
  VariableTable table;
  std::vector<std::string> slots;
  std::map<std::pair<std::string, std::string>, Tensor> values;  // by (variable, slot)
  std::map<std::string, std::vector<Slice>>
      boxes;  // by variable; slice_variable() unless a test says otherwise

  Model(VariableTable variables, std::vector<std::string> slot_names, unsigned seed)
      : table(std::move(variables)), slots(std::move(slot_names)) {
    std::mt19937 random(seed);
    for (const VariableSpec& v : table.variables()) {
      boxes[v.name] = slice_variable(v.shape, v.dtype);
      add(v, "", random);
      for (const std::string& slot : slots) {
        if (v.trainable) add(v, slot, random);
      }
    }
  }

  const Tensor& value(const std::string& variable, const std::string& slot = "") const {
    return values.at({variable, slot});
  }

 private:
  void add(const VariableSpec& v, const std::string& slot, std::mt19937& random) {
    Tensor t(v.dtype, v.shape);
    for (std::size_t i = 0; i < t.n_bytes(); ++i)
      t.view().bytes()[i] = static_cast<std::byte>(random() & 0x3f);
    values.emplace(std::pair(v.name, slot), std::move(t));
  }
};

// Few bytes, but several slices, dtypes, a scalar, an empty variable and one without slots.
inline Model small_model(unsigned seed) {
  return {VariableTable({make_variable("hidden/weights", DType::float32, {90, 61}),
                         make_variable("hidden/biases", DType::float32, {61}),
                         make_variable("norm/mean", DType::float64, {3, 2}, false),
                         make_variable("counts", DType::int64, {5}, false),
                         make_variable("scale", DType::bfloat16, Shape{}),
                         make_variable("nothing", DType::float32, {0, 4})}),
          {"m"},
          seed};
}
// One shard of a few bytes.
inline Model tiny_model(unsigned seed) {
  return {VariableTable({make_variable("w", DType::float32, {4, 3})}), {"m"}, seed};
}

// The elements of `box`, cut out of a row-major tensor one by one.
inline std::vector<std::byte> cut_out(const Tensor& whole, const Slice& box) {
  const std::size_t item = size_of(whole.dtype()), rank = box.full.rank();
  std::vector<std::byte> out;
  std::vector<std::int64_t> at(rank, 0);
  for (std::int64_t n = box.n_elements(); n > 0; --n) {
    std::int64_t element = 0;
    for (std::size_t a = 0; a < rank; ++a) element = element * box.full[a] + box.offset[a] + at[a];
    const std::byte* from = whole.view().bytes() + static_cast<std::size_t>(element) * item;
    out.insert(out.end(), from, from + item);
    for (std::size_t a = rank; a-- > 0;) {
      if (++at[a] < box.extent[a]) break;
      at[a] = 0;
    }
  }
  return out;
}

inline Manifest make_manifest(const Model& model, std::int64_t step, int servers) {
  Manifest m;
  m.program_version = "0.1.0";
  m.run_id = "run-7";
  m.attempt = 1;
  m.config_hash = digest_of(std::string_view("config")).hex();
  m.step = step;
  m.worker_clocks = {step, step};
  m.servers = servers;
  m.workers = m.logical_workers = 2;
  m.variables = model.table;
  m.optimizer = "momentum";
  m.slots = model.slots;
  m.coordinator_state = "epoch 3";
  return m;
}

// What server `server` of `n` writes.
inline ShardReport write_part(Fs& fs, const std::string& dir, const Model& model, std::int64_t step,
                              int server, int n, const std::string& id) {
  std::vector<std::vector<std::byte>> memory;
  std::vector<ShardTensor> tensors;
  std::size_t place = 0;
  for (const VariableSpec& v : model.table.variables()) {
    const auto& boxes = model.boxes.at(v.name);
    ++place;
    for (std::size_t i = 0; i < boxes.size(); ++i) {
      if (static_cast<int>((place + i) % static_cast<std::size_t>(n)) != server) continue;
      for (const auto& [key, tensor] : model.values) {
        if (key.first != v.name) continue;
        memory.push_back(cut_out(tensor, boxes[i]));
        tensors.push_back({v.name,
                           key.second,
                           static_cast<std::int64_t>(i),
                           v.dtype,
                           boxes[i],
                           {memory.back().data(), memory.back().size()}});
      }
    }
  }
  return write_shard(fs, dir, server, n, step, {step, step}, id, tensors);
}

// The whole of a save; throws what failed, without cleaning up.
inline std::string save(Fs& fs, CheckpointDirectory& directory, const Model& model, std::int64_t step,
                        int servers, const std::string& id) {
  const std::string tmp = directory.begin(id);
  Manifest manifest = make_manifest(model, step, servers);
  for (int server = 0; server < servers; ++server) {
    add_report(manifest, write_part(fs, tmp, model, step, server, servers, id));
  }
  manifest.files.push_back(write_blob(fs, tmp, worker_state_name(0), "position of worker 0"));
  manifest.files.push_back(write_blob(fs, tmp, worker_state_name(1), ""));
  return directory.commit(id, manifest);
}

// The hash that a checkpoint of this model must have.
inline Digest values_hash_of(const Model& model) {
  ValuesHash hash(model.table);
  for (const VariableSpec& v : model.table.variables()) {
    const auto& boxes = model.boxes.at(v.name);
    for (std::size_t i = 0; i < boxes.size(); ++i) {
      hash.add(v.name, static_cast<std::int64_t>(i), digest_of(cut_out(model.value(v.name), boxes[i])));
    }
  }
  return hash.finish();
}

// A directory with one committed checkpoint.
struct Saved {
  TempDir dir;
  PosixFs fs;
  CheckpointDirectory directory{fs, dir.path()};
  std::string path;
  Saved(const Model& model, int servers, std::int64_t step = 5) {
    directory.lock("run");
    path = save(fs, directory, model, step, servers, "id-" + std::to_string(step));
  }
  std::string shard(int server, int servers) const { return path + "/" + shard_name(server, servers); }
};

inline Slice whole(const Shape& shape) {
  return {shape, Shape(std::vector<std::int64_t>(shape.rank(), 0)), shape};
}

inline void expect_box(CheckpointReader& reader, const Model& model, const std::string& variable,
                       const std::string& slot, const Slice& box) {
  const Tensor& expected = model.value(variable, slot);
  const Tensor out(expected.dtype(), box.extent);
  reader.read(variable, slot, box, out.view());
  const std::vector<std::byte> due = cut_out(expected, box);
  ASSERT_EQ(due.size(), out.n_bytes());
  EXPECT_EQ(std::memcmp(due.data(), out.view().bytes(), due.size()), 0)
      << variable << " " << slot << " " << box.spec();
}

}  // namespace varscope::testing
