/* SPDX-License-Identifier: Apache-2.0 */
/*
 * search_scan.c - the rows, task by task and block by block, through the kernels.
 *
 * A task is some megabytes of one part's physical rows; threads take tasks in ascending order. Its rows are in the
 * mapping (then everything that touches them runs guarded, P14), or are read into the worker's own buffer. A block of
 * it fits the second-level cache and goes through all queries there.
 */
#define _GNU_SOURCE 1

#include <errno.h>
#include <fcntl.h>
#include <fenv.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "array.h"
#include "fail.h"
#include "guard.h"
#include "io.h"
#include "search.h"

/* A megabyte that takes longer than this came from a disk, and the next ones are worth asking for ahead. */
#define SLOW_READ_NS 250000
#define READ_AHEAD   4 /* tasks */
/* Rows of the first look: at most one in SAMPLE_EACH. */
#define SAMPLE_ROWS 512
#define SAMPLE_EACH 64
/* Scores of a panel that are made before they are looked at. */
#define PANEL_SCORES 4096

struct npk__worker {
    npk__search *s;
    npk__best *best;
    npk__candidate *candidates;
    /* Per lane of each group, one after the other. */
    float *slack, *threshold;
    size_t *lane_of_group;

    /* The task: rows [first, first + count) of a part, row `first` at `rows`. */
    const npk__part *part;
    uint64_t first;
    size_t count;
    const uint8_t *rows;
    uint64_t *mask; /* wanted rows, or NULL: all */
    uint64_t *mask_words;
    uint8_t *buffer; /* what was read */
    bool slow_disk;

    /* A block. */
    uint32_t *which;
    uint8_t *swapped, *converted, *logs;
    float *scores;
    kn_hit *hits;
    npk__terms *terms;
    double *scratch;
    size_t query; /* of the rescoring */
    double *pairs;
};

/* ---- workers --------------------------------------------------------------------------------------------------- */

static size_t lanes_of(const npk__group *g)
{
    return g->width != 0 ? g->width : KN_FEW;
}

static bool allocate(npk__worker *w)
{
    npk__search *s = w->s;
    size_t capacity = npk__best_capacity(s->k, s->query_count), lanes = 0, block = s->block_rows;
    size_t floats = (block * s->dim * sizeof(double) + 127) & ~(size_t)63;
    for (size_t i = 0; i < s->group_count; i++)
        lanes += lanes_of(&s->groups[i]);
    w->best = calloc(s->query_count, sizeof(*w->best));
    w->candidates = malloc(s->query_count * capacity * sizeof(*w->candidates));
    w->slack = calloc(lanes + 1, sizeof(float));
    w->threshold = calloc(lanes + 1, sizeof(float));
    w->lane_of_group = calloc(s->group_count + 1, sizeof(size_t));
    w->mask_words = malloc(s->task_rows / 8 + 64);
    w->which = malloc(KN_BLOCK_ROWS * sizeof(*w->which));
    w->scores = aligned_alloc(64, KN_BLOCK_ROWS * KN_PANEL_MOST * sizeof(float));
    w->hits = malloc(KN_BLOCK_ROWS * KN_PANEL_MOST * sizeof(*w->hits));
    w->terms = aligned_alloc(64, (sizeof(*w->terms) + 63) & ~(size_t)63);
    w->scratch = malloc(s->dim * sizeof(double) + 64);
    bool fine = w->best && w->candidates && w->slack && w->threshold && w->lane_of_group && w->mask_words && w->which &&
                w->scores && w->hits && w->terms && w->scratch;
    if (s->swap)
        fine = fine && (w->swapped = malloc(block * s->row_bytes + 64)) != NULL;
    if (s->converted || s->class == NPK__I8)
        fine = fine && (w->converted = aligned_alloc(64, floats)) != NULL;
    if (s->metric == NPK_KL)
        fine = fine && (w->logs = aligned_alloc(64, floats)) != NULL;
    return fine;
}

/* What the kernels select by, from what is known of the best. */
static void set_thresholds(npk__worker *w)
{
    const npk__search *s = w->s;
    for (size_t i = 0; i < s->group_count; i++)
        for (size_t j = 0; j < s->groups[i].count; j++)
            npk__form_threshold(s, &s->queries[s->groups[i].first + j], &w->best[s->groups[i].first + j],
                                &w->slack[w->lane_of_group[i] + j], &w->threshold[w->lane_of_group[i] + j]);
}

npk__worker *npk__worker_new(npk__search *s)
{
    npk__worker *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->s = s;
    if (!allocate(w)) {
        npk__worker_free(w);
        return NULL;
    }
    size_t capacity = npk__best_capacity(s->k, s->query_count), lane = 0;
    for (size_t j = 0; j < s->query_count; j++)
        w->best[j] =
            (npk__best){.at = w->candidates + j * capacity, .capacity = capacity, .k = s->k, .threshold = NPK__WORST};
    for (size_t i = 0; i < s->group_count; i++) {
        w->lane_of_group[i] = lane;
        for (size_t j = s->groups[i].count; j < lanes_of(&s->groups[i]); j++)
            w->threshold[lane + j] = INFINITY;
        lane += lanes_of(&s->groups[i]);
    }
    set_thresholds(w);
    return w;
}

void npk__worker_free(npk__worker *w)
{
    if (!w)
        return;
    free(w->best);
    free(w->candidates);
    free(w->slack);
    free(w->threshold);
    free(w->lane_of_group);
    free(w->mask_words);
    free(w->buffer);
    free(w->which);
    free(w->swapped);
    free(w->converted);
    free(w->logs);
    free(w->scores);
    free(w->hits);
    free(w->terms);
    free(w->scratch);
    free(w);
}

npk__best *npk__worker_best(npk__worker *w)
{
    return w->best;
}

/* ---- exact scores ------------------------------------------------------------------------------------------------ */

static double exact_score(npk__worker *w, size_t query, const uint8_t *row)
{
    const npk__search *s = w->s;
    if (s->swap) {
        size_t item = kn_type_bytes(s->type);
        uint8_t *to = w->swapped;
        for (size_t i = 0; i < s->row_bytes; i += item)
            for (size_t j = 0; j < item; j++)
                to[i + j] = row[i + item - 1 - j];
        row = to;
    }
    return kn_exact(s->exact_metric, s->type, &s->queries[query].exact, row, s->dim, w->scratch);
}

/* A row by its number over all parts: in the task at hand when rows are read, anywhere when they are mapped. */
static const uint8_t *row_of(const npk__worker *w, uint64_t row)
{
    const npk__search *s = w->s;
    size_t i = s->part_count - 1;
    row &= ~NPK__EXACT;
    while (s->parts[i].base > row)
        i--;
    uint64_t physical = row - s->parts[i].base;
    if (&s->parts[i] == w->part && physical >= w->first && physical < w->first + w->count)
        return w->rows + (physical - w->first) * s->row_bytes;
    return s->parts[i].map + physical * s->row_bytes;
}

static int64_t rescore(void *ctx, uint64_t row)
{
    npk__worker *w = ctx;
    double score = exact_score(w, w->query, row_of(w, row));
    return npk__key_order(w->s->descends ? score : -score);
}

static void settle_all(npk__worker *w, bool only_pending)
{
    for (w->query = 0; w->query < w->s->query_count; w->query++)
        if (!only_pending || w->best[w->query].pending > 0)
            npk__best_settle(&w->best[w->query], rescore, w);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* A hit whose value was made with slack `used`; a new threshold and its slack are for the next block. */
static void add(npk__worker *w, size_t query, const uint32_t *number, uint64_t first, const kn_hit *hit, float used,
                float *slack, float *threshold)
{
    const npk__search *s = w->s;
    npk__best *best = &w->best[query];
    int64_t low, high;
    uint64_t row = w->part->base + first + (number ? number[hit->row] : hit->row);
    w->query = query;
    if (isfinite(hit->value))
        npk__form_bounds(s, &s->queries[query], w->terms, hit, used, &low, &high);
    else
        low = high = rescore(w, row);
    if (npk__best_add(best, low, high, row, rescore, w))
        npk__form_threshold(s, &s->queries[query], best, slack, threshold);
}

static kn_few *few_of(const npk__search *s)
{
    const kn_distance *k = s->kernel;
    bool l2 = s->metric == NPK_L2 || s->metric == NPK_L2SQ;
    switch (s->class) {
    case NPK__F32:
        return s->metric == NPK_JS ? k->few_mean_log_f32 : l2 ? k->few_l2sq_f32 : k->few_dot_f32;
    case NPK__F64:
        return l2 ? k->few_l2sq_f64 : k->few_dot_f64;
    case NPK__I8:
        return k->few_dot_i8;
    default:
        return s->metric == NPK_HAMMING ? k->few_xor_bits : k->few_and_bits;
    }
}

static kn_panel *panel_of(const npk__search *s)
{
    const kn_distance *k = s->kernel;
    bool l2 = s->metric == NPK_L2 || s->metric == NPK_L2SQ;
    switch (s->class) {
    case NPK__F32:
        return l2 ? k->panel_l2sq_f32 : k->panel_dot_f32;
    case NPK__F64:
        return l2 ? k->panel_l2sq_f64 : k->panel_dot_f64;
    case NPK__I8:
        return k->panel_dot_i8;
    default:
        return s->metric == NPK_HAMMING ? k->panel_xor_bits : k->panel_and_bits;
    }
}

/* Rows of the other byte order, the wanted ones side by side. */
static void swap_rows(npk__worker *w, kn_block *b)
{
    const npk__search *s = w->s;
    size_t item = kn_type_bytes(s->type);
    uint8_t *to = w->swapped;
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *row = (const uint8_t *)b->rows + (b->which ? b->which[i] : i) * b->row_bytes;
        for (size_t k = 0; k < s->row_bytes; k++)
            *to++ = row[k / item * item + item - 1 - k % item];
    }
    b->rows = w->swapped;
    b->which = NULL;
}

static void convert_rows(npk__worker *w, kn_block *b)
{
    const npk__search *s = w->s;
    size_t item = s->class == NPK__F32 ? sizeof(float) : sizeof(double);
    if (s->class == NPK__F32 && s->type == KN_F16) {
        s->kernel->widen_f16(b, (float *)(void *)w->converted);
    } else {
        for (size_t i = 0; i < b->count; i++) {
            const uint8_t *row = (const uint8_t *)b->rows + (b->which ? b->which[i] : i) * b->row_bytes;
            uint8_t *to = w->converted + i * s->dim * item;
            if (s->class == NPK__F32)
                kn_to_f32(s->type, row, s->dim, (float *)(void *)to);
            else
                kn_to_f64(s->type, row, s->dim, (double *)(void *)to);
        }
    }
    b->rows = w->converted;
    b->row_bytes = s->dim * item;
    b->which = NULL;
}

/* For panels of int8: the highest bit of every byte flipped. */
static kn_block flip_rows(npk__worker *w, const kn_block *b)
{
    kn_block flipped = *b;
    size_t dim = w->s->dim;
    for (size_t i = 0; i < b->count; i++) {
        const uint8_t *row = (const uint8_t *)b->rows + (b->which ? b->which[i] : i) * b->row_bytes;
        uint8_t *to = w->converted + i * dim;
        for (size_t k = 0; k < dim; k++)
            to[k] = row[k] ^ 0x80;
    }
    flipped.rows = w->converted;
    flipped.row_bytes = dim;
    flipped.which = NULL;
    return flipped;
}

static void log_rows(npk__worker *w, kn_block *b)
{
    npk__terms *t = w->terms;
    w->s->kernel->log_rows(b, (float)w->s->queries[0].exact.epsilon, (float *)(void *)w->logs, t->add, t->row_err);
    for (size_t i = 0; i < b->count; i++)
        t->row_err[i] = t->row_err[i] != 0 ? INFINITY : t->add[i];
    b->rows = w->logs;
    b->row_bytes = w->s->dim * sizeof(float);
    b->which = NULL;
}

/* Rows [at, at + count) of a block, and their share of what is asked for ahead. */
static kn_block part_of(const kn_block *b, size_t at, size_t count)
{
    kn_block part = *b;
    part.count = count;
    if (b->which)
        part.which = b->which + at;
    else
        part.rows = (const uint8_t *)b->rows + at * b->row_bytes;
    if (b->next) {
        size_t from = b->next_bytes * at / b->count, to = b->next_bytes * (at + count) / b->count;
        part.next = (const uint8_t *)b->next + from;
        part.next_bytes = to - from;
    }
    return part;
}

/* A panel's scores of so many rows stay in the first-level cache until they are selected from. */
static void run_panel(npk__worker *w, const npk__group *g, const kn_block *b, const uint32_t *number, uint64_t first,
                      float *slack, float *threshold)
{
    const npk__search *s = w->s;
    size_t step = PANEL_SCORES / g->width;
    float used[KN_PANEL_MOST];
    for (size_t at = 0; at < b->count; at += step) {
        kn_block part = part_of(b, at, b->count - at < step ? b->count - at : step);
        panel_of(s)(&part, g->packed, g->width, w->scores);
        size_t found = s->kernel->select_panel(w->scores, part.count, g->width, w->terms->scale + at,
                                               w->terms->add + at, slack, threshold, w->hits);
        if (found > 0)
            memcpy(used, slack, g->width * sizeof(float));
        for (size_t i = 0; i < found; i++) {
            uint32_t lane = w->hits[i].lane;
            w->hits[i].row += (uint32_t)at;
            if (lane < g->count)
                add(w, g->first + lane, number, first, &w->hits[i], used[lane], &slack[lane], &threshold[lane]);
        }
    }
}

static void run_group(npk__worker *w, size_t group, const kn_block *b, const uint32_t *number, uint64_t first)
{
    const npk__search *s = w->s;
    const npk__group *g = &s->groups[group];
    float *slack = w->slack + w->lane_of_group[group], *threshold = w->threshold + w->lane_of_group[group];
    if (g->width != 0) {
        run_panel(w, g, b, number, first, slack, threshold);
        return;
    }
    if (!npk__form_scores_too(s))
        few_of(s)(b, g->packed, g->count, w->scores);
    for (unsigned j = 0; j < g->count; j++) {
        float used = slack[j];
        size_t found = s->kernel->select_rows(w->scores + j * KN_BLOCK_ROWS, b->count, w->terms->scale, w->terms->add,
                                              slack[j], threshold[j], w->hits);
        for (size_t i = 0; i < found; i++)
            add(w, g->first + j, number, first, &w->hits[i], used, &slack[j], &threshold[j]);
    }
}

static void run_without_kernel(npk__worker *w, const kn_block *b, const uint32_t *number, uint64_t first)
{
    for (size_t j = 0; j < w->s->query_count; j++)
        for (size_t i = 0; i < b->count; i++) {
            uint64_t row = w->part->base + first + (number ? number[i] : i);
            w->query = j;
            int64_t key = rescore(w, row);
            npk__best_add(&w->best[j], key, key, row, rescore, w);
        }
}

/* The rows of a block through all queries. number: their places behind row `first` of the part, NULL: 0, 1, ... Of what
 * begins at `next`, `ahead` bytes will be wanted soon. */
static void run_rows(npk__worker *w, kn_block b, const uint32_t *number, uint64_t first, const uint8_t *next,
                     size_t ahead)
{
    npk__search *s = w->s;
    if (s->class == NPK__NONE) {
        run_without_kernel(w, &b, number, first);
        return;
    }
    if (s->swap)
        swap_rows(w, &b);
    if (s->converted && !npk__form_takes_half(s) &&
        !(s->swap && ((s->class == NPK__F32 && s->type == KN_F32) || (s->class == NPK__F64 && s->type == KN_F64))))
        convert_rows(w, &b);
    npk__form_rows(s, &b, w->terms, npk__form_scores_too(s) ? w->scores : NULL);
    if (s->metric == NPK_KL)
        log_rows(w, &b);
    kn_block flipped = b;
    if (s->class == NPK__I8 && s->groups[0].width != 0)
        flipped = flip_rows(w, &b);
    for (size_t i = 0; i < s->group_count; i++) {
        kn_block *use = s->class == NPK__I8 && s->groups[i].width != 0 ? &flipped : &b;
        if (s->query_count > 1 && ahead > 0) {
            /* Each group asks for its share of the next block. */
            size_t begin = ahead * i / s->group_count, end = ahead * (i + 1) / s->group_count;
            use->next = next + begin;
            use->next_bytes = end - begin;
        }
        run_group(w, i, use, number, first);
    }
}

/* Rows [first, first + count) of the part at hand. */
static void run_block(npk__worker *w, size_t from, size_t count)
{
    npk__search *s = w->s;
    const uint32_t *number = NULL;
    kn_block b = {.rows = w->rows + from * s->row_bytes, .row_bytes = s->row_bytes, .count = count, .dim = s->dim};
    if (w->mask) {
        b.count = kn_live_rows(w->mask, from, count, w->which);
        if (b.count == 0)
            return;
        if (b.count < count)
            b.which = number = w->which;
    }
    size_t ahead = w->count - from > count ? w->count - from - count : 0;
    ahead = (ahead < s->block_rows ? ahead : s->block_rows) * s->row_bytes;
    run_rows(w, b, number, w->first + from, w->rows + (from + count) * s->row_bytes, ahead);
}

static int run_task(void *ctx)
{
    npk__worker *w = ctx;
    npk__search *s = w->s;
    for (size_t from = 0; from < w->count; from += s->block_rows)
        run_block(w, from, w->count - from < s->block_rows ? w->count - from : s->block_rows);
    /* What was read is gone after this task. */
    if (!w->part->map)
        settle_all(w, true);
    return 0;
}

static int run_pairs(void *ctx)
{
    npk__worker *w = ctx;
    npk__search *s = w->s;
    const npk__part *p = w->part;
    uint64_t position = 0;
    size_t start = 0;
    while (w->mask && start < w->count && !(w->mask[start / 64] >> (start % 64) & 1))
        start++;
    if (start == w->count)
        return 0;
    for (const npk__part *before = s->parts; before < p; before++)
        position += before->rows;
    position += npk_array_logical(p->array, w->first + start) - p->logical;
    for (size_t i = start; i < w->count; i++) {
        if (w->mask && !(w->mask[i / 64] >> (i % 64) & 1))
            continue;
        for (size_t j = 0; j < s->query_count; j++)
            w->pairs[j * s->rows + position] = exact_score(w, j, w->rows + i * s->row_bytes);
        position++;
    }
    return 0;
}

static int run_last(void *ctx)
{
    settle_all(ctx, false);
    return 0;
}

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

/* Tasks begin at multiples of 64 rows, where the words of bitmaps begin. */
static uint64_t task_base(const npk__part *p)
{
    return p->first & ~UINT64_C(63);
}

static uint64_t tasks_of(const npk__search *s, const npk__part *p)
{
    return p->count == 0 ? 0 : (p->first + p->count - task_base(p) + s->task_rows - 1) / s->task_rows;
}

static bool take_task(npk__worker *w)
{
    npk__search *s = w->s;
    if (atomic_load_explicit(&s->error_code, memory_order_relaxed) != 0)
        return false;
    uint64_t task = atomic_fetch_add_explicit(&s->next_task, 1, memory_order_relaxed);
    for (size_t i = 0; i < s->part_count; i++) {
        const npk__part *p = &s->parts[i];
        uint64_t tasks = tasks_of(s, p);
        if (task >= tasks) {
            task -= tasks;
            continue;
        }
        uint64_t from = task_base(p) + task * s->task_rows, to = from + s->task_rows;
        if (to > p->first + p->count)
            to = p->first + p->count;
        w->part = p;
        w->first = from;
        w->count = (size_t)(to - from);
        return true;
    }
    return false;
}

/* Leave out rows before the range, deleted ones and those that the caller excludes. */
static void make_mask(npk__worker *w)
{
    const npk__part *p = w->part;
    size_t words = (w->count + 63) / 64;
    uint64_t covered = 0;
    w->mask = NULL;
    if (!p->masked && w->first >= p->first)
        return;
    w->mask = w->mask_words;
    memset(w->mask, 0xff, words * 8);
    for (size_t i = 0; i < words;) {
        const uint64_t *live = npk_array_live_words(p->array, w->first + i * 64, &covered);
        if (!live || covered == 0)
            break;
        for (size_t j = 0; j < (covered + 63) / 64 && i < words; j++)
            w->mask[i++] = live[j];
    }
    for (uint64_t row = w->first; row < p->first; row++)
        w->mask[(row - w->first) / 64] &= ~(UINT64_C(1) << (row - w->first) % 64);
    if (w->count % 64 != 0)
        w->mask[words - 1] &= (UINT64_C(1) << w->count % 64) - 1;
    if (!p->exclude)
        return;
    uint64_t logical = UINT64_MAX;
    for (size_t i = 0; i < words; i++)
        for (uint64_t bits = w->mask[i]; bits != 0; bits &= bits - 1) {
            uint64_t row = i * 64 + (uint64_t)__builtin_ctzll(bits);
            logical = logical == UINT64_MAX ? npk_array_logical(p->array, w->first + row) : logical + 1;
            if (p->exclude[logical / 64] >> (logical % 64) & 1)
                w->mask[i] &= ~(UINT64_C(1) << row % 64);
        }
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int read_task(npk__worker *w)
{
    npk__search *s = w->s;
    const npk__part *p = w->part;
    int fd = npk__array_fd(p->array);
    size_t bytes = w->count * s->row_bytes, most = s->task_rows * s->row_bytes;
    uint64_t offset = npk_array_info(p->array)->header.data_offset + w->first * s->row_bytes;
    if (!w->buffer && !(w->buffer = aligned_alloc(4096, (most + 8191) & ~(size_t)4095)))
        return -ENOMEM;
    if (fd < 0) {
        w->rows = w->buffer;
        return npk__array_read_packed(p->array, offset, bytes, w->buffer);
    }
    if (w->slow_disk)
        (void)posix_fadvise(fd, (off_t)(offset + bytes), (off_t)(READ_AHEAD * most), POSIX_FADV_WILLNEED);
    int64_t begin = now_ns();
    ssize_t n = npk__pread_full(fd, w->buffer, bytes, offset);
    int64_t took = now_ns() - begin;
    w->slow_disk = bytes > 0 && took > SLOW_READ_NS && took / (int64_t)((bytes >> 20) + 1) > SLOW_READ_NS;
    w->rows = w->buffer;
    return n < 0 ? (int)n : (size_t)n < bytes ? -EIO : 0;
}

/* The mappings that candidates may lie in, as one range for the guard: scoring goes back to rows of earlier tasks, of any
 * part. */
static void mapped_range(const npk__search *s, const uint8_t **from, const uint8_t **to)
{
    *from = *to = NULL;
    for (size_t i = 0; i < s->part_count; i++) {
        const npk__part *p = &s->parts[i];
        const uint8_t *begin = p->map ? p->map + p->first * s->row_bytes : NULL;
        const uint8_t *end = p->map ? begin + p->count * s->row_bytes : NULL;
        if (begin && (!*from || begin < *from))
            *from = begin;
        if (end && end > *to)
            *to = end;
    }
}

/* -ENOSYS: there are mappings and no protection. */
static int guarded(npk__worker *w, int (*work)(void *ctx))
{
    const uint8_t *from, *to;
    mapped_range(w->s, &from, &to);
    return from ? npk__guarded(from, (unsigned long)(to - from), work, w) : work(w);
}

static int run(npk__worker *w, int (*work)(void *ctx))
{
    npk__search *s = w->s;
    make_mask(w);
    if (w->part->map)
        w->rows = w->part->map + w->first * s->row_bytes;
    int err = w->part->map ? 0 : read_task(w);
    if (!err)
        err = guarded(w, work);
    if (err != -ENOSYS)
        return err;
    /* Without a guard all parts are read, and every candidate is scored while its row is at hand. */
    err = w->part->map ? read_task(w) : 0;
    if (!err)
        err = work(w);
    if (!err)
        settle_all(w, true);
    return err;
}

static void fail(npk__search *s, int err)
{
    int none = 0;
    atomic_compare_exchange_strong(&s->error_code, &none, err);
}

static void run_tasks(npk__worker *w, bool lead, int (*work)(void *ctx))
{
    npk__search *s = w->s;
    /* Before the first task, too: other threads may take them all. */
    if (lead && s->progress && s->progress(s->progress_ctx, 0, s->bytes) != 0)
        fail(s, -ECANCELED);
    while (take_task(w)) {
        int err = run(w, work);
        uint64_t done = atomic_fetch_add(&s->done_bytes, w->count * s->row_bytes) + w->count * s->row_bytes;
        if (!err && lead && s->progress && s->progress(s->progress_ctx, done, s->bytes) != 0)
            err = -ECANCELED;
        if (err)
            fail(s, err);
    }
}

void npk__worker_run(npk__worker *w, bool lead)
{
    fenv_t saved;
    if (fegetenv(&saved) != 0 || fesetenv(FE_DFL_ENV) != 0) {
        fail(w->s, -EIO);
        return;
    }
    run_tasks(w, lead, run_task);
    if (atomic_load(&w->s->error_code) == 0) {
        int err = guarded(w, run_last);
        if (err == -ENOSYS)
            err = run_last(w); /* everything was scored task by task */
        if (err)
            fail(w->s, err);
    }
    (void)fesetenv(&saved);
}

/* ---- a first look ------------------------------------------------------------------------------------------------ */

/* The largest part that is mapped, if it is so large that a look at some of its rows costs nothing beside it. */
static const npk__part *sampled_part(const npk__search *s)
{
    const npk__part *best = NULL;
    for (size_t i = 0; i < s->part_count; i++)
        if (s->parts[i].map && (!best || s->parts[i].rows > best->rows))
            best = &s->parts[i];
    bool worth = best && s->class != NPK__NONE && s->k <= SAMPLE_ROWS / 4 &&
                 best->rows >= (uint64_t)SAMPLE_ROWS * SAMPLE_EACH && best->first + best->count < UINT32_MAX;
    return worth ? best : NULL;
}

static int run_sample(void *ctx)
{
    npk__worker *w = ctx;
    const npk__search *s = w->s;
    const npk__part *p = w->part;
    uint64_t step = p->rows / SAMPLE_ROWS;
    for (size_t at = 0; at < SAMPLE_ROWS;) {
        kn_block b = {.rows = p->map, .row_bytes = s->row_bytes, .which = w->which, .dim = s->dim};
        for (; at < SAMPLE_ROWS && b.count < s->block_rows; at++) {
            uint64_t row = p->logical + at * step;
            if (!p->exclude || !(p->exclude[row / 64] >> (row % 64) & 1))
                w->which[b.count++] = (uint32_t)npk_array_physical(p->array, row);
        }
        if (b.count > 0)
            run_rows(w, b, w->which, 0, NULL, 0);
    }
    return 0;
}

void npk__worker_sample(npk__worker *const *workers, unsigned count)
{
    npk__worker *w = workers[0];
    const npk__search *s = w->s;
    fenv_t saved;
    w->part = sampled_part(s);
    if (!w->part || fegetenv(&saved) != 0 || fesetenv(FE_DFL_ENV) != 0)
        return;
    w->first = w->count = 0;
    int err = guarded(w, run_sample);
    for (size_t j = 0; j < s->query_count; j++) {
        if (err)
            w->best[j].count = 0; /* it was left somewhere; the search itself will tell */
        npk__best_forget(&w->best[j]);
        if (err)
            w->best[j].threshold = NPK__WORST;
        for (unsigned i = 1; i < count; i++)
            workers[i]->best[j].threshold = w->best[j].threshold;
    }
    for (unsigned i = 0; i < count; i++)
        set_thresholds(workers[i]);
    (void)fesetenv(&saved);
}

void npk__worker_pairs(npk__worker *w, bool lead, double *out)
{
    fenv_t saved;
    w->pairs = out;
    if (fegetenv(&saved) != 0 || fesetenv(FE_DFL_ENV) != 0) {
        fail(w->s, -EIO);
        return;
    }
    run_tasks(w, lead, run_pairs);
    (void)fesetenv(&saved);
}
