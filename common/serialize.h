#pragma once

#include <boost/archive/binary_iarchive.hpp>
#include <boost/archive/binary_oarchive.hpp>
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

#include <sstream>
#include <string>
#include <string_view>

#include "common/error.h"

namespace varscope {

// The one place that meets Boost's archives. A type takes part with
//   template <class Archive> void serialize(Archive& ar, unsigned version) { ar & a & b; }
//
// Binary archives are for messages between ranks of one job only: they are not portable. Text archives are for disk, and
// only inside a checksummed envelope (checkpoint/envelope.h): verify first, then parse.

inline constexpr unsigned kArchiveFlags = boost::archive::no_header | boost::archive::no_codecvt;

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
    boost::archive::binary_iarchive archive(in, kArchiveFlags);
    T value{};
    archive >> value;
    return value;
  } catch (const std::exception& e) {
    fail(ErrorKind::protocol, "a message that should hold {} cannot be read ({} bytes: {})", what, bytes.size(), e.what());
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
    boost::archive::text_iarchive archive(in, kArchiveFlags);
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
