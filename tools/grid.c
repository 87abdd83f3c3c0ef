/* SPDX-License-Identifier: Apache-2.0 */
/* grid.c - see grid.h. The first rows wait until the widths are known; later ones are printed as they come. */
#include "grid.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "value.h"

struct cli_grid {
    const npk_header *header;
    const cli_type *type;
    size_t columns; /* of the terminal */
    uint64_t row_elements;
    size_t shown;       /* elements looked at: all, or the two edges */
    uint64_t *element;  /* which elements these are */
    size_t *width;      /* of each; [shown] is that of the row's number */
    size_t left, right; /* elements printed from each end of `element` */
    bool laid_out;
    char **held; /* cells of the rows that wait, shown + 1 per row */
    size_t held_rows;
};

void cli_element_label(const npk_header *header, uint64_t i, cli_text *out)
{
    uint64_t index[NPK_MAX_DIMS];
    for (uint32_t dim = header->ndim; dim-- > 1;) {
        index[dim] = i % header->shape[dim];
        i /= header->shape[dim];
    }
    for (uint32_t dim = 1; dim < header->ndim; dim++)
        cli_text_addf(out, "%s%llu", dim > 1 ? "," : "", (unsigned long long)index[dim]);
}

cli_grid *cli_grid_new(const npk_header *header, const cli_type *type, size_t columns)
{
    cli_grid *g = calloc(1, sizeof *g);
    if (g == NULL)
        return NULL;
    g->header = header;
    g->type = type;
    g->columns = columns;
    g->row_elements = type->itemsize > 0 ? header->row_bytes / type->itemsize : 0;
    g->shown = g->row_elements > 2 * CLI_GRID_EDGE ? 2 * CLI_GRID_EDGE : (size_t)g->row_elements;
    g->element = calloc(g->shown + 1, sizeof *g->element);
    g->width = calloc(g->shown + 1, sizeof *g->width);
    g->held = calloc((g->shown + 1) * CLI_GRID_SAMPLE, sizeof *g->held);
    if (g->element == NULL || g->width == NULL || g->held == NULL) {
        cli_grid_end(g);
        return NULL;
    }
    for (size_t i = 0; i < g->shown; i++)
        g->element[i] = i < CLI_GRID_EDGE || g->shown == g->row_elements ? i : g->row_elements - g->shown + i;
    return g;
}

/* Cells of one row: its elements, then its number. 0 or -ENOMEM. */
static int make_cells(const cli_grid *g, int64_t number, const unsigned char *row, char **cells)
{
    for (size_t i = 0; i <= g->shown; i++) {
        cli_text cell = {0};
        if (i == g->shown)
            cli_text_addf(&cell, "%lld", (long long)number);
        else
            cli_value_add(&cell, g->type, row + g->element[i] * g->type->itemsize, CLI_PLAIN);
        if (cell.data == NULL)
            cli_text_adds(&cell, "");
        if (cell.failed || cell.data == NULL) {
            cli_text_clear(&cell);
            while (i-- > 0)
                free(cells[i]);
            return -ENOMEM;
        }
        cells[i] = cell.data;
    }
    return 0;
}

/* Decide how many elements from each end fit beside the row's number. */
static void lay_out(cli_grid *g)
{
    g->laid_out = true;
    size_t all = g->width[g->shown];
    for (size_t i = 0; i < g->shown; i++)
        all += 2 + g->width[i];
    if (all <= g->columns && g->shown == g->row_elements) {
        g->left = g->shown;
        return;
    }
    size_t used = g->width[g->shown] + strlen("  ...");
    while (g->left + g->right < g->shown) {
        bool from_left = g->left <= g->right;
        size_t next = from_left ? g->left : g->shown - 1 - g->right;
        if (used + 2 + g->width[next] > g->columns && g->left > 0)
            break;
        used += 2 + g->width[next];
        if (from_left)
            g->left++;
        else
            g->right++;
    }
}

static void put_right(const char *cell, size_t width)
{
    size_t columns = cli_text_columns(cell);
    printf("  %*s%s", (int)(width > columns ? width - columns : 0), "", cell);
}

static void print_row(const cli_grid *g, char *const *cells)
{
    const char *number = cells[g->shown];
    size_t columns = cli_text_columns(number), width = g->width[g->shown];
    printf("%*s%s", (int)(width > columns ? width - columns : 0), "", number);
    for (size_t i = 0; i < g->left; i++)
        put_right(cells[i], g->width[i]);
    if (g->left + g->right < g->row_elements)
        fputs("  ...", stdout);
    for (size_t i = g->shown - g->right; i < g->shown; i++)
        put_right(cells[i], g->width[i]);
    putchar('\n');
}

static int make_titles(cli_grid *g, char **titles)
{
    for (size_t i = 0; i <= g->shown; i++) {
        cli_text label = {0};
        cli_text_adds(&label, i == g->shown ? "row" : g->header->ndim == 1 ? "value" : "");
        if (i < g->shown)
            cli_element_label(g->header, g->element[i], &label);
        if (label.failed) {
            cli_text_clear(&label);
            while (i-- > 0)
                free(titles[i]);
            return -ENOMEM;
        }
        titles[i] = label.data;
        size_t columns = strlen(label.data);
        if (columns > g->width[i])
            g->width[i] = columns;
    }
    return 0;
}

/* Print the titles and the rows that waited. */
static int release(cli_grid *g)
{
    char **titles = calloc(g->shown + 1, sizeof *titles);
    if (titles == NULL || make_titles(g, titles) != 0) {
        free(titles);
        return -ENOMEM;
    }
    lay_out(g);
    print_row(g, titles);
    for (size_t i = 0; i <= g->shown; i++)
        free(titles[i]);
    free(titles);
    for (size_t row = 0; row < g->held_rows; row++) {
        char **cells = g->held + row * (g->shown + 1);
        print_row(g, cells);
        for (size_t i = 0; i <= g->shown; i++)
            free(cells[i]);
    }
    g->held_rows = 0;
    return 0;
}

int cli_grid_put(cli_grid *g, const int64_t *numbers, const void *rows, size_t count)
{
    for (size_t row = 0; row < count; row++) {
        char **cells = g->held + g->held_rows * (g->shown + 1);
        int err = make_cells(g, numbers[row], (const unsigned char *)rows + row * g->header->row_bytes, cells);
        if (err != 0)
            return err;
        g->held_rows++;
        if (!g->laid_out) {
            for (size_t i = 0; i <= g->shown; i++) {
                size_t columns = cli_text_columns(cells[i]);
                if (columns > g->width[i])
                    g->width[i] = columns;
            }
            if (g->held_rows < CLI_GRID_SAMPLE)
                continue;
            err = release(g);
            if (err != 0)
                return err;
        } else {
            print_row(g, cells);
            for (size_t i = 0; i <= g->shown; i++)
                free(cells[i]);
            g->held_rows = 0;
        }
    }
    return 0;
}

int cli_grid_end(cli_grid *g)
{
    if (g == NULL)
        return 0;
    int err = g->held_rows > 0 ? release(g) : 0;
    for (size_t i = 0; i < g->held_rows * (g->shown + 1); i++)
        free(g->held[i]);
    free(g->held);
    free(g->element);
    free(g->width);
    free(g);
    return err;
}
