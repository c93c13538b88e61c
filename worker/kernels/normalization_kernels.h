#pragma once

#include <cstdint>

#include "worker/kernels/kernels.h"

// Loops over the rows of [rows, cols] memory, vectorised, with sums in double: over a column the rows in
// ascending order; over a row 16 partial sums, of the columns with one remainder, added pairwise.
namespace varscope::kernels {

// What one column is normalised by. Each array has an entry per column.
struct ColumnMoments {
  double* mean;
  double* variance;  // biased: the sum of squared deviations over the number of rows
};
// Zero where there are no rows.
void column_moments(ColumnMoments moments, const float* x, std::int64_t rows, std::int64_t cols);
void column_moments(ColumnMoments moments, const double* x, std::int64_t rows, std::int64_t cols);

// y = (x - mean) * scale + shift.
void normalize_columns(float* y, const float* x, const double* mean, const double* scale, const float* shift,
                       std::int64_t rows, std::int64_t cols);
void normalize_columns(double* y, const double* x, const double* mean, const double* scale,
                       const double* shift, std::int64_t rows, std::int64_t cols);

// sum = the sums of dy, product = the sums of dy * (x - mean), over rows.
struct ColumnSums {
  double* sum;
  double* product;
};
void column_sums(ColumnSums sums, const float* dy, const float* x, const double* mean, std::int64_t rows,
                 std::int64_t cols);
void column_sums(ColumnSums sums, const double* dy, const double* x, const double* mean, std::int64_t rows,
                 std::int64_t cols);

// dx = (or +=, with Sum::add) dy * scale - constant - (x - mean) * slope.
struct ColumnLine {
  const double *mean, *scale, *constant, *slope;
};
void column_gradient(Sum sum, float* dx, const float* dy, const float* x, const ColumnLine& line,
                     std::int64_t rows, std::int64_t cols);
void column_gradient(Sum sum, double* dx, const double* dy, const double* x, const ColumnLine& line,
                     std::int64_t rows, std::int64_t cols);

// y = (x - the row's mean) / sqrt(the row's biased variance + epsilon) * gamma + beta.
void normalize_rows(float* y, const float* x, const float* gamma, const float* beta, double epsilon,
                    std::int64_t rows, std::int64_t cols);
void normalize_rows(double* y, const double* x, const double* gamma, const double* beta, double epsilon,
                    std::int64_t rows, std::int64_t cols);

// The sums over rows that are the gradients of gamma and beta; and dx = (or +=) the gradient of x, where dx
// is not null.
struct RowGradients {
  double *gamma, *beta;
};
void row_gradient(Sum sum, float* dx, RowGradients gradients, const float* dy, const float* x,
                  const float* gamma, double epsilon, std::int64_t rows, std::int64_t cols);
void row_gradient(Sum sum, double* dx, RowGradients gradients, const double* dy, const double* x,
                  const double* gamma, double epsilon, std::int64_t rows, std::int64_t cols);

// y = x * scale where a word is at least `threshold`, else 0; kept = which.
void dropout(float* y, std::uint8_t* kept, const float* x, const std::uint32_t* words,
             std::uint32_t threshold, float scale, std::int64_t n);
void dropout(double* y, std::uint8_t* kept, const double* x, const std::uint32_t* words,
             std::uint32_t threshold, double scale, std::int64_t n);
// dx = (or +=) dy * scale where kept, else 0.
void dropout_gradient(Sum sum, float* dx, const float* dy, const std::uint8_t* kept, float scale,
                      std::int64_t n);
void dropout_gradient(Sum sum, double* dx, const double* dy, const std::uint8_t* kept, double scale,
                      std::int64_t n);

}  // namespace varscope::kernels
