/* SPDX-License-Identifier: Apache-2.0 */
/*
 * distance_typed.h - the part of distance_body.h that is there for float and for double: T_NAME(x) is x_f32 or x_f64,
 * T_SCALAR the element, T_VECTOR a register of T_LANES of them, T_BITS integers of its size, ..._AT the same in memory.
 */

/* ---- one to four queries along the row --------------------------------------------------------------------------- */

INLINE T_VECTOR T_NAME(term)(T_VECTOR sum, T_VECTOR q, T_VECTOR x, bool l2sq)
{
    if (!l2sq)
        return sum + q * x;
    T_VECTOR t = q - x;
    return sum + t * t;
}

/* The elements behind the last whole vector, by a load that ends at the row's end; lanes seen before are cleared. */
INLINE T_VECTOR T_NAME(last_term)(T_VECTOR sum, const uint8_t *q, const uint8_t *x, size_t rest, bool l2sq)
{
    const T_BITS keep = T_NAME(last_lanes)(rest);
    T_VECTOR a = *(const T_VECTOR_AT *)(q - VEC), b = *(const T_VECTOR_AT *)(x - VEC);
    a = (T_VECTOR)((T_BITS)a & keep);
    b = (T_VECTOR)((T_BITS)b & keep);
    return T_NAME(term)(sum, a, b, l2sq);
}

/* Rows shorter than a vector. */
INLINE T_SCALAR T_NAME(short_row)(const uint8_t *q, const uint8_t *x, size_t dim, bool l2sq)
{
    T_SCALAR sum = 0;
    for (size_t k = 0; k < dim; k++) {
        T_SCALAR a = *(const T_SCALAR_AT *)(q + k * sizeof(T_SCALAR)),
                 c = *(const T_SCALAR_AT *)(x + k * sizeof(T_SCALAR));
        sum += l2sq ? (a - c) * (a - c) : a * c;
    }
    return sum;
}

INLINE T_SCALAR T_NAME(along)(const uint8_t *q, const uint8_t *x, size_t dim, bool l2sq)
{
    if (dim < T_LANES)
        return T_NAME(short_row)(q, x, dim, l2sq);
    /* Four chains: a multiply-add takes four cycles until the next one can have its result. */
    T_VECTOR s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    size_t bytes = dim * sizeof(T_SCALAR), k = 0;
    for (; k + 4 * VEC <= bytes; k += 4 * VEC) {
        s0 = T_NAME(term)(s0, *(const T_VECTOR_AT *)(q + k), *(const T_VECTOR_AT *)(x + k), l2sq);
        s1 = T_NAME(term)(s1, *(const T_VECTOR_AT *)(q + k + VEC), *(const T_VECTOR_AT *)(x + k + VEC), l2sq);
        s2 = T_NAME(term)(s2, *(const T_VECTOR_AT *)(q + k + 2 * VEC), *(const T_VECTOR_AT *)(x + k + 2 * VEC), l2sq);
        s3 = T_NAME(term)(s3, *(const T_VECTOR_AT *)(q + k + 3 * VEC), *(const T_VECTOR_AT *)(x + k + 3 * VEC), l2sq);
    }
    for (; k + VEC <= bytes; k += VEC)
        s0 = T_NAME(term)(s0, *(const T_VECTOR_AT *)(q + k), *(const T_VECTOR_AT *)(x + k), l2sq);
    if (k < bytes)
        s1 = T_NAME(last_term)(s1, q + bytes, x + bytes, (bytes - k) / sizeof(T_SCALAR), l2sq);
    return T_NAME(sum)((s0 + s1) + (s2 + s3));
}

/* nq is a constant where this is inlined. */
INLINE void T_NAME(along_many)(const uint8_t *q, const uint8_t *x, size_t dim, unsigned nq, bool l2sq, float *out)
{
    size_t bytes = dim * sizeof(T_SCALAR), k = 0;
    if (dim < T_LANES) {
        for (unsigned j = 0; j < nq; j++)
            out[j * KN_BLOCK_ROWS] = (float)T_NAME(short_row)(q + j * bytes, x, dim, l2sq);
        return;
    }
    T_VECTOR even[KN_FEW] = {{0}}, odd[KN_FEW] = {{0}};
    for (; k + 2 * VEC <= bytes; k += 2 * VEC) {
        T_VECTOR x0 = *(const T_VECTOR_AT *)(x + k), x1 = *(const T_VECTOR_AT *)(x + k + VEC);
        for (unsigned j = 0; j < nq; j++) {
            even[j] = T_NAME(term)(even[j], *(const T_VECTOR_AT *)(q + j * bytes + k), x0, l2sq);
            odd[j] = T_NAME(term)(odd[j], *(const T_VECTOR_AT *)(q + j * bytes + k + VEC), x1, l2sq);
        }
    }
    for (; k + VEC <= bytes; k += VEC)
        for (unsigned j = 0; j < nq; j++)
            even[j] =
                T_NAME(term)(even[j], *(const T_VECTOR_AT *)(q + j * bytes + k), *(const T_VECTOR_AT *)(x + k), l2sq);
    for (unsigned j = 0; j < nq; j++) {
        if (k < bytes)
            odd[j] = T_NAME(last_term)(odd[j], q + (j + 1) * bytes, x + bytes, (bytes - k) / sizeof(T_SCALAR), l2sq);
        out[j * KN_BLOCK_ROWS] = (float)T_NAME(sum)(even[j] + odd[j]);
    }
}

INLINE void T_NAME(few)(const kn_block *b, const uint8_t *q, unsigned nq, bool l2sq, float *out)
{
    for (size_t i = 0; i < b->count; i++) {
        ask_ahead(b, i, 1);
        ask_chosen(b, i);
        if (nq == 1)
            out[i] = (float)T_NAME(along)(q, row_at(b, i), b->dim, l2sq);
        else
            T_NAME(along_many)(q, row_at(b, i), b->dim, nq, l2sq, out + i);
    }
}

INLINE void T_NAME(few_any)(const kn_block *b, const void *q, unsigned nq, bool l2sq, float *out)
{
    if (nq == 1)
        T_NAME(few)(b, q, 1, l2sq, out);
    else if (nq == 2)
        T_NAME(few)(b, q, 2, l2sq, out);
    else if (nq == 3)
        T_NAME(few)(b, q, 3, l2sq, out);
    else
        T_NAME(few)(b, q, 4, l2sq, out);
}

static void T_NAME(few_dot)(const kn_block *b, const void *q, unsigned nq, float *out)
{
    T_NAME(few_any)(b, q, nq, false, out);
}

static void T_NAME(few_l2sq)(const kn_block *b, const void *q, unsigned nq, float *out)
{
    T_NAME(few_any)(b, q, nq, true, out);
}

/* One query and the rows' squares in one pass: where reading the rows is what takes the time. */
static void T_NAME(dot_squares)(const kn_block *b, const void *query, float *out, float *squares)
{
    const uint8_t *q = query;
    size_t bytes = b->dim * sizeof(T_SCALAR), last = bytes / VEC * VEC;
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *x = row_at(b, i);
        T_VECTOR dot[2] = {{0}}, square[2] = {{0}};
        if (b->dim < T_LANES) {
            out[i] = (float)T_NAME(short_row)(q, x, b->dim, false);
            squares[i] = (float)T_NAME(short_row)(x, x, b->dim, false);
            continue;
        }
        ask_ahead(b, i, 1);
        ask_chosen(b, i);
        for (size_t k = 0; k + 2 * VEC <= bytes; k += 2 * VEC)
            for (int c = 0; c < 2; c++) {
                T_VECTOR e = *(const T_VECTOR_AT *)(x + k + c * VEC);
                dot[c] += *(const T_VECTOR_AT *)(q + k + c * VEC) * e;
                square[c] += e * e;
            }
        if (last % (2 * VEC) != 0) {
            T_VECTOR e = *(const T_VECTOR_AT *)(x + last - VEC);
            dot[0] += *(const T_VECTOR_AT *)(q + last - VEC) * e;
            square[0] += e * e;
        }
        if (last < bytes) {
            dot[1] = T_NAME(last_term)(dot[1], q + bytes, x + bytes, (bytes - last) / sizeof(T_SCALAR), false);
            square[1] = T_NAME(last_term)(square[1], x + bytes, x + bytes, (bytes - last) / sizeof(T_SCALAR), false);
        }
        out[i] = (float)T_NAME(sum)(dot[0] + dot[1]);
        squares[i] = (float)T_NAME(sum)(square[0] + square[1]);
    }
}

static void T_NAME(squares)(const kn_block *b, float *out)
{
    for (size_t i = 0; i < b->count; i++)
        out[i] = (float)T_NAME(along)(row_at(b, i), row_at(b, i), b->dim, false);
}

/* ---- many queries: tiles ----------------------------------------------------------------------------------------- */

/* rows and vectors are constants where this is inlined, and all loops over them are unrolled. */
INLINE void T_NAME(tile)(const uint8_t *const *x, const T_SCALAR *panel, size_t dim, int rows, int vectors, bool l2sq,
                         T_VECTOR (*sum)[2])
{
    for (size_t k = 0; k < dim; k++) {
        T_VECTOR q[2];
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            q[v] = *(const T_VECTOR_AT *)(panel + (k * (size_t)vectors + (size_t)v) * T_LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            T_SCALAR e = *(const T_SCALAR_AT *)(x[r] + k * sizeof(T_SCALAR));
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) {
                if (l2sq) {
                    T_VECTOR t = q[v] - e;
                    sum[r][v] += t * t;
                } else {
                    sum[r][v] += q[v] * e;
                }
            }
        }
    }
}

INLINE void T_NAME(store_scores)(float *out, T_VECTOR v)
{
#if T_LANES == LANES_F32
    *(vf_at *)out = (vf)v;
#else
    for (int i = 0; i < T_LANES; i++)
        out[i] = (float)v[i];
#endif
}

INLINE void T_NAME(tile_at)(const kn_block *b, const T_SCALAR *panel, size_t i, int rows, int vectors, bool l2sq,
                            float *out)
{
    const uint8_t *x[16];
    T_VECTOR sum[16][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        x[r] = row_at(b, i + (size_t)r);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sum[r][v] = (T_VECTOR){0};
    }
    T_NAME(tile)(x, panel, b->dim, rows, vectors, l2sq, sum);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            T_NAME(store_scores)(out + ((i + (size_t)r) * (size_t)vectors + (size_t)v) * T_LANES, sum[r][v]);
}

INLINE void T_NAME(panel)(const kn_block *b, const T_SCALAR *panel, int rows, int vectors, bool l2sq, float *out)
{
    size_t i = 0;
    for (; i + (size_t)rows <= b->count; i += (size_t)rows) {
        ask_ahead(b, i, (size_t)rows);
        T_NAME(tile_at)(b, panel, i, rows, vectors, l2sq, out);
    }
    for (; i < b->count; i++)
        T_NAME(tile_at)(b, panel, i, 1, vectors, l2sq, out);
}

static void T_NAME(panel_dot)(const kn_block *b, const void *panel, unsigned width, float *out)
{
    if (width == T_LANES)
        T_NAME(panel)(b, panel, TILE_ONE, 1, false, out);
    else
        T_NAME(panel)(b, panel, TILE_TWO, 2, false, out);
}

static void T_NAME(panel_l2sq)(const kn_block *b, const void *panel, unsigned width, float *out)
{
    if (width == T_LANES)
        T_NAME(panel)(b, panel, TILE_ONE, 1, true, out);
    else
        T_NAME(panel)(b, panel, TILE_TWO, 2, true, out);
}
