/* SPDX-License-Identifier: Apache-2.0 */
/* output.c - see output.h. */
#include "output.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli_text.h"
#include "say.h"

/* Whole numbers up to here are exact in every JSON reader; larger ones are written as strings. */
#define JSON_EXACT (1ull << 53)

struct cli_table {
    const cli_args *args;
    const cli_column *columns;
    size_t column_count;
    bool record;
    size_t cell;      /* next one of the row */
    size_t row_count; /* full ones */
    cli_text line;    /* TSV: the row so far */
    cJSON *object;    /* JSON: the row so far */
    char **cells;     /* text: of all rows */
    size_t cell_count, cell_capacity;
    bool failed; /* memory ran out */
};

static cli_table *new_table(const cli_args *args, const cli_column *columns, size_t column_count, bool record)
{
    cli_table *t = calloc(1, sizeof *t);
    if (t == NULL) {
        cli_fail(NULL, "%s", strerror(ENOMEM));
        return NULL;
    }
    t->args = args;
    t->columns = columns;
    t->column_count = column_count;
    t->record = record;
    if (args->format == CLI_JSON && !record)
        fputc('[', stdout);
    if (args->format == CLI_TSV && args->header) {
        if (record)
            fputs("key\tvalue\n", stdout);
        for (size_t i = 0; !record && i < column_count; i++)
            fprintf(stdout, "%s%c", columns[i].key, i + 1 < column_count ? '\t' : '\n');
    }
    return t;
}

cli_table *cli_table_new(const cli_args *args, const cli_column *columns, size_t column_count)
{
    return new_table(args, columns, column_count, false);
}

cli_table *cli_record_new(const cli_args *args, const cli_column *columns, size_t column_count)
{
    return new_table(args, columns, column_count, true);
}

static void end_row_json(cli_table *t)
{
    char *text = t->object != NULL ? cJSON_PrintUnformatted(t->object) : NULL;
    cJSON_Delete(t->object);
    t->object = NULL;
    if (text == NULL) {
        t->failed = true;
        return;
    }
    if (!t->record)
        fputs(t->row_count > 0 ? ",\n" : "\n", stdout);
    fputs(text, stdout);
    cJSON_free(text);
}

/* One cell in its three forms. `text` NULL: as `plain`. item is taken. */
static void add_cell(cli_table *t, const char *plain, const char *text, cJSON *item)
{
    const char *key = t->columns[t->cell].key;
    bool last = ++t->cell == t->column_count;
    if (t->args->format == CLI_JSON) {
        if (t->object == NULL)
            t->object = cJSON_CreateObject();
        if (item == NULL || !cJSON_AddItemToObject(t->object, key, item)) {
            cJSON_Delete(item);
            t->failed = true;
        }
        if (last)
            end_row_json(t);
    } else if (t->args->format == CLI_TSV) {
        if (t->record)
            cli_text_addf(&t->line, "%s\t", key);
        cli_text_adds(&t->line, plain);
        cli_text_addc(&t->line, last || t->record ? '\n' : '\t');
        if (last) {
            fwrite(t->line.data, 1, t->line.bytes, stdout);
            t->failed |= t->line.failed;
            cli_text_reset(&t->line);
        }
    } else {
        if (t->cell_count == t->cell_capacity) {
            size_t capacity = t->cell_capacity == 0 ? 64 : t->cell_capacity * 2;
            char **cells = reallocarray(t->cells, capacity, sizeof *cells);
            if (cells == NULL)
                t->failed = true;
            else {
                t->cells = cells;
                t->cell_capacity = capacity;
            }
        }
        if (!t->failed && (t->cells[t->cell_count] = strdup(text != NULL ? text : plain)) != NULL)
            t->cell_count++;
        else
            t->failed = true;
    }
    if (last) {
        t->cell = 0;
        t->row_count++;
    }
}

static bool is_json(const cli_table *t)
{
    return t->args->format == CLI_JSON;
}

void cli_table_string(cli_table *t, const char *string)
{
    if (t == NULL)
        return;
    cli_text cell = {0};
    cJSON *item = NULL;
    if (is_json(t)) {
        /* cJSON passes bytes on as they are, so the escaping of what is not UTF-8 is ours. */
        cli_text_add_json(&cell, string, strlen(string));
        item = cell.failed ? NULL : cJSON_CreateRaw(cli_text_string(&cell));
    } else {
        if (t->args->format == CLI_TSV)
            cli_text_add_cell(&cell, string, strlen(string));
        else
            cli_text_add_shown(&cell, string, strlen(string));
        t->failed |= cell.failed;
    }
    add_cell(t, cli_text_string(&cell), NULL, item);
    cli_text_clear(&cell);
}

static cJSON *json_count(uint64_t count)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)count);
    return count > JSON_EXACT ? cJSON_CreateString(digits) : cJSON_CreateRaw(digits);
}

void cli_table_count(cli_table *t, uint64_t count)
{
    if (t == NULL)
        return;
    char plain[32];
    snprintf(plain, sizeof plain, "%llu", (unsigned long long)count);
    add_cell(t, plain, NULL, is_json(t) ? json_count(count) : NULL);
}

void cli_table_bytes(cli_table *t, uint64_t bytes)
{
    if (t == NULL)
        return;
    char plain[32], text[32];
    snprintf(plain, sizeof plain, "%llu", (unsigned long long)bytes);
    cli_format_bytes(bytes, text, sizeof text);
    add_cell(t, plain, text, is_json(t) ? json_count(bytes) : NULL);
}

void cli_table_time(cli_table *t, int64_t us)
{
    if (t == NULL)
        return;
    char plain[32], text[64] = "-";
    snprintf(plain, sizeof plain, "%lld", (long long)us);
    time_t seconds = (time_t)(us / 1000000 - (us % 1000000 < 0 ? 1 : 0));
    struct tm local;
    if (localtime_r(&seconds, &local) != NULL)
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local);
    add_cell(t, plain, text, is_json(t) ? cJSON_CreateRaw(plain) : NULL);
}

void cli_table_shape(cli_table *t, const uint64_t *shape, uint32_t ndim)
{
    if (t == NULL)
        return;
    cli_text plain = {0};
    cJSON *list = is_json(t) ? cJSON_CreateArray() : NULL;
    for (uint32_t i = 0; i < ndim; i++) {
        cli_text_addf(&plain, "%s%llu", i > 0 ? "," : "", (unsigned long long)shape[i]);
        if (list != NULL)
            cJSON_AddItemToArray(list, json_count(shape[i]));
    }
    t->failed |= plain.failed;
    add_cell(t, cli_text_string(&plain), ndim == 0 ? "()" : NULL, list);
    cli_text_clear(&plain);
}

void cli_table_number(cli_table *t, double number, int decimals)
{
    if (t == NULL)
        return;
    char plain[64];
    snprintf(plain, sizeof plain, "%.*f", decimals, number);
    add_cell(t, plain, NULL, is_json(t) ? cJSON_CreateRaw(plain) : NULL);
}

void cli_table_real(cli_table *t, double value)
{
    if (t == NULL)
        return;
    char plain[40], text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(plain, sizeof plain, "%.*g", digits, value);
        if (strtod(plain, NULL) == value)
            break;
    }
    if (value != value)
        strcpy(plain, "nan");
    snprintf(text, sizeof text, "%.7g", value);
    bool finite = value - value == 0;
    add_cell(t, plain, finite ? text : plain, !is_json(t) ? NULL : finite ? cJSON_CreateRaw(plain) : cJSON_CreateString(plain));
}

void cli_table_bool(cli_table *t, bool value)
{
    if (t == NULL)
        return;
    add_cell(t, value ? "yes" : "no", NULL, is_json(t) ? cJSON_CreateBool(value) : NULL);
}

void cli_table_none(cli_table *t)
{
    if (t == NULL)
        return;
    add_cell(t, "", "-", is_json(t) ? cJSON_CreateNull() : NULL);
}

/* ---- text ----------------------------------------------------------------------------------------------------- */

static void put_padded(const char *cell, size_t width, bool right, bool last)
{
    size_t columns = cli_text_columns(cell), blanks = width > columns ? width - columns : 0;
    if (right)
        fprintf(stdout, "%*s%s", (int)blanks, "", cell);
    else
        fprintf(stdout, "%s%*s", cell, last ? 0 : (int)blanks, "");
    fputs(last ? "\n" : "  ", stdout);
}

static int print_table(cli_table *t)
{
    size_t n = t->column_count;
    if (t->cell_count == 0)
        return 0;
    size_t *widths = calloc(n, sizeof *widths);
    if (widths == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        widths[i] = cli_text_columns(t->columns[i].title);
    for (size_t i = 0; i < t->cell_count; i++) {
        size_t columns = cli_text_columns(t->cells[i]);
        if (columns > widths[i % n])
            widths[i % n] = columns;
    }
    for (size_t i = 0; i < n; i++)
        put_padded(t->columns[i].title, widths[i], t->columns[i].right, i + 1 == n);
    for (size_t i = 0; i < t->cell_count; i++)
        put_padded(t->cells[i], widths[i % n], t->columns[i % n].right, i % n + 1 == n);
    free(widths);
    return 0;
}

static void print_record(cli_table *t)
{
    size_t width = 0;
    for (size_t i = 0; i < t->column_count; i++) {
        size_t columns = strlen(t->columns[i].title);
        if (columns > width)
            width = columns;
    }
    for (size_t i = 0; i < t->cell_count; i++) {
        const char *title = t->columns[i].title;
        fprintf(stdout, "%s:%*s  %s\n", title, (int)(width - strlen(title)), "", t->cells[i]);
    }
}

int cli_table_end(cli_table *t)
{
    if (t == NULL)
        return CLI_FAILED;
    if (t->args->format == CLI_JSON) {
        if (!t->record)
            fputs(t->row_count > 0 ? "\n]" : "]", stdout);
        fputc('\n', stdout);
    } else if (t->args->format == CLI_TEXT && !t->failed) {
        if (t->record)
            print_record(t);
        else if (print_table(t) != 0)
            t->failed = true;
    }
    bool failed = t->failed;
    for (size_t i = 0; i < t->cell_count; i++)
        free(t->cells[i]);
    free(t->cells);
    cJSON_Delete(t->object);
    cli_text_clear(&t->line);
    free(t);
    return failed ? cli_fail(NULL, "%s", strerror(ENOMEM)) : CLI_OK;
}

void cli_format_bytes(uint64_t bytes, char *out, size_t capacity)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        snprintf(out, capacity, "%u B", (unsigned)bytes);
        return;
    }
    double amount = (double)bytes / 1024;
    size_t unit = 0;
    for (; amount >= 1023.95 && unit + 1 < sizeof units / sizeof *units; unit++)
        amount /= 1024;
    snprintf(out, capacity, "%.1f %s", amount, units[unit]);
}

size_t cli_terminal_columns(void)
{
    struct winsize size;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    const char *columns = getenv("COLUMNS");
    int count = columns != NULL ? atoi(columns) : 0;
    return count > 0 ? (size_t)count : 80;
}

int cli_output_flush(void)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return CLI_OK;
    return cli_fail(NULL, "standard output: %s", strerror(errno != 0 ? errno : EIO));
}
