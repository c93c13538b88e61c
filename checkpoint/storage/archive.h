#pragma once

#include <cstddef>
#include <sstream>
#include <string>

#include <boost/archive/impl/basic_text_iarchive.ipp>
#include <boost/archive/impl/text_iarchive_impl.ipp>

#include "common/base/error.h"
#include "common/base/serialize.h"

namespace varscope {

// A Boost text archive for bytes from disk: it checks every count and every string length against the bytes
// that are left, before anything is allocated. A plain text_iarchive would try to make a vector of whatever
// length the file says.
class BoundedTextArchive : public boost::archive::text_iarchive_impl<BoundedTextArchive> {
  using Base = boost::archive::text_iarchive_impl<BoundedTextArchive>;

 public:
  explicit BoundedTextArchive(std::istringstream& in) : Base(in, boost::archive::no_codecvt), in_(in) {
    init();
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
    if (!in_) fail(ErrorKind::data, "a text of {} bytes is cut off", n);
  }
  void load(boost::serialization::collection_size_type& count) {
    count = boost::serialization::collection_size_type(checked_count());
  }
  std::size_t checked_count() {
    std::size_t n = 0;
    Base::load(n);
    const auto left = static_cast<std::size_t>(std::max<std::streamsize>(in_.rdbuf()->in_avail(), 0));
    if (n > left) fail(ErrorKind::data, "{} items are announced where only {} bytes are left", n, left);
    return n;
  }
  std::istringstream& in_;
};

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
    BoundedTextArchive archive(in);
    T value{};
    archive >> value;
    return value;
  } catch (const std::exception& e) {
    fail(ErrorKind::checkpoint, "{} cannot be read: {}", what, e.what());
  }
}

}  // namespace varscope
