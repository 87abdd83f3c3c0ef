/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_write.c - from the pieces in which programs write to whole lines (PROTOCOLS P15).
 *
 * Where a write begins and ends means nothing: shells cut their output anywhere, also inside a number. So
 *   - offsets are ignored, text is taken in the order in which it comes;
 *   - a line acts inside the write that brings its newline, so that the write itself fails if the line does;
 *   - text behind the last newline waits for the next write of the same writer. If none comes, it is applied at the FLUSH
 *     of that writer, or else when the file is closed for good. Other processes that have the descriptor (children of a
 *     shell) flush it too, in the middle of a number; writers are told apart by FUSE's lock owner, which stands for a
 *     process's table of descriptors;
 *   - every line of one write is checked before the first one is applied;
 *   - a write that is refused is refused whole. If it broke off inside a line, what comes next on this open would be the
 *     rest of a line whose beginning is lost: it is refused too, until the file is opened again.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"

#define LINE_BYTES_MAX (1u << 20)
#define NPY_BYTES_MAX ((uint64_t)8 << 30)
#define WRITERS_MAX 64       /* processes that each wait with an unfinished line on one open */
#define QUOTED_BYTES_MAX 60  /* of the input, in a sentence */

typedef struct writer {
    struct writer *next;
    uint64_t owner;
    char *text; /* its unfinished line */
    size_t bytes;
} writer;

struct fs_control_write {
    fs_state *fs;
    const fs_control *control;
    char *path;
    pthread_mutex_t lock; /* held while lines are applied: what one open writes happens in its order */
    writer *writers;      /* oldest first */
    bool begun;           /* something was written */
    bool broken;          /* the rest of a refused line may follow */
    void *seen;           /* of a numbered control */
    int see_err;          /* why there is none */
    bool binary;          /* a .npy file is being written; it is here as far as it has come */
    uint64_t binary_owner;
    int binary_err;       /* told again at close: numpy's last write is one whose failure it does not look at */
    uint8_t *file;
    size_t file_bytes, file_capacity;
};

/* ---- sentences -------------------------------------------------------------------------------------------------- */

/* Keep why's sentence, or what err means if the control gave none. Returns err. */
static int note(fs_control_write *w, int err, const fs_text *why)
{
    fs_text sentence = {0};
    bool said = why && why->bytes > 0 && !why->failed;
    fs_text_addf(&sentence, "%s: %s", w->control->name, said ? why->data : strerror(-err));
    fs_note_failure(w->fs, w->path, sentence.failed ? strerror(-err) : sentence.data);
    fs_text_clear(&sentence);
    return err;
}

static int refuse(fs_control_write *w, int err, const char *sentence)
{
    fs_text why = {0};
    fs_text_addf(&why, "%s", sentence);
    note(w, err, &why);
    fs_text_clear(&why);
    return err;
}

/* ---- lines ------------------------------------------------------------------------------------------------------ */

/* Lines of one write as a NUL-terminated text in which each newline has become a NUL. */
typedef struct lines {
    char *text;
    size_t bytes; /* with the NUL of each line */
} lines;

typedef int line_action(fs_state *fs, const char *path, const char *line, size_t len, fs_text *why);

/* Let one of the control's two functions see every line. */
static int for_each_line(fs_control_write *w, const lines *l, line_action *act, bool applying)
{
    size_t count = 0;
    for (size_t at = 0; at < l->bytes; count++) {
        size_t len = strlen(l->text + at);
        fs_text why = {0};
        int err = act(w->fs, w->path, l->text + at, len, &why);
        if (err && applying && count > 0)
            fs_text_addf(&why, "%s%zu %s before it %s applied", why.bytes ? "; " : "", count,
                         count == 1 ? "line" : "lines", count == 1 ? "was" : "were");
        if (err)
            note(w, err, &why);
        fs_text_clear(&why);
        if (err)
            return err;
        at += len + 1;
    }
    return 0;
}

static int check_and_apply(fs_control_write *w, const lines *l)
{
    const fs_numbered *numbered = w->control->numbered;
    if (numbered) {
        fs_text why = {0};
        int failed = w->see_err ? w->see_err : numbered->lines(w->fs, w->path, w->seen, l->text, l->bytes, &why);
        if (failed)
            note(w, failed, &why);
        fs_text_clear(&why);
        return failed;
    }
    int err = w->control->check ? for_each_line(w, l, w->control->check, false) : 0;
    return err ? err : for_each_line(w, l, w->control->apply, true);
}

/* ---- writers ---------------------------------------------------------------------------------------------------- */

static writer *find_writer(fs_control_write *w, uint64_t owner)
{
    writer *at = w->writers;
    while (at && at->owner != owner)
        at = at->next;
    return at;
}

/* The lock is held. Takes the writer out of the list and frees it. */
static void remove_writer(fs_control_write *w, writer *gone)
{
    writer **at = &w->writers;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    free(gone->text);
    free(gone);
}

/* A writer to be: its unfinished line is kept until more comes. NULL: no memory. */
static writer *new_writer(uint64_t owner, const char *text, size_t bytes)
{
    writer *fresh = calloc(1, sizeof *fresh);
    char *copy = malloc(bytes);
    if (!fresh || !copy) {
        free(fresh);
        free(copy);
        return NULL;
    }
    memcpy(copy, text, bytes);
    *fresh = (writer){.owner = owner, .text = copy, .bytes = bytes};
    return fresh;
}

static void add_writer(fs_control_write *w, writer *fresh)
{
    writer **end = &w->writers;
    while (*end)
        end = &(*end)->next;
    *end = fresh;
}

static bool too_many_writers(const fs_control_write *w)
{
    unsigned count = 0;
    for (const writer *at = w->writers; at; at = at->next)
        count++;
    return count >= WRITERS_MAX;
}

/* Apply what waits, as a line. */
static int finish_writer(fs_control_write *w, writer *from)
{
    lines l = {.text = malloc(from->bytes + 1), .bytes = from->bytes + 1};
    if (l.text) {
        memcpy(l.text, from->text, from->bytes);
        l.text[from->bytes] = '\0';
    }
    remove_writer(w, from);
    int err = l.text ? check_and_apply(w, &l) : -ENOMEM;
    free(l.text);
    return err;
}

/* ---- writes ----------------------------------------------------------------------------------------------------- */

fs_control_write *fs_control_write_open(fs_state *fs, const fs_control *c, const char *path)
{
    fs_control_write *w = calloc(1, sizeof *w);
    char *copy = strdup(path);
    if (!w || !copy) {
        free(w);
        free(copy);
        return NULL;
    }
    *w = (fs_control_write){.fs = fs, .control = c, .path = copy};
    pthread_mutex_init(&w->lock, NULL);
    if (c->numbered)
        w->see_err = c->numbered->see(fs, path, &w->seen);
    return w;
}

static int refuse_long_line(fs_control_write *w, const char *text)
{
    fs_text why = {0};
    fs_text_addf(&why, "\"%.*s...\": a line of more than %u bytes; several lines are accepted", QUOTED_BYTES_MAX, text,
                 LINE_BYTES_MAX);
    note(w, -E2BIG, &why);
    fs_text_clear(&why);
    return -E2BIG;
}

/* ---- a .npy file ------------------------------------------------------------------------------------------------ */

/* More of it; acts when it is complete. */
static int take_binary(fs_control_write *w, const char *data, size_t bytes, uint64_t owner)
{
    npk_header h;
    char reason[128] = "";
    if (w->file_bytes + bytes > NPY_BYTES_MAX)
        return refuse(w, -E2BIG, "a .npy file of more than 8 GiB was written here; several smaller ones are accepted");
    if (w->file_bytes + bytes > w->file_capacity) {
        size_t capacity = 2 * (w->file_bytes + bytes);
        uint8_t *file = realloc(w->file, capacity);
        if (!file)
            return -ENOMEM;
        w->file = file;
        w->file_capacity = capacity;
    }
    memcpy(w->file + w->file_bytes, data, bytes);
    w->file_bytes += bytes;
    w->binary_owner = owner;
    int err = npk_header_parse(w->file, w->file_bytes, &h, reason, sizeof reason);
    if (err == -EAGAIN)
        return 0;
    fs_text why = {0};
    if (err)
        fs_text_addf(&why, "a .npy file was begun here that is none: %s", reason);
    else if (w->file_bytes < h.data_offset + h.data_bytes)
        return 0;
    else if (w->file_bytes > h.data_offset + h.data_bytes)
        fs_text_addf(&why, "bytes behind the .npy file that was written here; one whole file is accepted"), err = -EINVAL;
    else
        err = w->see_err ? w->see_err
                         : w->control->numbered->npy(w->fs, w->path, w->seen, w->file, w->file_bytes, &why);
    w->file_bytes = 0;
    w->binary = false; /* another may follow */
    w->begun = false;
    w->binary_err = err;
    if (err)
        note(w, err, &why);
    fs_text_clear(&why);
    return err;
}

static int refuse_cut(fs_control_write *w)
{
    return refuse(w, -EINVAL, "a .npy file was begun here and not finished; a whole one is accepted");
}

/* What cannot be text at all. */
static int check_bytes(fs_control_write *w, const char *data, size_t bytes)
{
    if (!w->begun && bytes >= 6 && memcmp(data, "\x93NUMPY", 6) == 0)
        return refuse(w, -EINVAL, "a .npy file was written here, and this control takes lines of text only");
    if (memchr(data, '\0', bytes))
        return refuse(w, -EINVAL, "a zero byte was written here, and this control takes lines of text only");
    return 0;
}

/* One write: the writer's unfinished line and data together, cut at the last newline. On failure nothing was taken. */
static int take(fs_control_write *w, const char *data, size_t bytes, uint64_t owner)
{
    int err = check_bytes(w, data, bytes);
    if (err)
        return err;
    writer *before = find_writer(w, owner);
    size_t kept = before ? before->bytes : 0;
    char *text = malloc(kept + bytes + 1);
    if (!text)
        return -ENOMEM;
    if (before)
        memcpy(text, before->text, kept);
    memcpy(text + kept, data, bytes);
    text[kept + bytes] = '\0';
    if (before)
        remove_writer(w, before);

    lines l = {.text = text};
    size_t line = 0;
    for (char *end; !err && (end = memchr(text + line, '\n', kept + bytes - line)); line = l.bytes) {
        *end = '\0';
        l.bytes = (size_t)(end - text) + 1;
        if (l.bytes - line > LINE_BYTES_MAX)
            err = refuse_long_line(w, text + line);
    }
    size_t rest = kept + bytes - l.bytes;
    writer *waits = NULL;
    if (!err && rest > LINE_BYTES_MAX)
        err = refuse_long_line(w, text + l.bytes);
    if (!err && rest > 0 && too_many_writers(w))
        err = refuse(w, -EBUSY, "64 processes wait here with unfinished lines already; end lines with a newline");
    if (!err && rest > 0 && !(waits = new_writer(owner, text + l.bytes, rest)))
        err = -ENOMEM;
    if (!err)
        err = check_and_apply(w, &l);
    if (!err && waits) {
        add_writer(w, waits);
    } else if (waits) {
        free(waits->text);
        free(waits);
    }
    free(text);
    return err;
}

int fs_control_write_data(fs_control_write *w, const char *data, size_t bytes, uint64_t lock_owner)
{
    if (bytes == 0)
        return 0;
    pthread_mutex_lock(&w->lock);
    if (w->control->numbered && !w->binary && !w->begun && bytes >= 6 && memcmp(data, "\x93NUMPY", 6) == 0)
        w->binary = true;
    if (w->binary) {
        int refused = take_binary(w, data, bytes, lock_owner);
        pthread_mutex_unlock(&w->lock);
        return refused ? refused : (int)bytes;
    }
    int err = w->broken ? refuse(w, -EINVAL,
                                 "the write before this one was refused in the middle of a line, so what follows is not "
                                 "a whole line; open the control again")
                        : take(w, data, bytes, lock_owner);
    w->begun = true;
    if (err && data[bytes - 1] != '\n')
        w->broken = true;
    pthread_mutex_unlock(&w->lock);
    return err ? err : (int)bytes;
}

int fs_control_write_flush(fs_control_write *w, uint64_t lock_owner)
{
    pthread_mutex_lock(&w->lock);
    writer *own = find_writer(w, lock_owner);
    int err = own ? finish_writer(w, own) : 0;
    if (!err && w->binary && w->binary_owner == lock_owner)
        err = refuse_cut(w);
    if (!err && w->binary_owner == lock_owner)
        err = w->binary_err;
    pthread_mutex_unlock(&w->lock);
    return err;
}

void fs_control_write_close(fs_control_write *w)
{
    if (!w)
        return;
    while (w->writers)
        finish_writer(w, w->writers);
    if (w->binary)
        refuse_cut(w);
    if (w->seen)
        w->control->numbered->forget(w->seen);
    free(w->file);
    pthread_mutex_destroy(&w->lock);
    free(w->path);
    free(w);
}
