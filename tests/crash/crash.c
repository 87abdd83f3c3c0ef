/* SPDX-License-Identifier: Apache-2.0 */
/* npk-crash OPERATION kill|torn|fail|full|short|signals|power: see crash.h. */
#include "crash.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io.h"
#include "place.h"

#define MOST_CALLS 3000

static int acks = -1;

static void acknowledge(void)
{
    if (write(acks, "a", 1) != 1)
        _exit(201);
}

static void on_alarm(int signal)
{
    (void)signal;
}

/* Signals all the time that break calls off: an empty plan. */
static void storm(void)
{
    const struct sigaction action = {.sa_handler = on_alarm};
    const struct itimerval often = {{0, 50}, {0, 50}};
    NEED(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
}

/* Run the operation in a child under the plan. How it ended as place_wait says; *acked steps had returned. */
static int run_child(const crash_op *op, const place *p, const char *plan, unsigned *acked)
{
    int ends[2];
    char buffer[64];
    NEED(pipe(ends) == 0);
    fflush(stdout);
    pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        npk_store *s;
        close(ends[0]);
        acks = ends[1];
        if (npk_store_open(p->path, 0, &s) != 0 || npk__io_plan_set(*plan ? plan : NULL) != 0)
            _exit(200);
        if (!*plan)
            storm();
        int err = op->run(s, acknowledge);
        npk__io_plan_set(NULL);
        _exit(err ? 1 : 0);
    }
    close(ends[1]);
    *acked = 0;
    for (ssize_t n; (n = read(ends[0], buffer, sizeof(buffer))) > 0;)
        *acked += (unsigned)n;
    close(ends[0]);
    return place_wait(child);
}

struct worst {
    char text[512];
    bool power; /* a slot of a table that was torn is no damage then: it had never been durable */
};

static int on_finding(void *ctx, const npk_finding *f)
{
    struct worst *w = ctx;
    if (f->severity == NPK_DAMAGE && !*w->text && !(w->power && strcmp(f->rule, "F13") == 0))
        snprintf(w->text, sizeof(w->text), "npk check: %s %.400s", f->rule, f->sentence);
    return 0;
}

const char *crash_examine(const crash_op *op, const char *path, unsigned acked, bool power)
{
    static struct worst w;
    npk_store *s = NULL;
    *w.text = '\0';
    w.power = power;
    if (npk_store_open(path, 0, &s) != 0)
        return "the store cannot be opened";
    const char *wrong = op->check(s, acked, power);
    if (!wrong && npk_check(s, NULL, 0, on_finding, &w) != 0)
        wrong = npk_error();
    if (!wrong && *w.text)
        wrong = w.text;
    if (!wrong && npk_check(s, NULL, NPK_CHECK_REPAIR, on_finding, &w) != 0)
        wrong = npk_error();
    if (!wrong && (wrong = op->check(s, acked, power)) != NULL &&
        snprintf(w.text, sizeof(w.text), "repaired: %.400s", wrong))
        wrong = w.text;
    npk_store_close(&s);
    return wrong;
}

/* The number of changing calls of a run without faults. */
static unsigned calls_of(const crash_op *op)
{
    char path[300], plan[320];
    unsigned acked, calls = 0;
    place p = place_begin();
    op->setup(p.store);
    snprintf(path, sizeof(path), "%s.calls", p.path);
    snprintf(plan, sizeof(plan), "count:%s", path);
    NEED(run_child(op, &p, plan, &acked) == 0);
    FILE *f = fopen(path, "r");
    NEED(f != NULL);
    for (int c; (c = getc(f)) != EOF;)
        calls += c == '\n';
    fclose(f);
    unlink(path);
    place_end(&p);
    return calls;
}

static void plan_for(const char *how, unsigned n, char *out, size_t bytes)
{
    if (strcmp(how, "fail") == 0)
        snprintf(out, bytes, "fail:%u:EIO", n);
    else if (strcmp(how, "full") == 0) /* from here on */
        snprintf(out, bytes, "fail:%u+:ENOSPC", n);
    else if (strcmp(how, "short") == 0)
        snprintf(out, bytes, "short:%u", n);
    else
        snprintf(out, bytes, strcmp(how, "torn") == 0 ? "kill-sector:%u" : "kill:%u", n);
}

static int crash_at_each_call(const crash_op *op, const char *how)
{
    unsigned failed = 0, acknowledged = 0, n;
    bool killed = strcmp(how, "kill") == 0 || strcmp(how, "torn") == 0, ended = false;
    bool harmless = strcmp(how, "short") == 0;
    unsigned calls = calls_of(op);
    for (n = 1; n < MOST_CALLS && !ended; n++) {
        char plan[64];
        unsigned acked;
        place p = place_begin();
        op->setup(p.store);
        plan_for(how, n, plan, sizeof(plan));
        int end = run_child(op, &p, plan, &acked);
        const char *wrong =
            end == 200 || end == 201 ? "the run could not begin" : crash_examine(op, p.path, acked, false);
        if (!wrong && killed && n <= calls && end != -SIGKILL)
            wrong = "it was not killed"; /* calls that depend on the time would make the count worthless */
        if (!wrong && harmless && end != 0)
            wrong = "a call that did a part of its work was not gone on with";
        if (wrong) {
            printf("FAIL  %s, %s (ended %d, %u steps had returned): %s\n", op->name, plan, end, acked, wrong);
            failed++;
        }
        acknowledged += acked;
        place_end(&p);
        ended = n > calls;
    }
    n -= 2; /* the last run met no fault */
    printf("%s %s: stopped at %u calls, %u failures, %u steps had returned in all\n", op->name, how, n, failed,
           acknowledged);
    if (!ended || n < 2 || acknowledged == 0) {
        printf("FAIL  the run proves nothing\n");
        return 1;
    }
    return failed ? 1 : 0;
}

/* Calls that are broken off by signals are made again. */
static int crash_signals(const crash_op *op)
{
    unsigned acked, failed = 0;
    for (unsigned i = 0; i < 20; i++) {
        place p = place_begin();
        op->setup(p.store);
        int end = run_child(op, &p, "", &acked);
        const char *wrong = end != 0 ? "it failed" : crash_examine(op, p.path, acked, false);
        if (wrong)
            printf("FAIL  %s under signals (ended %d): %s\n", op->name, end, wrong);
        failed += wrong != NULL;
        place_end(&p);
    }
    printf("%s signals: %u failures\n", op->name, failed);
    return failed ? 1 : 0;
}

static const crash_op *find(const crash_op *op, const char *name)
{
    while (op->name && strcmp(op->name, name) != 0)
        op++;
    return op->name ? op : NULL;
}

int main(int argc, char **argv)
{
    /* Hundreds of stores with their syncs: in memory, unless somewhere is asked for. */
    if (!getenv("NPK_TEST_DIR") && access("/dev/shm", W_OK) == 0)
        (void)setenv("NPK_TEST_DIR", "/dev/shm", 1);
    const crash_op *op = argc == 3 ? find(crash_ops, argv[1]) : NULL;
    if (!op && argc == 3)
        op = find(crash_steps, argv[1]);
    if (op && strcmp(argv[2], "power") == 0)
        return crash_power(op);
    if (op && strcmp(argv[2], "signals") == 0)
        return crash_signals(op);
    if (op)
        return crash_at_each_call(op, argv[2]);
    fprintf(stderr, "usage: npk-crash OPERATION kill|torn|fail|full|short|signals|power\noperations:");
    for (op = crash_ops; op->name; op++)
        fprintf(stderr, " %s", op->name);
    for (op = crash_steps; op->name; op++)
        fprintf(stderr, " %s", op->name);
    fprintf(stderr, "\n");
    return 2;
}
