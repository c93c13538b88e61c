#pragma once

#include <cstdint>

#include "common/base/tensor.h"

namespace varscope {

// How a window meets the border, by TensorFlow's arithmetic.
//   valid  only whole windows: floor((n - window) / stride) + 1
//   same   ceil(n / stride) windows, over an input that is padded with
//          max(0, (outputs - 1) * stride + window - n) cells, the smaller half of them at the beginning
enum class Padding : std::uint8_t { same, valid };
const char* to_string(Padding padding);

// A window that slides along one axis. Output o covers the inputs o * stride - before + [0, window), of which
// only those in [0, input) exist.
struct WindowAxis {
  std::int64_t input = 0, window = 0, stride = 1, output = 0, before = 0;

  static WindowAxis make(std::int64_t input, std::int64_t window, std::int64_t stride, Padding padding);
  std::int64_t begin(std::int64_t o) const { return o * stride - before; }  // may be negative
  // The part of output o's window that exists, as offsets into the window.
  std::int64_t first(std::int64_t o) const { return begin(o) < 0 ? -begin(o) : 0; }
  std::int64_t last(std::int64_t o) const {
    const std::int64_t rest = input - begin(o);
    return rest < window ? rest : window;
  }
};

// A window over the height and width of images [n, h, w, c].
struct Window2d {
  WindowAxis y, x;
  std::int64_t channels = 0;

  std::int64_t outputs() const { return y.output * x.output; }           // per image
  std::int64_t cells() const { return y.window * x.window * channels; }  // of one output
  std::int64_t image_size() const { return y.input * x.input * channels; }
  // One cell that moves by one: the columns of the images are the images themselves.
  bool is_pointwise() const {
    return y.window == 1 && x.window == 1 && y.stride == 1 && x.stride == 1 && outputs() == y.input * x.input;
  }
};

// One output of a window, and the step to the next, row-major over all images.
struct OutputPixel {
  std::int64_t image, y, x;
  OutputPixel(const Window2d& w, std::int64_t number)
      : image(number / w.outputs()),
        y(number % w.outputs() / w.x.output),
        x(number % w.outputs() % w.x.output) {}
  void next(const Window2d& w) {
    if (++x < w.x.output) return;
    x = 0;
    if (++y < w.y.output) return;
    y = 0;
    ++image;
  }
  // Where cell (i, j) of its window begins in [n, h, w, c]. REQUIRES a cell that exists.
  std::int64_t cell(const Window2d& w, std::int64_t i, std::int64_t j) const {
    return image * w.image_size() + ((w.y.begin(y) + i) * w.x.input + w.x.begin(x) + j) * w.channels;
  }
};

struct WindowSize {
  std::int64_t height, width, stride_h, stride_w;
};
// REQUIRES images [n, h, w, c] with known h, w and c of at least 1, a window and strides of at least 1, and
// with Padding::valid a window that is not larger than the image. Only the last three extents are read.
Window2d make_window(const Shape& images, const WindowSize& size, Padding padding);

}  // namespace varscope
