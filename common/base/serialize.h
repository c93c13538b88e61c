#pragma once

#include <algorithm>
#include <charconv>
#include <sstream>
#include <stdexcept>
#include <streambuf>
#include <string>
#include <string_view>
#include <system_error>

#include <boost/archive/binary_iarchive_impl.hpp>
#include <boost/archive/binary_oarchive.hpp>
#include <boost/archive/impl/basic_binary_iarchive.ipp>
#include <boost/archive/impl/basic_binary_iprimitive.ipp>
#include <boost/archive/impl/basic_text_iarchive.ipp>
#include <boost/archive/impl/text_iarchive_impl.ipp>
#include <boost/archive/text_iarchive.hpp>
#include <boost/archive/text_oarchive.hpp>
#include <boost/iostreams/device/array.hpp>
#include <boost/iostreams/device/back_inserter.hpp>
#include <boost/iostreams/stream.hpp>
#include <boost/serialization/map.hpp>
#include <boost/serialization/optional.hpp>
#include <boost/serialization/string.hpp>
#include <boost/serialization/utility.hpp>
#include <boost/serialization/vector.hpp>

#include "common/base/error.h"

namespace varscope {

// The one place that meets Boost's archives. A type takes part with
//   template <class Archive> void serialize(Archive& ar, unsigned version) { ar & a & b; }
//
// Binary archives are for messages between ranks of one job only: they are not portable. Text archives are
// for disk, and only inside a checksummed envelope (checkpoint/storage/envelope.h): verify first, then parse.
// Both are read as if the bytes were hostile: what they announce is compared with what is there before memory
// is taken for it.

inline constexpr unsigned kArchiveFlags = boost::archive::no_header | boost::archive::no_codecvt;

namespace detail {

// Reads what binary_oarchive has written, from bytes that may be hostile: a length that the message cannot
// hold is an error before it is an allocation, and a bool is 0 or 1.
class BoundedArchive
    : public boost::archive::binary_iarchive_impl<BoundedArchive, char, std::char_traits<char>> {
  using Base = boost::archive::binary_iarchive_impl<BoundedArchive, char, std::char_traits<char>>;

 public:
  BoundedArchive(std::streambuf& in, std::size_t n_bytes) : Base(in, kArchiveFlags), n_bytes_(n_bytes) {
    init(kArchiveFlags);
  }

  template <class T>
  void load_override(T& t) {
    Base::load_override(t);
  }
  void load_override(boost::serialization::collection_size_type& n) {
    Base::load_override(n);
    check(n);
  }
  template <class T>
  void load(T& t) {
    Base::load(t);
  }
  void load(std::string& text) {
    std::size_t n = 0;
    Base::load(n);
    check(n);
    text.resize(n);
    if (n > 0) load_binary(text.data(), n);
  }
  void load(bool& b) {
    std::uint8_t byte = 0;
    Base::load(byte);
    if (byte > 1) throw std::invalid_argument("a bool is neither 0 nor 1");
    b = byte == 1;
  }

 private:
  // Every element takes a byte at least.
  void check(std::size_t n) const {
    if (n > n_bytes_) throw std::length_error("a length is beyond the end");
  }
  std::size_t n_bytes_;
};

}  // namespace detail

// Reads what text_oarchive has written. A plain text_iarchive would try to make a vector or a text of
// whatever length the archive says; this one throws std::length_error when fewer bytes are left.
class BoundedTextArchive : public boost::archive::text_iarchive_impl<BoundedTextArchive> {
  using Base = boost::archive::text_iarchive_impl<BoundedTextArchive>;

 public:
  BoundedTextArchive(std::istringstream& in, unsigned flags) : Base(in, flags), in_(in) {
    if ((flags & boost::archive::no_header) == 0) init();
  }

 private:
  friend class boost::archive::detail::interface_iarchive<BoundedTextArchive>;
  friend class boost::archive::load_access;
  friend class boost::archive::basic_text_iarchive<BoundedTextArchive>;

  template <class T>
  void load(T& value) {
    Base::load(value);
  }
  void load(std::string& text) {
    const std::size_t n = checked_count();
    in_.get();  // the separating space
    text.resize(n);
    if (n > 0) in_.read(text.data(), static_cast<std::streamsize>(n));
    if (!in_) throw std::length_error(fmt::format("a text of {} bytes is cut off", n));
  }
  // Streams write what is not finite, but do not read it.
  void load(double& value) {
    std::string token;
    in_ >> token;
    const char* const end = token.data() + token.size();
    const auto [read, error] = std::from_chars(token.data(), end, value);
    if (error != std::errc() || read != end) throw std::invalid_argument("\"" + token + "\" is no number");
  }
  void load(boost::serialization::collection_size_type& count) {
    count = boost::serialization::collection_size_type(checked_count());
  }
  // Every item, and every byte of a text, takes a byte at least.
  std::size_t checked_count() {
    std::size_t n = 0;
    Base::load(n);
    const auto left = static_cast<std::size_t>(std::max<std::streamsize>(in_.rdbuf()->in_avail(), 0));
    if (n > left)
      throw std::length_error(fmt::format("{} items are announced where only {} bytes are left", n, left));
    return n;
  }
  std::istringstream& in_;
};

template <class T>
std::string to_binary(const T& value) {
  std::string bytes;
  {
    boost::iostreams::stream<boost::iostreams::back_insert_device<std::string>> out(bytes);
    boost::archive::binary_oarchive archive(out, kArchiveFlags);
    archive << value;
  }
  return bytes;
}

// Throws Error(protocol) naming `what` when the bytes do not hold a T.
template <class T>
T from_binary(std::string_view bytes, const char* what) {
  try {
    boost::iostreams::stream<boost::iostreams::array_source> in(bytes.data(), bytes.size());
    detail::BoundedArchive archive(*in.rdbuf(), bytes.size());
    T value{};
    archive >> value;
    return value;
  } catch (const std::exception& e) {
    fail(ErrorKind::protocol, "a message that should hold {} cannot be read ({} bytes: {})", what,
         bytes.size(), e.what());
  }
}

template <class T>
std::string to_text(const T& value) {
  std::ostringstream out;
  {
    boost::archive::text_oarchive archive(out, kArchiveFlags);
    archive << value;
  }
  return out.str();
}

// Throws Error(data) naming `what` when the text does not hold a T.
template <class T>
T from_text(const std::string& text, const std::string& what) {
  try {
    std::istringstream in(text);
    BoundedTextArchive archive(in, kArchiveFlags);
    T value{};
    archive >> value;
    return value;
  } catch (const Error&) {
    throw;
  } catch (const std::exception& e) {
    fail(ErrorKind::data, "{} cannot be read: {}", what, e.what());
  }
}

}  // namespace varscope

// As for Boost's own binary archives: vectors of numbers are one block.
BOOST_SERIALIZATION_USE_ARRAY_OPTIMIZATION(varscope::detail::BoundedArchive)
