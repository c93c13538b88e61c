#pragma once

#include <cstdint>

// Loops over rows of ids and of features, vectorised over columns. Sums run in double, over rows in ascending
// order, whatever the number of columns. Pointers of one call do not overlap.
namespace varscope::kernels {

// y[c] = (sum over i of weights[i] * table[ids[i], c]) / divisor, for `n` ids of rows of `width` columns;
// without weights (null) each counts once. An id of weight 0 is not read. REQUIRES ids of the table.
void gather_sum(float* y, const float* table, const std::int32_t* ids, const float* weights, std::int64_t n,
                std::int64_t width, double divisor);
void gather_sum(float* y, const float* table, const std::int64_t* ids, const float* weights, std::int64_t n,
                std::int64_t width, double divisor);
void gather_sum(double* y, const double* table, const std::int32_t* ids, const double* weights,
                std::int64_t n, std::int64_t width, double divisor);
void gather_sum(double* y, const double* table, const std::int64_t* ids, const double* weights,
                std::int64_t n, std::int64_t width, double divisor);
// Its gradient: table[ids[i], c] += weights[i] / divisor * dy[c].
void scatter_add(float* table, const float* dy, const std::int32_t* ids, const float* weights, std::int64_t n,
                 std::int64_t width, double divisor);
void scatter_add(float* table, const float* dy, const std::int64_t* ids, const float* weights, std::int64_t n,
                 std::int64_t width, double divisor);
void scatter_add(double* table, const double* dy, const std::int32_t* ids, const double* weights,
                 std::int64_t n, std::int64_t width, double divisor);
void scatter_add(double* table, const double* dy, const std::int64_t* ids, const double* weights,
                 std::int64_t n, std::int64_t width, double divisor);

// y[c] = the mean of x[i, c] over `rows` >= 1 rows.
void column_means(float* y, const float* x, std::int64_t rows, std::int64_t cols);
void column_means(double* y, const double* x, std::int64_t rows, std::int64_t cols);
// dx[i, c] += dy[c] / rows.
void column_means_gradient(float* dx, const float* dy, std::int64_t rows, std::int64_t cols);
void column_means_gradient(double* dx, const double* dy, std::int64_t rows, std::int64_t cols);

// The sum over c and all pairs i < j of x[i, c] * x[j, c], in time linear in `rows` (Rendle, ICDM 2010):
// half of the square of the sum less the sum of the squares.
double pair_products(const float* x, std::int64_t rows, std::int64_t cols);
double pair_products(const double* x, std::int64_t rows, std::int64_t cols);
// dx[i, c] += dy * (the sum over the other rows j of x[j, c]).
void pair_products_gradient(float* dx, float dy, const float* x, std::int64_t rows, std::int64_t cols);
void pair_products_gradient(double* dx, double dy, const double* x, std::int64_t rows, std::int64_t cols);

// pair_products of the rows weights[i] * table[ids[i], :], and its gradient, which is added to that of the
// table.
double gather_pairs(const float* table, const std::int32_t* ids, const float* weights, std::int64_t n,
                    std::int64_t width);
double gather_pairs(const float* table, const std::int64_t* ids, const float* weights, std::int64_t n,
                    std::int64_t width);
double gather_pairs(const double* table, const std::int32_t* ids, const double* weights, std::int64_t n,
                    std::int64_t width);
double gather_pairs(const double* table, const std::int64_t* ids, const double* weights, std::int64_t n,
                    std::int64_t width);
void gather_pairs_gradient(float* gradient, float dy, const float* table, const std::int32_t* ids,
                           const float* weights, std::int64_t n, std::int64_t width);
void gather_pairs_gradient(float* gradient, float dy, const float* table, const std::int64_t* ids,
                           const float* weights, std::int64_t n, std::int64_t width);
void gather_pairs_gradient(double* gradient, double dy, const double* table, const std::int32_t* ids,
                           const double* weights, std::int64_t n, std::int64_t width);
void gather_pairs_gradient(double* gradient, double dy, const double* table, const std::int64_t* ids,
                           const double* weights, std::int64_t n, std::int64_t width);

}  // namespace varscope::kernels
