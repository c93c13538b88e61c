#pragma once

#include <cstdint>
#include <string>

namespace varscope {

// Numbers as people read them. NaN is "nan", never "-nan"; infinities are "inf" and "-inf".

// A loss, a metric: "0.3270", "2.3026", and six digits where four decimals would show too many digits or
// too few: "0.000123457", "1.5e+30".
std::string figure(double value);
// At most so many significant digits, as printf's %.6g.
std::string short_number(double value, int digits = 6);
// Of parts of a time, a size: whole percents of `part` in `all`, from 0 to 100; 0 where there is nothing.
int percent(std::int64_t part, std::int64_t all);

}  // namespace varscope
