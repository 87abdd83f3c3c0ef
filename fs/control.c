/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.c - see control.h: controls by name, the sentences of the last failures, the notes of `health`, and the
 * attributes user.npk.*. How text is written to a control is in control_write.c.
 */
#include "control.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "control_table.h"

/* Arrays whose last failure is remembered; beyond, the one that failed longest ago is forgotten. */
#define FAILURES_MAX 256
#define NOTES_MAX 64

typedef struct failure {
    char *path, *sentence;
    uint64_t order; /* by which the oldest is found */
} failure;

struct fs_controls {
    pthread_mutex_t lock; /* protects all below; a leaf: nothing else is locked or called while it is held */
    failure failures[FAILURES_MAX];
    size_t failure_count;
    uint64_t order;
    char *mount_sentence;          /* NULL: nothing failed yet */
    fs_health_note notes[NOTES_MAX]; /* a ring */
    uint64_t note_count;           /* ever; the next goes to note_count % NOTES_MAX */
};

/* ---- which controls there are ---------------------------------------------------------------------------------- */

const fs_control *fs_control_at(fs_control_scope scope, size_t index)
{
    if (scope == FS_CONTROL_ARRAY)
        return index < fs_array_control_count ? &fs_array_controls[index] : NULL;
    return index < fs_mount_control_count ? &fs_mount_controls[index] : NULL;
}

const fs_control *fs_control_find(fs_control_scope scope, const char *name)
{
    const fs_control *c;
    for (size_t i = 0; (c = fs_control_at(scope, i)); i++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

/* ---- sentences -------------------------------------------------------------------------------------------------- */

int fs_controls_new(fs_state *fs)
{
    struct fs_controls *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    pthread_mutex_init(&c->lock, NULL);
    fs->controls = c;
    return 0;
}

void fs_controls_free(fs_state *fs)
{
    struct fs_controls *c = fs->controls;
    if (!c)
        return;
    for (size_t i = 0; i < c->failure_count; i++) {
        free(c->failures[i].path);
        free(c->failures[i].sentence);
    }
    for (size_t i = 0; i < NOTES_MAX; i++) {
        free(c->notes[i].path);
        free(c->notes[i].sentence);
    }
    free(c->mount_sentence);
    pthread_mutex_destroy(&c->lock);
    free(c);
    fs->controls = NULL;
}

/* What is shown is one line, whatever a name in it holds. */
static char *one_line(const char *text)
{
    char *line = strdup(text);
    for (char *at = line; at && *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7f)
            *at = '?';
    return line;
}

/* Replace a malloc()ed string; the old one is kept when the new one is NULL (no memory). */
static void put_string(char **where, char *text)
{
    if (!text)
        return;
    free(*where);
    *where = text;
}

/* The lock is held. */
static failure *failure_slot(struct fs_controls *c, const char *path)
{
    failure *oldest = NULL;
    for (size_t i = 0; i < c->failure_count; i++) {
        failure *f = &c->failures[i];
        if (f->path && strcmp(f->path, path) == 0)
            return f;
        if (!oldest || f->order < oldest->order)
            oldest = f;
    }
    failure *f = c->failure_count < FAILURES_MAX ? &c->failures[c->failure_count] : oldest;
    char *copy = strdup(path);
    if (!copy)
        return NULL;
    c->failure_count += f != oldest;
    free(f->sentence);
    f->sentence = NULL;
    put_string(&f->path, copy);
    return f;
}

void fs_note_failure(fs_state *fs, const char *path, const char *sentence)
{
    struct fs_controls *c = fs->controls;
    fs_text whole = {0};
    fs_text_addf(&whole, "%s%s%s", path, *path ? ": " : "", sentence);
    char *mount_line = whole.failed ? NULL : one_line(whole.data);
    char *line = one_line(sentence);
    fs_text_clear(&whole);
    pthread_mutex_lock(&c->lock);
    failure *f = *path ? failure_slot(c, path) : NULL;
    if (f) {
        f->order = ++c->order;
        put_string(&f->sentence, line);
        line = NULL;
    }
    put_string(&c->mount_sentence, mount_line);
    pthread_mutex_unlock(&c->lock);
    free(line);
}

void fs_last_error(fs_state *fs, const char *path, fs_text *out)
{
    struct fs_controls *c = fs->controls;
    pthread_mutex_lock(&c->lock);
    const char *sentence = *path ? NULL : c->mount_sentence;
    for (size_t i = 0; *path && i < c->failure_count && !sentence; i++)
        if (strcmp(c->failures[i].path, path) == 0)
            sentence = c->failures[i].sentence;
    if (sentence)
        fs_text_addf(out, "%s\n", sentence);
    pthread_mutex_unlock(&c->lock);
}

/* ---- health ------------------------------------------------------------------------------------------------------ */

void fs_note_health(fs_state *fs, const char *path, const char *sentence)
{
    struct fs_controls *c = fs->controls;
    fs_health_note note = {.at = time(NULL), .path = one_line(path), .sentence = one_line(sentence)};
    if (!note.path || !note.sentence) {
        free(note.path);
        free(note.sentence);
        return;
    }
    pthread_mutex_lock(&c->lock);
    fs_health_note *last = c->note_count ? &c->notes[(c->note_count - 1) % NOTES_MAX] : NULL;
    fs_health_note *slot = last && strcmp(last->path, note.path) == 0 && strcmp(last->sentence, note.sentence) == 0
                               ? last /* said again and again, it would push out what else there is to tell */
                               : &c->notes[c->note_count++ % NOTES_MAX];
    fs_health_note old = *slot;
    *slot = note;
    pthread_mutex_unlock(&c->lock);
    free(old.path);
    free(old.sentence);
}

uint64_t fs_health_visit(fs_state *fs, void (*visit)(void *ctx, const fs_health_note *note), void *ctx)
{
    struct fs_controls *c = fs->controls;
    pthread_mutex_lock(&c->lock);
    uint64_t count = c->note_count;
    for (uint64_t i = count > NOTES_MAX ? count - NOTES_MAX : 0; i < count; i++)
        visit(ctx, &c->notes[i % NOTES_MAX]);
    pthread_mutex_unlock(&c->lock);
    return count;
}
