/* SPDX-License-Identifier: Apache-2.0 */
/* rows_out.c - see rows_out.h. */
#include "rows_out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "grid.h"
#include "output.h"
#include "say.h"
#include "value.h"

struct cli_rows_out {
    cli_rows_plan plan;
    uint64_t row_elements;
    FILE *stream;
    char *hidden; /* what the file is called until it is complete; NULL: written where it is */
    uint64_t put;
    cli_grid *grid;
    cli_text text;
};

/* Does a new file take the name at the end? Not for what is no regular file, as /dev/stdout. */
static bool replaces(const char *file)
{
    struct stat st;
    return stat(file, &st) != 0 ? errno == ENOENT : S_ISREG(st.st_mode);
}

static int open_file(cli_rows_out *o)
{
    const char *file = o->plan.file;
    int fd;
    if (!replaces(file)) {
        fd = open(file, O_WRONLY | O_CLOEXEC);
    } else {
        if (asprintf(&o->hidden, "%s.XXXXXX", file) < 0) {
            o->hidden = NULL;
            return cli_fail(NULL, "%s", strerror(ENOMEM));
        }
        fd = mkostemp(o->hidden, O_CLOEXEC);
        mode_t mask = umask(0);
        umask(mask);
        if (fd >= 0)
            fchmod(fd, 0666 & ~mask);
    }
    if (fd >= 0)
        o->stream = fdopen(fd, "wb");
    if (o->stream != NULL)
        return CLI_OK;
    int err = errno;
    if (fd >= 0)
        close(fd);
    free(o->hidden);
    o->hidden = NULL;
    return cli_fail(file, "%s", strerror(err));
}

static int begin_npy(cli_rows_out *o)
{
    uint64_t shape[NPK_MAX_DIMS];
    const npk_header *h = o->plan.header;
    memcpy(shape, h->shape, sizeof shape);
    if (h->ndim > 0)
        shape[0] = o->plan.row_count;
    size_t capacity = (size_t)h->descr_bytes + 4096, bytes = 0;
    char *header = malloc(capacity);
    if (header == NULL)
        return cli_fail(NULL, "%s", strerror(ENOMEM));
    int err = npk_header_format(o->plan.descr, false, shape, h->ndim, header, capacity, &bytes);
    if (err == 0)
        fwrite(header, 1, bytes, o->stream);
    free(header);
    return err != 0 ? cli_fail_engine(o->plan.file, err) : CLI_OK;
}

static void put_titles(cli_rows_out *o)
{
    cli_text *t = &o->text;
    if (o->plan.numbers)
        cli_text_adds(t, "row\t");
    for (uint64_t i = 0; i < o->row_elements; i++) {
        if (i > 0)
            cli_text_addc(t, '\t');
        if (o->plan.header->ndim <= 1)
            cli_text_adds(t, "value");
        else
            cli_element_label(o->plan.header, i, t);
        if (t->bytes < 1 << 16)
            continue;
        fwrite(t->data, 1, t->bytes, o->stream);
        cli_text_reset(t);
    }
    cli_text_addc(t, '\n');
    fwrite(cli_text_string(t), 1, t->bytes, o->stream);
    cli_text_reset(t);
}

cli_rows_out *cli_rows_out_new(const cli_rows_plan *plan)
{
    cli_rows_out *o = calloc(1, sizeof *o);
    int status = o == NULL ? cli_fail(NULL, "%s", strerror(ENOMEM)) : CLI_OK;
    if (o == NULL)
        return NULL;
    o->plan = *plan;
    o->row_elements = plan->type->itemsize > 0 ? plan->header->row_bytes / plan->type->itemsize : 0;
    o->stream = stdout;
    bool to_stdout = plan->kind == CLI_ROWS_RAW || plan->file == NULL || strcmp(plan->file, "-") == 0;
    if (plan->kind == CLI_ROWS_NPY && !to_stdout) {
        o->stream = NULL;
        status = open_file(o);
    } else if (plan->kind >= CLI_ROWS_RAW && isatty(STDOUT_FILENO)) {
        status = cli_fail(NULL, "standard output is a terminal, which bytes would upset; a file or a pipe is accepted");
    }
    if (status == CLI_OK && plan->kind == CLI_ROWS_NPY)
        status = begin_npy(o);
    if (status == CLI_OK && plan->kind == CLI_ROWS_TEXT) {
        o->grid = cli_grid_new(plan->header, plan->type, cli_terminal_columns());
        if (o->grid == NULL)
            status = cli_fail(NULL, "%s", strerror(ENOMEM));
    }
    if (status == CLI_OK) {
        if (plan->kind == CLI_ROWS_JSON)
            fputc('[', stdout);
        if (plan->kind == CLI_ROWS_TSV && plan->titles)
            put_titles(o);
        return o;
    }
    cli_rows_out_end(o, false);
    return NULL;
}

/* A row's elements as lists in lists; returns the bytes that it walked over. */
static size_t add_nested(cli_rows_out *o, uint32_t dim, const unsigned char *at)
{
    const npk_header *h = o->plan.header;
    if (dim >= h->ndim) {
        cli_value_add(&o->text, o->plan.type, at, CLI_VALUE_JSON);
        return (size_t)o->plan.type->itemsize;
    }
    size_t walked = 0;
    cli_text_addc(&o->text, '[');
    for (uint64_t i = 0; i < h->shape[dim]; i++) {
        if (i > 0)
            cli_text_addc(&o->text, ',');
        walked += add_nested(o, dim + 1, at + walked);
    }
    cli_text_addc(&o->text, ']');
    return walked;
}

static void put_line(cli_rows_out *o, int64_t number, const unsigned char *row)
{
    cli_text *t = &o->text;
    if (o->plan.kind == CLI_ROWS_JSON) {
        cli_text_adds(t, o->put > 0 ? ",\n" : "\n");
        if (o->plan.numbers)
            cli_text_addf(t, "{\"row\":%lld,\"value\":", (long long)number);
        add_nested(o, 1, row);
        if (o->plan.numbers)
            cli_text_addc(t, '}');
        return;
    }
    if (o->plan.numbers)
        cli_text_addf(t, "%lld\t", (long long)number);
    for (uint64_t i = 0; i < o->row_elements; i++) {
        if (i > 0)
            cli_text_addc(t, '\t');
        cli_value_add(t, o->plan.type, row + i * o->plan.type->itemsize, CLI_PLAIN);
    }
    cli_text_addc(t, '\n');
}

int cli_rows_out_put(cli_rows_out *o, const int64_t *numbers, const void *rows, size_t count)
{
    size_t row_bytes = (size_t)o->plan.header->row_bytes;
    if (o->plan.kind == CLI_ROWS_TEXT) {
        if (cli_grid_put(o->grid, numbers, rows, count) != 0)
            return cli_fail(NULL, "%s", strerror(ENOMEM));
    } else if (o->plan.kind >= CLI_ROWS_RAW) {
        fwrite(rows, row_bytes, count, o->stream);
        o->put += count;
    } else {
        for (size_t i = 0; i < count; i++) {
            put_line(o, numbers[i], (const unsigned char *)rows + i * row_bytes);
            o->put++;
            if (o->text.bytes < 1 << 16 && i + 1 < count)
                continue;
            fwrite(o->text.data, 1, o->text.bytes, o->stream);
            cli_text_reset(&o->text);
        }
        if (o->text.failed)
            return cli_fail(NULL, "%s", strerror(ENOMEM));
    }
    if (!ferror(o->stream))
        return CLI_OK;
    return o->stream == stdout ? cli_output_flush() : cli_fail(o->plan.file, "%s", strerror(errno));
}

/* Close the file and give it its name. */
static int end_file(cli_rows_out *o, bool complete)
{
    bool failed = ferror(o->stream) != 0;
    if (fclose(o->stream) != 0)
        failed = true;
    int err = failed ? (errno != 0 ? errno : EIO) : 0;
    if (complete && err == 0 && o->hidden != NULL && rename(o->hidden, o->plan.file) != 0)
        err = errno;
    if (o->hidden != NULL && (!complete || err != 0))
        unlink(o->hidden);
    return complete && err != 0 ? cli_fail(o->plan.file, "%s", strerror(err)) : CLI_OK;
}

int cli_rows_out_end(cli_rows_out *o, bool complete)
{
    int status = CLI_OK;
    if (o->plan.kind == CLI_ROWS_JSON && complete)
        fputs(o->put > 0 ? "\n]\n" : "]\n", stdout);
    if (cli_grid_end(o->grid) != 0)
        status = cli_fail(NULL, "%s", strerror(ENOMEM));
    if (o->stream != NULL && o->stream != stdout)
        status = end_file(o, complete);
    free(o->hidden);
    cli_text_clear(&o->text);
    free(o);
    return status;
}
