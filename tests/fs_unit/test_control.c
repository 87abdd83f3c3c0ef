/* SPDX-License-Identifier: Apache-2.0 */
/* How text that is written to a control becomes lines (PROTOCOLS P15), and where the sentences about failures are kept. */
#include <errno.h>
#include <stdlib.h>

#include "control_table.h"
#include "unit.h"

/* ---- a control that writes down what it is asked ----------------------------------------------------------------- */

static char log_text[1 << 16]; /* the lines applied, each with a | behind it */
static size_t log_bytes;
static unsigned checked, applied, fail_at; /* fail_at: the apply of this number (from 1) fails with ENOSPC */

static void log_reset(void)
{
    log_bytes = checked = applied = fail_at = 0;
    log_text[0] = '\0';
}

/* Digits, or nothing. */
static int check_digits(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    (void)fs;
    CHECK_STR(path, "train/x.npy");
    CHECK_EQ(strlen(line), len);
    checked++;
    if (strspn(line, "0123456789") == len)
        return 0;
    fs_text_addf(why, "\"%s\": not digits", line);
    return -EINVAL;
}

static int apply_digits(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why)
{
    (void)fs;
    (void)path;
    (void)why;
    if (++applied == fail_at)
        return -ENOSPC;
    if (log_bytes + len + 2 < sizeof log_text)
        log_bytes += (size_t)sprintf(log_text + log_bytes, "%s|", line);
    return 0;
}

static const fs_control digits = {.name = "digits", .help = "", .check = check_digits, .apply = apply_digits};

static fs_state fs;

static fs_control_write *begin(void)
{
    log_reset();
    return fs_control_write_open(&fs, &digits, "train/x.npy");
}

static int put(fs_control_write *w, const char *text, uint64_t owner)
{
    return fs_control_write_data(w, text, strlen(text), owner);
}

static const char *error_of(const char *path)
{
    static char text[4096];
    fs_text t = {0};
    fs_last_error(&fs, path, &t);
    snprintf(text, sizeof text, "%s", t.data ? t.data : "");
    fs_text_clear(&t);
    return text;
}

/* ---- pieces ---------------------------------------------------------------------------------------------------------- */

/* Numbers cut at every place, with and without a newline at the end. */
static void test_pieces(void)
{
    static const char *const texts[] = {"100585\n", "100585", "1\n22\n333\n4444\n", "1\n22\n\n333\n55555", "\n", "7\n\n\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        size_t len = strlen(texts[i]);
        bool open_end = texts[i][len - 1] != '\n';
        char expected[64] = "";
        snprintf(expected, sizeof expected, "%s%s", texts[i], open_end ? "|" : "");
        for (char *at = expected; *at; at++)
            if (*at == '\n')
                *at = '|';
        for (size_t piece = 1; piece <= len; piece++) {
            unit_note("text %zu in pieces of %zu", i, piece);
            fs_control_write *w = begin();
            for (size_t at = 0; at < len; at += piece) {
                size_t n = len - at < piece ? len - at : piece;
                CHECK_EQ(fs_control_write_data(w, texts[i] + at, n, 5), n);
                /* Whole lines have acted by the time the write returns, and nothing else has. */
                const char *newline = memrchr(texts[i], '\n', at + n);
                CHECK_EQ(log_bytes, newline ? newline - texts[i] + 1 : 0);
            }
            CHECK_EQ(fs_control_write_flush(w, 5), 0);
            CHECK_STR(log_text, expected);
            CHECK_EQ(fs_control_write_flush(w, 5), 0);
            fs_control_write_close(w);
            CHECK_STR(log_text, expected);
        }
    }
}

/* What `seq` does: pieces of 4096 bytes, a number across each seam. */
static void test_long_list(void)
{
    static char text[60000];
    size_t bytes = 0;
    for (unsigned i = 100000; i < 107000; i++)
        bytes += (size_t)sprintf(text + bytes, "%u\n", i);
    fs_control_write *w = begin();
    for (size_t at = 0; at < bytes; at += 4096) {
        size_t n = bytes - at < 4096 ? bytes - at : 4096;
        CHECK_EQ(fs_control_write_data(w, text + at, n, 1), n);
        CHECK_EQ(fs_control_write_flush(w, 2), 0); /* a child that ends in between */
    }
    fs_control_write_close(w);
    CHECK_EQ(applied, 7000);
    for (char *at = log_text; *at; at++)
        if (*at == '|')
            *at = '\n';
    CHECK_STR(log_text, text);
}

static void test_flush(void)
{
    fs_control_write *w = begin();
    CHECK_EQ(fs_control_write_flush(w, 1), 0); /* shells flush before they write */
    CHECK_EQ(put(w, "12", 1), 2);
    CHECK_EQ(fs_control_write_flush(w, 2), 0);
    CHECK_STR(log_text, "");
    CHECK_EQ(put(w, "34", 1), 2);
    CHECK_EQ(fs_control_write_flush(w, 0), 0);
    CHECK_STR(log_text, "");
    CHECK_EQ(fs_control_write_flush(w, 1), 0);
    CHECK_STR(log_text, "1234|");
    CHECK_EQ(put(w, "5", 1), 1);
    fs_control_write_close(w); /* nobody flushed: it is applied all the same */
    CHECK_STR(log_text, "1234|5|");
}

/* An errno of what is applied at the flush is the flush's. */
static void test_flush_fails(void)
{
    fs_control_write *w = begin();
    CHECK_EQ(put(w, "x", 1), 1);
    CHECK_EQ(fs_control_write_flush(w, 1), -EINVAL);
    CHECK_HAS(error_of("train/x.npy"), "digits: \"x\": not digits");
    CHECK_EQ(fs_control_write_flush(w, 1), 0); /* told once */
    CHECK_EQ(put(w, "6\n", 1), 2);
    fs_control_write_close(w);
    CHECK_STR(log_text, "6|");
    w = begin();
    CHECK_EQ(put(w, "y", 1), 1);
    fs_control_write_close(w);
    CHECK_HAS(error_of("train/x.npy"), "digits: \"y\": not digits");
}

static void test_two_writers(void)
{
    fs_control_write *w = begin();
    CHECK_EQ(put(w, "12", 1), 2);
    CHECK_EQ(put(w, "9", 2), 1);
    CHECK_EQ(put(w, "34\n5", 1), 4);
    CHECK_STR(log_text, "1234|");
    CHECK_EQ(fs_control_write_flush(w, 2), 0);
    CHECK_STR(log_text, "1234|9|");
    CHECK_EQ(put(w, "8", 2), 1);
    CHECK_EQ(put(w, "\n", 1), 1);
    CHECK_STR(log_text, "1234|9|5|");
    fs_control_write_close(w);
    CHECK_STR(log_text, "1234|9|5|8|");

    w = begin();
    for (uint64_t owner = 0; owner < 64; owner++)
        CHECK_EQ(put(w, "1", owner), 1);
    CHECK_EQ(put(w, "2\n3", 64), -EBUSY);
    CHECK_EQ(applied, 0); /* refused whole */
    fs_control_write_close(w);
    CHECK_EQ(applied, 64);
}

/* ---- refusals ------------------------------------------------------------------------------------------------------ */

static void test_checked_before_applied(void)
{
    fs_control_write *w = begin();
    CHECK_EQ(put(w, "1\n2\nbad\n4\n", 1), -EINVAL);
    CHECK_EQ(applied, 0);
    CHECK_HAS(error_of("train/x.npy"), "digits: \"bad\": not digits\n");
    CHECK_HAS(error_of(""), "train/x.npy: digits: \"bad\": not digits\n");
    CHECK_EQ(put(w, "5\n", 1), 2); /* the next lines are whole again */
    CHECK_STR(log_text, "5|");

    log_reset();
    fail_at = 3;
    CHECK_EQ(put(w, "1\n2\n3\n4\n", 1), -ENOSPC);
    CHECK_STR(log_text, "1|2|");
    CHECK_EQ(checked, 4);
    CHECK_HAS(error_of("train/x.npy"), "2 lines before it were applied");
    fs_control_write_close(w);
}

/* A write that fails inside a line: what follows must not be taken for a line of its own. */
static void test_broken_line(void)
{
    fs_control_write *w = begin();
    CHECK_EQ(put(w, "bad\n100", 1), -EINVAL);
    CHECK_EQ(put(w, "585\n", 1), -EINVAL);
    CHECK_HAS(error_of("train/x.npy"), "open the control again");
    CHECK_EQ(fs_control_write_flush(w, 1), 0);
    fs_control_write_close(w);
    CHECK_EQ(applied, 0);
    /* Nor the piece before it: it is the beginning of the line that was refused. */
    w = begin();
    CHECK_EQ(put(w, "100", 1), 3);
    CHECK_EQ(put(w, "x\n", 1), -EINVAL);
    CHECK_EQ(fs_control_write_flush(w, 1), 0);
    fs_control_write_close(w);
    CHECK_EQ(applied, 0);
}

static void test_long_lines(void)
{
    size_t most = 1 << 20;
    char *text = malloc(most + 2);
    memset(text, '1', most + 2);
    fs_control_write *w = begin();
    text[most - 1] = '\n';
    CHECK_EQ(fs_control_write_data(w, text, most, 1), most);
    CHECK_EQ(applied, 1);
    text[most - 1] = '1';
    text[most] = '\n';
    CHECK_EQ(fs_control_write_data(w, text, most + 1, 1), -E2BIG);
    CHECK_EQ(applied, 1);
    CHECK_HAS(error_of("train/x.npy"), "1048576 bytes");
    text[most] = '1';
    size_t piece = 4096, at = 0;
    int n = 0;
    for (; n >= 0 && at < 2 * most; at += piece)
        n = fs_control_write_data(w, text, piece, 1);
    CHECK_EQ(n, -E2BIG);
    CHECK_EQ(at, most + piece); /* the first piece beyond the limit */
    CHECK_EQ(fs_control_write_flush(w, 1), 0);
    CHECK_EQ(applied, 1);
    fs_control_write_close(w);
    free(text);
}

static void test_no_text(void)
{
    static const char npy[] = "\x93NUMPY\x01\x00v\x00{'descr'";
    fs_control_write *w = begin();
    CHECK_EQ(fs_control_write_data(w, npy, sizeof npy - 1, 1), -EINVAL);
    CHECK_HAS(error_of("train/x.npy"), ".npy file");
    fs_control_write_close(w);
    w = begin();
    CHECK_EQ(fs_control_write_data(w, "1\n\0002\n", 5, 1), -EINVAL);
    CHECK_HAS(error_of("train/x.npy"), "zero byte");
    CHECK_EQ(fs_control_write_data(w, "", 0, 1), 0);
    CHECK_EQ(applied, 0);
    fs_control_write_close(w);
}

/* ---- sentences ------------------------------------------------------------------------------------------------------ */

static void test_failures(void)
{
    char path[32], sentence[32];
    CHECK_STR(error_of("new.npy"), "");
    for (int i = 0; i < 300; i++) {
        snprintf(path, sizeof path, "a%d.npy", i);
        snprintf(sentence, sizeof sentence, "sentence %d", i);
        fs_note_failure(&fs, path, sentence);
        fs_note_failure(&fs, "kept.npy", "said again");
    }
    CHECK_STR(error_of("a0.npy"), ""); /* the oldest went */
    CHECK_STR(error_of("a299.npy"), "sentence 299\n");
    CHECK_STR(error_of("a50.npy"), "sentence 50\n");
    CHECK_STR(error_of("kept.npy"), "said again\n");
    CHECK_STR(error_of(""), "kept.npy: said again\n");
    fs_note_failure(&fs, "", "of the mount");
    CHECK_STR(error_of(""), "of the mount\n");
    fs_note_failure(&fs, "a\nb.npy", "two\nlines\t");
    CHECK_STR(error_of(""), "a?b.npy: two?lines?\n");
    CHECK_STR(error_of("a\nb.npy"), "two?lines?\n");
}

typedef struct heard { unsigned count; char first[64], last[64]; } heard;

static void hear(void *ctx, const fs_health_note *note)
{
    heard *h = ctx;
    snprintf(h->last, sizeof h->last, "%s=%s", note->path, note->sentence);
    if (h->count++ == 0)
        memcpy(h->first, h->last, sizeof h->first);
}

static void test_notes(void)
{
    heard h = {0};
    CHECK_EQ(fs_health_visit(&fs, hear, &h), 0);
    for (int i = 0; i < 100; i++) {
        char sentence[32];
        snprintf(sentence, sizeof sentence, "note %d", i / 2); /* each said twice in a row */
        fs_note_health(&fs, "x.npy", sentence);
    }
    CHECK_EQ(fs_health_visit(&fs, hear, &h), 50);
    CHECK_EQ(h.count, 50);
    CHECK_STR(h.first, "x.npy=note 0");
    for (int i = 50; i < 100; i++) {
        char sentence[32];
        snprintf(sentence, sizeof sentence, "note %d", i);
        fs_note_health(&fs, "", sentence);
    }
    h = (heard){0};
    CHECK_EQ(fs_health_visit(&fs, hear, &h), 100);
    CHECK_EQ(h.count, 64);
    CHECK_STR(h.first, "x.npy=note 36");
    CHECK_STR(h.last, "=note 99");
}

static void test_text(void)
{
    fs_text t = {0};
    for (int i = 0; i < 1000; i++)
        fs_text_addf(&t, "%d,", i);
    CHECK_EQ(t.bytes, 10 * 2 + 90 * 3 + 900 * 4);
    CHECK_EQ(strlen(t.data), t.bytes);
    CHECK_HAS(t.data, "998,999,");
    fs_text_clear(&t);
    CHECK(t.data == NULL && t.bytes == 0 && !t.failed);
}

int main(void)
{
    if (fs_controls_new(&fs) != 0)
        return 1;
    RUN(test_text);
    RUN(test_pieces);
    RUN(test_long_list);
    RUN(test_flush);
    RUN(test_flush_fails);
    RUN(test_two_writers);
    RUN(test_checked_before_applied);
    RUN(test_broken_line);
    RUN(test_long_lines);
    RUN(test_no_text);
    RUN(test_notes);
    RUN(test_failures);
    fs_controls_free(&fs);
    return UNIT_RESULT();
}
