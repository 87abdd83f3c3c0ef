/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_mount.c - the facts of the mount in `MOUNTPOINT/.npk/`. Lists are lines of a key, a tab and a value; stats and
 * health are there as JSON too, made from the same list.
 */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "control_table.h"
#include "pkg.h"

/* ---- lists ----------------------------------------------------------------------------------------------------------- */

/* Where keys and values go: lines of text, or members of an object. */
typedef struct fact_list {
    fs_text *text;
    cJSON *json;  /* NULL: text is wanted */
    cJSON *notes; /* of health, in json */
} fact_list;

static void put_number(fact_list *l, const char *key, uint64_t value)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%" PRIu64, value);
    if (!l->json)
        fs_text_addf(l->text, "%s\t%s\n", key, digits);
    else if (value > UINT64_C(1) << 53) /* beyond, JSON's readers round */
        cJSON_AddStringToObject(l->json, key, digits);
    else
        cJSON_AddRawToObject(l->json, key, digits);
}

static void put_flag(fact_list *l, const char *key, bool value)
{
    if (l->json)
        cJSON_AddBoolToObject(l->json, key, value);
    else
        fs_text_addf(l->text, "%s\t%s\n", key, value ? "yes" : "no");
}

/* The bytes of the UTF-8 character that text begins with; 0: it is none. */
static size_t utf8_length(const unsigned char *text)
{
    static const struct { unsigned char mask, lead; uint32_t least; } forms[] = {
        {0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
    for (size_t n = 0; n < sizeof forms / sizeof *forms; n++) {
        if ((text[0] & forms[n].mask) != forms[n].lead)
            continue;
        uint32_t code = text[0] & (uint32_t)(unsigned char)~forms[n].mask;
        for (size_t i = 1; i <= n; i++) {
            if ((text[i] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (text[i] & 0x3f);
        }
        bool surrogate = code >= 0xd800 && code < 0xe000;
        return code < forms[n].least || code > 0x10ffff || surrogate ? 0 : n + 1;
    }
    return 0;
}

/* File names are bytes, JSON is UTF-8: what is none becomes U+FFFD. */
static char *as_utf8(const char *text)
{
    char *out = malloc(strlen(text) * 3 + 1);
    size_t bytes = 0;
    while (out && *text) {
        size_t n = utf8_length((const unsigned char *)text);
        memcpy(out + bytes, n ? text : "\xef\xbf\xbd", n ? n : 3);
        bytes += n ? n : 3;
        text += n ? n : 1;
    }
    if (out)
        out[bytes] = '\0';
    return out;
}

static void put_json_string(cJSON *object, const char *key, const char *value)
{
    char *clean = as_utf8(value);
    if (clean)
        cJSON_AddStringToObject(object, key, clean);
    free(clean);
}

/* A value is the rest of a line: control characters become octal escapes, as in /proc/self/mountinfo. */
static void put_string(fact_list *l, const char *key, const char *value)
{
    if (l->json) {
        put_json_string(l->json, key, value);
        return;
    }
    fs_text_addf(l->text, "%s\t", key);
    for (; *value; value++)
        fs_text_addf(l->text, (unsigned char)*value < ' ' ? "\\%03o" : "%c", (unsigned char)*value);
    fs_text_addf(l->text, "\n");
}

/* Fill a list as JSON and print it. */
static int render_json(fs_state *fs, fs_text *out, void (*fill)(fs_state *fs, fact_list *l))
{
    fact_list l = {.json = cJSON_CreateObject()};
    if (!l.json)
        return -ENOMEM;
    fill(fs, &l);
    char *text = cJSON_Print(l.json);
    cJSON_Delete(l.json);
    if (!text)
        return -ENOMEM;
    fs_text_addf(out, "%s\n", text);
    cJSON_free(text);
    return 0;
}

/* ---- version, store -------------------------------------------------------------------------------------------------- */

static int render_version(fs_state *fs, const char *path, fs_text *out)
{
    (void)fs;
    (void)path;
    fs_text_addf(out, "%s\n", NPK_VERSION);
    return 0;
}

/* Where the store is, also for programs that only see the mount that covers it: through a descriptor of the daemon, which
 * takes the right to trace it (PROTOCOLS P19). */
static int render_store(fs_state *fs, const char *path, fs_text *out)
{
    (void)path;
    char by_fd[48];
    fact_list l = {.text = out};
    snprintf(by_fd, sizeof by_fd, "/proc/%ld/fd/%d", (long)getpid(), fs->root_fd);
    put_string(&l, "path", fs->source_path);
    if (fs->pkg)
        return 0; /* no descriptor leads into a package */
    put_string(&l, "fd", by_fd);
    return 0;
}

/* ---- stats --------------------------------------------------------------------------------------------------------- */

#define COUNTER(name) {#name, offsetof(fs_stats, name)}
static const struct counter { const char *key; size_t offset; } counters[] = {
    COUNTER(lookups),      COUNTER(getattrs),      COUNTER(opens),         COUNTER(creates),
    COUNTER(reads),        COUNTER(writes),        COUNTER(read_bytes),    COUNTER(written_bytes),
    COUNTER(flushes),      COUNTER(renames),       COUNTER(unlinks),       COUNTER(rows_adopted),
    COUNTER(swaps),        COUNTER(stale_answers), COUNTER(interrupts),    COUNTER(invalidations),
    COUNTER(control_reads), COUNTER(control_writes), COUNTER(nodes_known), COUNTER(nodes_open),
    COUNTER(backing_ids),  COUNTER(threads),       COUNTER(locks_waiting),
};
#define COUNTER_COUNT (sizeof counters / sizeof *counters)
_Static_assert(COUNTER_COUNT * sizeof(uint64_t) == sizeof(fs_stats), "every counter is shown");

static void fill_stats(fs_state *fs, fact_list *l)
{
    time_t now = time(NULL);
    put_number(l, "uptime_s", now > fs->mounted_at ? (uint64_t)(now - fs->mounted_at) : 0);
    for (size_t i = 0; i < COUNTER_COUNT; i++) {
        const char *at = (const char *)&fs->stats + counters[i].offset;
        put_number(l, counters[i].key,
                   atomic_load_explicit((const _Atomic uint64_t *)(const void *)at, memory_order_relaxed));
    }
    if (!fs->pkg)
        return;
    uint64_t bytes, hits, misses;
    npk_package_cache(fs->pkg->package, &bytes, &hits, &misses);
    put_number(l, "frame_bytes_kept", bytes);
    put_number(l, "frames_found", hits);
    put_number(l, "frames_decoded", misses);
}

static int render_stats(fs_state *fs, const char *path, fs_text *out)
{
    (void)path;
    fact_list l = {.text = out};
    fill_stats(fs, &l);
    return 0;
}

static int render_stats_json(fs_state *fs, const char *path, fs_text *out)
{
    (void)path;
    return render_json(fs, out, fill_stats);
}

/* ---- health --------------------------------------------------------------------------------------------------------- */

static void put_note(void *ctx, const fs_health_note *note)
{
    fact_list *l = ctx;
    struct tm tm;
    char at[32] = "";
    if (gmtime_r(&note->at, &tm))
        strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (!l->json) {
        fs_text_addf(l->text, "note\t%s %s%s%s\n", at, note->path, *note->path ? ": " : "", note->sentence);
        return;
    }
    cJSON *one = cJSON_CreateObject();
    if (!one)
        return;
    put_json_string(one, "time", at);
    put_json_string(one, "path", note->path);
    put_json_string(one, "sentence", note->sentence);
    cJSON_AddItemToArray(l->notes, one);
}

static void count_nothing(void *ctx, const fs_health_note *note)
{
    (void)ctx;
    (void)note;
}

static void fill_health(fs_state *fs, fact_list *l)
{
    struct rlimit nofile = {0};
    getrlimit(RLIMIT_NOFILE, &nofile);
    uint64_t note_count = fs_health_visit(fs, count_nothing, NULL);
    put_string(l, "status", note_count ? "notes" : "ok");
    put_string(l, "mode", fs->mode == FS_MODE_PASSTHROUGH ? "passthrough" : "daemon");
    put_string(l, "mode_reason", fs->mode_reason);
    put_flag(l, "read_only", fs->read_only);
    put_flag(l, "leases", fs->leases_prove);
    put_string(l, "leases_reason", fs->lease_reason ? fs->lease_reason : "");
    put_number(l, "stack_depth", fs->stack_depth);
    put_number(l, "nofile", nofile.rlim_cur);
    put_number(l, "note_count", note_count);
    if (l->json && !(l->notes = cJSON_AddArrayToObject(l->json, "notes")))
        return;
    fs_health_visit(fs, put_note, l);
}

static int render_health(fs_state *fs, const char *path, fs_text *out)
{
    (void)path;
    fact_list l = {.text = out};
    fill_health(fs, &l);
    return 0;
}

static int render_health_json(fs_state *fs, const char *path, fs_text *out)
{
    (void)path;
    return render_json(fs, out, fill_health);
}

/* ---- last_error ------------------------------------------------------------------------------------------------------- */

static int render_last_error(fs_state *fs, const char *path, fs_text *out)
{
    (void)path;
    fs_last_error(fs, "", out);
    return 0;
}

/* ---- the table -------------------------------------------------------------------------------------------------------- */

const fs_control fs_mount_controls[] = {
    {"version", "The version of npkfs that serves the mount.", true, false, render_version, NULL, NULL, NULL},
    {"store", "Where the store is: its path, and the daemon's descriptor of it.", true, false, render_store, NULL, NULL, NULL},
    {"stats", "What was done since the mount was made, counted.", true, false, render_stats, NULL, NULL, NULL},
    {"health",
     "Which way of serving is on and why, what the filesystem below can prove, and the latest 64 notes about recoveries and "
     "rows that were not counted.",
     true, false, render_health, NULL, NULL, NULL},
    {"last_error", "One sentence about the last thing that failed on this mount; empty before the first.", true, false,
     render_last_error, NULL, NULL, NULL},
    {"stats.json", "The same as stats, in JSON.", true, false, render_stats_json, NULL, NULL, NULL},
    {"health.json", "The same as health, in JSON.", true, false, render_health_json, NULL, NULL, NULL},
};
const size_t fs_mount_control_count = sizeof fs_mount_controls / sizeof *fs_mount_controls;
