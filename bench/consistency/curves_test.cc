#include "bench/consistency/curves.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace varscope::bench {
namespace {

std::string step_line(int step, const char* loss, int speed) {
  return R"({"event":"step","step":)" + std::to_string(step) + R"(,"loss":)" + loss + R"(,"samples_per_s":)" +
         std::to_string(speed) + "}\n";
}

TEST(CurvePoints, AddUpTheTimeOfEachLine) {
  const std::string metrics = R"({"event":"start","step":0})"
                              "\n" +
                              step_line(10, "2.5", 320) + step_line(20, "1.5", 640) + R"({"event":"finish"})";
  const auto points = points_in(metrics, 64);
  ASSERT_EQ(points.size(), 2U);
  EXPECT_EQ(points[0].seconds, 2.0);
  EXPECT_EQ(points[1].seconds, 3.0);
  EXPECT_EQ(points[1].step, 20);
  EXPECT_EQ(points[1].loss, 1.5);
}

TEST(CurvePoints, AreAnErrorWhereThereAreNone) {
  EXPECT_THROW(points_in(step_line(10, "null", 320), 64), std::runtime_error) << "a loss that has diverged";
}

TEST(CurveText, HasALineForEachPoint) {
  EXPECT_EQ(
      csv_of({{"SSP(2), static", {{0.5, 10, 2.25}, {1, 20, 2}}}, {"ASP", {{0.25, 10, 1.5}}}}),
      "mode,seconds,step,loss\n\"SSP(2), static\",0.500,10,2.25\n\"SSP(2), static\",1.000,20,2\n\"ASP\",0.250,10,1.5\n");
}

TEST(CurvePicture, DrawsALineForEachCurveWithinItsFrame) {
  const std::string svg =
      picture_of({{"BSP", {{0, 1, 2}, {10, 2, 1}}}, {"a<b & c", {{5, 1, 1.5}}}}, "slow in turns");
  // Axes go from 0 to 10 s and from 1 to 2: from (60, 352) to (700, 40).
  EXPECT_NE(svg.find("<polyline points=\"60.0,40.0 700.0,352.0 \""), std::string::npos) << svg;
  EXPECT_NE(svg.find("<polyline points=\"380.0,196.0 \""), std::string::npos) << svg;
  EXPECT_NE(svg.find(">slow in turns</text>"), std::string::npos);
  EXPECT_NE(svg.find(">a&lt;b &amp; c</text>"), std::string::npos) << "names are text, not markup";
  EXPECT_EQ(svg.find("nan"), std::string::npos);
}

TEST(CurvePicture, CopesWithOnePoint) {
  const std::string svg = picture_of({{"BSP", {{0, 1, 2}}}}, "one");
  EXPECT_EQ(svg.find("nan"), std::string::npos) << svg;
  EXPECT_EQ(svg.find("inf"), std::string::npos) << svg;
}

}  // namespace
}  // namespace varscope::bench
