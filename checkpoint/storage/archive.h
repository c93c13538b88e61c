#pragma once

#include <sstream>
#include <string>

#include "common/base/error.h"
#include "common/base/serialize.h"

namespace varscope {

// Text archives for disk, with Boost's own header, so that a later Boost knows which rules the file was
// written by.
template <class T>
std::string to_disk_text(const T& value) {
  std::ostringstream out;
  {
    boost::archive::text_oarchive archive(out, boost::archive::no_codecvt);
    archive << value;
  }
  return out.str();
}

// Throws Error(checkpoint) that begins with `what` when the text does not hold a T. Text behind the T is
// ignored: newer minor formats append.
template <class T>
T from_disk_text(const std::string& text, const std::string& what) {
  try {
    std::istringstream in(text);
    BoundedTextArchive archive(in, boost::archive::no_codecvt);
    T value{};
    archive >> value;
    return value;
  } catch (const std::exception& e) {
    fail(ErrorKind::checkpoint, "{} cannot be read: {}", what, e.what());
  }
}

}  // namespace varscope
