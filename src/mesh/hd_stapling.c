#include "mesh/hd_stapling.h"
#include "core/base/hd_log.h"
#include "core/loom/hd_batch.h"
#include "core/net/hd_ocsp.h"
#include "core/os/hd_os.h"
#include "core/proc/hd_process.h"

#include <stdlib.h>

#define RETRY_MS 1000 /* after a failure, doubled with each … */
#define RETRY_MAX_MS 300000
#define AGAIN_MIN_MS 1000
#define RECLAIM_MS 200
#define NO_NEXT_S (2 * HD_OCSP_REFRESH_S) /* how long an answer without an end counts */

/* One task of the configuration. */
typedef struct {
    hd_link_t link;
    const hd_slot_t *slot; /* the task's, held */
    uint64_t version;      /* of the task, last taken */
    hd_ocsp_t *cert;       /* NULL: it can't be asked about */
    hd_slot_t *staple;     /* the answer's, held; NULL: never there */
    hd_ocsp_fetch_t *fetch;
    hd_timer_t timer;
    uint32_t failures; /* in a row */
    bool is_wanted;
} task_t;

static struct {
    hd_proc_t *proc;
    hd_link_t tasks;
    hd_timer_t reclaim; /* set while something that was replaced may be in use */
} agent;

static int64_t now_s(void)
{
    return hd_loop_wall_ns(agent.proc->loop) / 1000000000;
}

/* Within a turn; NULL: it is gone. */
static const hd_stapling_t *conf_of(const task_t *t)
{
    const hd_region_t *r = hd_slot_get(agent.proc->member, t->slot);

    return r != NULL ? r->root : NULL;
}

static const hd_staple_t *staple_of(const task_t *t)
{
    const hd_region_t *r =
        t->staple != NULL ? hd_slot_get(agent.proc->member, t->staple) : NULL;

    return r != NULL ? r->root : NULL;
}

static void set_staple(task_t *t, hd_slot_t *slot)
{
    if (slot != NULL)
        hd_slot_hold(agent.proc->member, slot);
    if (t->staple != NULL)
        hd_slot_let_go(agent.proc->member, t->staple);
    t->staple = slot;
}

/* --- publishing --- */

static void on_reclaim(hd_timer_t *t)
{
    hd_proc_t *p = agent.proc;

    if (hd_arena_reclaim(p->arenas[HD_ARENA_DYNAMIC], hd_loop_now_ns(p->loop)) > 0 ||
        hd_arena_slots_going(p->arenas[HD_ARENA_DYNAMIC]) > 0)
        hd_timer_set(p->loop, t, RECLAIM_MS);
}

static void publish(hd_batch_t *batch)
{
    hd_proc_t *p = agent.proc;

    if (hd_batch_publish(batch, hd_loop_now_ns(p->loop)) == 0)
        return;
    hd_process_ring(p);
    hd_timer_set(p->loop, &agent.reclaim, RECLAIM_MS);
}

static void drop_staple(task_t *t)
{
    hd_batch_t *batch;

    if (t->staple == NULL || hd_slot_state(t->staple) != HD_SLOT_LIVE)
        return;
    batch = hd_batch_begin(agent.proc->arenas[HD_ARENA_DYNAMIC]);
    hd_batch_remove(batch, t->staple);
    publish(batch);
}

static hd_rc_t put_staple(task_t *t, const hd_stapling_t *conf, hd_str_t der,
                          int64_t until_s, hd_batch_t *batch, hd_err_t *err)
{
    hd_arena_t *arena = agent.proc->arenas[HD_ARENA_DYNAMIC];
    hd_staple_t *s;
    hd_region_t *r;
    hd_pool_t *pool;

    set_staple(t, hd_slot_find_or_add(arena, HD_RES_POLICY, conf->staple, err));
    if (t->staple == NULL)
        return HD_ERROR;
    r = hd_batch_region(batch, HD_RES_POLICY, conf->staple, HD_STR("ocsp"), 0, &pool,
                        err);
    if (r == NULL)
        return HD_ERROR;
    s = hd_pool_new(pool, hd_staple_t);
    s->der = hd_str_dup(pool, der);
    memcpy(s->fingerprint, hd_ocsp_fingerprint(t->cert), sizeof(s->fingerprint));
    s->fetched_s = now_s();
    s->until_s = until_s;
    return hd_batch_put(batch, t->staple, r, s, 0, err);
}

static hd_rc_t publish_staple(task_t *t, const hd_stapling_t *conf, hd_str_t der,
                              int64_t until_s, hd_err_t *err)
{
    hd_batch_t *batch = hd_batch_begin(agent.proc->arenas[HD_ARENA_DYNAMIC]);

    if (put_staple(t, conf, der, until_s, batch, err) != HD_OK) {
        hd_batch_abort(batch);
        return HD_ERROR;
    }
    publish(batch);
    return HD_OK;
}

/* --- when next --- */

static uint64_t random_below(uint64_t n)
{
    uint64_t r;

    hd_os_random(&r, sizeof(r));
    return n > 0 ? r % n : 0;
}

/* Half of the way to its end, an hour at most, so that several failures cost nothing. */
static void set_next(task_t *t, int64_t fetched_s, int64_t until_s)
{
    int64_t at_s = hd_min(fetched_s + HD_OCSP_REFRESH_S,
                          fetched_s + (until_s - fetched_s) / 2);
    uint64_t ms = (uint64_t)hd_max(at_s - now_s(), 0) * 1000;

    ms -= random_below(ms / 10 + 1);
    hd_timer_set(agent.proc->loop, &t->timer, hd_max(ms, (uint64_t)AGAIN_MIN_MS));
}

static void set_retry(task_t *t, const hd_stapling_t *conf, const char *why)
{
    uint64_t ms = hd_min((uint64_t)RETRY_MS << hd_min(t->failures, 16u),
                         (uint64_t)RETRY_MAX_MS);
    const hd_staple_t *s = staple_of(t);

    t->failures++;
    hd_log(s != NULL && s->until_s > now_s() ? HD_LOG_WARN : HD_LOG_ERROR,
           "stapling: no answer about \"%.*s\" from %.*s: %s; asked again in %llu s",
           HD_STR_ARG(conf->label), HD_STR_ARG(conf->url), why,
           (unsigned long long)(ms / 1000));
    hd_timer_set(agent.proc->loop, &t->timer, ms + random_below(ms / 10 + 1));
}

/* --- asking --- */

/* Until when an answer is stapled; 0: not at all. */
static int64_t end_of(const hd_ocsp_answer_t *a, int64_t fetched_s)
{
    int64_t until_s = a->next_s != 0 ? a->next_s : fetched_s + NO_NEXT_S;

    return until_s > now_s() ? until_s : 0;
}

static const char *refuse(const hd_ocsp_answer_t *a, int64_t fetched_s)
{
    return a->status == HD_OCSP_REVOKED   ? "the certificate is revoked"
           : a->status == HD_OCSP_UNKNOWN ? "the responder doesn't know the certificate"
           : end_of(a, fetched_s) == 0    ? "the OCSP response has ended"
                                          : NULL;
}

static void on_answer(void *arg, hd_str_t der, const hd_err_t *failure)
{
    task_t *t = arg;
    const hd_stapling_t *conf = conf_of(t);
    hd_err_t err = {0};
    hd_ocsp_answer_t a;
    const char *why;

    t->fetch = NULL;
    if (conf == NULL) /* the next refresh ends it */
        return;
    if (failure != NULL) {
        set_retry(t, conf, failure->text);
        return;
    }
    if (hd_ocsp_judge(t->cert, der, now_s(), &a, &err) != HD_OK) {
        set_retry(t, conf, err.text);
        return;
    }
    if ((why = refuse(&a, now_s())) != NULL) { /* signed: what was good is no longer */
        drop_staple(t);
        set_retry(t, conf, why);
        return;
    }
    if (publish_staple(t, conf, der, end_of(&a, now_s()), &err) != HD_OK) {
        set_retry(t, conf, err.text);
        return;
    }
    t->failures = 0;
    hd_log(HD_LOG_INFO, "stapling: \"%.*s\" is good, %.*s says", HD_STR_ARG(conf->label),
           HD_STR_ARG(conf->url));
    set_next(t, now_s(), end_of(&a, now_s()));
}

static void on_due(hd_timer_t *timer)
{
    task_t *t = hd_container_of(timer, task_t, timer);
    const hd_stapling_t *conf = conf_of(t);
    hd_ocsp_ask_t ask;
    hd_err_t err = {0};

    if (conf == NULL || t->cert == NULL || t->fetch != NULL)
        return;
    ask = (hd_ocsp_ask_t){.cluster = conf->cluster,
                          .url = conf->url,
                          .resolver = conf->resolver,
                          .request = hd_ocsp_request(t->cert)};
    t->fetch = hd_ocsp_fetcher->start(agent.proc->loop, &ask, on_answer, t, &err);
    if (t->fetch == NULL)
        set_retry(t, conf, err.text);
}

/* --- tasks --- */

/* What is there from before: by an agent that died, or for another version of the task.
 */
static bool may_keep(const task_t *t, const hd_staple_t *s)
{
    hd_ocsp_answer_t a;
    hd_err_t err = {0};

    return memcmp(s->fingerprint, hd_ocsp_fingerprint(t->cert), sizeof(s->fingerprint)) ==
               0 &&
           hd_ocsp_judge(t->cert, s->der, now_s(), &a, &err) == HD_OK &&
           refuse(&a, s->fetched_s) == NULL;
}

static void take_task(task_t *t, const hd_region_t *r)
{
    const hd_stapling_t *conf = r->root;
    hd_proc_t *p = agent.proc;
    const hd_staple_t *s;
    hd_err_t err = {0};

    if (t->fetch != NULL)
        hd_ocsp_fetcher->cancel(t->fetch);
    t->fetch = NULL;
    t->failures = 0;
    t->version = r->version;
    hd_ocsp_destroy(t->cert);
    t->cert = hd_ocsp_create(conf->chain_pem, conf->trust_pem, conf->verifies, &err);
    set_staple(t, hd_slot_find(p->member, p->arenas[HD_ARENA_DYNAMIC], HD_RES_POLICY,
                               conf->staple));
    s = staple_of(t);
    if (t->cert == NULL) {
        hd_log(HD_LOG_ERROR, "stapling: \"%.*s\": %s", HD_STR_ARG(conf->label), err.text);
        drop_staple(t);
    } else if (s != NULL && may_keep(t, s)) {
        set_next(t, s->fetched_s, s->until_s);
    } else {
        drop_staple(t);
        hd_timer_set(p->loop, &t->timer, 0);
    }
}

static void end_task(task_t *t, bool drops)
{
    if (t->fetch != NULL)
        hd_ocsp_fetcher->cancel(t->fetch);
    if (drops)
        drop_staple(t);
    hd_timer_stop(agent.proc->loop, &t->timer);
    hd_ocsp_destroy(t->cert);
    hd_list_remove(&t->link);
    set_staple(t, NULL);
    hd_slot_let_go(agent.proc->member, t->slot);
    free(t);
}

/* Tasks are in the order of their slots, in which slots are walked, too: *at is where the
 * walk is. */
static task_t *find_or_add(const hd_slot_t *slot, hd_link_t **at)
{
    task_t *t;

    while (*at != &agent.tasks && hd_list_entry(*at, task_t, link)->slot->id < slot->id)
        *at = (*at)->next;
    if (*at != &agent.tasks && hd_list_entry(*at, task_t, link)->slot == slot)
        return hd_list_entry(*at, task_t, link);
    t = calloc(1, sizeof(*t));
    hd_bug_on(t == NULL);
    t->slot = slot;
    hd_slot_hold(agent.proc->member, slot);
    hd_timer_init(&t->timer, on_due);
    hd_list_add_last(*at, &t->link);
    return t;
}

/* Takes what is new, ends what is gone. */
static void refresh(hd_proc_t *p)
{
    const hd_slot_t *slot = NULL;
    hd_link_t *at = agent.tasks.next;

    hd_list_each(it, &agent.tasks) hd_list_entry(it, task_t, link)->is_wanted = false;
    while ((slot = hd_slot_next(p->arenas[HD_ARENA_FILES], slot)) != NULL) {
        const hd_region_t *r = slot->type == HD_RES_POLICY &&
                                       hd_str_has_prefix(slot->name,
                                                         HD_STR(HD_STAPLING_PREFIX))
                                   ? hd_slot_get(p->member, slot)
                                   : NULL;
        task_t *t;

        if (r == NULL)
            continue;
        t = find_or_add(slot, &at);
        t->is_wanted = true;
        if (t->version != r->version)
            take_task(t, r);
    }
    hd_list_each(it, &agent.tasks)
    {
        if (!hd_list_entry(it, task_t, link)->is_wanted)
            end_task(hd_list_entry(it, task_t, link), true);
    }
}

/* --- life --- */

static hd_rc_t on_start(hd_proc_t *p, hd_err_t *err)
{
    (void)err;
    agent.proc = p;
    hd_list_init(&agent.tasks);
    hd_timer_init(&agent.reclaim, on_reclaim);
    hd_turn_begin(p->member);
    refresh(p);
    return HD_OK;
}

static void on_batch(hd_proc_t *p)
{
    if (agent.proc != NULL && !p->is_quitting)
        refresh(p);
}

/* What was answered stays: workers that drain, and an agent after this one, use it. */
static void on_stop(hd_proc_t *p)
{
    if (agent.proc == NULL)
        return;
    hd_timer_stop(p->loop, &agent.reclaim);
    while (!hd_list_is_empty(&agent.tasks))
        end_task(hd_list_entry(agent.tasks.next, task_t, link), false);
    agent.proc = NULL;
}

static const hd_process_hooks_t hooks = {
    .name = "stapling",
    .kinds = 1u << HD_PROC_AGENT,
    .on_start = on_start,
    .on_batch = on_batch,
    .on_quit = on_stop, /* nobody waits for an answer */
    .on_stop = on_stop,
};

void hd_stapling_register(void)
{
    hd_process_add_hooks(&hooks);
}
