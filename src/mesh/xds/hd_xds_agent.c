#include "mesh/xds/hd_xds_agent.h"
#include "core/conf/hd_module_table.h"
#include "mesh/xds/hd_xds_snapshot.h"

#define SNAPSHOT_MS 500       /* after the last change */
#define SNAPSHOT_WAIT_MS 3000 /* so long another answer may put it right */

static struct {
    hd_proc_t *proc;
    hd_pool_t *pool; /* of conf, and of what the calls keep */
    hd_xds_conf_t conf;
    hd_xstore_t *store;
    hd_xstream_t *stream;
    hd_xca_t *ca;
    hd_timer_t snapshot;
    bool has_snapshot; /* it began with one */
    uint64_t began_ns;
} agent;

/* --- configuration --- */

static const hd_xds_conf_t *find_conf(hd_proc_t *p)
{
    const hd_slot_t *slot = hd_slot_find(p->member, p->arenas[HD_ARENA_FILES],
                                         HD_RES_SETTINGS, HD_STR("main"));
    const hd_region_t *r = slot != NULL ? hd_slot_get(p->member, slot) : NULL;
    const hd_main_confs_t *main = r != NULL ? r->root : NULL;
    uint16_t number = hd_module_number(&hd_xds_module);
    const hd_xds_conf_t *conf =
        main != NULL && number < main->n ? main->confs[number] : NULL;

    return conf != NULL && conf->hash != 0 ? conf : NULL;
}

static void copy_str(hd_str_t *s)
{
    *s = hd_str_dup(agent.pool, *s);
}

static void hold_slots(void (*hold)(hd_member_t *m, const hd_slot_t *slot))
{
    const hd_slot_t *const slots[] = {agent.conf.server.cluster, agent.conf.ca.cluster,
                                      agent.conf.roots};

    for (size_t i = 0; i < hd_countof(slots); i++)
        if (slots[i] != NULL)
            hold(agent.proc->member, slots[i]);
}

/* Its region may retire while calls go on. */
static void copy_conf(const hd_xds_conf_t *from)
{
    hd_xds_conf_t *c = &agent.conf;

    agent.pool = hd_pool_create(0);
    *c = *from;
    copy_str(&c->server.host);
    copy_str(&c->ca.host);
    copy_str(&c->server_name);
    copy_str(&c->node);
    copy_str(&c->node_id);
    copy_str(&c->cluster_id);
    copy_str(&c->local_cluster);
    copy_str(&c->region);
    copy_str(&c->zone);
    copy_str(&c->subzone);
    copy_str(&c->identity);
    copy_str(&c->token_path);
    copy_str(&c->snapshot_path);
    hold_slots(hd_slot_hold);
}

static void drop_conf(void)
{
    hold_slots(hd_slot_let_go);
    hd_pool_destroy(agent.pool);
}

/* --- what the store tells --- */

static void on_needs(void *arg, hd_xds_kind_t kind)
{
    (void)arg;
    if (agent.stream != NULL)
        hd_xstream_needs_changed(agent.stream, kind);
}

static void on_published(void *arg)
{
    (void)arg;
    if (agent.conf.snapshot_path.len > 0)
        hd_timer_set(agent.proc->loop, &agent.snapshot, SNAPSHOT_MS);
}

static const hd_xstore_user_t store_user = {.on_needs = on_needs,
                                            .on_published = on_published};

static void write_snapshot(hd_timer_t *t)
{
    hd_err_t err = {0};

    (void)t;
    if (hd_xds_snapshot_write(agent.store, agent.conf.snapshot_path, &err) != HD_OK)
        hd_log(HD_LOG_WARN, "xds: snapshot: %s", err.text);
}

static void read_snapshot(void)
{
    hd_err_t err = {0};
    hd_str_t path = agent.conf.snapshot_path;
    hd_rc_t rc;

    if (path.len == 0)
        return;
    rc = hd_xds_snapshot_read(agent.store, path, &err);
    agent.has_snapshot = rc == HD_OK;
    if (rc == HD_OK)
        hd_log(HD_LOG_NOTICE, "xds: beginning with the snapshot \"%.*s\"",
               HD_STR_ARG(path));
    else if (rc == HD_ERROR)
        hd_log(HD_LOG_ERROR, "xds: snapshot \"%.*s\": %s", HD_STR_ARG(path), err.text);
}

/* --- life --- */

static void start_calls(void)
{
    if (agent.conf.ca.cluster != NULL)
        agent.ca = hd_xca_create(agent.proc, agent.store, &agent.conf, agent.pool);
    agent.stream = hd_xstream_create(agent.proc, agent.store, &agent.conf, agent.ca,
                                     agent.pool);
}

static void stop_calls(void)
{
    if (agent.stream != NULL)
        hd_xstream_destroy(agent.stream);
    if (agent.ca != NULL)
        hd_xca_destroy(agent.ca);
    agent.stream = NULL;
    agent.ca = NULL;
}

static void tell_self(void)
{
    const hd_xds_conf_t *c = &agent.conf;

    hd_xstore_set_self(agent.store,
                       &(hd_xds_self_t){c->local_cluster, c->region, c->zone, c->subzone});
}

static void begin(hd_proc_t *p, const hd_xds_conf_t *conf)
{
    agent.proc = p;
    copy_conf(conf);
    agent.store = hd_xstore_create(p);
    hd_xstore_set_user(agent.store, &store_user, NULL);
    tell_self();
    hd_timer_init(&agent.snapshot, write_snapshot);
    agent.began_ns = hd_loop_now_ns(p->loop);
    read_snapshot();
    start_calls();
}

/* hd_turn_begin: the loop's first turn hasn't begun yet. */
static hd_rc_t on_start(hd_proc_t *p, hd_err_t *err)
{
    const hd_xds_conf_t *conf;

    (void)err;
    hd_turn_begin(p->member);
    conf = find_conf(p);
    if (conf != NULL)
        begin(p, conf);
    return HD_OK;
}

/* A reload: other servers or another node mean new calls; what is in force stays. */
static void on_batch(hd_proc_t *p)
{
    const hd_xds_conf_t *conf = find_conf(p);

    if (p->is_quitting || conf == NULL || conf->hash == agent.conf.hash)
        return;
    if (agent.store == NULL) {
        begin(p, conf);
        return;
    }
    hd_log(HD_LOG_NOTICE, "xds: other settings: connecting anew");
    stop_calls();
    drop_conf();
    copy_conf(conf);
    tell_self();
    start_calls();
}

static bool is_all_answered(const hd_xstream_stats_t *s)
{
    for (hd_xds_kind_t k = 0; k < HD_XDS_KINDS_N; k++)
        if (!s->is_answered[k] &&
            (s->is_asked[k] || k == HD_XDS_CLUSTER || k == HD_XDS_LISTENER))
            return false;
    return true;
}

/* With a snapshot nothing is missing, and the question is only whether it is still right:
 * of a control plane that is away nobody can know, and one that finds our versions right
 * may say nothing. */
static bool may_use_snapshot(const hd_xstream_stats_t *s, uint64_t waited_ms)
{
    return agent.has_snapshot && (s->ended > 0 || waited_ms >= SNAPSHOT_WAIT_MS);
}

/* Its first configuration is whole; or it is too late for one. */
static bool is_warm(hd_proc_t *p)
{
    uint64_t waited_ms = (hd_loop_now_ns(p->loop) - agent.began_ns) / 1000000;
    hd_xstream_stats_t stats = {0};

    if (agent.store == NULL)
        return true;
    if (agent.stream != NULL)
        hd_xstream_get_stats(agent.stream, &stats);
    if (hd_xstore_is_settled(agent.store) &&
        (is_all_answered(&stats) || may_use_snapshot(&stats, waited_ms)))
        return true;
    if (waited_ms < agent.conf.ready_timeout_ms)
        return false;
    hd_log(HD_LOG_WARN,
           "xds: no complete configuration after %llu ms (ready_timeout): going on "
           "without",
           (unsigned long long)waited_ms);
    return true;
}

/* What was accepted a moment ago isn't in the file yet. */
static void finish_snapshot(void)
{
    if (agent.store != NULL && hd_timer_is_set(&agent.snapshot))
        write_snapshot(&agent.snapshot);
}

static void on_quit(hd_proc_t *p)
{
    (void)p;
    stop_calls();
    finish_snapshot();
}

static void on_stop(hd_proc_t *p)
{
    if (agent.store == NULL)
        return;
    stop_calls();
    finish_snapshot();
    hd_timer_stop(p->loop, &agent.snapshot);
    hd_xstore_destroy(agent.store);
    drop_conf();
    agent.store = NULL;
}

static const hd_process_hooks_t hooks = {
    .name = "xds",
    .kinds = 1u << HD_PROC_AGENT,
    .on_start = on_start,
    .on_batch = on_batch,
    .on_quit = on_quit,
    .is_warm = is_warm,
    .on_stop = on_stop,
};

void hd_xds_register(void)
{
    hd_ignore(hd_module_add(&hd_xds_module) == 0);
    hd_process_add_hooks(&hooks);
}

const hd_xds_conf_t *hd_xds_agent_conf(void)
{
    return agent.store != NULL ? &agent.conf : NULL;
}

const hd_xstore_t *hd_xds_agent_store(void)
{
    return agent.store;
}

const hd_xstream_t *hd_xds_agent_stream(void)
{
    return agent.stream;
}

const hd_xca_t *hd_xds_agent_ca(void)
{
    return agent.ca;
}
