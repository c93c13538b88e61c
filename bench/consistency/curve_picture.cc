#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string_view>

#include <nlohmann/json.hpp>

#include "bench/consistency/curves.h"

namespace varscope::bench {
namespace {

constexpr double kWidth = 720, kHeight = 400, kLeft = 60, kRight = 20, kTop = 40, kBottom = 48;
constexpr std::string_view kColours[] = {"#37474f", "#1e88e5", "#d81b60", "#43a047", "#fb8c00"};

struct Axis {
  double least = 0, most = 1, begin = 0, end = 1;  // of values, and in the picture
  double at(double value) const { return begin + (value - least) / (most - least) * (end - begin); }
};

// 1, 2 or 5 times a power of ten, for about five marks.
double step_of_marks(double length) {
  const double power = std::pow(10, std::floor(std::log10(length / 5)));
  for (const double times : {1, 2, 5}) {
    if (length / (times * power) <= 6) return times * power;
  }
  return 10 * power;
}

// From 0, or from the mark below the least, to the mark above the most.
Axis axis_of(double least, double most, double begin, double end) {
  const double mark = step_of_marks(std::max(most - least, 1e-9));
  const double low = std::floor(least / mark) * mark, high = std::ceil(most / mark) * mark;
  return {low, high > low ? high : low + mark, begin, end};
}

std::string text_at(double x, double y, const char* anchor, const std::string& text) {
  std::string safe;
  for (const char c : text) safe += c == '&' ? "&amp;" : c == '<' ? "&lt;" : std::string(1, c);
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor, safe);
}

std::string line_from(double x1, double y1, double x2, double y2) {
  return fmt::format("<path d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\" stroke=\"#cfd8dc\"/>\n", x1, y1, x2, y2);
}

std::string grid_of(const Axis& x, const Axis& y) {
  std::string svg;
  const double dx = step_of_marks(x.most - x.least), dy = step_of_marks(y.most - y.least);
  for (int i = 0; x.least + i * dx <= x.most + dx / 2; ++i) {
    const double value = x.least + i * dx;
    svg += line_from(x.at(value), y.begin, x.at(value), y.end);
    svg += text_at(x.at(value), y.begin + 18, "middle", fmt::format("{:g}", value));
  }
  for (int i = 0; y.least + i * dy <= y.most + dy / 2; ++i) {
    const double value = y.least + i * dy;
    svg += line_from(x.begin, y.at(value), x.end, y.at(value));
    svg += text_at(x.begin - 8, y.at(value) + 4, "end", fmt::format("{:.3g}", value));
  }
  return svg;
}

std::string polyline_of(const Curve& curve, const Axis& x, const Axis& y, std::string_view colour) {
  std::string points;
  for (const CurvePoint& p : curve.points)
    points += fmt::format("{:.1f},{:.1f} ", x.at(p.seconds), y.at(p.loss));
  return fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n", points,
                     colour);
}

std::string legend_of(const std::vector<Curve>& curves) {
  std::string svg;
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const double y = kTop + 18 + 18 * static_cast<double>(i), x = kWidth - kRight - 10;
    svg += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"12\" height=\"4\" fill=\"{}\"/>\n", x - 12,
                       y - 6, kColours[i % std::size(kColours)]);
    svg += text_at(x - 20, y, "end", curves[i].name);
  }
  return svg;
}

}  // namespace

std::vector<CurvePoint> points_in(const std::string& metrics, int samples_of_step) {
  std::vector<CurvePoint> points;
  CurvePoint at;
  for (std::size_t begin = 0; begin < metrics.size();) {
    const std::size_t end = std::min(metrics.find('\n', begin), metrics.size());
    const auto record = nlohmann::json::parse(metrics.substr(begin, end - begin));
    begin = end + 1;
    if (record.at("event") != "step" || record.at("loss").is_null()) continue;
    const auto step = record.at("step").get<std::int64_t>();
    at.seconds +=
        static_cast<double>((step - at.step) * samples_of_step) / record.at("samples_per_s").get<double>();
    at.step = step;
    at.loss = record.at("loss").get<double>();
    points.push_back(at);
  }
  if (points.empty()) throw std::runtime_error("these metrics have no step with a loss");
  return points;
}

std::string csv_of(const std::vector<Curve>& curves) {
  std::string csv = "mode,seconds,step,loss\n";
  for (const Curve& curve : curves) {
    for (const CurvePoint& p : curve.points)
      csv += fmt::format("\"{}\",{:.3f},{},{:.6g}\n", curve.name, p.seconds, p.step, p.loss);
  }
  return csv;
}

std::string picture_of(const std::vector<Curve>& curves, const std::string& title) {
  double last = 0, least = curves.at(0).points.at(0).loss, most = least;
  for (const Curve& curve : curves) {
    for (const CurvePoint& p : curve.points) {
      last = std::max(last, p.seconds);
      least = std::min(least, p.loss);
      most = std::max(most, p.loss);
    }
  }
  const Axis x = axis_of(0, last, kLeft, kWidth - kRight), y = axis_of(least, most, kHeight - kBottom, kTop);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:g} {1:g}\" width=\"{0:g}\" height=\"{1:g}\" "
      "font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\">\n<rect width=\"{0:g}\" height=\"{1:g}\" "
      "fill=\"white\"/>\n",
      kWidth, kHeight);
  svg += text_at(kWidth / 2, kTop - 18, "middle", title) + grid_of(x, y);
  for (std::size_t i = 0; i < curves.size(); ++i)
    svg += polyline_of(curves[i], x, y, kColours[i % std::size(kColours)]);
  svg += legend_of(curves) + text_at(kWidth / 2, kHeight - 10, "middle", "seconds");
  return svg + text_at(kLeft - 40, kTop - 18, "start", "loss") + "</svg>\n";
}

}  // namespace varscope::bench
